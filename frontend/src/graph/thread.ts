import type { Layout, BoxWidths } from './layout';
import type { GraphColumns, GraphModel } from './model';

/** Where layouts are computed. A newer request makes the answer to an older one void: its promise never settles. */
export interface LayoutThread {
  layout(open: ReadonlySet<number>): Promise<Layout>;
  stop(): void;
}

export type OpenLayoutThread = (model: GraphModel, widths: BoxWidths) => LayoutThread;

export type ToWorker =
  { kind: 'graph'; columns: GraphColumns; widths: BoxWidths } | { kind: 'layout'; request: number; open: Int32Array };

export type FromWorker = { request: number } & ({ layout: Layout } | { error: string });
