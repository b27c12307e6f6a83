import { type Bitmap, CHART_FONT, type Pen, type Stroke, TEXT_PIXELS } from './pen';
import type { Point, Size } from '../graph/camera';

/** A bitmap as a canvas of its own size. */
export function bitmapCanvas({ width, height, pixels }: Bitmap): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(new Uint8ClampedArray(pixels.buffer as ArrayBuffer), width, height);
  canvas.getContext('2d')!.putImageData(image, 0, 0);
  return canvas;
}

/** A pen that draws on a canvas. */
export function canvasPen(context: CanvasRenderingContext2D): Pen {
  const path = (points: readonly Point[]): void => {
    context.beginPath();
    points.forEach(({ x, y }, i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  };
  const stroke = ({ colour, width = 1, dash = [] }: Stroke): void => {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash([...dash]);
    context.stroke();
  };
  return {
    rect({ x, y, width, height }, fill, opacity = 1) {
      context.globalAlpha = opacity;
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
      context.globalAlpha = 1;
    },
    polygon(points, fill, opacity = 1) {
      path(points);
      context.globalAlpha = opacity;
      context.fillStyle = fill;
      context.fill();
      context.globalAlpha = 1;
    },
    line(points, style) {
      path(points);
      stroke(style);
    },
    circle({ x, y }, radius, fill, style) {
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.fillStyle = fill;
      context.fill();
      if (style) stroke(style);
    },
    text(text, { x, y }, { colour, size = TEXT_PIXELS, align = 'left', bold = false }) {
      context.font = `${bold ? '600 ' : ''}${size}px ${CHART_FONT}`;
      context.textAlign = align;
      context.textBaseline = 'middle';
      context.fillStyle = colour;
      context.fillText(text, x, y);
    },
    image(bitmap, { x, y, width, height }) {
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmapCanvas(bitmap), x, y, width, height);
    },
  };
}

/** Make a canvas as large as it is shown, in the pixels of the screen, and give what draws on it. */
export function prepared(canvas: HTMLCanvasElement, { width, height }: Size, ratio: number): CanvasRenderingContext2D {
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext('2d')!;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
