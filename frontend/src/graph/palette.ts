import { inkOn, ramp, type RampKind } from '../colour/ramp';

/** All colours of the graph view. */
export interface Palette {
  background: string;
  /** Open groups by depth. */
  container: readonly string[];
  containerEdge: string;
  heading: string;
  edge: string;
  /** Boxes without a value. */
  hollow: string;
  hollowEdge: string;
  hollowInk: string;
  boxEdge: string;
  outsideInk: string;
  portal: string;
  portalEdge: string;
  portalInk: string;
  selection: string;
  hover: string;
  match: string;
  incoming: string;
  outgoing: string;
  ramp: readonly string[];
  ink: readonly string[];
}

type Palettes = Readonly<Record<RampKind, Palette>>;

function withRamps(dark: boolean, colours: Omit<Palette, 'ramp' | 'ink'>): Palettes {
  const withRamp = (kind: RampKind): Palette => ({
    ...colours,
    ramp: ramp(kind, dark),
    ink: ramp(kind, dark).map(inkOn),
  });
  return { quality: withRamp('quality'), amount: withRamp('amount') };
}

export const LIGHT_PALETTES = withRamps(false, {
  background: '#f7f8fa',
  container: ['#eef1f5', '#e5eaf0', '#dce3eb', '#d3dbe5'],
  containerEdge: '#b9c4d1',
  heading: '#2b3948',
  edge: '#8e9bab',
  hollow: '#ffffff',
  hollowEdge: '#97a3b2',
  hollowInk: '#46535f',
  boxEdge: '#00000038',
  outsideInk: '#33404d',
  portal: '#eaf1fb',
  portalEdge: '#8fb0e2',
  portalInk: '#234a86',
  selection: '#0b5cd5',
  hover: '#4d6580',
  match: '#b07a00',
  incoming: '#0b7f58',
  outgoing: '#b3530f',
});

export const DARK_PALETTES = withRamps(true, {
  background: '#12161b',
  container: ['#191e25', '#20262f', '#272f39', '#2e3743'],
  containerEdge: '#414c5a',
  heading: '#cfd8e3',
  edge: '#66727f',
  hollow: '#12161b',
  hollowEdge: '#5b6775',
  hollowInk: '#a9b4c1',
  boxEdge: '#ffffff2e',
  outsideInk: '#c3cdd8',
  portal: '#233149',
  portalEdge: '#5b7bb0',
  portalInk: '#bcd2f5',
  selection: '#7db5ff',
  hover: '#9fb4cc',
  match: '#ffd54a',
  incoming: '#4fd1a5',
  outgoing: '#f0a35e',
});

export const paletteOf = (kind: RampKind, dark: boolean): Palette => (dark ? DARK_PALETTES : LIGHT_PALETTES)[kind];
