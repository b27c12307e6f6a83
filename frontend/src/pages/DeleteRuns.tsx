import { Button, Group, Text } from '@mantine/core';
import { useDeleteRuns } from '../api/queries';
import { Dialog } from '../app/Dialog';
import { Failure } from '../app/Notice';

/** Asks before it deletes. */
export function DeleteRuns({ names, onClose }: { names: readonly string[]; onClose(): void }) {
  const remove = useDeleteRuns();
  const what = names.length === 1 ? `the run “${names[0]}”` : `${names.length} runs`;
  return (
    <Dialog title={`Delete ${what}?`} onClose={onClose}>
      <Text size="sm">
        {names.length > 1 && <>{names.join(', ')}. </>}
        The run file is removed from the disk, which cannot be undone. Models and samples stay.
      </Text>
      {remove.error && <Failure error={remove.error} />}
      <Group justify="flex-end" mt="lg" gap="xs">
        <Button variant="default" onClick={onClose} data-autofocus>
          Keep
        </Button>
        <Button
          color="red"
          loading={remove.isPending}
          data-testid="confirm-delete"
          onClick={() => remove.mutate(names, { onSuccess: onClose })}
        >
          Delete
        </Button>
      </Group>
    </Dialog>
  );
}
