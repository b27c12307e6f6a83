import type { CountTable } from '../api/figures';
import { toNumbers } from '../api/figures';
import type { Channels, Side } from '../api/types';

export const CHANNEL_ORDERS = ['range', 'error', 'index'] as const;
export type ChannelOrder = (typeof CHANNEL_ORDERS)[number];

/** The figures of all channels of one tensor, in typed arrays. */
export interface ChannelData {
  count: number;
  bins: number;
  first: number;
  width: number;
  /** How often values fall into each bin; a page made small may lack those of the quantized tensor. */
  counts: { reference: CountTable; quantized: CountTable | null };
  minimum: Record<Side, Float64Array>;
  maximum: Record<Side, Float64Array>;
  mean: Record<Side, Float64Array>;
  std: Record<Side, Float64Array>;
  mse: Float64Array;
  sqnrDb: Float64Array;
}

export function channelData(channels: Channels, reference: CountTable, quantized: CountTable | null): ChannelData {
  return {
    count: reference.rows,
    bins: reference.columns,
    first: channels.first,
    width: channels.width,
    counts: { reference, quantized },
    minimum: { reference: toNumbers(channels.minimum), quantized: toNumbers(channels.quantized_minimum) },
    maximum: { reference: toNumbers(channels.maximum), quantized: toNumbers(channels.quantized_maximum) },
    mean: { reference: toNumbers(channels.mean), quantized: toNumbers(channels.quantized_mean) },
    std: { reference: toNumbers(channels.std), quantized: toNumbers(channels.quantized_std) },
    mse: toNumbers(channels.mse),
    sqnrDb: toNumbers(channels.sqnr_db),
  };
}

/** The channels in an order: the widest range, the lowest SQNR or the smallest index first; those without one last. */
export function orderChannels(data: ChannelData, order: ChannelOrder): Int32Array {
  const channels = Int32Array.from({ length: data.count }, (_, channel) => channel);
  if (order === 'index') return channels;
  const key =
    order === 'range'
      ? (c: number): number => data.minimum.reference[c] - data.maximum.reference[c]
      : (c: number): number => data.sqnrDb[c];
  const keyed = Float64Array.from(channels, (c) => (Number.isNaN(key(c)) ? Infinity : key(c)));
  return channels.sort((a, b) => (keyed[a] === keyed[b] ? a - b : keyed[a] < keyed[b] ? -1 : 1));
}
