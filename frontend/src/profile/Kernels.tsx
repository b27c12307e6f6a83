import { toNumber } from '../api/figures';
import { useKernels } from '../api/queries';
import type { Kernel, Side } from '../api/types';
import { Answer } from '../app/Notice';
import { numberText } from '../app/text';
import type { ProfileTable } from './profile-table';
import classes from './Profile.module.css';
import { microsecondsText, timeText } from './words';

const ROLES: Record<Kernel['role'], string> = {
  compute: 'computes',
  quantize: 'quantizes',
  dequantize: 'dequantizes',
  layout: 'changes layout',
};

/** The kernels of an op as the framework runs them, in both models. */
export function Kernels({ run, table, row }: { run: string; table: ProfileTable; row: number }) {
  const found = useKernels(run, row);
  return (
    <Answer of={found} what="the kernels">
      {(kernels) => (
        <div className={classes.kernels} data-testid="kernels">
          {table.sides.map((side) => (
            <SideKernels key={side} side={side} table={table} row={row} kernels={kernels[side] ?? null} />
          ))}
        </div>
      )}
    </Answer>
  );
}

interface SideProps {
  side: Side;
  table: ProfileTable;
  row: number;
  kernels: readonly Kernel[] | null;
}

function SideKernels({ side, table, row, kernels }: SideProps) {
  const total = table.figures(side, 'total_us')[row];
  return (
    <section aria-label={`Kernels of the ${side} model`} data-testid={`kernels-${side}`}>
      <h3>
        <span className={classes.mark} data-side={side} aria-hidden="true" />
        {side === 'reference' ? 'Reference' : 'Quantized'}
        <span className={classes.soft}>{timeText(total)}</span>
      </h3>
      {kernels?.length ? (
        <div className={classes.scroll} tabIndex={0} role="group" aria-label={`Kernels, ${side}`}>
          <table className={classes.kernelTable}>
            <thead>
              <tr>
                <th scope="col">Kernel</th>
                <th scope="col">Type</th>
                <th scope="col">Role</th>
                <th scope="col">Runs</th>
                <th scope="col">µs</th>
              </tr>
            </thead>
            <tbody>
              {kernels.map((kernel, i) => (
                <tr key={i} data-role={kernel.role}>
                  <td>
                    {kernel.name}
                    <span className={classes.shapes}>
                      {kernel.inputs.join(' × ') || 'no input'} → {kernel.outputs.join(', ') || 'no output'}
                    </span>
                  </td>
                  <td>{kernel.op_type}</td>
                  <td>
                    {ROLES[kernel.role]}
                    {kernel.provider !== 'CPU' && <span className={classes.shapes}>{kernel.provider}</span>}
                  </td>
                  <td>{numberText(toNumber(kernel.calls), 3)}</td>
                  <td>{microsecondsText(toNumber(kernel.us))}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p className={classes.words}>This model runs nothing for it.</p>
      )}
    </section>
  );
}
