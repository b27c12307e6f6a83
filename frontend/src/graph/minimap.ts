import { type Camera, type Point, type Size, visibleRect } from './camera';
import type { Picture } from './painter';

const MARGIN = 6;
const DEEPEST = 2;

interface Frame {
  scale: number;
  left: number;
  top: number;
}

function frame(world: Size, map: Size): Frame {
  const scale = Math.min((map.width - 2 * MARGIN) / world.width, (map.height - 2 * MARGIN) / world.height);
  return {
    scale,
    left: (map.width - world.width * scale) / 2,
    top: (map.height - world.height * scale) / 2,
  };
}

/** The whole graph in small, with the part that the camera sees framed. */
export function paintMinimap(context: CanvasRenderingContext2D, picture: Picture, map: Size): void {
  const { scene, values, palette, pixelRatio, camera, view } = picture;
  const { layout } = scene;
  const { scale, left, top } = frame({ width: layout.totalWidth, height: layout.totalHeight }, map);
  context.setTransform(pixelRatio, 0, 0, pixelRatio, 0, 0);
  context.clearRect(0, 0, map.width, map.height);
  for (let i = 0; i < layout.id.length; i++) {
    if (layout.depth[i] > DEEPEST) continue;
    const [x, y] = [left + layout.x[i] * scale, top + layout.y[i] * scale];
    const [width, height] = [Math.max(1, layout.width[i] * scale), Math.max(1, layout.height[i] * scale)];
    if (layout.open[i] && layout.depth[i] < DEEPEST) {
      context.strokeStyle = palette.containerEdge;
      context.lineWidth = 1;
      context.strokeRect(x, y, width, height);
      continue;
    }
    const step = values ? values.step(layout.id[i]) : -1;
    context.fillStyle = step < 0 ? palette.hollowEdge : palette.ramp[step];
    context.globalAlpha = step < 0 ? 0.55 : 1;
    context.fillRect(x, y, width, height);
    context.globalAlpha = 1;
  }
  const seen = visibleRect(camera, view);
  const inside = (at: number, most: number): number => Math.max(1.5, Math.min(most - 1.5, at));
  const [x0, x1] = [seen.x, seen.x + seen.width].map((x) => inside(left + x * scale, map.width));
  const [y0, y1] = [seen.y, seen.y + seen.height].map((y) => inside(top + y * scale, map.height));
  context.strokeStyle = palette.selection;
  context.lineWidth = 1.5;
  context.strokeRect(x0, y0, Math.max(4, x1 - x0), Math.max(4, y1 - y0));
}

/** The camera whose middle is at a point of the minimap. */
export function cameraAt(point: Point, world: Size, map: Size, camera: Camera, view: Size): Camera {
  const { scale, left, top } = frame(world, map);
  return {
    zoom: camera.zoom,
    x: (point.x - left) / scale - view.width / 2 / camera.zoom,
    y: (point.y - top) / scale - view.height / 2 / camera.zoom,
  };
}
