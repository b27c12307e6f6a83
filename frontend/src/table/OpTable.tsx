import { NumberInput, Select } from '@mantine/core';
import { useMemo } from 'react';
import type { RowTable } from '../api/rows';
import { useDark } from '../app/use-dark';
import { type Metric, METRICS, OUTPUT_ERROR } from '../metrics/metrics';
import { opColumns } from './op-columns';
import { firstOrder } from './order';
import { TablePanel, type TablePanelProps } from './TablePanel';

interface Props extends Omit<TablePanelProps, 'known' | 'order' | 'empty' | 'children'> {
  table: RowTable;
  metric: Metric;
  /** Called with the metric that a threshold shall be for; without it the page chooses the metric elsewhere. */
  onMetric?: (id: string) => void;
}

/** A table of compared tensors, which can be asked for those that are bad by a metric. */
export function OpTable({ table, metric, onMetric, ...panel }: Props) {
  const { rows, filter, onFilter } = panel;
  const dark = useDark();
  const known = useMemo(() => opColumns(table, dark), [table, dark]);
  const order = useMemo(() => firstOrder(OUTPUT_ERROR.values(table), rows), [table, rows]);
  const bound = metric.better === 'high' ? '≤' : '≥';
  const factor = metric.percent ? 100 : 1;
  return (
    <TablePanel {...panel} known={known} order={order} empty="Nothing has been compared yet.">
      {onMetric && (
        <Select
          size="xs"
          w={146}
          aria-label="Metric of the threshold"
          data={METRICS.map(({ id, title }) => ({ value: id, label: title }))}
          value={metric.id}
          allowDeselect={false}
          onChange={(id) => id && onMetric(id)}
          comboboxProps={{ transitionProps: { duration: 0 } }}
        />
      )}
      <NumberInput
        size="xs"
        w={146}
        hideControls
        placeholder={`${bound} ${metric.title}`}
        prefix={`${bound} `}
        suffix={metric.percent ? ' %' : metric.unit && ` ${metric.unit}`}
        aria-label={`Only rows with ${metric.title} ${metric.better === 'high' ? 'at most' : 'at least'}`}
        data-testid="filter-threshold"
        value={filter.threshold === null ? '' : Number((filter.threshold * factor).toPrecision(6))}
        onChange={(value) => onFilter({ ...filter, threshold: typeof value === 'number' ? value / factor : null })}
      />
    </TablePanel>
  );
}
