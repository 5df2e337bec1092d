// Chooses the role of a user.
import { useEffect } from "preact/hooks";
import { call, type User } from "../../api";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { Form, SelectField, useForm } from "../../components/form";
import { notify } from "../../components/notice";
import { useData } from "../../lib/data";
import { Loaded } from "../../components/loaded";
import { loadRoles } from "./role-names";

interface Props {
  user: User;
  onChange: (user: User) => void;
  onClose: () => void;
}

export function RoleDialog(props: Props) {
  const roles = useData(loadRoles, []);
  return (
    <Dialog title="Change the role" onClose={props.onClose}>
      <Loaded data={roles}>{(names) => <RoleForm {...props} roles={names} />}</Loaded>
    </Dialog>
  );
}

function RoleForm({ user, roles, onChange, onClose }: Props & { roles: string[] }) {
  const form = useForm({
    initial: { role: user.role },
    submit: async ({ role }) => {
      const changed = await call("patch", "/users/{id}", { path: { id: user.id }, body: { role: role as "member" } });
      onChange(changed);
      notify(`The role is ${changed.role} now.`);
      onClose();
    },
    fieldOf: { scope_not_held: "role", last_admin: "role" },
  });
  // The form appears after the dialog, which has the focus until then.
  useEffect(() => form.element.current?.querySelector("select")?.focus(), []);
  const names = roles.includes(user.role) ? roles : [user.role, ...roles];
  return (
    <Form form={form} submitLabel="Change role" beside={<Button onClick={onClose}>Cancel</Button>}>
      <SelectField
        form={form}
        name="role"
        label="Role"
        help="The role decides what the user may do. It applies at once, also to tokens and keys, and ends the user’s console sessions."
        options={names.map((name) => [name, name] as const)}
      />
    </Form>
  );
}
