import { useMemo, useState } from 'react';
import { DataTable } from '../table/DataTable';
import { type Sort, sortRows } from '../table/order';
import { type Effect, effectColumns } from './effects';

interface Props {
  effects: readonly Effect[];
  noun: 'op' | 'module';
  selected: number | null;
  onSelect(index: number): void;
}

/** The measured effects in figures, the one that matters most first. */
export function EffectTable({ effects, noun, selected, onSelect }: Props) {
  const [sort, setSort] = useState<Sort>({ column: 'alone', descending: true });
  const columns = useMemo(() => effectColumns(effects, noun), [effects, noun]);
  const rows = useMemo(
    () =>
      sortRows(
        Array.from(effects.keys()),
        columns.find(({ id }) => id === sort.column),
        sort.descending,
      ),
    [effects, columns, sort],
  );
  return (
    <DataTable
      label={`Effect of each ${noun} on the output`}
      testId="effects"
      columns={columns}
      rows={rows}
      sort={sort}
      onSort={setSort}
      selected={selected}
      onSelect={onSelect}
      empty="Nothing has been measured yet."
    />
  );
}
