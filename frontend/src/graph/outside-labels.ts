import type { Camera, Rect } from './camera';

const PIXELS = 10.5;
/** The width of a letter, as a part of the font's size: an estimate, since measuring every label takes too long. */
const LETTER = 0.56;
/** Boxes that are lower than this on the screen stand too close for labels. */
const LOWEST_BOX = 4;
const MOST_LABELS = 500;
const CELL = 4;
const GAP = 6;
const LONGEST = 34;
/** A label that is cut to less than this says nothing. */
const FEWEST_LETTERS = 5;

export interface LabelPlace {
  text: string;
  x: number;
  y: number;
  inside: boolean;
}

/** Finds room for labels of constant size on the screen: inside boxes or, where they do not fit, beside them. */
export class OutsideLabels {
  readonly pixels = PIXELS;
  private readonly taken = new Set<number>();
  private readonly none: boolean;

  constructor(
    private readonly camera: Camera,
    private readonly boxes: readonly Rect[],
  ) {
    this.none = boxes.length > MOST_LABELS;
    if (this.none) return;
    for (const box of boxes) this.occupy(this.onScreen(box));
  }

  /** Where the label of a box goes; null where there is no room. */
  place(index: number, label: string): LabelPlace | null {
    if (this.none) return null;
    const box = this.boxes[index];
    const screen = this.onScreen(box);
    const middle = box.y + box.height / 2;
    const letters = screen.height > PIXELS ? Math.floor((screen.width - 6) / (PIXELS * LETTER)) : 0;
    const inside = (text: string): LabelPlace => ({ text, x: box.x + box.width / 2, y: middle, inside: true });
    if (label.length <= letters) return inside(label);
    if (screen.height < LOWEST_BOX) return null;
    const text = label.length <= LONGEST ? label : `${label.slice(0, LONGEST - 1)}…`;
    const width = text.length * PIXELS * LETTER;
    const y = screen.y + screen.height / 2 - PIXELS / 2;
    for (const x of [screen.x + screen.width + GAP, screen.x - GAP - width]) {
      const room = { x, y, width, height: PIXELS };
      if (this.cells(room).some((cell) => this.taken.has(cell))) continue;
      this.occupy(room);
      return { text, x: x / this.camera.zoom + this.camera.x, y: middle, inside: false };
    }
    return letters < FEWEST_LETTERS ? null : inside(`${label.slice(0, letters - 1)}…`);
  }

  private onScreen(box: Rect): Rect {
    const { x, y, zoom } = this.camera;
    return { x: (box.x - x) * zoom, y: (box.y - y) * zoom, width: box.width * zoom, height: box.height * zoom };
  }

  private occupy(room: Rect): void {
    for (const cell of this.cells(room)) this.taken.add(cell);
  }

  private cells({ x, y, width, height }: Rect): number[] {
    const found: number[] = [];
    for (let row = Math.floor(y / CELL); row <= Math.floor((y + height - 1) / CELL); row++) {
      for (let column = Math.floor(x / CELL); column <= Math.floor((x + width - 1) / CELL); column++) {
        found.push(row * 65536 + column);
      }
    }
    return found;
  }
}
