import type { Better } from '../colour/scale';

/** Which rows are shown: those that hold every word, are of one of the types (none: all), and are bad enough. */
export interface RowFilter {
  words: string;
  types: readonly string[];
  /** Rows whose metric is at least as bad as this; null asks for none. */
  threshold: number | null;
}

export const NO_FILTER: RowFilter = { words: '', types: [], threshold: null };

export interface Searchable {
  /** What words are looked for in. */
  text(row: number): string;
  type(row: number): string;
  metric(row: number): number;
  better: Better;
}

export const isFiltering = ({ words, types, threshold }: RowFilter): boolean =>
  words.trim() !== '' || types.length > 0 || threshold !== null;

/** The rows that pass a filter, in their order. Rows without a value of the metric are never bad enough. */
export function filterRows(rows: readonly number[], filter: RowFilter, of: Searchable): number[] {
  const words = filter.words.toLowerCase().split(/\s+/).filter(Boolean);
  const types = new Set(filter.types);
  const { threshold } = filter;
  return rows.filter((row) => {
    if (types.size && !types.has(of.type(row))) return false;
    if (threshold !== null) {
      const value = of.metric(row);
      if (!(of.better === 'high' ? value <= threshold : value >= threshold)) return false;
    }
    if (!words.length) return true;
    const text = of.text(row).toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
