import { toNumber } from '../api/figures';
import type { ModelFacts, Profile } from '../api/types';
import { Card } from '../app/Card';
import { bytesText, fileName } from '../app/text';
import classes from './Profile.module.css';
import { speedupText, timeText } from './words';

const FACTS: readonly { title: string; value(model: ModelFacts): number; text(value: number): string }[] = [
  { title: 'File', value: ({ bytes }) => toNumber(bytes), text: sizeText },
  { title: 'Time to load', value: ({ load_ms: ms }) => toNumber(ms), text: (ms) => timeText(1e3 * ms) },
  { title: 'Peak memory', value: ({ peak_memory_bytes: bytes }) => toNumber(bytes), text: sizeText },
];

const ALIKE = 0.01;

function sizeText(bytes: number): string {
  return bytesText(Number.isNaN(bytes) ? null : bytes);
}

/** How many times less the quantized model takes, or more. */
function lessText(ratio: number): string {
  if (!Number.isFinite(ratio)) return '';
  if (Math.abs(ratio - 1) < ALIKE) return 'alike';
  return ratio > 1 ? `${speedupText(ratio)} less` : `${speedupText(1 / ratio)} more`;
}

/** What both models take beside time. */
export function ModelsCard({ profile: { reference, quantized } }: { profile: Profile }) {
  return (
    <Card title={quantized ? 'Both models' : 'The model'} testId="models">
      <table className={classes.figures}>
        <thead>
          <tr>
            <th scope="col">
              <span className="visually-hidden">What</span>
            </th>
            <th scope="col" title={reference.path ?? undefined}>
              Reference
            </th>
            {quantized && (
              <>
                <th scope="col" title={quantized.path ?? undefined}>
                  Quantized
                </th>
                <th scope="col">
                  <span className="visually-hidden">Ratio</span>
                </th>
              </>
            )}
          </tr>
        </thead>
        <tbody>
          {FACTS.map(({ title, value, text }) => (
            <tr key={title}>
              <th scope="row">{title}</th>
              <td>{text(value(reference))}</td>
              {quantized && (
                <>
                  <td>{text(value(quantized))}</td>
                  <td className={classes.soft}>{lessText(value(reference) / value(quantized))}</td>
                </>
              )}
            </tr>
          ))}
        </tbody>
      </table>
      <p className={classes.files}>
        {[reference, quantized].map(
          (model, i) =>
            model?.path && (
              <span key={i} title={model.path}>
                {fileName(model.path)}
              </span>
            ),
        )}
      </p>
    </Card>
  );
}
