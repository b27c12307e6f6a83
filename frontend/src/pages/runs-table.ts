import { toNumber } from '../api/figures';
import type { RunSummary } from '../api/types';
import { ageText, bytesText, shareText } from '../app/text';
import type { Column } from '../table/column';
import { scoreText } from './accuracy';

/** The columns of the list of runs, rows being indices into it. */
export function runColumns(runs: readonly RunSummary[]): Column[] {
  const score = (row: number, side: 'reference' | 'quantized' | 'ratio'): number =>
    toNumber(runs[row].accuracy?.[side]);
  const scoreColumn = (side: 'reference' | 'quantized', title: string): Column => ({
    id: side,
    title,
    width: 100,
    number: (row) => score(row, side),
    text: (row) => scoreText(runs[row].accuracy?.metric ?? '', score(row, side)),
  });
  return [
    { id: 'name', title: 'Run', width: 220, grows: true, text: (row) => runs[row].name },
    { id: 'model', title: 'Model', width: 150, text: (row) => runs[row].model },
    { id: 'mode', title: 'Mode', width: 160, text: (row) => runs[row].mode },
    { id: 'status', title: 'Status', width: 120, text: (row) => runs[row].status },
    scoreColumn('reference', 'Reference'),
    scoreColumn('quantized', 'Quantized'),
    {
      id: 'ratio',
      title: 'Ratio',
      width: 80,
      number: (row) => score(row, 'ratio'),
      text: (row) => shareText(score(row, 'ratio')),
    },
    {
      id: 'age',
      title: 'Age',
      width: 110,
      number: (row) => -Date.parse(runs[row].created),
      text: (row) => ageText(runs[row].created),
    },
    {
      id: 'size',
      title: 'Size',
      width: 80,
      number: (row) => runs[row].size_bytes,
      text: (row) => bytesText(runs[row].size_bytes),
    },
  ];
}

/** The runs whose name, model, mode, status or tags hold every word. */
export function matchingRuns(runs: readonly RunSummary[], words: string): number[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return Array.from(runs.keys()).filter((row) => {
    const { name, model, mode, status, tags, kind } = runs[row];
    const text = [name, model, mode, status, kind, ...tags].join(' ').toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}
