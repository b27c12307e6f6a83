import { useMemo, useState } from 'react';
import { filterRows, NO_FILTER, type RowFilter } from '../table/filter';
import { TablePanel } from '../table/TablePanel';
import { type Charted, FIRST_COLUMNS, profileColumns } from './profile-columns';
import type { ProfileTable } from './profile-table';

interface Props {
  table: ProfileTable;
  fileName: string;
  /** Which ops are on charts beside the table; null where there are none. */
  charted: Charted | null;
  selected: number | null;
  onSelect(row: number): void;
}

/** The time of every op in both models as a table. */
export function OpTimes({ table, fileName, charted, selected, onSelect }: Props) {
  const [filter, setFilter] = useState<RowFilter>(NO_FILTER);
  const known = useMemo(() => profileColumns(table, charted), [table, charted]);
  const all = useMemo(() => table.byTime(), [table]);
  const types = useMemo(() => [...new Set(all.map((row) => table.type(row)))].sort(), [table, all]);
  const rows = useMemo(
    () =>
      filterRows(all, filter, {
        text: (row) => `${table.ops(row).join(' ')} ${table.type(row)} ${table.scope(row)}`,
        type: (row) => table.type(row),
        metric: () => NaN,
        better: 'low',
      }),
    [table, all, filter],
  );
  return (
    <TablePanel
      label="Time of each op"
      fileName={fileName}
      testId="op-times"
      known={known}
      columns={FIRST_COLUMNS[table.main]}
      order={{ column: `${table.main}_total_us`, descending: true }}
      rows={rows}
      all={all.length}
      types={types}
      filter={filter}
      onFilter={setFilter}
      selected={selected}
      onSelect={onSelect}
      empty="No op was timed."
    />
  );
}
