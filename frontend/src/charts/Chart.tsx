import { ActionIcon, Menu } from '@mantine/core';
import { useElementSize } from '@mantine/hooks';
import { type KeyboardEvent, type ReactNode, useEffect, useRef, useState } from 'react';
import { save, saveText } from '../app/download';
import { rem, useRootScale } from '../app/root-scale';
import { useDark } from '../app/use-dark';
import type { Point, Size } from '../graph/camera';
import { csv } from '../table/csv';
import { canvasPen, prepared } from './canvas-pen';
import classes from './Chart.module.css';
import { type ChartColours, DARK_CHART, LIGHT_CHART } from './colours';
import type { Pen } from './pen';
import { svgText } from './svg-pen';

const EXPORT_RATIO = 2;

/** What a reader learns at a point, and where the mark goes. */
export interface Reading {
  title: string;
  lines: readonly string[];
  at: Point;
}

export interface ChartTable {
  header: readonly string[];
  rows: readonly (readonly string[])[];
}

interface Props {
  title: string;
  /** What the chart shows, in words, for those who cannot see it. */
  description: string;
  /** The name of saved files, without ending. */
  fileName: string;
  height: number;
  testId: string;
  draw(pen: Pen, size: Size, colours: ChartColours, dark: boolean): void;
  read?: (at: Point, size: Size) => Reading | null;
  onPick?: (at: Point, size: Size) => void;
  /** How far an arrow key moves the mark. */
  step?: Point;
  table(): ChartTable;
  controls?: ReactNode;
}

/** A chart that shows values at the pointer or at a mark that arrow keys move, and can be saved as PNG, SVG and CSV. */
export function Chart(props: Props) {
  const { title, description, height, testId, draw, read, onPick, step = { x: 8, y: 8 }, controls } = props;
  const { ref: host, width: pixels } = useElementSize();
  const scale = useRootScale();
  const width = Math.round(pixels / scale);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [at, setAt] = useState<Point | null>(null);
  const dark = useDark();
  const colours = dark ? DARK_CHART : LIGHT_CHART;
  const size = { width, height };

  useEffect(() => {
    if (!width) return;
    const context = prepared(canvas.current!, { width, height }, (window.devicePixelRatio || 1) * scale);
    const pen = canvasPen(context);
    pen.rect({ x: 0, y: 0, width, height }, colours.background);
    draw(pen, { width, height }, colours, dark);
  }, [draw, width, height, scale, colours, dark]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const from = at ?? { x: width / 2, y: height / 2 };
    const moves: Record<string, Point> = {
      ArrowLeft: { x: -step.x, y: 0 },
      ArrowRight: { x: step.x, y: 0 },
      ArrowUp: { x: 0, y: -step.y },
      ArrowDown: { x: 0, y: step.y },
    };
    const move = moves[event.key];
    if (event.key === 'Enter' && at && onPick) onPick(at, size);
    else if (event.key === 'Escape') setAt(null);
    else if (move && read) {
      setAt({ x: Math.max(0, Math.min(width, from.x + move.x)), y: Math.max(0, Math.min(height, from.y + move.y)) });
    } else return;
    event.preventDefault();
  };

  const reading = at && read ? read(at, size) : null;
  return (
    <figure className={classes.chart} data-testid={testId}>
      <figcaption className={classes.caption}>
        <span className={classes.title}>{title}</span>
        {controls}
        <SaveMenu {...props} size={size} colours={colours} dark={dark} />
      </figcaption>
      <div ref={host} className={classes.plot}>
        <canvas
          ref={canvas}
          className={onPick ? classes.pickable : classes.canvas}
          style={{ height: rem(height) }}
          role="img"
          tabIndex={read ? 0 : undefined}
          aria-label={`${title}. ${description}`}
          onPointerMove={(event) => read && setAt(pointIn(event.currentTarget, event, scale))}
          onPointerLeave={() => setAt(null)}
          onClick={(event) => onPick?.(pointIn(event.currentTarget, event, scale), size)}
          onKeyDown={onKeyDown}
          onBlur={() => setAt(null)}
        />
        {reading && (
          <>
            <div className={classes.mark} style={{ left: rem(reading.at.x), top: rem(reading.at.y) }} />
            <div
              className={classes.reading}
              data-testid={`${testId}-reading`}
              role="status"
              style={{
                top: rem(Math.max(0, Math.min(height - 60, reading.at.y - 30))),
                ...(reading.at.x > width / 2
                  ? { right: rem(width - reading.at.x + 12) }
                  : { left: rem(reading.at.x + 12) }),
              }}
            >
              <strong>{reading.title}</strong>
              {reading.lines.map((line) => (
                <span key={line}>{line}</span>
              ))}
            </div>
          </>
        )}
      </div>
    </figure>
  );
}

function SaveMenu({
  title,
  fileName,
  draw,
  table,
  size,
  colours,
  dark,
}: Props & { size: Size; colours: ChartColours; dark: boolean }) {
  const whole = (pen: Pen): void => {
    pen.rect({ x: 0, y: 0, ...size }, colours.background);
    draw(pen, size, colours, dark);
  };
  const savePng = (): void => {
    const canvas = document.createElement('canvas');
    whole(canvasPen(prepared(canvas, size, EXPORT_RATIO)));
    canvas.toBlob((blob) => blob && save(`${fileName}.png`, blob), 'image/png');
  };
  const saveCsv = (): void => {
    const { header, rows } = table();
    saveText(`${fileName}.csv`, csv(header, rows), 'text/csv');
  };
  return (
    <Menu position="bottom-end" withinPortal>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" size="sm" aria-label={`Save ${title}`} data-testid="save-chart">
          <SaveIcon />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={savePng}>PNG</Menu.Item>
        <Menu.Item onClick={() => saveText(`${fileName}.svg`, svgText(size, whole), 'image/svg+xml')}>SVG</Menu.Item>
        <Menu.Item onClick={saveCsv}>CSV</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

function SaveIcon() {
  return (
    <svg
      width="14"
      height="14"
      viewBox="0 0 16 16"
      aria-hidden="true"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.6"
    >
      <path d="M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11" />
    </svg>
  );
}

function pointIn(element: Element, event: { clientX: number; clientY: number }, scale: number): Point {
  const box = element.getBoundingClientRect();
  return { x: (event.clientX - box.x) / scale, y: (event.clientY - box.y) / scale };
}
