import type { Side } from '../api/types';
import { numberText, shareText } from '../app/text';
import type { Column } from '../table/column';
import type { ProfileTable, SideFigure } from './profile-table';
import { largeText, microsecondsText, speedupText } from './words';

interface SideColumn {
  id: SideFigure;
  title: string;
  hint: string;
  width: number;
  text(value: number): string;
}

const SIDE_COLUMNS: readonly SideColumn[] = [
  {
    id: 'total_us',
    title: 'µs',
    hint: 'Total execution time in one inference: the op’s own kernels, and the changes of type and layout for it',
    width: 132,
    text: microsecondsText,
  },
  {
    id: 'us',
    title: 'own µs',
    hint: 'Time of the kernels that compute the op',
    width: 142,
    text: microsecondsText,
  },
  {
    id: 'added_us',
    title: 'added µs',
    hint: 'Time of what the op alone does not need: changes of type (quantize, dequantize) and of layout (reorders)',
    width: 152,
    text: microsecondsText,
  },
  { id: 'share', title: 'share', hint: 'Share of the time of all ops', width: 130, text: shareText },
  {
    id: 'accelerator_us',
    title: 'accelerator µs',
    hint: 'Accelerator execution time in one inference',
    width: 184,
    text: microsecondsText,
  },
  { id: 'cpu_us', title: 'CPU µs', hint: 'CPU execution time in one inference', width: 144, text: microsecondsText },
  {
    id: 'calls',
    title: 'OP run',
    hint: 'How often kernels run for the op in one inference',
    width: 136,
    text: (value) => numberText(value, 3),
  },
  {
    id: 'defined',
    title: 'OP defined',
    hint: 'How many kernels the framework made for the op',
    width: 160,
    text: (value) => numberText(value, 6),
  },
  {
    id: 'peak_share',
    title: 'of peak',
    hint: 'Multiply-adds per second, as a share of what this processor was measured to do in that type',
    width: 138,
    text: shareText,
  },
  {
    id: 'bandwidth_share',
    title: 'of bandwidth',
    hint: 'Bytes read and written per second, as a share of the measured memory bandwidth',
    width: 178,
    text: shareText,
  },
  { id: 'bytes_moved', title: 'bytes', hint: 'Bytes read and written', width: 132, text: largeText },
];

const WORD: Record<Side, string> = { reference: 'Reference', quantized: 'Quantized' };

/** Which ops are on the charts, and how to change that. */
export interface Charted {
  on(row: number): boolean;
  toggle(row: number): void;
}

/** Every column that a table of a profile can show; those of the model that it is about need no name of the model. */
export function profileColumns(table: ProfileTable, charted: Charted | null): Column[] {
  const ofSide = (side: Side): Column[] => [
    ...SIDE_COLUMNS.map(({ id, title, hint, width, text }): Column => {
      const values = table.figures(side, id);
      const named = side !== table.main || id === 'total_us';
      return {
        id: `${side}_${id}`,
        title: named ? `${WORD[side]} ${title}` : title[0].toUpperCase() + title.slice(1),
        hint: `${hint}, ${side} model`,
        width: named ? width : width - 52,
        descendingFirst: true,
        number: (row) => values[row],
        text: (row) => text(values[row]),
      };
    }),
    {
      id: `${side}_dtype`,
      title: side === table.main ? 'Dtype' : `${WORD[side]} dtype`,
      hint: `What the op’s first kernel reads, ${side} model`,
      width: side === table.main ? 76 : 132,
      text: (row) => table.dtype(side, row),
    },
  ];
  const both = table.main === 'quantized';
  const main = ofSide(table.main);
  const reference = both ? ofSide('reference') : [];
  const isTotal = ({ id }: Column): boolean => id.endsWith('total_us');
  return [
    ...(charted ? [chartColumn(table, charted)] : []),
    { id: 'op', title: 'Op', width: 190, grows: true, scope: table.sharedScope, text: (row) => table.name(row) },
    { id: 'type', title: 'Type', width: 104, text: (row) => table.type(row) },
    ...[...reference, ...main].filter(isTotal),
    ...(both ? [speedupColumn(table)] : []),
    ...main.filter((column) => !isTotal(column)),
    workColumn(table),
    ...reference.filter((column) => !isTotal(column)),
    { id: 'scope', title: 'Scope', width: 160, text: (row) => table.scope(row) },
    {
      id: 'ops',
      title: 'Runs as one with',
      hint: 'Ops that either model fuses with this one',
      width: 200,
      text: (row) =>
        table
          .ops(row)
          .filter((op) => op !== table.name(row))
          .join(', '),
    },
  ];
}

const speedupColumn = ({ speedup }: ProfileTable): Column => ({
  id: 'speedup',
  title: 'Speed-up',
  hint: 'Time in the reference over time in the quantized model: below 1× it is slower',
  width: 100,
  number: (row) => speedup[row],
  text: (row) => speedupText(speedup[row]),
});

const workColumn = ({ multiplyAdds }: ProfileTable): Column => ({
  id: 'multiply_adds',
  title: 'Multiply-adds',
  width: 128,
  descendingFirst: true,
  number: (row) => multiplyAdds[row],
  text: (row) => (multiplyAdds[row] ? largeText(multiplyAdds[row]) : '–'),
});

const chartColumn = (table: ProfileTable, { on, toggle }: Charted): Column => ({
  id: 'chart',
  title: 'Chart',
  hint: 'Whether the op is on the charts',
  width: 66,
  text: (row) => (on(row) ? 'yes' : ''),
  check: { label: (row) => `${table.name(row)} on the charts`, on, toggle },
});

/** The columns that a table begins with. */
export const FIRST_COLUMNS: Record<Side, readonly string[]> = {
  quantized: [
    'chart',
    'op',
    'type',
    'reference_total_us',
    'quantized_total_us',
    'speedup',
    'quantized_added_us',
    'quantized_share',
    'quantized_calls',
    'quantized_defined',
    'quantized_dtype',
    'quantized_peak_share',
  ],
  reference: [
    'chart',
    'op',
    'type',
    'reference_total_us',
    'reference_added_us',
    'reference_share',
    'reference_calls',
    'reference_defined',
    'reference_dtype',
    'reference_peak_share',
    'reference_bandwidth_share',
  ],
};
