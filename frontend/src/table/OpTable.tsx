import { Button, Checkbox, MultiSelect, NumberInput, Popover, Select, TextInput } from '@mantine/core';
import { type ReactNode, useMemo, useState } from 'react';
import type { RowTable } from '../api/rows';
import { saveText } from '../app/download';
import { useDark } from '../app/use-dark';
import { countText } from '../app/text';
import { type Metric, METRICS, OUTPUT_ERROR } from '../metrics/metrics';
import { tableCsv } from './csv';
import { DataTable } from './DataTable';
import { isFiltering, NO_FILTER, type RowFilter } from './filter';
import { opColumns } from './op-columns';
import classes from './OpTable.module.css';
import { firstOrder, type Sort, sortRows } from './order';

interface Props {
  label: string;
  fileName: string;
  testId: string;
  table: RowTable;
  /** The rows that pass the filter, in any order. */
  rows: readonly number[];
  /** How many there are without the filter. */
  all: number;
  /** The types of ops to choose from. */
  types: readonly string[];
  metric: Metric;
  /** Called with the metric that a threshold shall be for; without it the page chooses the metric elsewhere. */
  onMetric?: (id: string) => void;
  filter: RowFilter;
  onFilter(filter: RowFilter): void;
  columns: readonly string[];
  selected: number | null;
  onSelect(row: number): void;
  children?: ReactNode;
}

const noTransition = { transitionProps: { duration: 0 } };

/** A table of compared tensors with its filters, the choice of its columns, and CSV of what it shows. */
export function OpTable(props: Props) {
  const { label, fileName, testId, table, rows, all, metric, onMetric, filter, onFilter, selected, onSelect } = props;
  const dark = useDark();
  const known = useMemo(() => opColumns(table, dark), [table, dark]);
  const [shown, setShown] = useState<readonly string[]>(props.columns);
  const [chosen, setSort] = useState<Sort | null>(null);
  const sort = useMemo(() => chosen ?? firstOrder(OUTPUT_ERROR.values(table), rows), [chosen, table, rows]);
  const bound = metric.better === 'high' ? '≤' : '≥';
  const factor = metric.percent ? 100 : 1;
  const columns = useMemo(() => known.filter(({ id }) => shown.includes(id)), [known, shown]);
  const sorted = useMemo(
    () =>
      sortRows(
        rows,
        known.find(({ id }) => id === sort.column),
        sort.descending,
      ),
    [rows, known, sort],
  );

  return (
    <div className={classes.panel}>
      <div className={classes.bar}>
        {props.children}
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
          data={[...props.types]}
          value={[...filter.types]}
          onChange={(types) => onFilter({ ...filter, types })}
          comboboxProps={noTransition}
          clearable
          searchable
        />
        {onMetric && (
          <Select
            size="xs"
            w={146}
            aria-label="Metric of the threshold"
            data={METRICS.map(({ id, title }) => ({ value: id, label: title }))}
            value={metric.id}
            allowDeselect={false}
            onChange={(id) => id && onMetric(id)}
            comboboxProps={noTransition}
          />
        )}
        <NumberInput
          size="xs"
          w={146}
          hideControls
          placeholder={`${bound} ${metric.title}`}
          prefix={`${bound} `}
          suffix={metric.percent ? ' %' : metric.unit && ` ${metric.unit}`}
          aria-label={`Only rows with ${metric.title} ${metric.better === 'high' ? 'at most' : 'at least'}`}
          data-testid="filter-threshold"
          value={filter.threshold === null ? '' : Number((filter.threshold * factor).toPrecision(6))}
          onChange={(value) => onFilter({ ...filter, threshold: typeof value === 'number' ? value / factor : null })}
        />
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
          empty={all ? 'No row passes the filter.' : 'Nothing has been compared yet.'}
        />
      </div>
    </div>
  );
}
