import { Badge, SegmentedControl } from '@mantine/core';
import { useMemo } from 'react';
import { useNode } from '../api/queries';
import type { RowTable } from '../api/rows';
import type { GraphNode, Operand, Side } from '../api/types';
import { CopyButton } from '../app/CopyButton';
import { Answer } from '../app/Notice';
import { countText, numberText } from '../app/text';
import { Facts } from '../app/Card';
import classes from './details.module.css';
import { RowDetails } from './RowDetails';

interface Props {
  run: string;
  side: Side;
  node: number;
  table: RowTable;
  /** The row that is looked at, by its key on the server. */
  row: number | undefined;
  onRow(index: number): void;
  onNode(node: number): void;
}

/** All that is known of one op: its tensors, how they are quantized, its attributes and its neighbours. */
export function OpDetails({ run, side, node, table, row, onRow, onNode }: Props) {
  const found = useNode(run, side, node);
  return (
    <Answer of={found} what="the op">
      {(op) => <Op {...{ run, table, row, onRow, onNode, op }} />}
    </Answer>
  );
}

function Op({ run, op, table, row, onRow, onNode }: Omit<Props, 'side' | 'node'> & { op: GraphNode }) {
  const rows = useMemo(
    () => op.rows.map((index) => table.at(index)).filter((found) => found !== undefined),
    [op, table],
  );
  const shown = rows.find((found) => table.index(found) === row) ?? rows[0];
  return (
    <div className={classes.panel} data-testid="op-details">
      <h2 className={classes.name}>{op.name}</h2>
      <div className={classes.badges}>
        <Badge variant="light" tt="none" radius="sm">
          {op.op}
        </Badge>
        <CopyButton text={op.name} label="Copy name" />
      </div>
      {rows.length > 1 && (
        <SegmentedControl
          size="xs"
          fullWidth
          aria-label="Tensor of the op"
          data-testid="op-rows"
          value={String(table.index(shown))}
          onChange={(index) => onRow(Number(index))}
          data={rows.map((found) => ({ value: String(table.index(found)), label: rowLabel(table, rows, found) }))}
        />
      )}
      {shown !== undefined && <RowDetails run={run} table={table} row={shown} />}
      {!rows.length && table.length > 0 && (
        <p className={classes.none}>
          {op.skipped ? `Not compared: ${op.skipped}.` : 'No tensor of this op was compared.'}
        </p>
      )}
      {table.length > 0 && <Quantization op={op} />}
      <Section title="Attributes">
        {Object.keys(op.attributes).length ? (
          <Facts facts={Object.entries(op.attributes).map(([name, value]) => [name, attributeText(value)])} />
        ) : (
          <p className={classes.none}>None.</p>
        )}
      </Section>
      <Operands title="Inputs" operands={op.inputs} onNode={onNode} />
      <Operands title="Outputs" operands={op.outputs} onNode={onNode} />
    </div>
  );
}

/** How each tensor of the op is quantized. */
function Quantization({ op }: { op: GraphNode }) {
  return (
    <Section title="Quantization">
      {op.encodings.length ? (
        <table className={classes.table}>
          <thead>
            <tr>
              <th>tensor</th>
              <th>dtype</th>
              <th>granularity</th>
              <th>scale</th>
              <th>zero point</th>
            </tr>
          </thead>
          <tbody>
            {op.encodings.map((encoding) => (
              <tr key={encoding.row}>
                <td title={encoding.tensor}>{encoding.role}</td>
                <td>{encoding.dtype}</td>
                <td>{encoding.granularity || '–'}</td>
                <td>{numberText(typeof encoding.scale === 'number' ? encoding.scale : NaN)}</td>
                <td>{encoding.zero_point ?? '–'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <p className={classes.none}>Nothing of this op is quantized.</p>
      )}
    </Section>
  );
}

function rowLabel(table: RowTable, rows: readonly number[], row: number): string {
  const role = table.role(row);
  const ofRole = rows.filter((other) => table.role(other) === role);
  return ofRole.length > 1 ? `${role} ${ofRole.indexOf(row) + 1}` : role;
}

function Section({ title, children }: { title: string; children: React.ReactNode }) {
  return (
    <section className={classes.section}>
      <h3>{title}</h3>
      {children}
    </section>
  );
}

function Operands({
  title,
  operands,
  onNode,
}: {
  title: string;
  operands: readonly Operand[];
  onNode(node: number): void;
}) {
  return (
    <Section title={title}>
      <ul className={classes.operands}>
        {operands.map((operand, i) => (
          <li key={`${i} ${operand.tensor}`}>
            {operand.nodes.length === 1 ? (
              <button type="button" className={classes.link} onClick={() => onNode(operand.nodes[0])}>
                {operand.tensor}
              </button>
            ) : (
              <span className={classes.tensor}>{operand.tensor}</span>
            )}
            <span className={classes.kind}>
              {[operand.dtype, shapeText(operand.shape), operand.constant ? 'constant' : '']
                .filter(Boolean)
                .join(' · ')}
            </span>
            {operand.nodes.length > 1 && (
              <span className={classes.readers}>
                {countText(operand.nodes.length, 'op')}:{' '}
                {operand.nodes.slice(0, 8).map((node, at) => (
                  <button key={node} type="button" className={classes.link} onClick={() => onNode(node)}>
                    {at + 1}
                  </button>
                ))}
                {operand.nodes.length > 8 && '…'}
              </span>
            )}
          </li>
        ))}
      </ul>
    </Section>
  );
}

const shapeText = (shape: Operand['shape']): string =>
  shape ? shape.map((size) => size ?? '?').join(' × ') || 'scalar' : '';

const attributeText = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
