import type { Column } from './column';

const quoted = (field: string): string => (/[",\n\r]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field);

const line = (fields: readonly string[]): string => fields.map(quoted).join(',');

/** A number as CSV holds it: with all its digits, nothing where there is none. */
export const csvNumber = (value: number): string => (Number.isNaN(value) ? '' : String(value));

/** Fields as CSV: RFC 4180, lines ending in a line feed. */
export const csv = (header: readonly string[], rows: readonly (readonly string[])[]): string =>
  [header, ...rows].map(line).join('\n') + '\n';

/** The shown columns of the shown rows as CSV, numbers with all their digits. */
export function tableCsv(columns: readonly Column[], rows: readonly number[]): string {
  return csv(
    columns.map((column) => column.title),
    rows.map((row) => columns.map(({ number, text }) => (number ? csvNumber(number(row)) : text(row)))),
  );
}
