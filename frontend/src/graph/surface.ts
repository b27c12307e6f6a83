import { openLayoutThread } from '#layout-thread';
import {
  between,
  type Camera,
  fitting,
  lookingAt,
  opening,
  panned,
  type Point,
  READABLE_ZOOM,
  type Rect,
  type Size,
  toWorld,
  zoomed,
} from './camera';
import { type BoxId, boxOfGroup, groupOfBox, isGroup } from './ids';
import { HEADER, type Layout } from './layout';
import { cameraAt, paintMinimap } from './minimap';
import type { GraphModel } from './model';
import { initiallyOpen, opensWith } from './opening';
import { paint, type Picture } from './painter';
import { paletteOf, type Palette } from './palette';
import { Scene } from './scene';
import type { LayoutThread } from './thread';
import { boxWidths } from './widths';

const CENTRING_MS = 260;
const CENTRED_ZOOM = 0.95;

export interface SurfaceEvents {
  /** The open groups changed. */
  opened(open: ReadonlySet<number>): void;
  /** A layout is being computed, or is done, or failed. */
  state(state: { busy: boolean; boxes: number; portals: number; error: string }): void;
}

/** The graph on a canvas: which groups are open, where the camera is, and what is marked. It draws only when asked. */
export class GraphSurface {
  private readonly context: CanvasRenderingContext2D;
  private readonly minimapContext: CanvasRenderingContext2D;
  private readonly thread: LayoutThread;
  private scene: Scene | null = null;
  private camera: Camera = { x: 0, y: 0, zoom: 1 };
  private view: Size = { width: 0, height: 0 };
  private map: Size = { width: 0, height: 0 };
  private scale = 1;
  private open: Set<number>;
  private frame = 0;
  private animation = 0;
  private isPlaced = false;
  private first: BoxId | null = null;
  private stopped = false;
  private marks: Pick<Picture, 'selected' | 'hovered' | 'matches' | 'bright' | 'values' | 'palette'> = {
    selected: null,
    hovered: null,
    matches: new Set(),
    bright: null,
    values: null,
    palette: paletteOf('quality', false),
  };

  constructor(
    readonly model: GraphModel,
    private readonly canvas: HTMLCanvasElement,
    private readonly minimap: HTMLCanvasElement,
    private readonly events: SurfaceEvents,
  ) {
    this.context = canvas.getContext('2d', { alpha: false })!;
    this.minimapContext = minimap.getContext('2d')!;
    this.thread = openLayoutThread(model, boxWidths(model));
    this.open = initiallyOpen(model);
  }

  stop(): void {
    this.stopped = true;
    this.thread.stop();
    cancelAnimationFrame(this.frame);
    cancelAnimationFrame(this.animation);
  }

  // What is marked, and in which colours.

  mark(marks: Partial<GraphSurface['marks']>): void {
    this.marks = { ...this.marks, ...marks };
    this.redraw();
  }

  get palette(): Palette {
    return this.marks.palette;
  }

  // Which groups are open.

  /** Lay out the graph as it is at first, with these boxes in sight. */
  start(reveal: BoxId | null): void {
    if (reveal !== null) for (const group of this.model.ancestorsOf(reveal)) this.open.add(group);
    this.first = reveal;
    void this.arrange(() => this.place());
  }

  toggle(group: number): void {
    if (this.open.has(group)) this.open.delete(group);
    else for (const opened of opensWith(this.model, group)) this.open.add(opened);
    void this.arrange(undefined, boxOfGroup(group));
  }

  expandAll(): void {
    for (let group = 0; group < this.model.groupCount; group++) this.open.add(group);
    void this.arrange(() => this.moveTo(opening(this.world, this.view)));
  }

  collapseAll(): void {
    this.open = initiallyOpen(this.model);
    void this.arrange(() => this.moveTo(opening(this.world, this.view)));
  }

  /** Open all groups around a box and bring it to the middle. */
  reveal(id: BoxId): void {
    const closed = this.model.ancestorsOf(id).filter((group) => !this.open.has(group));
    for (const group of closed) this.open.add(group);
    if (closed.length || !this.scene) void this.arrange(() => this.centre(id, true));
    else this.centre(id, true);
  }

  private async arrange(then?: () => void, anchor?: BoxId): Promise<void> {
    this.events.opened(new Set(this.open));
    this.events.state({ busy: true, boxes: 0, portals: 0, error: '' });
    try {
      const layout = await this.thread.layout(this.open);
      if (this.stopped) return;
      this.show(layout, anchor);
      then?.();
      this.events.state({ busy: false, boxes: layout.id.length, portals: layout.portals.at.length, error: '' });
    } catch (error) {
      this.events.state({
        busy: false,
        boxes: 0,
        portals: 0,
        error: error instanceof Error ? error.message : String(error),
      });
    }
  }

