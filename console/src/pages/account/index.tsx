// The pages that every user has.
import type { Route } from "../../lib/routes";
import { ActivityPage } from "./activity";
import { KeyPage } from "./key";
import { KeysPage } from "./keys";
import { PasswordPage } from "./password";
import { ProfilePage } from "./profile";
import { SessionsPage } from "./sessions";

export const accountRoutes: Route[] = [
  { path: "profile", label: "Profile", group: "account", component: ProfilePage },
  { path: "password", label: "Password", group: "account", component: PasswordPage },
  { path: "sessions", label: "Sessions", group: "account", component: SessionsPage },
  { path: "keys", label: "API keys", group: "account", scopes: ["keys:read"], component: KeysPage },
  { path: "keys/:id", component: KeyPage, scopes: ["keys:read"] },
  { path: "activity", label: "Activity", group: "account", component: ActivityPage },
];
