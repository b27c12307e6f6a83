import { type Camera, READABLE_ZOOM, type Rect, type Size, visibleRect } from './camera';
import { type BoxId, groupOfBox, isGroup } from './ids';
import { HEADER } from './layout';
import type { GraphModel } from './model';
import { OutsideLabels } from './outside-labels';
import type { Palette } from './palette';
import type { Scene, Visible } from './scene';
import type { GraphValues } from './values';

export const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
export const LABEL_PIXELS = 12.5;
export const VALUE_PIXELS = 10.5;
const ARROW_LENGTH = 7;
const ARROW_HALF_ANGLE = 0.4;
const SHOWN_PORTALS = 3;
const DIMMED = 0.18;

export interface Picture {
  model: GraphModel;
  scene: Scene;
  values: GraphValues | null;
  palette: Palette;
  camera: Camera;
  view: Size;
  pixelRatio: number;
  selected: BoxId | null;
  hovered: BoxId | null;
  /** Boxes to ring: what a search found. */
  matches: ReadonlySet<BoxId>;
  /** Boxes to show plainly while all others are dimmed; null dims none. */
  bright: ReadonlySet<BoxId> | null;
}

/** Draw the graph as the camera sees it. */
export function paint(context: CanvasRenderingContext2D, picture: Picture): void {
  const { camera, view, palette, pixelRatio, scene } = picture;
  context.setTransform(pixelRatio, 0, 0, pixelRatio, 0, 0);
  context.globalAlpha = 1;
  context.fillStyle = palette.background;
  context.fillRect(0, 0, view.width, view.height);
  const scale = pixelRatio * camera.zoom;
  context.setTransform(scale, 0, 0, scale, -camera.x * scale, -camera.y * scale);
  const seen = visibleRect(camera, view);
  const visible = scene.visible(seen, camera.zoom);
  paintContainers(context, picture, visible);
  paintEdges(context, picture, visible, seen);
  paintBoxes(context, picture, visible);
  if (camera.zoom >= READABLE_ZOOM) {
    paintLabels(context, picture, visible);
    paintPortals(context, picture, visible);
  } else {
    paintLabelsOutside(context, picture, visible);
  }
  paintHeadings(context, picture, visible, seen);
  paintMarks(context, picture, visible);
}

function paintContainers(context: CanvasRenderingContext2D, picture: Picture, { containers }: Visible): void {
  const { scene, palette, camera } = picture;
  context.strokeStyle = palette.containerEdge;
  context.lineWidth = 1 / Math.max(camera.zoom, 0.5);
  for (const i of containers) {
    context.fillStyle = palette.container[Math.min(scene.layout.depth[i], palette.container.length - 1)];
    roundRect(context, scene.rect(i), 10);
    context.fill();
    context.stroke();
  }
}

function paintEdges(context: CanvasRenderingContext2D, picture: Picture, { containers }: Visible, seen: Rect): void {
  const { scene, palette, camera } = picture;
  const { start, points } = scene.layout.edges;
  const arrows: number[] = [];
  context.strokeStyle = context.fillStyle = palette.edge;
  context.lineWidth = camera.zoom < 0.4 ? 0.8 / camera.zoom : 1.25;
  context.beginPath();
  for (const owner of [-1, ...containers]) {
    for (const e of scene.edgesIn(owner)) {
      const [first, end] = [start[e], start[e + 1]];
      if (end - first < 4) continue;
      const [y0, y1] = [points[first + 1], points[end - 1]];
      if (Math.max(y0, y1) < seen.y || Math.min(y0, y1) > seen.y + seen.height) continue;
      trace(context, points, first, end, camera.zoom > 0.3);
      if (camera.zoom > 0.45) arrows.push(points[end - 2], points[end - 1], points[end - 4], points[end - 3]);
    }
  }
  context.stroke();
  context.beginPath();
  for (let i = 0; i < arrows.length; i += 4) {
    const [x, y] = [arrows[i], arrows[i + 1]];
    const angle = Math.atan2(y - arrows[i + 3], x - arrows[i + 2]);
    context.moveTo(x, y);
    for (const turn of [-ARROW_HALF_ANGLE, ARROW_HALF_ANGLE]) {
      context.lineTo(x - ARROW_LENGTH * Math.cos(angle + turn), y - ARROW_LENGTH * Math.sin(angle + turn));
    }
  }
  context.fill();
}

