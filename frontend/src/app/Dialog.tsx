import { Modal } from '@mantine/core';
import type { ReactNode } from 'react';
import classes from './Dialog.module.css';

/** A question or a form over the page; Escape and a click beside it close it. */
export function Dialog({ title, onClose, children }: { title: string; onClose(): void; children: ReactNode }) {
  return (
    <Modal opened onClose={onClose} withCloseButton={false} attributes={{ content: { 'aria-label': title } }}>
      <h2 className={classes.title}>{title}</h2>
      {children}
    </Modal>
  );
}
