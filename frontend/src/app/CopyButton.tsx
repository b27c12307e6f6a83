import { Button, CopyButton as Copy } from '@mantine/core';

/** Copies a text; says that it did. */
export function CopyButton({ text, label, testId }: { text: string; label: string; testId?: string }) {
  return (
    <Copy value={text} timeout={1600}>
      {({ copied, copy }) => (
        <Button size="compact-xs" variant="default" onClick={copy} data-testid={testId}>
          {copied ? 'Copied' : label}
        </Button>
      )}
    </Copy>
  );
}
