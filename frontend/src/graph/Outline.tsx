import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, useEffect, useMemo, useRef } from 'react';
import { rem, useRootScale } from '../app/root-scale';
import { type BoxId, groupOfBox, isGroup } from './ids';
import type { GraphModel } from './model';
import type { Palette } from './palette';
import type { GraphValues } from './values';
import classes from './Outline.module.css';

const ROW_PIXELS = 26;
const INDENT_PIXELS = 14;

interface Props {
  model: GraphModel;
  values: GraphValues | null;
  palette: Palette;
  open: ReadonlySet<number>;
  selected: BoxId | null;
  onSelect(id: BoxId): void;
  onToggle(group: number): void;
}

interface Line {
  id: BoxId;
  level: number;
  position: number;
  siblings: number;
}

function linesOf(model: GraphModel, open: ReadonlySet<number>): Line[] {
  const lines: Line[] = [];
  const visit = (group: number, level: number): void => {
    const children = model.childrenOf(group);
    children.forEach((id, i) => {
      lines.push({ id, level, position: i + 1, siblings: children.length });
      if (isGroup(id) && open.has(groupOfBox(id))) visit(groupOfBox(id), level + 1);
    });
  };
  visit(-1, 1);
  return lines;
}

/** All groups and ops as a tree: what the graph shows, for readers and keys that cannot use a canvas. */
export function Outline({ model, values, palette, open, selected, onSelect, onToggle }: Props) {
  const lines = useMemo(() => linesOf(model, open), [model, open]);
  const scroller = useRef<HTMLDivElement>(null);
  const scale = useRootScale();
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PIXELS * scale,
    overscan: 12,
  });
  useEffect(() => rows.measure(), [rows, scale]);
  const at = useMemo(() => lines.findIndex((line) => line.id === selected), [lines, selected]);
  useEffect(() => {
    if (at >= 0) rows.scrollToIndex(at, { align: 'auto' });
  }, [at, rows]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const line = lines[at];
    const group = line && isGroup(line.id) ? groupOfBox(line.id) : null;
    const select = (index: number): void => onSelect(lines[Math.max(0, Math.min(lines.length - 1, index))].id);
    if (event.key === 'ArrowDown') select(at + 1);
    else if (event.key === 'ArrowUp') select(at < 0 ? 0 : at - 1);
    else if (event.key === 'Home') select(0);
    else if (event.key === 'End') select(lines.length - 1);
    else if (event.key === 'ArrowRight' && group !== null) open.has(group) ? select(at + 1) : onToggle(group);
    else if (event.key === 'ArrowLeft' && group !== null && open.has(group)) onToggle(group);
    else if (event.key === 'ArrowLeft' && line && model.parentOf(line.id) >= 0) onSelect(-1 - model.parentOf(line.id));
    else if ((event.key === 'Enter' || event.key === ' ') && group !== null) onToggle(group);
    else return;
    event.preventDefault();
  };

  return (
    <div
      ref={scroller}
      className={classes.tree}
      role="tree"
      aria-label="Outline of the graph"
      aria-activedescendant={at >= 0 ? `outline-${lines[at].id}` : undefined}
      tabIndex={0}
      data-testid="outline"
      onKeyDown={onKeyDown}
    >
      <div role="none" style={{ height: rows.getTotalSize(), position: 'relative' }}>
        {rows.getVirtualItems().map(({ index, start }) => {
          const { id, level, position, siblings } = lines[index];
          const group = isGroup(id) ? groupOfBox(id) : null;
          const isOpen = group !== null && open.has(group);
          const step = values ? values.step(id) : -1;
          return (
            <div
              key={id}
              id={`outline-${id}`}
              className={classes.line}
              role="treeitem"
              aria-level={level}
              aria-posinset={position}
              aria-setsize={siblings}
              aria-selected={id === selected}
              aria-expanded={group === null ? undefined : isOpen}
              data-testid="outline-item"
              style={{ transform: `translateY(${start}px)`, paddingLeft: rem(8 + (level - 1) * INDENT_PIXELS) }}
              title={model.nameOf(id)}
              onClick={() => onSelect(id)}
            >
              <span
                className={classes.twist}
                aria-hidden="true"
                onClick={(event) => {
                  if (group === null) return;
                  event.stopPropagation();
                  onToggle(group);
                }}
              >
                {group === null ? '' : isOpen ? '▾' : '▸'}
              </span>
              <span
                className={step < 0 ? classes.hollow : classes.swatch}
                style={step < 0 ? undefined : { background: palette.ramp[step] }}
                aria-hidden="true"
              />
              <span className={group === null ? classes.op : classes.group}>{model.label(id)}</span>
              <span className={classes.count}>
                {group === null ? valueText(values, id) : model.opCount[group].toLocaleString('en')}
              </span>
            </div>
          );
        })}
      </div>
    </div>
  );
}

function valueText(values: GraphValues | null, id: BoxId): string {
  const value = values ? values.of(id) : NaN;
  return Number.isNaN(value) ? '' : values!.text(value);
}
