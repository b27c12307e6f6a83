import { Checkbox } from '@mantine/core';
import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, type ReactNode, useEffect, useMemo, useRef } from 'react';
import { Name } from '../app/Name';
import { rem, useRootScale } from '../app/root-scale';
import type { Column } from './column';
import classes from './DataTable.module.css';
import type { Sort } from './order';

const ROW_PIXELS = 30;
const PAGE_ROWS = 12;

interface Props {
  label: string;
  testId: string;
  columns: readonly Column[];
  /** Sorted already. */
  rows: readonly number[];
  sort: Sort;
  onSort(sort: Sort): void;
  selected: number | null;
  onSelect(row: number): void;
  empty: ReactNode;
}

/** A table of any length: only the rows in sight exist. Arrow keys move the selection, space ticks, headings sort. */
export function DataTable({ label, testId, columns, rows, sort, onSort, selected, onSelect, empty }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const scale = useRootScale();
  const lines = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PIXELS * scale,
    overscan: 10,
    scrollPaddingStart: (ROW_PIXELS + 4) * scale,
  });
  useEffect(() => lines.measure(), [lines, scale]);
  const at = useMemo(() => (selected === null ? -1 : rows.indexOf(selected)), [rows, selected]);
  useEffect(() => {
    if (at >= 0) lines.scrollToIndex(at, { align: 'auto' });
  }, [at, lines]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const check = columns.find((column) => column.check)?.check;
    if (event.key === ' ' && event.target === event.currentTarget && check && selected !== null) {
      event.preventDefault();
      check.toggle(selected);
      return;
    }
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: PAGE_ROWS,
      PageUp: -PAGE_ROWS,
      Home: -rows.length,
      End: rows.length,
    };
    const step = steps[event.key];
    if (step === undefined || event.target !== event.currentTarget || !rows.length) return;
    event.preventDefault();
    onSelect(rows[Math.max(0, Math.min(rows.length - 1, at + step))]);
  };

  const template = columns.map(({ width, grows }) => (grows ? `minmax(${rem(width)}, 1fr)` : rem(width))).join(' ');
  const least = rem(columns.reduce((sum, { width }) => sum + width, 0));
  return (
    <div
      ref={scroller}
      className={classes.scroller}
      role="grid"
      aria-label={label}
      aria-rowcount={rows.length + 1}
      aria-colcount={columns.length}
      aria-activedescendant={at >= 0 ? `${testId}-${rows[at]}` : undefined}
      tabIndex={0}
      data-testid={testId}
      onKeyDown={onKeyDown}
    >
      <div role="rowgroup" className={classes.head} style={{ minWidth: least }}>
        <div role="row" aria-rowindex={1} className={classes.cells} style={{ gridTemplateColumns: template }}>
          {columns.map((column) => (
            <Heading key={column.id} column={column} sort={sort} onSort={onSort} />
          ))}
        </div>
      </div>
      {rows.length ? (
        <div role="rowgroup" className={classes.body} style={{ height: lines.getTotalSize(), minWidth: least }}>
          {lines.getVirtualItems().map(({ index, start }) => {
            const row = rows[index];
            return (
              <div
                key={row}
                id={`${testId}-${row}`}
                role="row"
                aria-rowindex={index + 2}
                aria-selected={row === selected}
                className={classes.row}
                style={{ transform: `translateY(${start}px)`, gridTemplateColumns: template }}
                data-testid={`${testId}-row`}
                data-row={row}
                onClick={() => onSelect(row)}
              >
                {columns.map((column) => (
                  <Cell key={column.id} column={column} row={row} />
                ))}
              </div>
            );
          })}
        </div>
      ) : (
        <div className={classes.empty}>{empty}</div>
      )}
    </div>
  );
}

function Heading({ column, sort, onSort }: { column: Column; sort: Sort; onSort(sort: Sort): void }) {
  const isSorted = sort.column === column.id;
  const arrow = !isSorted ? '' : sort.descending ? ' ↓' : ' ↑';
  return (
    <div
      role="columnheader"
      aria-sort={!isSorted ? 'none' : sort.descending ? 'descending' : 'ascending'}
      className={column.number ? classes.numeric : undefined}
    >
      <button
        type="button"
        className={classes.heading}
        title={column.hint}
        data-testid={`sort-${column.id}`}
        onClick={() =>
          onSort({ column: column.id, descending: isSorted ? !sort.descending : (column.descendingFirst ?? false) })
        }
      >
        {column.title}
        <span aria-hidden="true">{arrow}</span>
      </button>
    </div>
  );
}

function Cell({ column, row }: { column: Column; row: number }) {
  const text = column.text(row);
  if (column.check) {
    const { label, on, toggle } = column.check;
    return (
      <div role="gridcell" className={classes.check} onClick={(event) => event.stopPropagation()}>
        <Checkbox size="xs" aria-label={label(row)} checked={on(row)} onChange={() => toggle(row)} />
      </div>
    );
  }
  const swatch = column.swatch?.(row);
  return (
    <div
      role="gridcell"
      className={column.number ? classes.number : classes.text}
      title={column.number ? undefined : text}
    >
      {swatch !== undefined && (
        <span
          aria-hidden="true"
          className={swatch === null ? classes.hollow : classes.swatch}
          style={swatch === null ? undefined : { background: swatch }}
        />
      )}
      {column.scope === undefined ? text : <Name scope={column.scope}>{text}</Name>}
    </div>
  );
}
