// Your API keys, and a new one.
import { useRef, useState } from "preact/hooks";
import { call, type FreshKey, type Key, type Scope } from "../../api";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Loaded } from "../../components/loaded";
import { EmptyState } from "../../components/notice";
import { Page } from "../../components/page";
import { ShownOnce } from "../../components/shown-once";
import { Table, type Column } from "../../components/table";
import { Scopes, Time, UserText } from "../../components/text";
import { useSession } from "../../lib/current";
import { useData } from "../../lib/data";
import { href } from "../../lib/router";
import { holds } from "../../session";
import { KeyForm, type KeyValues } from "./key-form";
import { KeyState, LastUse } from "./key-state";

const COLUMNS: Column<Key>[] = [
  {
    label: "Name",
    cell: ({ id, name, hint }) => (
      <>
        <a href={href(`keys/${id}`)}>
          <UserText value={name} />
        </a>
        {hint && <code class="second-line">{hint}</code>}
      </>
    ),
  },
  { label: "State", cell: (key) => <KeyState value={key} />, kind: "tight" },
  { label: "Scopes", cell: ({ scopes }) => <Scopes scopes={scopes} /> },
  { label: "Last use", cell: (key) => <LastUse value={key} /> },
  { label: "Expires", cell: ({ expires_at }) => <Time value={expires_at} otherwise="never" /> },
];

export function KeysPage() {
  const session = useSession();
  const list = useData((signal) => call("get", "/me/keys", { signal }), []);
  const [isOpen, setOpen] = useState(false);
  const create = holds(session, ["keys:write"]) && (
    <Button kind="primary" onClick={() => setOpen(true)}>
      Create key
    </Button>
  );
  const close = (isCreated: boolean) => {
    setOpen(false);
    if (isCreated) list.reload();
  };
  return (
    <Page title="API keys" intro="Each of your scripts and devices can have a key of its own." actions={create}>
      <Loaded data={list}>
        {({ items }) =>
          items.length > 0 ? (
            <Table caption="Your API keys" columns={COLUMNS} items={items} keyOf={({ id }) => id} />
          ) : (
            <EmptyState title="No API keys yet">
              A key opens the API for a script or device, with the scopes that you choose. You can revoke it at any time.
            </EmptyState>
          )
        }
      </Loaded>
      {isOpen && <CreateDialog onClose={close} />}
    </Page>
  );
}

function CreateDialog({ onClose }: { onClose: (isCreated: boolean) => void }) {
  const [created, setCreated] = useState<FreshKey>();
  // After an answer that was lost, the same request must not create a second key.
  const repetition = useRef({ body: "", key: "" });
  const create = async (values: KeyValues) => {
    const text = JSON.stringify(values);
    if (repetition.current.body !== text) repetition.current = { body: text, key: crypto.randomUUID() };
    const body = { ...values, scopes: values.scopes as Scope[] };
    setCreated(await call("post", "/me/keys", { body, headers: { "Idempotency-Key": repetition.current.key } }));
  };
  return (
    <Dialog
      title={created ? "The key is created" : "Create a key"}
      onClose={() => onClose(false)}
      isDismissible={!created}
    >
      {created ? (
        <ShownOnce label="Secret of the key" secret={created.key} onClose={() => onClose(true)}>
          <p class="help">
            Send it as <code>Token: …</code> or <code>Authorization: Bearer …</code>
          </p>
        </ShownOnce>
      ) : (
        <KeyForm submitLabel="Create key" submit={create} beside={<Button onClick={() => onClose(false)}>Cancel</Button>} />
      )}
    </Dialog>
  );
}
