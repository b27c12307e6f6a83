import { SegmentedControl } from '@mantine/core';
import { useMemo, useState } from 'react';
import type { Histogram, Side } from '../api/types';
import { numberText } from '../app/text';
import { ActivationHistogram } from '../charts/ActivationHistogram';
import { type ChannelData, type ChannelOrder, orderChannels } from '../charts/channels';
import { ChannelHeatmap } from '../charts/ChannelHeatmap';
import { ChannelRidgeline } from '../charts/ChannelRidgeline';
import classes from './details.module.css';

const ORDERS: { value: ChannelOrder; label: string }[] = [
  { value: 'range', label: 'widest' },
  { value: 'error', label: 'worst' },
  { value: 'index', label: 'index' },
];

/** The channels of a tensor: a heat map of all, ridges of some, and one in full when it is chosen. */
export function ChannelViews({ data, fileName }: { data: ChannelData; fileName: string }) {
  const [view, setView] = useState('heatmap');
  const [by, setBy] = useState<ChannelOrder>('range');
  const [side, setSide] = useState<Side>('reference');
  const [picked, setPicked] = useState<number | null>(null);
  const order = useMemo(() => orderChannels(data, by), [data, by]);
  const channel = picked !== null && picked < data.count ? picked : null;
  return (
    <section data-testid="channels">
      <div className={classes.controls}>
        <SegmentedControl
          size="xs"
          aria-label="View of the channels"
          value={view}
          onChange={setView}
          data={[
            { value: 'heatmap', label: 'Heat map' },
            { value: 'ridgeline', label: 'Ridgeline' },
          ]}
        />
        <SegmentedControl
          size="xs"
          aria-label="Order of the channels"
          value={by}
          onChange={(order) => setBy(order as ChannelOrder)}
          data={ORDERS}
        />
        {view === 'heatmap' && data.counts.quantized && (
          <SegmentedControl
            size="xs"
            aria-label="Model"
            value={side}
            onChange={(value) => setSide(value as Side)}
            data={['reference', 'quantized']}
          />
        )}
      </div>
      {view === 'heatmap' ? (
        <ChannelHeatmap data={data} side={side} order={order} picked={channel} fileName={fileName} onPick={setPicked} />
      ) : (
        <ChannelRidgeline data={data} order={order} picked={channel} fileName={fileName} onPick={setPicked} />
      )}
      {channel !== null && (
        <div className={classes.chart}>
          <ActivationHistogram
            title={`Channel ${channel}, SQNR ${numberText(data.sqnrDb[channel], 3)} dB`}
            fileName={`${fileName}-${channel}`}
            histogram={histogramOf(data, channel)}
            range={null}
            step={NaN}
          />
        </div>
      )}
    </section>
  );
}

function histogramOf(data: ChannelData, channel: number): Histogram {
  const { first, width, bins, counts } = data;
  const of = (side: Side): number[] =>
    Array.from((counts[side] ?? counts.reference).values.subarray(channel * bins, (channel + 1) * bins));
  return { first, width, reference: of('reference'), quantized: of('quantized') };
}
