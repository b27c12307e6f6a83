import { Button, Checkbox, MultiSelect, Popover, TextInput } from '@mantine/core';
import { type ReactNode, useMemo, useState } from 'react';
import { saveText } from '../app/download';
import { countText } from '../app/text';
import type { Column } from './column';
import { tableCsv } from './csv';
import { DataTable } from './DataTable';
import { isFiltering, NO_FILTER, type RowFilter } from './filter';
import { type Sort, sortRows } from './order';
import classes from './TablePanel.module.css';

export interface TablePanelProps {
  label: string;
  /** The name of the saved file, without ending. */
  fileName: string;
  testId: string;
  /** Every column that can be shown, and those that are until the reader chooses. */
  known: readonly Column[];
  columns: readonly string[];
  /** The order until the reader chooses one. */
  order: Sort;
  /** The rows that pass the filter, in any order. */
  rows: readonly number[];
  /** How many there are without the filter. */
  all: number;
  /** The types of ops to choose from. */
  types: readonly string[];
  filter: RowFilter;
  onFilter(filter: RowFilter): void;
  selected: number | null;
  onSelect(row: number): void;
  /** What it says without a row to filter. */
  empty: string;
  /** More ways to filter, after those by words and by type. */
  children?: ReactNode;
}

const noTransition = { transitionProps: { duration: 0 } };

/** A table of ops with its filters, the choice of its columns, and CSV of what it shows. */
export function TablePanel(props: TablePanelProps) {
  const { label, fileName, testId, known, rows, all, types, filter, onFilter, selected, onSelect, empty } = props;
  const [shown, setShown] = useState<readonly string[]>(props.columns);
  const [chosen, setSort] = useState<Sort | null>(null);
  const sort = chosen ?? props.order;
  const columns = useMemo(() => known.filter(({ id }) => shown.includes(id)), [known, shown]);
  const sorted = useMemo(
    () =>
      sortRows(
        rows,
        known.find(({ id }) => id === sort.column),
        sort.descending,
      ),
    [rows, known, sort.column, sort.descending],
  );

  return (
    <div className={classes.panel}>
      <div className={classes.bar}>
        <TextInput
          size="xs"
          w={122}
          placeholder="Filter ops"
          aria-label="Filter by words"
          data-testid="filter-words"
          value={filter.words}
          onChange={(event) => onFilter({ ...filter, words: event.currentTarget.value })}
        />
        <MultiSelect
          size="xs"
          w={116}
          className={classes.types}
          placeholder={filter.types.length ? undefined : 'All types'}
          aria-label="Filter by type"
          data-testid="filter-types"
          data={[...types]}
          value={[...filter.types]}
          onChange={(chosenTypes) => onFilter({ ...filter, types: chosenTypes })}
          comboboxProps={noTransition}
          clearable
          searchable
        />
        {props.children}
        {isFiltering(filter) && (
          <Button size="compact-xs" variant="subtle" data-testid="clear-filter" onClick={() => onFilter(NO_FILTER)}>
            Clear
          </Button>
        )}
        <span className={classes.gap} />
        <span className={classes.count} role="status" data-testid={`${testId}-count`}>
          {rows.length === all
            ? countText(all, 'row')
            : `${rows.length.toLocaleString('en')} of ${countText(all, 'row')}`}
        </span>
        <Popover position="bottom-end" withinPortal trapFocus shadow="md" {...noTransition}>
          <Popover.Target>
            <Button size="compact-xs" variant="default" data-testid="choose-columns">
              Columns
            </Button>
          </Popover.Target>
          <Popover.Dropdown aria-label="Columns">
            <div className={classes.columns}>
              {known.map(({ id, title }) => (
                <Checkbox
                  key={id}
                  size="xs"
                  label={title}
                  checked={shown.includes(id)}
                  onChange={(event) =>
                    setShown(event.currentTarget.checked ? [...shown, id] : shown.filter((other) => other !== id))
                  }
                />
              ))}
            </div>
          </Popover.Dropdown>
        </Popover>
        <Button
          size="compact-xs"
          variant="default"
          data-testid="save-csv"
          onClick={() => saveText(`${fileName}.csv`, tableCsv(columns, sorted), 'text/csv')}
        >
          CSV
        </Button>
      </div>
      <div className={classes.table}>
        <DataTable
          label={label}
          testId={testId}
          columns={columns}
          rows={sorted}
          sort={sort}
          onSort={setSort}
          selected={selected}
          onSelect={onSelect}
          empty={all ? 'No row passes the filter.' : empty}
        />
      </div>
    </div>
  );
}
