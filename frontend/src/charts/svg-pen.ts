import type { Point, Size } from '../graph/camera';
import { bitmapCanvas } from './canvas-pen';
import { CHART_FONT, type Pen, type Stroke, TEXT_PIXELS } from './pen';

const ANCHOR = { left: 'start', center: 'middle', right: 'end' } as const;

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const rounded = (value: number): string => String(Math.round(value * 100) / 100);

const attributes = (values: Record<string, string | number | undefined>): string =>
  Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}="${typeof value === 'number' ? rounded(value) : escaped(value!)}"`)
    .join('');

const pointList = (points: readonly Point[]): string =>
  points.map(({ x, y }) => `${rounded(x)},${rounded(y)}`).join(' ');

const strokeOf = ({ colour, width = 1, dash }: Stroke): Record<string, string | number | undefined> => ({
  stroke: colour,
  'stroke-width': width,
  'stroke-dasharray': dash?.join(' '),
});

/** What `draw` draws, as the text of an SVG file. */
export function svgText({ width, height }: Size, draw: (pen: Pen) => void): string {
  const parts: string[] = [];
  const add = (tag: string, values: Record<string, string | number | undefined>, text?: string): void => {
    parts.push(
      text === undefined ? `<${tag}${attributes(values)}/>` : `<${tag}${attributes(values)}>${escaped(text)}</${tag}>`,
    );
  };
  draw({
    rect: (rect, fill, opacity) => add('rect', { ...rect, fill, 'fill-opacity': opacity }),
    polygon: (points, fill, opacity) => add('polygon', { points: pointList(points), fill, 'fill-opacity': opacity }),
    line: (points, stroke) => add('polyline', { points: pointList(points), fill: 'none', ...strokeOf(stroke) }),
    circle: ({ x, y }, r, fill, stroke) =>
      add('circle', { cx: x, cy: y, r, fill, ...(stroke ? strokeOf(stroke) : {}) }),
    text: (text, { x, y }, { colour, size = TEXT_PIXELS, align = 'left', bold = false }) =>
      add(
        'text',
        {
          x,
          y,
          fill: colour,
          'font-size': size,
          'text-anchor': ANCHOR[align],
          'dominant-baseline': 'central',
          'font-weight': bold ? 600 : undefined,
        },
        text,
      ),
    image: (bitmap, rect) =>
      add('image', {
        ...rect,
        href: bitmapCanvas(bitmap).toDataURL('image/png'),
        preserveAspectRatio: 'none',
        style: 'image-rendering: pixelated',
      }),
  });
  const head = attributes({
    xmlns: 'http://www.w3.org/2000/svg',
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    'font-family': CHART_FONT,
  });
  return `<svg${head}>\n${parts.join('\n')}\n</svg>\n`;
}
