// The pages that every user has.
import type { Route } from "../../lib/routes";
import { ProfilePage } from "./profile";

export const accountRoutes: Route[] = [{ path: "profile", label: "Profile", component: ProfilePage }];
