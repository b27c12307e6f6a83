import { useMemo, useState } from 'react';
import { toNumber } from '../api/figures';
import { useTrials } from '../api/queries';
import type { RunSummary, Trial, Trials } from '../api/types';
import { Card, Cards } from '../app/Card';
import { CopyButton } from '../app/CopyButton';
import { Answer, Notice } from '../app/Notice';
import { formatRoute } from '../app/route';
import { countText, durationText, fileName, percentText } from '../app/text';
import { Effects } from '../effects/Effects';
import { type Dot, Scatter } from '../charts/Scatter';
import type { Column } from '../table/column';
import { DataTable } from '../table/DataTable';
import { type Sort, sortRows } from '../table/order';
import { scoreText } from './accuracy';
import { RunEnding } from './RunEnding';
import type { RunPageProps } from './RunPage';
import { millisecondsText, speedText } from './speed';
import classes from './TrialsPage.module.css';

/** All shares, with room for dots at the ends. */
const PERCENT = [-3, 103] as const;

/** What a search tried: accuracy against time, or against the share of ops that stay quantized. */
export function TrialsPage({ run }: RunPageProps) {
  const trials = useTrials(run.name);
  return (
    <Answer of={trials} what="the trials">
      {(found) => (
        <div className={classes.page}>
          <RunEnding run={run} />
          {found.trials.length ? <Search run={run} search={found} /> : <Nothing run={run} search={found} />}
          <Measured run={run} search={found} />
        </div>
      )}
    </Answer>
  );
}

/** Before the first trial is through. */
function Nothing({ run, search }: { run: RunSummary; search: Trials }) {
  if (run.status !== 'running') return <Notice title="No trial was finished" />;
  return (
    <Notice title="The search begins">
      <p>
        Each trial is a recipe whose accuracy is measured on all samples, at most {search.most_trials} of them. They
        appear here as they finish.
      </p>
    </Notice>
  );
}

/** What ops do to the output: by it the search chooses those that it leaves in float. */
function Measured({ run, search: { sensitivities: found } }: { run: RunSummary; search: Trials }) {
  if (!found?.rows.length) return null;
  return (
    <details className={classes.effects}>
      <summary>
        Effect of {countText(found.rows.length, 'op')} on the output{!found.finished && ', measured so far'}
      </summary>
      <Effects run={run.name} found={found} />
    </details>
  );
}

/** The columns of a search that weighs time. */
const timesOf = (trials: readonly Trial[]): Column[] => [
  {
    id: 'ms',
    title: 'Inference',
    width: 100,
    number: (row) => trials[row].speed?.us ?? NaN,
    text: (row) => millisecondsText(trials[row].speed?.us ?? NaN),
  },
  {
    id: 'speedup',
    title: 'Speed-up, 95 %',
    width: 160,
    number: (row) => trials[row].speed?.speedup ?? NaN,
    text: (row) => {
      const { speed } = trials[row];
      return speed ? speedText(speed) : '';
    },
  },
];

function columnsOf({ trials, reference_us: timed }: Trials): Column[] {
  const metric = trials[0]?.accuracy.metric ?? '';
  return [
    { id: 'number', title: 'Trial', width: 70, number: (row) => row + 1, text: (row) => String(row + 1) },
    { id: 'change', title: 'Change', width: 260, grows: true, text: (row) => trials[row].change },
    {
      id: 'accuracy',
      title: metric || 'Accuracy',
      width: 130,
      number: (row) => toNumber(trials[row].accuracy.quantized),
      text: (row) => scoreText(metric, toNumber(trials[row].accuracy.quantized)),
    },
    ...(timed === null ? [] : timesOf(trials)),
    {
      id: 'share',
      title: 'Quantized ops',
      width: 150,
      number: (row) => trials[row].quantized_share,
      text: (row) => percentText(trials[row].quantized_share),
    },
    {
      id: 'float',
      title: 'Ops in float',
      width: 110,
      number: (row) => trials[row].fallback.length,
      text: (row) => String(trials[row].fallback.length),
    },
    {
      id: 'seconds',
      title: timed === null ? 'Time' : 'Trial took',
      width: 90,
      number: (row) => trials[row].seconds,
      text: (row) => durationText(trials[row].seconds),
    },
    {
      id: 'result',
      title: 'Result',
      width: timed === null ? 260 : 320,
      text: (row) => {
        const { best, meets, pareto, as_fast_as_best: equal } = trials[row];
        return [
          best ? 'best' : '',
          meets ? 'meets the allowed drop' : '',
          pareto && !best ? 'not beaten' : '',
          equal ? 'as fast as the best' : '',
        ]
          .filter(Boolean)
          .join(', ');
      },
    },
  ];
}

