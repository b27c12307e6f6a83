import { useMemo } from 'react';
import { Name } from '../app/Name';
import { countText } from '../app/text';
import { isWorse } from '../colour/scale';
import { boxOfGroup } from '../graph/ids';
import type { GraphModel } from '../graph/model';
import type { Palette } from '../graph/palette';
import type { GraphValues } from '../graph/values';
import classes from './details.module.css';

const SHOWN = 30;

interface Props {
  model: GraphModel;
  values: GraphValues;
  palette: Palette;
  /** A group, or −1 for the whole model. */
  group: number;
  onNode(node: number): void;
}

/** What is in a group: how many ops, and the worst of them. */
export function GroupDetails({ model, values, palette, group, onNode }: Props) {
  const worst = useMemo(() => {
    const nodes = group < 0 ? Array.from({ length: model.nodeCount }, (_, i) => i) : model.nodesIn(group);
    const measured = nodes.filter((node) => !Number.isNaN(values.of(node)));
    return measured.sort((a, b) => (isWorse(values.better, values.of(a), values.of(b)) ? -1 : 1));
  }, [model, values, group]);
  const count = group < 0 ? model.nodeCount : model.opCount[group];
  return (
    <div className={classes.panel} data-testid="group-details">
      <h2 className={classes.name}>{group < 0 ? 'Model' : model.nameOf(boxOfGroup(group))}</h2>
      <p className={classes.none}>
        {countText(count, 'op')}
        {worst.length > 0 && `, ${worst.length.toLocaleString('en')} with a value`}.{' '}
        {group < 0 && 'Choose an op to see all about it.'}
      </p>
      {worst.length > 0 && (
        <section className={classes.section}>
          <h3>Worst {group < 0 ? 'ops' : 'inside'}</h3>
          <ul className={classes.list}>
            {worst.slice(0, SHOWN).map((node) => (
              <li key={node}>
                <button type="button" onClick={() => onNode(node)} title={model.nameOf(node)}>
                  <span
                    className={classes.swatch}
                    style={{ background: palette.ramp[values.step(node)] }}
                    aria-hidden="true"
                  />
                  <Name scope={model.sharedScope}>{model.nameOf(node)}</Name>
                  <span className={classes.value}>{values.text(values.of(node))}</span>
                </button>
              </li>
            ))}
          </ul>
        </section>
      )}
    </div>
  );
}
