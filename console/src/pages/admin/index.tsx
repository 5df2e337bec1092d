// The pages of users with further scopes.
import type { Route } from "../../lib/routes";

export const adminRoutes: Route[] = [];
