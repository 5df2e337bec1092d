// Tells password managers whose password a form is about.
import { useSession } from "../../lib/current";

export function AccountName() {
  const { user } = useSession();
  return <input type="text" autocomplete="username" value={user.email} readOnly hidden />;
}
