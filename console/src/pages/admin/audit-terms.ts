// What the audit trail can be filtered by.
import type { paths } from "../../schema";

export type Filters = NonNullable<paths["/audit"]["get"]["parameters"]["query"]>;
export type Action = NonNullable<Filters["action"]>;

/** Each action of the API, so that a new one must get its words here. */
export const ACTIONS: Record<Action, string> = {
  "user.register": "Registration",
  "user.sign_in": "Sign-in",
  "user.sign_out": "Sign-out",
  "session.create": "Console sign-in",
  "session.end": "Console session ended",
  "user.update": "Account changed",
  "user.password": "Password changed",
  "user.password_reset": "Password reset",
  "user.email": "E-mail address changed",
  "user.verify_email": "E-mail address verified",
  "invitation.create": "Invitation",
  "invitation.revoke": "Invitation revoked",
  "link.create": "Link made",
  "mail.send": "Mail",
  "user.role": "Role changed",
  "user.disable": "Account disabled",
  "user.enable": "Account enabled",
  "user.unlock": "Sign-in unlocked",
  "user.delete": "Account deleted",
  "user.cleanup": "Deleted account cleaned up",
  "token.revoke": "Token revoked",
  "key.create": "Key created",
  "key.issue": "Key issued",
  "key.claim": "Key claimed",
  "key.update": "Key changed",
  "key.rotate": "Key rotated",
  "key.revoke": "Key revoked",
  "database.restore": "Database restored",
  "database.copy": "Database copied",
  "page.create": "Page created",
  "page.update": "Page changed",
  "page.delete": "Page deleted",
  request: "Request denied",
  "request.forward": "Forwarded request",
  "audit.prune": "Trail pruned",
};

/** The words for an action, or its name if this console does not know it. */
export function actionText(action: string): string {
  return Object.hasOwn(ACTIONS, action) ? ACTIONS[action as Action] : action;
}

/** The names of the filters, which are also those in the address of the page. */
export const FILTERS = ["action", "outcome", "actor", "user", "target", "since", "until"] as const;
export type FilterValues = Record<(typeof FILTERS)[number], string>;

/** The filters in the query of the page. Absent ones are empty. */
export function filtersIn(query: URLSearchParams): FilterValues {
  return Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""])) as FilterValues;
}

/** The query of the API. It leaves out what is empty. */
export function apiQuery(filters: FilterValues): Filters {
  return Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== "")) as Filters;
}

const ACTOR = /^((user|key):[1-9][0-9]{0,18}|command-line|server|static-key|anonymous|various)$/;
const TARGET = /^((user|session|key|invitation|token-of-user|page):[1-9][0-9]{0,18}|tokens|audit|audit:anonymous-failures|[!-~]+ \/.*)$/;

/** What is wrong with the filters, by name. */
export function checkFilters({ actor, user, target, since, until }: FilterValues): Partial<FilterValues> {
  const found: Partial<FilterValues> = {};
  if (actor && !ACTOR.test(actor)) found.actor = "Enter user:2, key:7, command-line, server, static-key or anonymous.";
  if (user && !/^[1-9][0-9]{0,15}$/.test(user)) found.user = "Enter the id of a user, such as 2.";
  if (target && !TARGET.test(target)) found.target = "Enter user:2, key:7, page:1 or a request, such as GET /users.";
  if (since && until && since >= until) found.until = "Enter a time after the first one.";
  return found;
}
