import { decibelText, numberText } from '../app/text';
import { csvNumber } from '../table/csv';
import type { ChannelData } from './channels';
import type { ChartTable } from './Chart';

/** What is known of one channel, in lines. */
export function channelLines(data: ChannelData, channel: number): string[] {
  const range = (side: 'reference' | 'quantized'): string =>
    `${numberText(data.minimum[side][channel], 3)} … ${numberText(data.maximum[side][channel], 3)}`;
  return [
    `SQNR ${decibelText(data.sqnrDb[channel])} dB · MSE ${numberText(data.mse[channel], 3)}`,
    `reference ${range('reference')}`,
    `quantized ${range('quantized')}`,
  ];
}

const SIDES = ['reference', 'quantized'] as const;

/** All channels in an order, with their figures. */
export function channelTable(data: ChannelData, order: Int32Array): ChartTable {
  const figures = (['minimum', 'maximum', 'mean', 'std'] as const).flatMap((figure) =>
    SIDES.map((side) => ({ title: `${side} ${figure}`, values: data[figure][side] })),
  );
  const columns = [{ title: 'SQNR dB', values: data.sqnrDb }, { title: 'MSE', values: data.mse }, ...figures];
  return {
    header: ['channel', ...columns.map(({ title }) => title)],
    rows: Array.from(order, (channel) => [String(channel), ...columns.map(({ values }) => csvNumber(values[channel]))]),
  };
}
