// The fields of an API key, for a new one and for a change.
import { useState } from "preact/hooks";
import { Checkboxes, Form, SelectField, TextField, useForm } from "../../components/form";
import type { ComponentChildren } from "preact";
import { useSession } from "../../lib/current";
import { scopeText } from "../../lib/scopes";

const DAY = 86_400_000;
const HOUR = 3_600_000;
/** Values of the choice that are no number of days. */
const NEVER = "never";
const UNCHANGED = "unchanged";
const DATE = "date";

const DAYS = [
  ["7", "In 7 days"],
  ["30", "In 30 days"],
  ["90", "In 90 days"],
  ["365", "In a year"],
  [DATE, "At a time of your choice"],
] as const;

export interface KeyValues {
  name: string;
  scopes: string[];
  /** Absent: never, or unchanged. */
  expires_at?: string;
}

interface Props {
  /** The key to change; absent for a new one. */
  known?: { name: string; scopes: string[] };
  submitLabel: string;
  beside?: ComponentChildren;
  submit: (values: KeyValues) => Promise<unknown>;
}

export function KeyForm({ known, submitLabel, beside, submit }: Props) {
  const { scopes: held } = useSession();
  const [scopes, setScopes] = useState(known?.scopes ?? []);
  const form = useForm({
    initial: { name: known?.name ?? "", scopes: "", expires: known ? UNCHANGED : "90", expires_at: "" },
    check: ({ name, expires, expires_at }) => ({
      ...(name.trim() === "" && { name: "Enter a name." }),
      ...(expires === DATE && expires_at === "" && { expires_at: "Enter a time." }),
      ...(scopes.length === 0 && { scopes: "Choose at least one scope." }),
    }),
    submit: ({ name, expires, expires_at }) => {
      const expiry = expiryOf(expires, expires_at);
      return submit({ name, scopes, ...(expiry !== undefined && { expires_at: expiry }) });
    },
  });
  // Scopes that the role no longer holds remain visible, so that they can be removed.
  const options = [...new Set([...held, ...(known?.scopes ?? [])])];
  return (
    <Form form={form} submitLabel={submitLabel} beside={beside}>
      <TextField form={form} name="name" label="Name" help="What uses the key, such as the name of a script or device." />
      <Checkboxes
        label="Scopes"
        help="Choose only what it needs. A key never opens more than your role does."
        error={form.errors["scopes"]}
        options={options.map((scope) => [scope, scopeText(scope)])}
        chosen={scopes}
        onChange={setScopes}
      />
      <SelectField
        form={form}
        name="expires"
        label="Expires"
        options={known ? [[UNCHANGED, "Unchanged"], ...DAYS] : [...DAYS, [NEVER, "Never"]]}
      />
      {form.values.expires === DATE && (
        <TextField form={form} name="expires_at" label="Time of expiry" help="In your local time." type="datetime-local" />
      )}
    </Form>
  );
}

function expiryOf(choice: string, date: string): string | undefined {
  if (choice === NEVER || choice === UNCHANGED) return undefined;
  // Whole hours, so that a repeated request is the same.
  const inDays = Math.ceil((Date.now() + Number(choice) * DAY) / HOUR) * HOUR;
  return new Date(choice === DATE ? date : inDays).toISOString();
}
