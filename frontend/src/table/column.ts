/** A column of a table whose rows are known by a number; a column with `number` is sorted by it and aligned right. */
export interface Column {
  id: string;
  title: string;
  hint?: string;
  width: number;
  /** It holds names, of which this scope is not shown; where there is no room for one, its end is seen. */
  scope?: string;
  /** Takes what width is left. */
  grows?: boolean;
  /** Whether the first click on the heading puts the largest values on top. */
  descendingFirst?: boolean | undefined;
  text(row: number): string;
  number?(row: number): number;
  /** A box to tick in place of the text. */
  check?: { label(row: number): string; on(row: number): boolean; toggle(row: number): void };
  /** The colour of a mark before the value; null: the mark is hollow. */
  swatch?(row: number): string | null;
}
