import { toNumber } from '../api/figures';
import type { Budget } from '../api/types';

/** The parts of an error budget in the order in which they arise, and what each is. */
export const BUDGET_PARTS = [
  ['inherited', 'came in with its inputs'],
  ['weight', 'from its quantized weight'],
  ['bias', 'from its quantized bias'],
  ['clipping', 'values beyond the range'],
  ['rounding', 'rounding to codes'],
  ['residual', 'what is left'],
] as const;

export interface BudgetPart {
  name: string;
  meaning: string;
  /** Of the mean squared error; negative where it cancels others. */
  mse: number;
  share: number;
  energy: number;
}

export function budgetParts(budget: Budget): BudgetPart[] {
  const total = toNumber(budget.mse);
  return BUDGET_PARTS.map(([name, meaning]) => {
    const mse = toNumber(budget.shares[name]);
    return { name, meaning, mse, share: mse / total, energy: toNumber(budget.energies[name]) };
  });
}

/** Where each part of a bar begins and ends, as shares: negative parts to the left of zero, positive to the right. */
export function stacked(shares: readonly number[]): { from: number; to: number }[] {
  let [left, right] = [0, 0];
  return shares.map((share) => {
    if (!Number.isFinite(share)) return { from: 0, to: 0 };
    if (share < 0) return { from: (left += share), to: left - share };
    return { from: right, to: (right += share) };
  });
}
