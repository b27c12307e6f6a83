import { useCallback, useDeferredValue, useEffect, useMemo, useRef, useState } from 'react';
import type { RowTable } from '../api/rows';
import type { RunSummary, Sensitivities, Side } from '../api/types';
import { type RunState, useChangeState } from '../app/route';
import { rem } from '../app/root-scale';
import { Splitter, useSplit } from '../app/Splitter';
import { useDark } from '../app/use-dark';
import { GroupDetails } from '../details/GroupDetails';
import { OpDetails } from '../details/OpDetails';
import { type Effect, effectMetric, effectsOf, effectValues, nounOf, shownInGraph } from '../effects/effects';
import { EffectFacts } from '../effects/EffectFacts';
import { EffectTable } from '../effects/EffectTable';
import { valuesOf } from '../graph/graph-values';
import { GraphCanvas } from '../graph/GraphCanvas';
import { type BoxId, boxOfGroup, groupOfBox, isGroup } from '../graph/ids';
import { Legend } from '../graph/Legend';
import type { GraphModel } from '../graph/model';
import { Outline } from '../graph/Outline';
import { paletteOf } from '../graph/palette';
import type { GraphSurface } from '../graph/surface';
import { exposeSurface } from '../graph/test-hook';
import { badThreshold, type Metric, METRICS, rampOf } from '../metrics/metrics';
import { OpTimes } from '../profile/OpTimes';
import { type TimingMetric, timingMetrics, timingValues } from '../profile/profile-metrics';
import type { ProfileTable } from '../profile/profile-table';
import { TimingFacts } from '../profile/TimingFacts';
import { filterRows, isFiltering, NO_FILTER, type RowFilter } from '../table/filter';
import { ACTIVATION_COLUMNS, WEIGHT_COLUMNS } from '../table/op-columns';
import { OpTable } from '../table/OpTable';
import { GraphToolbar } from './GraphToolbar';
import classes from './GraphWorkbench.module.css';

interface Props {
  run: RunSummary;
  model: GraphModel;
  table: RowTable;
  /** What ops do to the output, where that was measured in place of tensors. */
  effects: Sensitivities | null;
  /** The time of ops, where that was measured. */
  timing: ProfileTable | null;
  side: Side;
  state: RunState;
}

/** One letter is in nearly every name. */
const SHORTEST_SEARCH = 2;