/** A line through the points of an edge, rounded at its bends. */
function trace(
  context: CanvasRenderingContext2D,
  points: Float32Array,
  first: number,
  end: number,
  rounded: boolean,
): void {
  context.moveTo(points[first], points[first + 1]);
  if (rounded) {
    for (let k = first + 2; k < end - 2; k += 2) {
      const isLast = k + 2 >= end - 2;
      const x = isLast ? points[end - 2] : (points[k] + points[k + 2]) / 2;
      const y = isLast ? points[end - 1] : (points[k + 1] + points[k + 3]) / 2;
      context.quadraticCurveTo(points[k], points[k + 1], x, y);
    }
  }
  if (!rounded || end - first < 6) context.lineTo(points[end - 2], points[end - 1]);
}

function byStep({ scene, values }: Picture, leaves: readonly number[]): Map<number, number[]> {
  const found = new Map<number, number[]>();
  for (const i of leaves) {
    const step = values ? values.step(scene.layout.id[i]) : -1;
    const list = found.get(step);
    if (list) list.push(i);
    else found.set(step, [i]);
  }
  return found;
}

const isDim = ({ bright, scene }: Picture, i: number): boolean => bright !== null && !bright.has(scene.layout.id[i]);

function paintBoxes(context: CanvasRenderingContext2D, picture: Picture, { leaves }: Visible): void {
  const { palette, camera } = picture;
  const dim = leaves.filter((i) => isDim(picture, i));
  const plain = dim.length ? leaves.filter((i) => !isDim(picture, i)) : leaves;
  for (const [boxes, alpha] of [
    [dim, DIMMED],
    [plain, 1],
  ] as const) {
    context.globalAlpha = alpha;
    for (const [step, group] of byStep(picture, boxes)) {
      context.beginPath();
      for (const i of group) boxPath(context, picture, i);
      context.fillStyle = step < 0 ? palette.hollow : palette.ramp[step];
      context.fill();
      if (camera.zoom < 0.2 && step >= 0) continue;
      context.strokeStyle = step < 0 ? palette.hollowEdge : palette.boxEdge;
      context.lineWidth = Math.max(1, 0.6 / camera.zoom);
      if (step < 0 && camera.zoom > 0.35) context.setLineDash([4, 3]);
      context.stroke();
      context.setLineDash([]);
    }
  }
  context.globalAlpha = 1;
}

function boxPath(context: CanvasRenderingContext2D, { scene, camera }: Picture, i: number): void {
  const { x, y, width, height, id } = scene.layout;
  if (camera.zoom < 0.35) context.rect(x[i], y[i], width[i], height[i]);
  else context.roundRect(x[i], y[i], width[i], height[i], isGroup(id[i]) ? 8 : 6);
}

function paintLabels(context: CanvasRenderingContext2D, picture: Picture, { leaves }: Visible): void {
  const { palette } = picture;
  context.textBaseline = 'middle';
  for (const [step, group] of byStep(picture, leaves)) {
    context.fillStyle = step < 0 ? palette.hollowInk : palette.ink[step];
    for (const i of group) {
      context.globalAlpha = isDim(picture, i) ? 0.45 : 1;
      if (isGroup(picture.scene.layout.id[i])) paintGroupLabel(context, picture, i);
      else paintNodeLabel(context, picture, i);
    }
  }
  context.globalAlpha = 1;
}

function paintNodeLabel(context: CanvasRenderingContext2D, { scene, model, values }: Picture, i: number): void {
  const { id, x, y, width, height } = scene.layout;
  const middle = x[i] + width[i] / 2;
  const value = values ? values.of(id[i]) : NaN;
  const hasValue = !Number.isNaN(value);
  context.textAlign = 'center';
  context.font = `500 ${LABEL_PIXELS}px ${FONT}`;
  context.fillText(model.label(id[i]), middle, y[i] + (hasValue ? 12.5 : height[i] / 2 + 0.5));
  if (!hasValue) return;
  context.font = `${VALUE_PIXELS}px ${FONT}`;
  context.fillText(values!.text(value), middle, y[i] + 25.5);
}

