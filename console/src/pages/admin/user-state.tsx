// Whether a user can sign in.
import type { User } from "../../api";
import { Badge } from "../../components/text";

export function UserState({ user }: { user: User }) {
  if (user.disabled) return <Badge kind="bad">disabled</Badge>;
  if (user.sign_in_stopped) return <Badge kind="warning">sign-in stopped</Badge>;
  if (!user.role_is_defined) return <Badge kind="warning">role undefined</Badge>;
  return <Badge kind="good">active</Badge>;
}