/** Outline, graph, table and details, with one selection for all of them, which the address holds. */
export function GraphWorkbench({ run, model, table, effects: measured, timing, side, state }: Props) {
  const change = useChangeState();
  const dark = useDark();
  const surface = useRef<GraphSurface | null>(null);
  const [open, setOpen] = useState<ReadonlySet<number>>(new Set());
  const [filter, setFilter] = useState<RowFilter>(NO_FILTER);
  const [onlyBad, setOnlyBad] = useState(false);
  const [search, setSearch] = useState('');
  const outline = useSplit('outline', 250, 140, 520);
  const details = useSplit('details', 400, 280, 900);
  const below = useSplit('table', 250, 80, 900);

  const role = state.role ?? 'activation';
  const comparesTensors = run.kind === 'diagnose';
  const effects = useMemo(() => (measured ? effectsOf(measured) : null), [measured]);
  const times = useMemo(() => (timing ? timingMetrics(timing) : []), [timing]);
  const metrics = useMemo(
    () => [
      ...(measured && effects ? [effectMetric(measured, effects)] : []),
      ...(comparesTensors || !(measured || timing) ? METRICS : []),
      ...times,
    ],
    [measured, effects, comparesTensors, timing, times],
  );
  const metric = metrics.find(({ id }) => id === state.metric) ?? metrics[0];
  const palette = paletteOf(rampOf(metric), dark);
  const nodeColumn = table.numbers(side === 'reference' ? 'node' : 'quantized_node');
  const values = useMemo(() => {
    if (timing && isTiming(metric))
      return timingValues(model, timing, metric, (op) => nodeOf(op, model, table, nodeColumn));
    return effects ? effectValues(model, metric, effects) : valuesOf(model, table, metric, role, side);
  }, [model, table, nodeColumn, timing, effects, metric, role, side]);

  const selected = selectedBox(state, model, table, nodeColumn);
  const ofRole = useMemo(() => table.ofRole(role), [table, role]);
  const types = useMemo(() => [...new Set(ofRole.map((row) => table.text('op_type', row)))].sort(), [table, ofRole]);
  const deferred = useDeferredValue(filter);
  const rows = useMemo(() => {
    const column = metric.values(table);
    return filterRows(ofRole, deferred, {
      text: (row) => `${table.text('op', row)} ${table.text('op_type', row)} ${table.text('tensor', row)}`,
      type: (row) => table.text('op_type', row),
      metric: (row) => column[row],
      better: metric.better,
    });
  }, [table, ofRole, deferred, metric]);

  const inSight = useRef(selected);
  const matches = useMemo(() => searched(model, search.trim().toLowerCase()), [model, search]);
  const bright = useMemo(() => {
    if (!onlyBad) return null;
    return withGroups(
      model,
      rows.map((row) => nodeColumn[row]).filter((node) => node >= 0),
    );
  }, [onlyBad, model, rows, nodeColumn]);

  const select = useCallback(
    (id: BoxId | null) => {
      inSight.current = id;
      if (id === null) change({ op: undefined, group: undefined, row: undefined });
      else if (isGroup(id)) change({ op: undefined, group: groupOfBox(id), row: undefined });
      else change({ op: model.nameOf(id), group: undefined, row: undefined });
    },
    [change, model],
  );
  const selectAndReveal = useCallback(
    (id: BoxId) => {
      select(id);
      surface.current?.reveal(id);
    },
    [select],
  );
  const selectRow = useCallback(
    (row: number) => {
      const node = nodeColumn[row];
      change({ op: node >= 0 ? model.nameOf(node) : table.text('op', row), group: undefined, row: table.index(row) });
      if (node >= 0) surface.current?.reveal(node);
    },
    [change, model, table, nodeColumn],
  );

  // Back, forward and a changed address select without a click in the page: then the box may be out of sight.
  useEffect(() => {
    if (selected !== null && selected !== inSight.current) surface.current?.reveal(selected);
    inSight.current = selected;
  }, [selected]);
  useEffect(() => exposeSurface(() => surface.current, model), [model]);

  const rowOfSelection = selectedRow(state, selected, model, table, role);
  const selectedEffect = useMemo(() => {
    if (!effects || selected === null) return null;
    const at = effects.findIndex((effect) => boxOfEffect(effect, model) === selected);
    return at < 0 ? null : at;
  }, [effects, selected, model]);
  const selectedTime = timing?.rowOf(state.op) ?? null;
  const hasTable = comparesTensors || effects || timing;
  const columns = role === 'activation' ? ACTIVATION_COLUMNS : WEIGHT_COLUMNS;
  return (
    <div className={classes.workbench}>
      <GraphToolbar
        run={run}
        side={side}
        role={role}
        metrics={hasTable ? metrics : []}
        metric={metric}
        search={search}
        matches={[...matches]}
        onlyBad={onlyBad}
        surface={surface}
        onSearch={setSearch}
        onFound={selectAndReveal}
        onOnlyBad={(on) => {
          setOnlyBad(on);
          if (on && !isFiltering(filter))
            setFilter({ ...NO_FILTER, threshold: badThreshold(metric, values.scale, metric.values(table), ofRole) });
        }}
        onState={(next) => change(next, 'replace')}
      />
      <div className={classes.panes}>
        <nav className={classes.pane} style={{ width: rem(outline.size) }} aria-label="Outline">
          <Outline
            model={model}
            values={values}
            palette={palette}
            open={open}
            selected={selected}
            onSelect={selectAndReveal}
            onToggle={(group) => surface.current?.toggle(group)}
          />
        </nav>
        <Splitter label="Width of the outline" direction="vertical" split={outline} sign={1} />
        <div className={classes.centre}>
          <div className={classes.graph}>
            <GraphCanvas
              surface={surface}
              model={model}
              values={values}
              palette={palette}
              selected={selected}
              matches={matches}
              bright={bright}
              onSelect={select}
              onOpen={setOpen}
            />
            {hasTable && <Legend metric={metric} values={values} palette={palette} />}
          </div>
          {hasTable && <Splitter label="Height of the table" direction="horizontal" split={below} sign={-1} />}
          {effects && measured && (
            <div style={{ height: rem(below.size), flex: '0 0 auto' }}>
              <EffectTable
                effects={effects}
                noun={nounOf(measured)}
                selected={selectedEffect}
                onSelect={(index) => {
                  const box = boxOfEffect(effects[index], model);
                  if (box !== null) selectAndReveal(box);
                }}
              />
            </div>
          )}
          {timing && !effects && !comparesTensors && (
            <div style={{ height: rem(below.size), flex: '0 0 auto' }}>
              <OpTimes
                table={timing}
                fileName={`${run.name}-profile`}
                charted={null}
                selected={selectedTime}
                onSelect={(row) => {
                  const node = nodeOf(timing.name(row), model, table, nodeColumn);
                  if (node !== undefined) selectAndReveal(node);
                  else change({ op: timing.name(row), group: undefined, row: undefined });
                }}
              />
            </div>
          )}
          {comparesTensors && (
            <div style={{ height: rem(below.size), flex: '0 0 auto' }}>
              <OpTable
                key={columns.length}
                label={`Ops by ${role}`}
                fileName={`${run.name}-${role}s`}
                testId="ops"
                table={table}
                rows={rows}
                all={ofRole.length}
                types={types}
                metric={metric}
                filter={filter}
                onFilter={setFilter}
                columns={columns}
                selected={rowOfSelection}
                onSelect={selectRow}
              />
            </div>
          )}
        </div>
        <Splitter label="Width of the details" direction="vertical" split={details} sign={-1} />
        <aside className={classes.pane} style={{ width: rem(details.size) }} aria-label="Details" tabIndex={0}>
          {effects && selectedEffect !== null && <EffectFacts effect={effects[selectedEffect]} metric={metrics[0]} />}
          {timing && selectedTime !== null && <TimingFacts table={timing} row={selectedTime} />}
          {selected !== null && !isGroup(selected) ? (
            <OpDetails
              key={selected}
              run={run.name}
              side={side}
              node={selected}
              table={table}
              row={rowOfSelection === null ? undefined : table.index(rowOfSelection)}
              onRow={(index) => change({ row: index }, 'replace')}
              onNode={selectAndReveal}
            />
          ) : (
            <GroupDetails
              model={model}
              values={values}
              palette={palette}
              group={selected === null ? -1 : groupOfBox(selected)}
              onNode={selectAndReveal}
            />
          )}
        </aside>
      </div>
    </div>
  );
}

