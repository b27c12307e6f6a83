import { useSyncExternalStore } from 'react';

/** How many of the page's pixels one pixel of a design for usual screens takes: 1, more on very wide screens. */
export function rootScale(): number {
  return parseFloat(getComputedStyle(document.documentElement).fontSize) / 16 || 1;
}

const subscribe = (onChange: () => void): (() => void) => {
  window.addEventListener('resize', onChange);
  return () => window.removeEventListener('resize', onChange);
};

export const useRootScale = (): number => useSyncExternalStore(subscribe, rootScale);

/** A length in pixels of a usual screen, as CSS has it. */
export const rem = (pixels: number): string => `${pixels / 16}rem`;
