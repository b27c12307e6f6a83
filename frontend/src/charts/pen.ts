import type { Point, Rect, Size } from '../graph/camera';

export interface Stroke {
  colour: string;
  width?: number;
  dash?: readonly number[];
}

export interface TextStyle {
  colour: string;
  size?: number;
  align?: 'left' | 'center' | 'right';
  bold?: boolean;
}

/** An image of pixels, as 0xAABBGGRR per pixel. */
export interface Bitmap extends Size {
  pixels: Uint32Array;
}

/** What charts draw with, so that the same chart can be on a canvas and in an SVG file. */
export interface Pen {
  rect(rect: Rect, fill: string, opacity?: number): void;
  polygon(points: readonly Point[], fill: string, opacity?: number): void;
  line(points: readonly Point[], stroke: Stroke): void;
  circle(centre: Point, radius: number, fill: string, stroke?: Stroke): void;
  /** Text whose middle line is at y. */
  text(text: string, at: Point, style: TextStyle): void;
  image(bitmap: Bitmap, to: Rect): void;
}

export const CHART_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
export const TEXT_PIXELS = 11;