const isTiming = (metric: Metric | TimingMetric): metric is TimingMetric => 'ofRow' in metric;

/** The box of an effect; null where the graph has none. */
function boxOfEffect(effect: Effect, model: GraphModel): BoxId | null {
  const { group, op = '' } = shownInGraph(effect, model);
  return group !== undefined ? boxOfGroup(group) : (model.indexOf.get(op) ?? null);
}

function selectedBox(state: RunState, model: GraphModel, table: RowTable, nodes: Float64Array): BoxId | null {
  if (state.group !== undefined && state.group < model.groupCount) return boxOfGroup(state.group);
  return state.op === undefined ? null : (nodeOf(state.op, model, table, nodes) ?? null);
}

/** The node of an op. In the other model it may have another name: then its rows say which node it is. */
function nodeOf(op: string, model: GraphModel, table: RowTable, nodes: Float64Array): number | undefined {
  const node = model.indexOf.get(op);
  if (node !== undefined) return node;
  const row = table.ofOp(op)[0];
  return row !== undefined && nodes[row] >= 0 ? nodes[row] : undefined;
}

/** The row of the table that belongs to the selection: the one that was chosen, else the op's first of this role. */
function selectedRow(
  state: RunState,
  selected: BoxId | null,
  model: GraphModel,
  table: RowTable,
  role: string,
): number | null {
  if (state.row !== undefined) return table.at(state.row) ?? null;
  if (selected === null || isGroup(selected)) return null;
  const rows = table.ofOp(state.op ?? model.nameOf(selected));
  return rows.find((row) => table.role(row) === role) ?? null;
}

function searched(model: GraphModel, text: string): Set<BoxId> {
  const found = new Set<BoxId>();
  if (text.length < SHORTEST_SEARCH) return found;
  for (let node = 0; node < model.nodeCount; node++) {
    if (model.nameOf(node).toLowerCase().includes(text) || model.opType(node).toLowerCase() === text) found.add(node);
  }
  return found;
}

function withGroups(model: GraphModel, nodes: readonly number[]): Set<BoxId> {
  const found = new Set<BoxId>(nodes);
  for (const node of nodes) for (const group of model.ancestorsOf(node)) found.add(boxOfGroup(group));
  return found;
}
