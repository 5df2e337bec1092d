// One API key: what it is, and its change, rotation and revocation.
import { useRef, useState } from "preact/hooks";
import { call, type FreshKey, type Key, type Scope } from "../../api";
import { Button } from "../../components/button";
import { ConfirmDialog, Dialog } from "../../components/dialog";
import { Form, SelectField, useForm } from "../../components/form";
import { Loaded } from "../../components/loaded";
import { Notice, notify } from "../../components/notice";
import { Card, Facts, Page } from "../../components/page";
import { ShownOnce } from "../../components/shown-once";
import { Scopes, Time, UserText } from "../../components/text";
import { useSession } from "../../lib/current";
import { useData } from "../../lib/data";
import { href, navigate } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { holds } from "../../session";
import { KeyForm, type KeyValues } from "./key-form";
import { KeyState, LastUse, isExpired } from "./key-state";

export function KeyPage({ params }: PageProps) {
  const id = Number(params["id"]);
  const session = useSession();
  const data = useData((signal) => call("get", "/me/keys/{id}", { path: { id }, signal }), [id]);
  const isWriter = holds(session, ["keys:write"]);
  return (
    <Page title={data.value?.name ?? `API key ${id}`} back={{ href: href("keys"), label: "API keys" }}>
      <Loaded data={data}>
        {(key) => (
          <>
            <Card title="Key">
              <KeyFacts value={key} />
            </Card>
            {isWriter && <Rotation value={key} onRotated={data.reload} />}
            {isWriter && <Change value={key} onChanged={data.replace} />}
            {isWriter && <Revocation value={key} />}
          </>
        )}
      </Loaded>
    </Page>
  );
}

function KeyFacts({ value }: { value: Key }) {
  return (
    <Facts
      items={[
        ["State", <KeyState value={value} />],
        ["Secret", <code>{value.hint}</code>],
        ["Scopes", <Scopes scopes={value.scopes} />],
        ["Last use", <LastUse value={value} />],
        ["Expires", <Time value={value.expires_at} otherwise="never" isBoth />],
        ["Created", <Time value={value.created_at} isBoth />],
        ["Old secret ends", <Time value={value.previous_expires_at} otherwise="no overlap" isBoth />],
        ["Key id", String(value.id)],
      ]}
    />
  );
}

const OVERLAPS = [
  ["0", "At once"],
  ["3600", "After one hour"],
  ["86400", "After one day"],
  ["604800", "After seven days"],
] as const;

function Rotation({ value, onRotated }: { value: Key; onRotated: () => void }) {
  const [isOpen, setOpen] = useState(false);
  const [fresh, setFresh] = useState<FreshKey>();
  const close = () => {
    setOpen(false);
    if (fresh) onRotated();
    setFresh(undefined);
  };
  return (
    <Card title="Rotate">
      <p class="measure">
        Gives the key a new secret. The old one can stay valid for a while, so that you can exchange it without an
        interruption.
      </p>
      {isExpired(value) ? (
        <Notice>An expired key cannot be rotated. Create a new one.</Notice>
      ) : (
        <div class="form-actions">
          <Button onClick={() => setOpen(true)}>Rotate key</Button>
        </div>
      )}
      {isOpen && (
        <Dialog title={fresh ? "The key has a new secret" : "Rotate this key"} onClose={close} isDismissible={!fresh}>
          {fresh ? (
            <ShownOnce label="New secret of the key" secret={fresh.key} onClose={close}>
              {fresh.previous_expires_at && (
                <p>
                  The old secret is valid until <Time value={fresh.previous_expires_at} />.
                </p>
              )}
            </ShownOnce>
          ) : (
            <RotationForm id={value.id} onRotated={setFresh} onClose={close} />
          )}
        </Dialog>
      )}
    </Card>
  );
}

interface RotationFormProps {
  id: number;
  onRotated: (fresh: FreshKey) => void;
  onClose: () => void;
}

function RotationForm({ id, onRotated, onClose }: RotationFormProps) {
  // By overlap: after an answer that was lost, the same request must not rotate twice.
  const repetitions = useRef(new Map<string, string>());
  const form = useForm({
    initial: { overlap: "86400" },
    submit: async ({ overlap }) => {
      const key = repetitions.current.get(overlap) ?? crypto.randomUUID();
      repetitions.current.set(overlap, key);
      const body = { overlap_seconds: Number(overlap) };
      onRotated(await call("post", "/me/keys/{id}/rotate", { path: { id }, body, headers: { "Idempotency-Key": key } }));
    },
    fieldOf: { overlap_seconds: "overlap" },
  });
  return (
    <Form form={form} submitLabel="Rotate key" beside={<Button onClick={onClose}>Cancel</Button>}>
      <SelectField
        form={form}
        name="overlap"
        label="The old secret ends"
        help="Choose “at once” if somebody else may know it."
        options={OVERLAPS}
      />
    </Form>
  );
}

function Change({ value, onChanged }: { value: Key; onChanged: (key: Key) => void }) {
  const change = async (values: KeyValues) => {
    const body = { ...values, scopes: values.scopes as Scope[] };
    onChanged(await call("patch", "/me/keys/{id}", { path: { id: value.id }, body }));
    notify("The key is changed.");
  };
  return (
    <Card title="Change">
      <KeyForm known={value} submitLabel="Save" submit={change} />
    </Card>
  );
}

function Revocation({ value }: { value: Key }) {
  const [isOpen, setOpen] = useState(false);
  const revoke = async () => {
    await call("delete", "/me/keys/{id}", { path: { id: value.id } });
    navigate(href("keys"), { replace: true });
    notify("The key is revoked.");
  };
  return (
    <Card title="Revoke">
      <p class="measure">The key stops working with its next request, and leaves the list.</p>
      <div class="form-actions">
        <Button kind="danger" onClick={() => setOpen(true)}>
          Revoke key
        </Button>
      </div>
      {isOpen && (
        <ConfirmDialog
          title="Revoke this key?"
          confirmLabel="Revoke key"
          onConfirm={revoke}
          onClose={() => setOpen(false)}
        >
          <p>
            What uses <UserText value={value.name} /> is rejected from now on. This cannot be undone.
          </p>
        </ConfirmDialog>
      )}
    </Card>
  );
}
