import { toNumber } from '../api/figures';
import { useSuggestions } from '../api/queries';
import type { Suggestion } from '../api/types';
import { CopyButton } from '../app/CopyButton';
import { Answer, Notice } from '../app/Notice';
import { formatRoute } from '../app/route';
import { countText, percentText } from '../app/text';
import { differenceText, scoreText } from './accuracy';
import type { RunPageProps } from './RunPage';
import classes from './SuggestionsPage.module.css';

const SHOWN_OPS = 8;

/** What to change in the recipe, why, and what it brought where it was tried. */
export function SuggestionsPage({ run }: RunPageProps) {
  const name = run.name;
  const suggestions = useSuggestions(name);
  return (
    <Answer of={suggestions} what="the suggestions">
      {(found) =>
        found.suggestions.length ? (
          <div className={classes.page}>
            <div className={classes.head}>
              <h2>{countText(found.suggestions.length, 'suggestion')}</h2>
              <span className={classes.soft}>
                The most promising first. Shares are estimates until a suggestion is verified.
              </span>
              {found.verify && (
                <CopyButton text={found.verify} label="Copy command that verifies them" testId="copy-verify" />
              )}
            </div>
            <ol className={classes.list}>
              {found.suggestions.map((suggestion, i) => (
                <li key={`${suggestion.rule} ${suggestion.title}`} data-testid="suggestion">
                  <One run={name} place={i + 1} suggestion={suggestion} />
                </li>
              ))}
            </ol>
          </div>
        ) : (
          <Notice title="Nothing to suggest">{found.nothing && <p>{found.nothing}</p>}</Notice>
        )
      }
    </Answer>
  );
}

function One({ run, place, suggestion }: { run: string; place: number; suggestion: Suggestion }) {
  const { title, evidence, ops, share, cost, verified } = suggestion;
  return (
    <article className={classes.card}>
      <div className={classes.title}>
        <span className={classes.place}>{place}</span>
        <h3>{title}</h3>
        <Gain verified={verified} />
      </div>
      <ul className={classes.evidence}>
        {evidence.map((line) => (
          <li key={line}>{line}</li>
        ))}
        {verified?.notes.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
      <p className={classes.figures}>
        It addresses <strong>{percentText(share)}</strong> of the error and takes <strong>{percentText(cost)}</strong>{' '}
        of the work out of 8 bits.
      </p>
      {ops.length > 0 && (
        <p className={classes.ops}>
          {ops.slice(0, SHOWN_OPS).map((op) => (
            <a key={op} href={formatRoute({ page: 'run', run, view: 'graph', state: { op } })}>
              {op}
            </a>
          ))}
          {ops.length > SHOWN_OPS && <span>and {ops.length - SHOWN_OPS} more</span>}
        </p>
      )}
      <Copies suggestion={suggestion} />
    </article>
  );
}

function Gain({ verified }: { verified: Suggestion['verified'] }) {
  if (!verified) return <span className={classes.untried}>not tried yet</span>;
  const { accuracy, gain, certain } = verified;
  const tone = certain ? 'good' : toNumber(gain) > 0 ? 'maybe' : 'none';
  return (
    <span className={classes.gain} data-tone={tone} data-testid="gain">
      <strong>{differenceText(accuracy.metric, toNumber(gain))}</strong> {accuracy.metric}:{' '}
      {scoreText(accuracy.metric, toNumber(accuracy.reference))} →{' '}
      {scoreText(accuracy.metric, toNumber(accuracy.quantized))} (float{' '}
      {scoreText(accuracy.metric, toNumber(verified.float_value))}){!certain && ', may be chance'}
    </span>
  );
}

function Copies({ suggestion }: { suggestion: Suggestion }) {
  const dictionary = JSON.stringify(suggestion.op_name_dict, null, 2);
  const excluded = JSON.stringify(suggestion.nodes_to_exclude);
  return (
    <>
      <div className={classes.copies}>
        <CopyButton text={suggestion.recipe_toml} label="Copy recipe" testId="copy-recipe" />
        {Object.keys(suggestion.op_name_dict).length > 0 && (
          <CopyButton text={dictionary} label="Copy op_name_dict" testId="copy-op-name-dict" />
        )}
        {suggestion.nodes_to_exclude.length > 0 && <CopyButton text={excluded} label="Copy nodes_to_exclude" />}
        {suggestion.command && <CopyButton text={suggestion.command} label="Copy command" testId="copy-command" />}
      </div>
      <details className={classes.patch}>
        <summary>What changes in the recipe</summary>
        <pre tabIndex={0} aria-label="Change of the recipe">
          {suggestion.patch_toml}
        </pre>
      </details>
    </>
  );
}
