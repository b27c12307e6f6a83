import { useComputedColorScheme } from '@mantine/core';

/** Whether the dark theme is on: as the reader chose, else as the system has it. */
export const useDark = (): boolean => useComputedColorScheme('light', { getInitialValueInEffect: false }) === 'dark';
