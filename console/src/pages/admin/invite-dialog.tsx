// Invites an address.
import { useEffect } from "preact/hooks";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Form, SelectField, TextField, useForm } from "../../components/form";
import { Loaded } from "../../components/loaded";
import { useData } from "../../lib/data";
import { loadRoles } from "./role-names";

/** The role that the API gives if a request names none. */
const DEFAULT_ROLE = "member";

interface Props {
  onInvite: (email: string, role: string) => Promise<void>;
  onClose: () => void;
}

export function InviteDialog(props: Props) {
  const roles = useData(loadRoles, []);
  return (
    <Dialog title="Invite a user" onClose={props.onClose}>
      <Loaded data={roles}>{(names) => <InviteForm {...props} roles={names} />}</Loaded>
    </Dialog>
  );
}

function InviteForm({ roles, onInvite, onClose }: Props & { roles: string[] }) {
  const form = useForm({
    initial: { email: "", role: DEFAULT_ROLE },
    check: ({ email }) => (email.trim() === "" ? { email: "Enter the e-mail address of the user." } : {}),
    submit: async ({ email, role }) => {
      await onInvite(email, role);
      onClose();
    },
    fieldOf: { email_taken: "email", already_invited: "email" },
  });
  // The form appears after the dialog, which has the focus until then.
  useEffect(() => form.element.current?.querySelector("input")?.focus(), []);
  return (
    <Form form={form} submitLabel="Send invitation" beside={<Button onClick={onClose}>Cancel</Button>}>
      <TextField
        form={form}
        name="email"
        label="E-mail address"
        help="The user gets a mail with a link, chooses a name and a password, and signs in with this address."
        type="email"
        input={{ autoCapitalize: "none", spellcheck: false }}
      />
      <SelectField
        form={form}
        name="role"
        label="Role"
        help="The role decides what the user may do. You can give only scopes that you hold."
        options={roles.map((name) => [name, name] as const)}
      />
    </Form>
  );
}
