import { LayoutEngine } from './layout';
import type { OpenLayoutThread } from './thread';

/** Layouts on the page's own thread: a page opened from disk may not start a worker. */
export const openLayoutThread: OpenLayoutThread = (model, widths) => {
  const engine = new LayoutEngine(model, widths);
  return { layout: (open) => Promise.resolve(engine.layout(open)), stop: () => undefined };
};
