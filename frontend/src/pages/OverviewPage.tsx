import { useMemo } from 'react';
import { toNumber } from '../api/figures';
import { useEffectsOf, useGraph, useProfile, useRows, useRun } from '../api/queries';
import type { RowTable } from '../api/rows';
import type { RunDocument } from '../api/types';
import { Card, Cards, Facts } from '../app/Card';
import { CopyButton } from '../app/CopyButton';
import { Answer } from '../app/Notice';
import { formatRoute, go } from '../app/route';
import {
  alignedText,
  bytesText,
  countText,
  decibelText,
  durationText,
  fileName,
  numberText,
  percentText,
} from '../app/text';
import { DepthMap } from '../charts/DepthMap';
import { effectsOf, nounOf, shownInGraph } from '../effects/effects';
import { valuesOf } from '../graph/graph-values';
import type { GraphModel } from '../graph/model';
import { metricOf } from '../metrics/metrics';
import { LongestOps } from '../profile/LongestOps';
import { ModelsCard } from '../profile/ModelsCard';
import type { ProfileTable } from '../profile/profile-table';
import { SpeedSummary } from '../profile/SpeedSummary';
import { TypeBars } from '../profile/TypeBars';
import { AccuracyCard } from './AccuracyCard';
import { ErrorOrigins } from './ErrorOrigins';
import classes from './OverviewPage.module.css';
import { firstPage } from './run-pages';
import { RunEnding } from './RunEnding';
import type { RunPageProps } from './RunPage';

const SHOWN_TYPES = 5;
const SHOWN_SOURCES = 4;
const SHOWN_EFFECTS = 8;

/** A run at a glance: what was lost, where it broke, and whether the figures can be trusted. */
export function OverviewPage({ run }: RunPageProps) {
  const found = useRun(run.name);
  return (
    <Answer of={found} what="the run">
      {(document) => <Overview run={document} />}
    </Answer>
  );
}

/** With so many cards above each other, the column is as high as two rows beside it. */
const TALL = 3;

function Overview({ run }: { run: RunDocument }) {
  const name = run.summary.name;
  const rows = useRows(name);
  const graph = useGraph(name, 'reference');
  const timing = useProfile(run.summary).data;
  const { kind } = run.summary;
  const diagnosis = kind === 'diagnose';
  const glance = [
    ...run.accuracy.map((accuracy) => <AccuracyCard key={accuracy.metric} accuracy={accuracy} />),
    ...(timing ? [<SpeedSummary key="speed" run={name} table={timing} />] : []),
    ...(diagnosis ? [<Breaks key="breaks" run={run} />] : []),
  ];
  return (
    <div className={classes.page}>
      <RunEnding run={run.summary} />
      <Cards>
        {glance.length > 0 && (
          <div className={classes.column} data-tall={glance.length >= TALL}>
            {glance}
          </div>
        )}
        {kind !== 'diagnose' && kind !== 'profile' && <Found run={run.summary} />}
        {kind === 'profile' && (timing ? <Times run={name} table={timing} /> : <Untimed run={run.summary} />)}
        {diagnosis && (
          <Answer of={rows} what="the compared tensors">
            {(table) => <ErrorOrigins run={name} table={table} />}
          </Answer>
        )}
        {diagnosis && rows.data && graph.data && <Depth run={name} table={rows.data} model={graph.data} />}
        {diagnosis && <Coverage run={run} />}
        <Origin run={run} />
        {run.stages.length > 0 && <Stages run={run} />}
        <Notes run={run} />
      </Cards>
    </div>
  );
}

/** What takes the time, of a run that is about nothing else. */
function Times({ run, table }: { run: string; table: ProfileTable }) {
  return (
    <>
      <LongestOps run={run} table={table} />
      <ModelsCard profile={table.profile} />
      <section className={classes.depth} aria-label="Time by type of op">
        <TypeBars table={table} fileName={`${run}-types`} />
      </section>
    </>
  );
}

function Untimed({ run }: { run: RunDocument['summary'] }) {
  return (
    <Card title="Speed" testId="untimed">
      <p className={classes.soft}>
        {run.has_profile
          ? 'Loading the times…'
          : run.status === 'running'
            ? 'Both models are being timed: their latency and the time of each op appear here.'
            : 'Nothing was measured.'}
      </p>
    </Card>
  );
}