function paintGroupLabel(
  context: CanvasRenderingContext2D,
  { scene, model, values, palette }: Picture,
  i: number,
): void {
  const { id, x, y, width, height } = scene.layout;
  const group = groupOfBox(id[i]);
  context.textAlign = 'left';
  context.font = `600 ${LABEL_PIXELS}px ${FONT}`;
  context.fillText(`▸ ${model.label(id[i])}`, x[i] + 9, y[i] + 14);
  context.font = `${VALUE_PIXELS}px ${FONT}`;
  const words = [`${model.opCount[group]} ops`, values?.words(group)].filter(Boolean);
  context.fillText(words.join(' · '), x[i] + 9, y[i] + 29);
  const strip = values?.strip(group);
  if (!strip || strip.length < 2) return;
  const cell = (width[i] - 18) / strip.length;
  const ink = context.fillStyle;
  context.fillStyle = palette.background;
  context.fillRect(x[i] + 8, y[i] + height[i] - 13, width[i] - 16, 8);
  strip.forEach((step, k) => {
    context.fillStyle = palette.ramp[step];
    context.fillRect(x[i] + 9 + k * cell, y[i] + height[i] - 12, Math.max(0.8, cell - 0.6), 6);
  });
  context.fillStyle = ink;
}

/** From afar, labels keep their size on the screen: inside where they fit, beside their box where nothing is in the way. */
function paintLabelsOutside(context: CanvasRenderingContext2D, picture: Picture, { leaves }: Visible): void {
  const { scene, model, values, palette, camera } = picture;
  const { id } = scene.layout;
  const labels = new OutsideLabels(
    camera,
    leaves.map((i) => scene.rect(i)),
  );
  const size = labels.pixels / camera.zoom;
  context.font = `500 ${size}px ${FONT}`;
  context.textBaseline = 'middle';
  leaves.forEach((i, k) => {
    const place = labels.place(k, model.label(id[i]));
    if (!place) return;
    const step = values ? values.step(id[i]) : -1;
    const inBox = step < 0 ? palette.hollowInk : palette.ink[step];
    context.fillStyle = place.inside ? inBox : palette.outsideInk;
    context.globalAlpha = isDim(picture, i) ? 0.45 : 1;
    context.textAlign = place.inside ? 'center' : 'left';
    context.fillText(place.text, place.x, place.y);
  });
  context.globalAlpha = 1;
}

function paintHeadings(
  context: CanvasRenderingContext2D,
  { scene, model, palette, camera }: Picture,
  { containers }: Visible,
  seen: Rect,
): void {
  const size = Math.max(LABEL_PIXELS, Math.min(HEADER - 6, 11 / camera.zoom));
  context.font = `600 ${size}px ${FONT}`;
  context.textAlign = 'left';
  context.textBaseline = 'middle';
  for (const i of containers) {
    const box = scene.rect(i);
    if (box.width * camera.zoom < 48 || size * camera.zoom < 8) continue;
    // The name of a group whose top is out of sight stays at the edge of the view.
    const line = (14 + scene.layout.depth[i] * 17) / camera.zoom;
    const y = Math.min(Math.max(box.y + HEADER / 2 + 1, seen.y + line), box.y + box.height - 12);
    const x = Math.max(box.x + 11, Math.min(seen.x + 10 / camera.zoom, box.x + box.width - 80));
    const text = `▾ ${model.label(scene.layout.id[i])}`;
    if (y > box.y + HEADER) {
      const gap = 4 / camera.zoom;
      context.fillStyle = palette.container[Math.min(scene.layout.depth[i], palette.container.length - 1)];
      context.globalAlpha = 0.9;
      context.fillRect(x - gap, y - size * 0.75, context.measureText(text).width + 2 * gap, size * 1.5);
      context.globalAlpha = 1;
    }
    context.fillStyle = palette.heading;
    context.fillText(text, x, y);
  }
}

