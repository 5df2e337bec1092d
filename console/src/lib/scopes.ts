// What the scopes allow.
import type { Scope } from "../api";

/** Each scope of the API, so that a new one must get its words here. */
const TEXTS: Record<Scope, string> = {
  "pages:read": "Read all pages and their history",
  "pages:write": "Create pages, change and delete your own",
  "keys:read": "Read your own API keys",
  "keys:write": "Create, change, rotate and revoke your own API keys",
  "keys:issue": "Issue API keys to others",
  "users:read": "Read all users",
  "users:write": "Create, change, disable and delete users",
  "audit:read": "Read the audit trail and the statistics",
  "tokens:introspect": "Ask who owns a token or key",
};

/** What the scope allows. External scopes have a meaning only to other services. */
export function scopeText(scope: string): string {
  return Object.hasOwn(TEXTS, scope) ? TEXTS[scope as Scope] : "A scope of another service";
}