/** What a run found that compared no tensors, and the way there. */
function Found({ run }: { run: RunDocument['summary'] }) {
  const found = useEffectsOf(run);
  const effects = found ? effectsOf(found).slice(0, SHOWN_EFFECTS) : [];
  const text = alignedText(Math.max(...effects.map(({ alone }) => alone)));
  const graph = useGraph(run.name, 'reference').data;
  const view = firstPage(run);
  return (
    <Card
      title={found ? 'What does most damage to the output alone' : 'What this run found'}
      testId="found-effects"
      aside={
        <a href={formatRoute({ page: 'run', run: run.name, view, state: {} })}>
          {view === 'trials' ? 'all trials' : `all ${found?.rows.length ?? ''}`}
        </a>
      }
    >
      {found ? (
        <table className={classes.table}>
          <thead>
            <tr>
              <th>{nounOf(found) === 'op' ? 'Op' : 'Module'}</th>
              <th className={classes.number}>Place</th>
              <th className={classes.number}>{found.damage_name}</th>
            </tr>
          </thead>
          <tbody>
            {effects.map((effect) => (
              <tr key={effect.name}>
                <td>
                  <a
                    href={formatRoute({
                      page: 'run',
                      run: run.name,
                      view: 'graph',
                      state: shownInGraph(effect, graph),
                    })}
                  >
                    {effect.name}
                  </a>
                </td>
                <td className={classes.number}>{effect.place}</td>
                <td className={classes.number}>{text(effect.alone)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p className={classes.soft}>
          {run.kind === 'tune'
            ? 'A search for the recipe that keeps the accuracy: its trials have a page of their own.'
            : 'Nothing has been measured yet.'}
        </p>
      )}
    </Card>
  );
}

/** Where the error begins: ops whose output is broken though their inputs are not. */
function Breaks({ run }: { run: RunDocument }) {
  const link = (op: string): string =>
    formatRoute({ page: 'run', run: run.summary.name, view: 'graph', state: { op } });
  return (
    <Card title="Where it breaks" testId="failure-sources">
      {run.first_not_finite && (
        <p className={classes.alarm}>
          The first output that is not finite is that of <a href={link(run.first_not_finite)}>{run.first_not_finite}</a>
          .
        </p>
      )}
      {run.failure_sources.length ? (
        <ol className={classes.sources}>
          {run.failure_sources.slice(0, SHOWN_SOURCES).map((source) => (
            <li key={source.row}>
              <a href={link(source.op)}>{source.op}</a>
              <span>
                signal to noise {decibelText(toNumber(source.inputs_db))} dB before it,{' '}
                <strong>{decibelText(toNumber(source.sqnr_db))} dB</strong> behind it
              </span>
            </li>
          ))}
          {run.failure_sources.length > SHOWN_SOURCES && (
            <li>and {countText(run.failure_sources.length - SHOWN_SOURCES, 'more op')}</li>
          )}
        </ol>
      ) : (
        <p className={classes.soft}>
          {run.summary.rows
            ? 'No single op breaks the signal: the error grows little by little.'
            : 'Nothing has been compared yet.'}
        </p>
      )}
    </Card>
  );
}

function Coverage({ run }: { run: RunDocument }) {
  const skipped = Object.entries(run.skipped);
  const reasons = useMemo(() => byReason(run.skipped), [run.skipped]);
  return (
    <Card
      title="Compared ops"
      testId="coverage"
      aside={<strong>{percentText(toNumber(run.coverage))} of the ops that compute</strong>}
    >
      <table className={classes.table}>
        <thead>
          <tr>
            <th>Op type</th>
            <th className={classes.number}>Total</th>
            <th className={classes.number}>Quantized</th>
            <th className={classes.number}>Float</th>
          </tr>
        </thead>
        <tbody>
          {run.op_types.slice(0, SHOWN_TYPES).map(({ op_type: type, total, quantized, in_float: inFloat }) => (
            <tr key={type}>
              <td>{type}</td>
              <td className={classes.number}>{total}</td>
              <td className={classes.number}>{quantized}</td>
              <td className={classes.number}>{inFloat}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {run.op_types.length > SHOWN_TYPES && (
        <p className={classes.soft}>
          and{' '}
          {run.op_types
            .slice(SHOWN_TYPES)
            .map(({ op_type: type, total }) => `${total} ${type}`)
            .join(', ')}
        </p>
      )}
      {skipped.length > 0 && (
        <details className={classes.more}>
          <summary>{countText(skipped.length, 'op')} not compared</summary>
          <ul>
            {reasons.map(([reason, ops]) => (
              <li key={reason}>
                {reason}: {ops.slice(0, 6).join(', ')}
                {ops.length > 6 && ` and ${ops.length - 6} more`}
              </li>
            ))}
          </ul>
        </details>
      )}
    </Card>
  );
}

function byReason(skipped: Readonly<Record<string, string>>): [string, string[]][] {
  const found = new Map<string, string[]>();
  for (const [op, reason] of Object.entries(skipped)) found.set(reason, [...(found.get(reason) ?? []), op]);
  return [...found].sort((a, b) => b[1].length - a[1].length);
}

function Depth({ run, table, model }: { run: string; table: RowTable; model: GraphModel }) {
  const values = useMemo(() => valuesOf(model, table, metricOf('sqnr_db'), 'activation', 'reference'), [model, table]);
  return (
    <section className={classes.depth} aria-label="Depth map">
      <DepthMap
        title="Signal to noise (SQNR) through the model"
        model={model}
        values={values}
        fileName={`${run}-depth`}
        onPick={(node) => go({ page: 'run', run, view: 'graph', state: { op: model.nameOf(node) } })}
      />
    </section>
  );
}

function Stages({ run }: { run: RunDocument }) {
  const longest = Math.max(...run.stages.map(({ seconds }) => seconds), 0.001);
  return (
    <Card title="Time taken" testId="stages">
      <table className={classes.table}>
        <tbody>
          {run.stages.map(({ name, done, total, finished, seconds }) => (
            <tr key={name}>
              <td>{name}</td>
              <td className={classes.number}>
                {done > 0 && done.toLocaleString('en')}
                {total !== null && total !== done && ` of ${total.toLocaleString('en')}`}
              </td>
              <td className={classes.bar}>
                <span style={{ width: `${(100 * seconds) / longest}%` }} />
              </td>
              <td className={classes.number}>{finished ? durationText(seconds) : '…'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}

function Notes({ run }: { run: RunDocument }) {
  if (!run.notes.length) return null;
  return (
    <Card title="Notes" testId="notes">
      <ul className={classes.notes}>
        {run.notes.map((note) => (
          <li key={note}>{note}</li>
        ))}
      </ul>
    </Card>
  );
}

const SAMPLES: Readonly<Record<string, string>> = {
  description: 'Samples',
  calibration: 'to calibrate',
  evaluation: 'to compare',
};

const TRACES: Readonly<Record<RunDocument['trace'], string>> = {
  deployed: 'the kernels that really run',
  simulated: 'quantization simulated in float',
  both: 'the kernels that really run, and quantization simulated in float',
};

/** Which of the quantized models was looked at, and what looking did to it. */
function traceText(trace: RunDocument['trace'], changed: number): string {
  if (Number.isNaN(changed)) return TRACES[trace];
  const effect = changed === 0 ? 'left its outputs as they are' : `changed its outputs by up to ${numberText(changed)}`;
  return `${TRACES[trace]}; measuring ${effect}`;
}

function Origin({ run }: { run: RunDocument }) {
  const { reference, quantized, samples, environment, trace } = run;
  const model = ({ path, bytes }: RunDocument['reference']) =>
    path ? (
      <span title={path}>
        {fileName(path)}, {bytesText(bytes)} <CopyButton text={path} label="Copy path" />
      </span>
    ) : (
      'not kept'
    );
  const compared = run.summary.kind === 'diagnose';
  return (
    <Card
      title="Where the figures come from"
      testId="origin"
      aside={<CopyButton text={run.command} label="Copy command" testId="copy-command" />}
    >
      <Facts
        facts={[
          ['Reference', model(reference)],
          ...(quantized.path || compared ? [['Quantized', model(quantized)] as const] : []),
          ['Mode', run.summary.mode],
          ...(compared ? [['Measured on', traceText(trace, toNumber(run.measuring_changed))] as const] : []),
          ...Object.entries(samples).map(([name, value]) => [SAMPLES[name] ?? name, String(value)] as const),
        ]}
      />
      <details className={classes.more}>
        <summary>Environment</summary>
        <Facts facts={Object.entries(environment)} />
      </details>
      {run.recipe_toml && (
        <details className={classes.more}>
          <summary>Recipe</summary>
          <pre tabIndex={0} aria-label="Recipe">
            {run.recipe_toml}
          </pre>
          <CopyButton text={run.recipe_toml} label="Copy recipe" />
        </details>
      )}
    </Card>
  );
}
