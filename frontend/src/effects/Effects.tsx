import { useMemo, useState } from 'react';
import { toNumber } from '../api/figures';
import { useGraph } from '../api/queries';
import type { Sensitivities } from '../api/types';
import { Card } from '../app/Card';
import { go } from '../app/route';
import { countText, numberText } from '../app/text';
import { EffectChart } from './EffectChart';
import classes from './Effects.module.css';
import { certainty, effectsOf, nounOf, shownInGraph } from './effects';
import { EffectTable } from './EffectTable';

const DRAWN = 40;

/** What each op or module does to the model's output: in a picture, in figures, and how far they can be trusted. */
export function Effects({ run, found }: { run: string; found: Sensitivities }) {
  const graph = useGraph(run, 'reference').data;
  const effects = useMemo(() => effectsOf(found), [found]);
  const noun = nounOf(found);
  const [selected, setSelected] = useState<number | null>(null);
  const open = (index: number): void => {
    setSelected(index);
    go({ page: 'run', run, view: 'graph', state: shownInGraph(effects[index], graph) });
  };
  return (
    <>
      <div className={classes.facts}>
        <Card title="What was measured" testId="measured">
          <p className={classes.words}>
            {countText(effects.length, noun)} {found.finished ? '' : 'so far '}over {countText(found.samples, 'sample')}
            , those on which both models disagree most. The damage is how far the quantized model’s output is from the
            reference’s{found.finished && `, as ${found.damage_name}`}.
          </p>
          {found.finished && (
            <p className={classes.figure}>
              <strong>{numberText(toNumber(found.damage))}</strong>
              <span>{found.damage_name} of the whole quantized model</span>
            </p>
          )}
        </Card>
        <Card title="How far the order can be trusted" testId="certainty">
          <ul className={classes.list}>
            {certainty(found).map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ul>
        </Card>
        {found.finished && <Agreement found={found} />}
      </div>
      <div className={classes.panes}>
        <section className={classes.picture} aria-label="Picture of the damage">
          <EffectChart
            title={`Damage of each ${noun} alone${found.finished ? ', with its 95 % interval' : ', so far'}`}
            effects={effects.slice(0, DRAWN)}
            damageName={found.finished ? found.damage_name : ''}
            fileName={`${run}-effects`}
            selected={selected}
            onPick={open}
          />
          {effects.length > DRAWN && (
            <p className={classes.words}>
              The first {DRAWN} of {effects.length}; the table has all.
            </p>
          )}
        </section>
        <div className={classes.table}>
          <EffectTable effects={effects} noun={noun} selected={selected} onSelect={open} />
        </div>
      </div>
    </>
  );
}

/** How well columns that cost less give the same order on this model. */
function Agreement({ found }: { found: Sensitivities }) {
  const known = Object.entries(found.agreement).filter(([, value]) => !Number.isNaN(toNumber(value)));
  return (
    <Card title="Cheaper figures that give the same order" testId="agreement">
      <ul className={classes.bars}>
        {known.map(([name, figure]) => {
          const value = toNumber(figure);
          return (
            <li key={name}>
              <span>{name}</span>
              <span className={classes.track}>
                <span style={{ width: `${Math.max(0, 100 * value)}%` }} />
              </span>
              <span className={classes.value}>{value.toFixed(2).replace('-', '−')}</span>
            </li>
          );
        })}
      </ul>
      <p className={classes.words}>
        {known.length
          ? '1 is the same order, 0 says nothing (Spearman’s rank correlation on this model).'
          : 'Fewer than three were measured: too few to compare orders.'}
      </p>
    </Card>
  );
}