function Search({ run, search }: { run: RunPageProps['run']; search: Trials }) {
  const { trials } = search;
  const best = trials.findIndex((trial) => trial.best);
  const [picked, setPicked] = useState<number | null>(null);
  const selected = picked ?? (best >= 0 ? best : trials.length - 1);
  const [sort, setSort] = useState<Sort>({ column: 'number', descending: false });
  const columns = useMemo(() => columnsOf(search), [search]);
  const rows = useMemo(
    () =>
      sortRows(
        Array.from(trials.keys()),
        columns.find(({ id }) => id === sort.column),
        sort.descending,
      ),
    [trials, columns, sort],
  );
  const metric = trials[0]?.accuracy.metric ?? 'accuracy';
  const dots = useMemo<Dot[]>(
    () =>
      trials.map((trial, i) => ({
        ...(trial.speed
          ? { x: trial.speed.us / 1000, reach: [trial.speed.low_us / 1000, trial.speed.high_us / 1000] as const }
          : { x: 100 * trial.quantized_share }),
        y: toNumber(trial.accuracy.quantized),
        name: `${i + 1}: ${trial.change}`,
        lines: [
          `${metric} ${scoreText(metric, toNumber(trial.accuracy.quantized))}`,
          ...(trial.speed ? [`${millisecondsText(trial.speed.us)}, ${speedText(trial.speed)}`] : []),
          `${percentText(trial.quantized_share)} quantized`,
        ],
        strong: trial.pareto,
      })),
    [trials, metric],
  );
  const { reference_us: float } = search;
  const { label, ...axis } = useMemo(() => against(float), [float]);
  const level = allowedLevel(search);
  return (
    <>
      <Cards>
        <section className={classes.picture} aria-label={`Accuracy against ${label}`}>
          <Scatter
            title={verdict(search, run.status === 'running')}
            description={
              float === null
                ? 'Trials that no other beats in both are filled and joined.'
                : 'Trials that no other beats in both are filled and joined; times with their 95 % intervals.'
            }
            fileName={`${run.name}-trials`}
            testId="pareto"
            height={330}
            {...axis}
            yTitle={metric}
            dots={dots}
            selected={selected}
            level={level}
            onPick={setPicked}
          />
        </section>
        {trials[selected] && <Chosen search={search} index={selected} run={run.name} />}
      </Cards>
      <div className={classes.table}>
        <DataTable
          label="Trials"
          testId="trials"
          columns={columns}
          rows={rows}
          sort={sort}
          onSort={setSort}
          selected={selected}
          onSelect={setPicked}
          empty="No trial has finished yet."
        />
      </div>
    </>
  );
}

/** What accuracy is weighed against: time if it was measured. */
const against = (float: number | null) =>
  float === null
    ? { label: 'the share of ops that stay quantized', xTitle: 'ops that stay quantized, %', xRange: PERCENT }
    : {
        label: 'time',
        xTitle: 'time of an inference, ms',
        mark: { value: float / 1000, title: `float ${millisecondsText(float)}` },
      };

function verdict({ met, trials, most_trials: most }: Trials, goesOn: boolean): string {
  const count = `${countText(trials.length, 'trial')} of at most ${most}${goesOn ? ' so far' : ''}`;
  if (met === null) return count;
  return met ? `${count}: the allowed drop is met` : `${count}: none meets the allowed drop`;
}

/** The accuracy that must be kept. */
function allowedLevel({ trials, max_drop: drop, relative }: Trials): { value: number; title: string } | null {
  if (!trials.length) return null;
  const { metric, reference } = trials[0].accuracy;
  const float = toNumber(reference);
  const allowed = drop * (relative ? Math.abs(float) : 1);
  const value = metric === 'mse' ? float + allowed : float - allowed;
  return { value, title: `allowed: ${scoreText(metric, value)} (float ${scoreText(metric, float)})` };
}

function Chosen({ search, index, run }: { search: Trials; index: number; run: string }) {
  const trial = search.trials[index];
  return (
    <Card
      title={`Trial ${index + 1}: ${trial.change}`}
      testId="trial"
      aside={<CopyButton text={trial.recipe_toml} label="Copy recipe" />}
    >
      {trial.best && search.output && <p className={classes.soft}>Written as {fileName(search.output)}</p>}
      {trial.fallback.length > 0 && (
        <p className={classes.ops}>
          In float:{' '}
          {trial.fallback.map((op) => (
            <a key={op} href={formatRoute({ page: 'run', run, view: 'graph', state: { op } })}>
              {op}
            </a>
          ))}
        </p>
      )}
      <pre className={classes.recipe} tabIndex={0} aria-label="Recipe">
        {trial.recipe_toml}
      </pre>
    </Card>
  );
}
