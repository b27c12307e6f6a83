/**
 * A box of the graph view is an op or a group. Its id is one number: n for node n, −1 − g for group g, so that sets,
 * maps and typed arrays can hold both.
 */
export type BoxId = number;

export const boxOfGroup = (group: number): BoxId => -1 - group;
export const groupOfBox = (id: BoxId): number => -1 - id;
export const isGroup = (id: BoxId): boolean => id < 0;
