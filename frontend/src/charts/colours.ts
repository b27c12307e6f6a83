/** The colours of charts; reference and quantized are blue and orange in both themes, told apart with any eyes. */
export interface ChartColours {
  background: string;
  ink: string;
  soft: string;
  grid: string;
  reference: string;
  quantized: string;
  limit: string;
  clipped: string;
  cursor: string;
  /** Parts of an error budget, in their order. */
  parts: readonly string[];
  /** Kinds of things side by side, the first the most important; the last is for all others. */
  types: readonly string[];
}

export const LIGHT_CHART: ChartColours = {
  background: '#ffffff',
  ink: '#1d2733',
  soft: '#56636f',
  grid: '#e3e8ee',
  reference: '#2166ac',
  quantized: '#c2571a',
  limit: '#6b3fa0',
  clipped: '#d5402b',
  cursor: '#1d2733',
  parts: ['#8a97a6', '#2166ac', '#1a9a8a', '#d5402b', '#e59a2f', '#c9ced6'],
  types: ['#2166ac', '#e08a1e', '#1a9a8a', '#b03a8c', '#7a5cc2', '#8a5a2b', '#5aa9e6', '#9bbb2f', '#98a3af'],
};

export const DARK_CHART: ChartColours = {
  background: '#181d24',
  ink: '#e6ebf1',
  soft: '#a3afbc',
  grid: '#2b333e',
  reference: '#6cb0f2',
  quantized: '#f0a35e',
  limit: '#c5a3f5',
  clipped: '#ff6a52',
  cursor: '#e6ebf1',
  parts: ['#8a97a6', '#4f9bea', '#3fbfae', '#ff6a52', '#f0b24e', '#515d6b'],
  types: ['#4f9bea', '#f0a35e', '#3fbfae', '#e684be', '#b39af0', '#c99a68', '#9ccdf7', '#c2d957', '#6b7785'],
};

/** From few to many: dark on light, light on dark, both even to the eye and in grey. */
export const LIGHT_DENSITY = ['#ffffff', '#d6e6f4', '#93c3df', '#4a90c4', '#1c5d9c', '#08306b'];
export const DARK_DENSITY = ['#181d24', '#16395a', '#1f6a9c', '#45a1b8', '#a5d8a7', '#fbf5b0'];
