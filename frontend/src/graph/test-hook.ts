import type { Rect } from './camera';
import type { GraphModel } from './model';
import type { GraphSurface } from './surface';

/** What tests ask of the graph, whose boxes are no elements of the page. */
export interface TestHook {
  /** Where an op or a group (by its number, as "#3") is in the window; null while a closed group hides it. */
  boxOf(name: string): Rect | null;
}

declare global {
  interface Window {
    quantscope?: TestHook;
  }
}

/** Offer the hook as window.quantscope; returns how to take it away. */
export function exposeSurface(surface: () => GraphSurface | null, model: GraphModel): () => void {
  window.quantscope = {
    boxOf(name) {
      const id = name.startsWith('#') ? -1 - Number(name.slice(1)) : model.indexOf.get(name);
      return id === undefined ? null : (surface()?.boxInWindow(id) ?? null);
    },
  };
  return () => {
    delete window.quantscope;
  };
}
