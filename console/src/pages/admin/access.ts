// What the signed-in user may do on a page.
import type { Scope } from "../../api";
import { useSession } from "../../lib/current";

/** Whether the signed-in user holds the scope. The server decides again at each request. */
export function useHolds(scope: Scope): boolean {
  return useSession().scopes.includes(scope);
}
