export interface Point {
  x: number;
  y: number;
}

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Where the view is: `x` and `y` are the world point at the view's top left corner, `zoom` screen pixels per unit. */
export interface Camera extends Point {
  zoom: number;
}

export interface Size {
  width: number;
  height: number;
}

const MIN_ZOOM = 0.004;
const MAX_ZOOM = 4;
/** Room around the graph for the legend, which lies over the view's edge. */
const MARGIN = 46;
/** Labels are readable inside their boxes from this zoom on. */
export const READABLE_ZOOM = 0.62;

const bounded = (zoom: number, low = MIN_ZOOM, high = MAX_ZOOM): number => Math.max(low, Math.min(high, zoom));

export const toWorld = (camera: Camera, screen: Point): Point => ({
  x: camera.x + screen.x / camera.zoom,
  y: camera.y + screen.y / camera.zoom,
});

export const visibleRect = (camera: Camera, view: Size): Rect => ({
  x: camera.x,
  y: camera.y,
  width: view.width / camera.zoom,
  height: view.height / camera.zoom,
});

export const panned = (camera: Camera, dx: number, dy: number): Camera => ({
  ...camera,
  x: camera.x + dx / camera.zoom,
  y: camera.y + dy / camera.zoom,
});

/** The camera zoomed by a factor, with the world point under `at` kept in place. */
export function zoomed(camera: Camera, factor: number, at: Point): Camera {
  const zoom = bounded(camera.zoom * factor);
  const fixed = toWorld(camera, at);
  return { zoom, x: fixed.x - at.x / zoom, y: fixed.y - at.y / zoom };
}

/** The camera that looks at the middle of a rectangle. */
export const lookingAt = (middle: Point, zoom: number, view: Size): Camera => ({
  zoom,
  x: middle.x - view.width / 2 / zoom,
  y: middle.y - view.height / 2 / zoom,
});

/** All of the world, with a margin. */
export function fitting(world: Size, view: Size, margin = MARGIN): Camera {
  const zoom = bounded(
    Math.min((view.width - 2 * margin) / world.width, (view.height - 2 * margin) / world.height),
    MIN_ZOOM,
    1.15,
  );
  return lookingAt({ x: world.width / 2, y: world.height / 2 }, zoom, view);
}

/** As much of the world as is readable: all of it, or its top. */
export function opening(world: Size, view: Size, margin = MARGIN): Camera {
  const whole = fitting(world, view, margin);
  if (whole.zoom >= READABLE_ZOOM) return whole;
  const zoom = bounded((view.width - 2 * margin) / world.width, READABLE_ZOOM, 0.9);
  return { zoom, x: world.width / 2 - view.width / 2 / zoom, y: -margin / zoom };
}

/** Between two cameras, `share` from 0 to 1: the middle moves evenly, the zoom by equal factors. */
export function between(from: Camera, to: Camera, share: number, view: Size): Camera {
  const eased = 1 - (1 - share) ** 3;
  const zoom = from.zoom * (to.zoom / from.zoom) ** eased;
  const middle = (camera: Camera): Point => toWorld(camera, { x: view.width / 2, y: view.height / 2 });
  const a = middle(from);
  const b = middle(to);
  return lookingAt({ x: a.x + (b.x - a.x) * eased, y: a.y + (b.y - a.y) * eased }, zoom, view);
}
