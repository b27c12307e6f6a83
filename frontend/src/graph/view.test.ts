import { describe, expect, test } from 'vitest';
import { between, fitting, opening, panned, READABLE_ZOOM, toWorld, visibleRect, zoomed } from './camera';
import { actionOfKey } from './keyboard';
import { GraphModel } from './model';
import { initiallyOpen, opensWith } from './opening';
import { OutsideLabels } from './outside-labels';
import { GraphValues } from './values';

const view = { width: 800, height: 600 };

describe('the camera', () => {
  test('keeps the point under the pointer when it zooms', () => {
    const camera = { x: 10, y: 20, zoom: 0.5 };
    const at = { x: 300, y: 200 };
    const after = zoomed(camera, 1.7, at);
    expect(toWorld(after, at).x).toBeCloseTo(toWorld(camera, at).x);
    expect(toWorld(after, at).y).toBeCloseTo(toWorld(camera, at).y);
  });

  test('pans by pixels of the screen', () => {
    expect(panned({ x: 0, y: 0, zoom: 0.5 }, 10, -20)).toEqual({ x: 20, y: -40, zoom: 0.5 });
  });

  test('fits all of a graph, however tall', () => {
    const seen = visibleRect(fitting({ width: 300, height: 90000 }, view), view);
    expect(seen.y).toBeLessThan(0);
    expect(seen.y + seen.height).toBeGreaterThan(90000);
  });

  test('opens a tall graph at its top, readable', () => {
    const camera = opening({ width: 300, height: 90000 }, view);
    expect(camera.zoom).toBeGreaterThanOrEqual(READABLE_ZOOM);
    expect(camera.y).toBeLessThan(0);
  });

  test('ends where it was sent', () => {
    const to = { x: 500, y: 900, zoom: 1 };
    const end = between({ x: 0, y: 0, zoom: 0.1 }, to, 1, view);
    expect(end.x).toBeCloseTo(to.x);
    expect(end.zoom).toBeCloseTo(to.zoom);
  });
});

/** in → [g0: a → b] → out */
const model = new GraphModel({
  grouping: 'scopes',
  ops: ['Conv'],
  nodes: { name: ['in', 'a', 'b', 'out'], label: ['in', 'a', 'b', 'out'], op: [0, 0, 0, 0], group: [-1, 0, 0, -1] },
  groups: { name: ['g0'], parent: [-1] },
  edges: { src: [0, 1, 2], dst: [1, 2, 3], tensor: ['x', 'y', 'z'] },
});
const closed = (id: number): boolean => [0, -1, 3].includes(id);

describe('keys', () => {
  const press = (key: string, selected: number | null, shown = closed, shift = false) =>
    actionOfKey(key, shift, model, selected, shown);

  test('follow the data, to the group where it is closed and to the op where it is open', () => {
    expect(press('ArrowDown', 0)).toEqual({ kind: 'select', id: -1 });
    expect(press('ArrowDown', 0, () => true)).toEqual({ kind: 'select', id: 1 });
    expect(press('ArrowDown', -1)).toEqual({ kind: 'select', id: 3 });
    expect(press('ArrowUp', 3)).toEqual({ kind: 'select', id: -1 });
    expect(press('ArrowUp', 0)).toBeNull();
  });

  test('walk along siblings and around', () => {
    expect(press('ArrowRight', 0)).toEqual({ kind: 'select', id: -1 });
    expect(press('ArrowLeft', 0)).toEqual({ kind: 'select', id: 3 });
  });

  test('open groups, leave them, move and zoom', () => {
    expect(press('Enter', -1)).toEqual({ kind: 'toggle', group: 0 });
    expect(press('Enter', 0)).toBeNull();
    expect(press('Escape', 1)).toEqual({ kind: 'select', id: -1 });
    expect(press('Escape', 0)).toEqual({ kind: 'select', id: null });
    expect(press('ArrowUp', null, closed, true)).toMatchObject({ kind: 'pan', dx: 0 });
    expect(press('+', null)).toMatchObject({ kind: 'zoom' });
    expect(press('0', null)).toEqual({ kind: 'fit' });
    expect(press('x', null)).toBeNull();
  });
});

test('a model of one group opens it at first, and a group opens what is alone in it', () => {
  const nested = new GraphModel({
    ...model.columns,
    nodes: { ...model.columns.nodes, group: [2, 2, 2, 2] },
    groups: { name: ['a', 'b', 'c'], parent: [-1, 0, 1] },
  });
  expect(opensWith(nested, 0)).toEqual([0, 1, 2]);
  expect(initiallyOpen(nested)).toEqual(new Set([0, 1, 2]));
});

test('a group has the colour of its worst ops and says the worst of all', () => {
  const values = new GraphValues(
    model,
    Float64Array.from([NaN, 30, 10, 40]),
    { worst: 0, best: 40, log: false },
    'high',
    String,
  );
  expect(values.words(0)).toBe('worst 10');
  expect(values.of(-1)).toBe(10);
  expect(values.step(0)).toBe(-1);
  expect(values.step(3)).toBeGreaterThan(values.step(2));
  expect(values.strip(0)).toHaveLength(2);
});

test('labels stand inside boxes, beside them, or nowhere, and never over another', () => {
  const camera = { x: 0, y: 0, zoom: 0.2 };
  const boxes = [
    { x: 0, y: 0, width: 600, height: 100 },
    { x: 0, y: 200, width: 60, height: 50 },
    { x: 100, y: 200, width: 60, height: 50 },
    { x: 0, y: 400, width: 60, height: 10 },
  ];
  const labels = new OutsideLabels(camera, boxes);
  expect(labels.place(0, 'layer 1')).toMatchObject({ inside: true, text: 'layer 1' });
  expect(labels.place(2, 'layer 3')).toMatchObject({ inside: false });
  expect(labels.place(1, 'layer 2 with a long name')).not.toMatchObject({ inside: false, x: 60 + 6 / 0.2 });
  expect(labels.place(3, 'too low')).toBeNull();
});
