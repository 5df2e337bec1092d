// What the signed-in user may do on a page.
import type { Scope } from "../../api";
import { useStore } from "../../lib/store";
import { state } from "../../session";

/** Whether the signed-in user holds the scope. The server decides again at each request. */
export function useHolds(scope: Scope): boolean {
  const now = useStore(state);
  return now.is === "signed-in" && now.session.scopes.includes(scope);
}

/** The id of the signed-in user. */
export function useOwnId(): number | undefined {
  const now = useStore(state);
  return now.is === "signed-in" ? now.session.user.id : undefined;
}
