import type { FromWorker, OpenLayoutThread, ToWorker } from './thread';

/** Layouts in a worker of their own, so that panning never waits for one. */
export const openLayoutThread: OpenLayoutThread = (model, widths) => {
  const worker = new Worker(new URL('./layout.worker.ts', import.meta.url), { type: 'module' });
  const send = (message: ToWorker): void => worker.postMessage(message);
  let request = 0;
  send({ kind: 'graph', columns: { ...model.columns, edges: { ...model.columns.edges, tensor: [] } }, widths });
  return {
    layout: (open) =>
      new Promise((resolve, reject) => {
        const asked = ++request;
        worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
          if (data.request !== request) return;
          if ('layout' in data) resolve(data.layout);
          else reject(new Error(data.error));
        };
        worker.onerror = (event) => reject(new Error(event.message || 'the layout worker did not start'));
        send({ kind: 'layout', request: asked, open: Int32Array.from(open) });
      }),
    stop: () => worker.terminate(),
  };
};
