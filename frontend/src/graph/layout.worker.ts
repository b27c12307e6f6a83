import { buffersOf, LayoutEngine } from './layout';
import { GraphModel } from './model';
import type { FromWorker, ToWorker } from './thread';

let engine: LayoutEngine | null = null;

const send = (message: FromWorker, buffers: Transferable[] = []): void =>
  self.postMessage(message, { transfer: buffers });

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === 'graph') {
    engine = new LayoutEngine(new GraphModel(data.columns), data.widths);
    return;
  }
  try {
    const layout = engine!.layout(new Set(data.open));
    send({ request: data.request, layout }, buffersOf(layout));
  } catch (error) {
    send({ request: data.request, error: String(error) });
  }
};