  /** Replace the layout; the anchor, the group that was clicked, stays where it was on the screen. */
  private show(layout: Layout, anchor?: BoxId): void {
    const before = anchor === undefined ? null : (this.scene?.rectOf(anchor) ?? null);
    this.scene = new Scene(layout);
    const after = anchor === undefined ? null : this.scene.rectOf(anchor);
    if (before && after) {
      this.camera.x += after.x + after.width / 2 - (before.x + before.width / 2);
      this.camera.y += after.y - before.y;
    }
    this.redraw();
  }

  // Where the camera is.

  private get world(): Size {
    const layout = this.scene?.layout;
    return { width: Math.max(1, layout?.totalWidth ?? 1), height: Math.max(1, layout?.totalHeight ?? 1) };
  }

  /** Put the camera where it begins, once both the layout and the size of the view are known. */
  private place(): void {
    if (!this.view.width || !this.scene) return;
    this.isPlaced = true;
    this.moveTo(opening(this.world, this.view));
    if (this.first !== null) this.centre(this.first, false);
  }

  /** Take the sizes of both canvases on the page; all that is drawn is `scale` times as large as on a usual screen. */
  resize(view: Size, map: Size, scale: number): void {
    const ratio = window.devicePixelRatio || 1;
    this.scale = scale;
    this.view = { width: view.width / scale, height: view.height / scale };
    this.map = { width: map.width / scale, height: map.height / scale };
    this.canvas.width = Math.round(view.width * ratio);
    this.canvas.height = Math.round(view.height * ratio);
    this.minimap.width = Math.round(map.width * ratio);
    this.minimap.height = Math.round(map.height * ratio);
    if (!this.isPlaced) this.place();
    this.draw();
  }

  fit(): void {
    this.glideTo(fitting(this.world, this.view));
  }

  pan(dx: number, dy: number): void {
    this.moveTo(panned(this.camera, dx, dy));
  }

  zoom(factor: number, at: Point = { x: this.view.width / 2, y: this.view.height / 2 }): void {
    this.moveTo(zoomed(this.camera, factor, at));
  }

  /** Look at a point of the minimap. */
  lookAtMap(point: Point): void {
    this.moveTo(cameraAt(point, this.world, this.map, this.camera, this.view));
  }

  private centre(id: BoxId, animate: boolean): void {
    const box = this.scene?.rectOf(id);
    if (!box) return;
    const isOpen = isGroup(id) && this.open.has(groupOfBox(id));
    const zoom = this.camera.zoom < READABLE_ZOOM ? CENTRED_ZOOM : this.camera.zoom;
    // Of an open group the heading is what was asked for.
    const middle = { x: box.x + box.width / 2, y: box.y + (isOpen ? HEADER : box.height / 2) };
    const camera = lookingAt(middle, zoom, this.view);
    if (animate) this.glideTo(camera);
    else this.moveTo(camera);
  }

  private moveTo(camera: Camera): void {
    cancelAnimationFrame(this.animation);
    this.camera = { ...camera };
    this.redraw();
  }

  private glideTo(goal: Camera): void {
    cancelAnimationFrame(this.animation);
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) return this.moveTo(goal);
    const [from, began] = [this.camera, performance.now()];
    const step = (now: number): void => {
      const share = Math.max(0, Math.min(1, (now - began) / CENTRING_MS));
      this.camera = between(from, goal, share, this.view);
      this.draw();
      if (share < 1) this.animation = requestAnimationFrame(step);
    };
    this.animation = requestAnimationFrame(step);
  }

  // What is where.

  hit(at: Point): BoxId | null {
    return this.scene?.hit(toWorld(this.camera, at)) ?? null;
  }

  isShown(id: BoxId): boolean {
    return this.scene?.indexOf(id) !== undefined;
  }

  /** Where a box is in the window, in pixels; null while a closed group hides it. */
  boxInWindow(id: BoxId): Rect | null {
    const box = this.scene?.rectOf(id);
    if (!box) return null;
    const { x, y, zoom } = this.camera;
    const { left, top } = this.canvas.getBoundingClientRect();
    return {
      x: left + (box.x - x) * zoom * this.scale,
      y: top + (box.y - y) * zoom * this.scale,
      width: box.width * zoom * this.scale,
      height: box.height * zoom * this.scale,
    };
  }

  // Drawing.

  private redraw(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.scene || !this.view.width) return;
    const picture: Picture = {
      ...this.marks,
      model: this.model,
      scene: this.scene,
      camera: this.camera,
      view: this.view,
      pixelRatio: (window.devicePixelRatio || 1) * this.scale,
    };
    paint(this.context, picture);
    paintMinimap(this.minimapContext, picture, this.map);
  }
}
