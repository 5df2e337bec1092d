// The pages for administrators and auditors, and the pages of the demo resource.
import type { Route } from "../../lib/routes";
import { AuditPage } from "./audit";
import { AuditEntryPage } from "./audit-entry";
import { InvitationsPage } from "./invitations";
import { IssuedKeyPage } from "./issued-key";
import { IssuedKeysPage } from "./issued-keys";
import { PageHistoryPage } from "./page-history";
import { PagesPage } from "./pages";
import { StatisticsPage } from "./statistics";
import { UserPage } from "./user";
import { UsersPage } from "./users";

export const adminRoutes: Route[] = [
  { path: "pages", component: PagesPage, scopes: ["pages:read"], label: "Pages", group: "content" },
  { path: "pages/:id/history", component: PageHistoryPage, scopes: ["pages:read"] },
  { path: "users", component: UsersPage, scopes: ["users:read"], label: "Users" },
  { path: "users/:id", component: UserPage, scopes: ["users:read"] },
  { path: "invitations", component: InvitationsPage, scopes: ["users:read"], label: "Invitations" },
  { path: "issued-keys", component: IssuedKeysPage, scopes: ["keys:issue"], label: "Issued keys" },
  { path: "issued-keys/:id", component: IssuedKeyPage, scopes: ["keys:issue"] },
  { path: "audit", component: AuditPage, scopes: ["audit:read"], label: "Audit trail" },
  { path: "audit/:id", component: AuditEntryPage, scopes: ["audit:read"] },
  { path: "statistics", component: StatisticsPage, scopes: ["audit:read"], label: "Statistics" },
];
