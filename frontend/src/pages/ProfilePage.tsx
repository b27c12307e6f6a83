import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useProfile } from '../api/queries';
import { Card, Facts } from '../app/Card';
import { Answer, Notice } from '../app/Notice';
import { rem } from '../app/root-scale';
import { formatRoute, useChangeState } from '../app/route';
import { countText } from '../app/text';
import { Added } from '../profile/Added';
import { Kernels } from '../profile/Kernels';
import { ModelsCard } from '../profile/ModelsCard';
import { OpBars } from '../profile/OpBars';
import { OpTimes } from '../profile/OpTimes';
import type { ProfileTable } from '../profile/profile-table';
import { Reasons } from '../profile/Reasons';
import { SettingsCard } from '../profile/SettingsCard';
import { settingText, SpeedCard } from '../profile/SpeedCard';
import { SpeedupBars } from '../profile/SpeedupBars';
import { SumsCard } from '../profile/SumsCard';
import { chartedRows } from '../profile/times';
import { TypeBars } from '../profile/TypeBars';
import classes from './ProfilePage.module.css';
import { RunEnding } from './RunEnding';
import type { RunPageProps } from './RunPage';

/** A chart with more ops than this is no picture any more. */
const MOST_CHARTED = 40;

/** Where the time goes in both models, and why int8 is not faster. */
export function ProfilePage({ run, state }: RunPageProps) {
  const found = useProfile(run);
  if (!run.has_profile) {
    return run.status === 'running' ? (
      <Notice title="The measurement begins">
        <p>Both models run in turn, at each batch size and number of threads; then each op is timed.</p>
      </Notice>
    ) : (
      <div className={classes.page}>
        <RunEnding run={run} />
        <Notice title="Nothing was measured" />
      </div>
    );
  }
  return (
    <Answer of={found} what="the profile">
      {(table) => (
        <div className={classes.page}>
          <RunEnding run={run} />
          <Profile run={run} state={state} table={table} />
        </div>
      )}
    </Answer>
  );
}

function Profile({ run, state, table }: RunPageProps & { table: ProfileTable }) {
  const { profile } = table;
  const change = useChangeState();
  const [chosen, setChosen] = useState<ReadonlySet<number> | null>(null);
  const section = useRef<HTMLElement>(null);
  const selected = table.rowOf(state.op);
  const rows = useMemo(() => chartedRows(table, chosen), [table, chosen]);
  const shown = rows.slice(0, MOST_CHARTED);

  const charted = useMemo(() => {
    const on = new Set(rows);
    return {
      on: (row: number) => on.has(row),
      toggle: (row: number) => {
        const next = new Set(on);
        if (!next.delete(row)) next.add(row);
        setChosen(next);
      },
    };
  }, [rows]);
  const select = useCallback(
    (row: number) => change({ op: table.name(row), group: undefined, row: undefined }),
    [change, table],
  );
  const show = (op: string): void => {
    change({ op, group: undefined, row: undefined });
    bringIntoSight(section.current);
  };
  // An address with an op is about that op: its row and its kernels shall be in sight.
  const arrivedAt = useRef(selected);
  useEffect(() => {
    if (arrivedAt.current !== null) bringIntoSight(section.current);
  }, []);

  const { compared } = table;
  const which = chosen ? countText(rows.length, 'chosen op') : `The ${countText(rows.length, 'op')} that take longest`;
  return (
    <>
      <div className={classes.top} data-many={profile.latencies.length > 1}>
        {compared && <SpeedCard compared={compared} />}
        <ModelsCard profile={profile} />
        {profile.latencies.length > 1 && <SettingsCard profile={profile} />}
      </div>
      {(profile.quantized || profile.reasons.length > 0) && (
        <Reasons reasons={profile.reasons} rewritten={profile.rewritten} onOp={show} />
      )}
      <div className={classes.charts} data-two={!profile.quantized}>
        <section className={classes.picture} aria-label="Ops by time">
          <OpBars
            title={`${which}, per inference`}
            table={table}
            rows={shown}
            fileName={`${run.name}-ops`}
            selected={selected}
            onPick={select}
          />
          {rows.length > MOST_CHARTED && (
            <p className={classes.words}>
              The first {MOST_CHARTED} of {rows.length}; the table has all.
            </p>
          )}
        </section>
        {profile.quantized && (
          <section className={classes.picture} aria-label="Speed-up by op">
            <SpeedupBars
              title="Speed-up of the same ops"
              table={table}
              rows={shown}
              fileName={`${run.name}-speedup`}
              selected={selected}
              onPick={select}
            />
          </section>
        )}
        <section className={classes.picture} aria-label="Time by type of op">
          <TypeBars table={table} fileName={`${run.name}-types`} />
        </section>
      </div>
      <section ref={section} className={classes.ops} aria-label="Ops">
        <div style={{ height: rem(tableHeight(table.length)) }}>
          <OpTimes
            table={table}
            fileName={`${run.name}-profile`}
            charted={charted}
            selected={selected}
            onSelect={select}
          />
        </div>
        <div className={classes.kernels}>
          {selected === null ? (
            <p className={classes.words}>
              {state.op === undefined
                ? 'Choose an op in the table or a chart: the kernels that the framework runs for it are shown here.'
                : `No time was measured for ${state.op}.`}
            </p>
          ) : (
            <>
              <h2>
                {table.name(selected)}
                <a
                  href={formatRoute({ page: 'run', run: run.name, view: 'graph', state: { ...state, op: state.op! } })}
                >
                  in the graph
                </a>
              </h2>
              <Kernels key={selected} run={run.name} table={table} row={selected} />
            </>
          )}
        </div>
      </section>
      <div className={classes.rest}>
        <Added profile={profile} />
        <SumsCard profile={profile} />
        <Card title="How it was measured" testId="measured-how">
          <Facts
            facts={[
              ['Ops timed at', settingText(profile)],
              ['Data', profile.data],
              ...Object.entries(profile.environment).map(([name, value]) => [name, value] as const),
            ]}
          />
          {profile.notes.length > 0 && (
            <ul className={classes.notes} data-testid="profile-notes">
              {profile.notes.map((note) => (
                <li key={note}>{note}</li>
              ))}
            </ul>
          )}
        </Card>
      </div>
    </>
  );
}

const MOST_HEIGHT = 416;

/** The height of a table with its bar: as little as its rows need. */
const tableHeight = (rows: number): number => Math.min(MOST_HEIGHT, 45 + 30 * (rows + 1) + 18);

/** Scroll the page, and nothing around it, so that an element is on top. */
function bringIntoSight(element: HTMLElement | null): void {
  const main = element?.closest('main');
  if (!element || !main) return;
  main.scrollBy({ top: element.getBoundingClientRect().top - main.getBoundingClientRect().top - 14 });
}
