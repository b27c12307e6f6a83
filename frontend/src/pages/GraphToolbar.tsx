import { Button, SegmentedControl, Select, Switch, TextInput } from '@mantine/core';
import { type RefObject, useState } from 'react';
import type { Role, RunSummary, Side } from '../api/types';
import type { RunState } from '../app/route';
import type { BoxId } from '../graph/ids';
import type { GraphSurface } from '../graph/surface';
import type { Metric } from '../metrics/metrics';
import classes from './GraphToolbar.module.css';

interface Props {
  run: RunSummary;
  side: Side;
  role: Role;
  /** What the graph can be coloured by. */
  metrics: readonly Metric[];
  metric: Metric;
  search: string;
  matches: readonly BoxId[];
  onlyBad: boolean;
  surface: RefObject<GraphSurface | null>;
  onSearch(text: string): void;
  onFound(id: BoxId): void;
  onOnlyBad(on: boolean): void;
  onState(change: RunState): void;
}

/** Which model, which tensors and which metric the graph shows, and ways to find an op. */
export function GraphToolbar(props: Props) {
  const { run, side, role, metrics, metric, search, matches, onlyBad, surface, onSearch, onFound, onOnlyBad, onState } =
    props;
  const [at, setAt] = useState(0);
  const step = (by: number): void => {
    if (!matches.length) return;
    const next = (at + by + matches.length) % matches.length;
    setAt(next);
    onFound(matches[next]);
  };
  return (
    <div className={classes.bar}>
      {run.kind !== 'sensitivity' && (
        <SegmentedControl
          size="xs"
          aria-label="Model"
          data-testid="side"
          value={side}
          onChange={(value) => onState({ side: value as Side })}
          data={[
            { value: 'reference', label: 'Reference' },
            { value: 'quantized', label: 'Quantized' },
          ]}
        />
      )}
      {run.kind === 'diagnose' && (
        <SegmentedControl
          size="xs"
          aria-label="Tensors"
          data-testid="role"
          value={role}
          onChange={(value) => onState({ role: value as Role })}
          data={[
            { value: 'activation', label: 'Activations' },
            { value: 'weight', label: 'Weights' },
            { value: 'bias', label: 'Biases' },
          ]}
        />
      )}
      {metrics.length > 1 && (
        <Select
          size="xs"
          w={160}
          aria-label="Colour by"
          data-testid="metric"
          data={metrics.map(({ id, title, unit }) => ({ value: id, label: unit ? `${title} (${unit})` : title }))}
          value={metric.id}
          allowDeselect={false}
          maxDropdownHeight={420}
          comboboxProps={{ transitionProps: { duration: 0 } }}
          onChange={(id) => id && onState({ metric: id })}
        />
      )}
      {run.kind === 'diagnose' && (
        <Switch
          size="xs"
          label="Only bad"
          title="Dims all ops that do not pass the table's filter"
          checked={onlyBad}
          data-testid="only-bad"
          onChange={(event) => onOnlyBad(event.currentTarget.checked)}
        />
      )}
      <span className={classes.gap} />
      <TextInput
        size="xs"
        w={220}
        type="search"
        placeholder="Find an op (Enter: next)"
        aria-label="Find an op"
        data-testid="search"
        value={search}
        onChange={(event) => {
          onSearch(event.currentTarget.value);
          setAt(-1);
        }}
        onKeyDown={(event) => {
          if (event.key === 'Enter') step(event.shiftKey ? -1 : 1);
          if (event.key === 'Escape') onSearch('');
        }}
      />
      {search.trim().length > 1 && (
        <span className={classes.found} role="status" data-testid="found">
          {matches.length ? `${Math.max(0, at) + (at < 0 ? 0 : 1)}/${matches.length.toLocaleString('en')}` : 'none'}
        </span>
      )}
      <Button.Group>
        <Button size="xs" variant="default" data-testid="fit" onClick={() => surface.current?.fit()}>
          Fit
        </Button>
        <Button size="xs" variant="default" data-testid="collapse-all" onClick={() => surface.current?.collapseAll()}>
          Collapse
        </Button>
        <Button size="xs" variant="default" data-testid="expand-all" onClick={() => surface.current?.expandAll()}>
          Expand all
        </Button>
      </Button.Group>
    </div>
  );
}
