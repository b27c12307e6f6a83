import { type KeyboardEvent, type PointerEvent, useState } from 'react';
import { rootScale } from './root-scale';
import classes from './Splitter.module.css';

const KEY_STEP = 24;
const key = (name: string): string => `quantscope-split-${name}`;

function stored(name: string): number | null {
  try {
    return Number(localStorage.getItem(key(name))) || null;
  } catch {
    return null; // A page opened from disk may have no storage.
  }
}

function store(name: string, size: number): void {
  try {
    localStorage.setItem(key(name), String(Math.round(size)));
  } catch {
    // Then the size lasts as long as the page.
  }
}

/** A size, in pixels of a usual screen, that the reader changes; it is kept for the next visit. */
export function useSplit(name: string, initial: number, least: number, most: number) {
  const bounded = (size: number): number => Math.max(least, Math.min(most, size));
  const [size, setSize] = useState(() => bounded(stored(name) ?? initial));
  const resize = (wanted: number): void => {
    setSize(bounded(wanted));
    store(name, bounded(wanted));
  };
  return { size, resize, least, most };
}

interface Props {
  label: string;
  /** The line between panes side by side is vertical. */
  direction: 'vertical' | 'horizontal';
  split: ReturnType<typeof useSplit>;
  /** 1 if the pane before the line is resized, −1 if the one after. */
  sign: 1 | -1;
}

/** The line between two panes, to be dragged or moved by arrow keys. */
export function Splitter({ label, direction, split, sign }: Props) {
  const [from, setFrom] = useState<{ at: number; size: number } | null>(null);
  const position = (event: PointerEvent): number => (direction === 'vertical' ? event.clientX : event.clientY);
  const onKeyDown = (event: KeyboardEvent): void => {
    const [less, more] = direction === 'vertical' ? ['ArrowLeft', 'ArrowRight'] : ['ArrowUp', 'ArrowDown'];
    if (event.key !== less && event.key !== more) return;
    event.preventDefault();
    split.resize(split.size + (event.key === more ? 1 : -1) * sign * KEY_STEP);
  };
  return (
    <div
      role="separator"
      aria-label={label}
      aria-orientation={direction}
      aria-valuenow={split.size}
      aria-valuemin={split.least}
      aria-valuemax={split.most}
      tabIndex={0}
      className={classes[direction]}
      data-dragging={from !== null}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        setFrom({ at: position(event), size: split.size });
      }}
      onPointerMove={(event) => from && split.resize(from.size + ((position(event) - from.at) / rootScale()) * sign)}
      onPointerUp={() => setFrom(null)}
      onKeyDown={onKeyDown}
    />
  );
}
