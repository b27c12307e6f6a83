import { toNumber } from '../api/figures';
import type { Profile } from '../api/types';
import { Card } from '../app/Card';
import classes from './Profile.module.css';
import { timeText } from './words';

/** What the framework runs beside the model's own ops: changes of type and of layout. */
export function Added({ profile: { added, quantized } }: { profile: Profile }) {
  const side = quantized ? 'quantized_us' : 'reference_us';
  const rows = [...added].sort((a, b) => toNumber(b[side]) - toNumber(a[side]));
  const whole = (times: 'reference_us' | 'quantized_us'): number =>
    added.reduce((sum, each) => sum + (toNumber(each[times]) || 0), 0);
  return (
    <Card title={quantized ? 'What quantization added' : 'What the framework added'} testId="added">
      {rows.length ? (
        <table className={classes.figures}>
          <thead>
            <tr>
              <th scope="col">Kernel type</th>
              <th scope="col">Reference</th>
              <th scope="col">how many</th>
              {quantized && (
                <>
                  <th scope="col">Quantized</th>
                  <th scope="col">how many</th>
                </>
              )}
            </tr>
          </thead>
          <tbody>
            {rows.map((each) => (
              <tr key={`${each.op_type} ${each.role}`}>
                <th scope="row">{each.op_type}</th>
                <td>{each.reference_count ? timeText(toNumber(each.reference_us)) : '–'}</td>
                <td>{each.reference_count}</td>
                {quantized && (
                  <>
                    <td>{each.quantized_count ? timeText(toNumber(each.quantized_us)) : '–'}</td>
                    <td>{each.quantized_count}</td>
                  </>
                )}
              </tr>
            ))}
          </tbody>
          <tfoot>
            <tr>
              <th scope="row">Together</th>
              <td>{timeText(whole('reference_us'))}</td>
              <td />
              {quantized && (
                <>
                  <td>{timeText(whole('quantized_us'))}</td>
                  <td />
                </>
              )}
            </tr>
          </tfoot>
        </table>
      ) : (
        <p className={classes.words}>Nothing: every kernel is one of the model’s own ops.</p>
      )}
    </Card>
  );
}
