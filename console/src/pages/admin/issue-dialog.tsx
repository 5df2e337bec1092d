// Issues a key, and shows its secret or claim code once.
import { useRef, useState } from "preact/hooks";
import { call } from "../../api";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Field, Form, SelectField, TextField, useForm } from "../../components/form";
import { Notice } from "../../components/notice";
import { ShownOnce } from "../../components/shown-once";
import { Time } from "../../components/text";
import type { components } from "../../schema";

type Issued = components["schemas"]["KeyIssueResponse"];

const INITIAL = { name: "", scopes: "", order: "", delivery: "secret", expires_at: "", metadata: "" };

export function IssueDialog({ onClose }: { onClose: (hasIssued: boolean) => void }) {
  const [issued, setIssued] = useState<Issued>();
  const close = () => onClose(issued !== undefined);
  return (
    <Dialog title={issued ? "The key is issued" : "Issue a key"} onClose={close} isDismissible={!issued}>
      {issued ? <Outcome issued={issued} onClose={close} /> : <IssueForm onIssued={setIssued} onClose={close} />}
    </Dialog>
  );
}

function IssueForm({ onIssued, onClose }: { onIssued: (issued: Issued) => void; onClose: () => void }) {
  // A repeated request, after an answer that was lost, must not issue a second key.
  const requestKey = useRef(crypto.randomUUID());
  const sent = useRef("");
  const form = useForm({
    initial: INITIAL,
    check: (values) => ({
      ...(values.scopes.trim() ? {} : { scopes: "Enter at least one scope." }),
      ...(metadataOf(values.metadata) === undefined ? { metadata: "Enter a JSON object, such as {\"plan\": \"basic\"}." } : {}),
    }),
    submit: async (values) => {
      const body = bodyOf(values);
      const text = JSON.stringify(body);
      if (sent.current !== text) requestKey.current = crypto.randomUUID();
      sent.current = text;
      onIssued(await call("post", "/keys", { body, headers: { "Idempotency-Key": requestKey.current } }));
    },
    fieldOf: { order_taken: "order" },
  });
  return (
    <Form form={form} submitLabel="Issue key" beside={<Button onClick={onClose}>Cancel</Button>}>
      <TextField form={form} name="name" label="Name" help="For whom, or for what the key is." />
      <TextField
        form={form}
        name="scopes"
        label="Scopes"
        help="Separated by blanks. Scopes of other services can have any name, such as translate:use."
        input={{ autoCapitalize: "none", spellcheck: false }}
      />
      <TextField form={form} name="order" label="Order" help="The same order never gives a second key." isOptional />
      <SelectField
        form={form}
        name="delivery"
        label="Delivery"
        help="A claim code can be sent by mail. Its holder exchanges it for the secret, within 72 hours."
        options={[
          ["secret", "Show the secret now"],
          ["claim", "Claim code"],
        ]}
      />
      <TextField form={form} name="expires_at" label="Expires" help="In your local time." type="datetime-local" isOptional />
      <Field label="Metadata" help="A JSON object, which is returned with the key." error={form.errors.metadata} isOptional>
        {(attributes) => (
          <textarea
            {...attributes}
            class="input"
            rows={2}
            spellcheck={false}
            value={form.values.metadata}
            onInput={(event) => form.set("metadata", event.currentTarget.value)}
          />
        )}
      </Field>
    </Form>
  );
}

function bodyOf(values: typeof INITIAL) {
  const metadata = metadataOf(values.metadata) ?? {};
  return {
    name: values.name.trim(),
    scopes: [...new Set(values.scopes.trim().split(/\s+/))],
    delivery: values.delivery as "secret" | "claim",
    ...(values.order.trim() ? { order: values.order.trim() } : {}),
    ...(values.expires_at ? { expires_at: new Date(values.expires_at).toISOString() } : {}),
    ...(Object.keys(metadata).length > 0 ? { metadata } : {}),
  };
}

/** The object that the text describes, `{}` for none. `undefined` if it is not an object. */
function metadataOf(text: string): Record<string, unknown> | undefined {
  if (!text.trim()) return {};
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function Outcome({ issued, onClose }: { issued: Issued; onClose: () => void }) {
  const secret = issued.key ?? issued.claim;
  if (secret) {
    return (
      <ShownOnce label={issued.key ? "Secret of the key" : "Claim code"} secret={secret} onClose={onClose}>
        {issued.claim && (
          <p>
            Can be claimed until <Time value={issued.claim_expires_at} />.
          </p>
        )}
      </ShownOnce>
    );
  }
  return (
    <div class="form">
      <Notice>This order already has this key. Its secret was shown when it was issued.</Notice>
      <div class="form-actions">
        <Button kind="primary" onClick={onClose}>
          Close
        </Button>
      </div>
    </div>
  );
}
