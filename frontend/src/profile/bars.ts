/** Measures that the charts of ops share, so that the same op stands at the same height in both. */
export const LINE = 32;
export const MARGIN = { right: 18, top: 46, bottom: 6 };
export const LABEL_PART = 0.34;
export const MOST_LABEL = 210;
export const LETTER_PIXELS = 6.2;
/** How pale the part of a bar is that the op alone does not need. */
export const ADDED_OPACITY = 0.42;
