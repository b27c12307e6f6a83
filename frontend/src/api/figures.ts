import type { Counts, Figure } from './types';

/** A figure as a number: NaN where there is none. */
export function toNumber(figure: Figure | undefined): number {
  if (figure === null || figure === undefined) return NaN;
  if (typeof figure === 'number') return figure;
  return figure === 'Infinity' ? Infinity : -Infinity;
}

export const toNumbers = (figures: readonly Figure[]): Float64Array => Float64Array.from(figures, toNumber);

/** A table of whole numbers, row after row. */
export interface CountTable {
  rows: number;
  columns: number;
  values: Float64Array;
}

/** The bytes that were deflated (zlib) and written in base64. */
export async function inflate(base64: string): Promise<ArrayBuffer> {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
}

/** Unpack counts: deflated little-endian numbers. */
export async function unpackCounts({ shape, bytes_per_number: bytes, data }: Counts): Promise<CountTable> {
  const view = new DataView(await inflate(data));
  const [rows, columns] = shape;
  if (view.byteLength !== rows * columns * bytes) {
    throw new Error(`${view.byteLength} bytes of counts for ${rows} × ${columns} numbers of ${bytes} bytes`);
  }
  const read = (at: number): number => {
    if (bytes === 1) return view.getUint8(at);
    if (bytes === 2) return view.getUint16(at, true);
    if (bytes === 4) return view.getUint32(at, true);
    return Number(view.getBigUint64(at, true));
  };
  return { rows, columns, values: Float64Array.from({ length: rows * columns }, (_, i) => read(i * bytes)) };
}
