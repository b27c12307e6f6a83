import { Button, Group, TagsInput, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useChangeRun } from '../api/queries';
import type { RunSummary } from '../api/types';
import { Dialog } from '../app/Dialog';
import { Failure } from '../app/Notice';

interface Props {
  run: RunSummary;
  onClose(): void;
  onDelete(): void;
}

/** Rename a run and tag it, or go on to delete it. */
export function EditRun({ run, onClose, onDelete }: Props) {
  const [name, setName] = useState(run.name);
  const [tags, setTags] = useState([...run.tags]);
  const change = useChangeRun();
  const save = (): void => {
    const renamed = name.trim() === run.name ? {} : { name: name.trim() };
    change.mutate({ run: run.name, ...renamed, tags }, { onSuccess: onClose });
  };
  return (
    <Dialog title="Edit run" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          save();
        }}
      >
        <TextInput
          label="Name"
          value={name}
          required
          data-autofocus
          data-testid="run-name"
          onChange={(event) => setName(event.currentTarget.value)}
        />
        <TagsInput
          label="Tags"
          mt="sm"
          value={tags}
          data-testid="run-tags"
          onChange={setTags}
          comboboxProps={{ transitionProps: { duration: 0 } }}
        />
        {change.error && <Failure error={change.error} />}
        <Group justify="space-between" mt="lg">
          <Button
            variant="subtle"
            color="red"
            data-testid="delete-run"
            onClick={() => {
              onClose();
              onDelete();
            }}
          >
            Delete…
          </Button>
          <Group gap="xs">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={change.isPending} disabled={!name.trim()} data-testid="save-run">
              Save
            </Button>
          </Group>
        </Group>
      </form>
    </Dialog>
  );
}