/** Chips at the left of a box name what reaches it from far away. */
function paintPortals(context: CanvasRenderingContext2D, picture: Picture, visible: Visible): void {
  const { scene, model, palette } = picture;
  context.font = `10px ${FONT}`;
  context.textAlign = 'left';
  context.lineWidth = 0.8;
  for (const i of [...visible.leaves, ...visible.containers]) {
    const sources = scene.portalsAt(i);
    if (!sources.length) continue;
    const { x, y } = scene.rect(i);
    sources.slice(0, SHOWN_PORTALS).forEach((source, row) => {
      const label = model.label(scene.layout.id[source]);
      const more = row === SHOWN_PORTALS - 1 && sources.length > SHOWN_PORTALS;
      const text = more ? `+ ${sources.length - SHOWN_PORTALS + 1} more` : `↳ ${shortened(label, 18)}`;
      const width = context.measureText(text).width + 10;
      const top = y + 2 + row * 16;
      context.fillStyle = palette.portal;
      context.strokeStyle = palette.portalEdge;
      context.beginPath();
      context.roundRect(x - width - 8, top, width, 14, 7);
      context.moveTo(x - 8, top + 7);
      context.lineTo(x, top + 7);
      context.fill();
      context.stroke();
      context.fillStyle = palette.portalInk;
      context.fillText(text, x - width - 3, top + 7.5);
    });
  }
}

export const shortened = (text: string, most: number): string =>
  text.length <= most ? text : `${text.slice(0, most - 1)}…`;

function paintMarks(context: CanvasRenderingContext2D, picture: Picture, { leaves }: Visible): void {
  const { scene, palette, camera, selected, hovered, matches } = picture;
  const ring = (id: BoxId, colour: string, width: number): void => {
    const box = scene.rectOf(id);
    if (!box) return;
    const gap = 2 / Math.max(camera.zoom, 0.5);
    context.strokeStyle = colour;
    context.lineWidth = width / Math.max(camera.zoom, 0.3);
    roundRect(context, { x: box.x - gap, y: box.y - gap, width: box.width + 2 * gap, height: box.height + 2 * gap }, 8);
    context.stroke();
  };
  if (matches.size)
    for (const i of leaves) if (matches.has(scene.layout.id[i])) ring(scene.layout.id[i], palette.match, 2);
  if (hovered !== null && hovered !== selected) ring(hovered, palette.hover, 1.5);
  if (selected === null) return;
  if (!isGroup(selected)) paintConnections(context, picture, selected);
  ring(selected, palette.selection, 3);
}

/** The lines into and out of the selected op, to whatever box shows its neighbour now. */
function paintConnections(context: CanvasRenderingContext2D, picture: Picture, node: number): void {
  const { scene, model, palette, camera } = picture;
  const me = scene.indexOf(node);
  if (me === undefined) return;
  context.lineWidth = 2.2 / Math.max(camera.zoom, 0.5);
  const connect = (others: readonly number[], colour: string, incoming: boolean): void => {
    context.strokeStyle = colour;
    for (const other of new Set(others.map((n) => shownAs(picture, n)))) {
      if (other === undefined || other === me) continue;
      context.beginPath();
      lineBetween(context, scene, incoming ? other : me, incoming ? me : other);
      context.stroke();
    }
  };
  connect(model.inputsOf(node), palette.incoming, true);
  connect(model.outputsOf(node), palette.outgoing, false);
}

function shownAs({ scene, model }: Picture, node: number): number | undefined {
  let index = scene.indexOf(node);
  for (const group of index === undefined ? model.ancestorsOf(node) : []) {
    index = scene.indexOf(-1 - group);
    if (index !== undefined) break;
  }
  return index;
}

function lineBetween(context: CanvasRenderingContext2D, scene: Scene, from: number, to: number): void {
  const { edges, parent } = scene.layout;
  const drawn = scene.edgesIn(parent[from]).find((e) => edges.from[e] === from && edges.to[e] === to);
  if (drawn !== undefined && edges.start[drawn + 1] - edges.start[drawn] >= 4) {
    trace(context, edges.points, edges.start[drawn], edges.start[drawn + 1], true);
    return;
  }
  const [a, b] = [scene.rect(from), scene.rect(to)];
  const [x0, y0, x1, y1] = [a.x + a.width / 2, a.y + a.height, b.x + b.width / 2, b.y];
  const middle = (y0 + y1) / 2;
  context.moveTo(x0, y0);
  context.bezierCurveTo(x0, middle, x1, middle, x1, y1);
}

function roundRect(context: CanvasRenderingContext2D, box: Rect, radius: number): void {
  context.beginPath();
  context.roundRect(box.x, box.y, box.width, box.height, radius);
}
