// What a page of the console is.
import type { ComponentType } from "preact";
import type { Scope } from "../api";

export interface PageProps {
  /** The parameters of the path. */
  params: Record<string, string>;
  query: URLSearchParams;
}

export interface Route {
  /** Such as `users/:id`. */
  path: string;
  component: ComponentType<PageProps>;
  /** The page exists only for users with all of these scopes. */
  scopes?: Scope[];
  /** The label of its link in the navigation; absent for pages below another one. */
  label?: string;
  /** Its part of the navigation; `admin` if absent. */
  group?: "account" | "content" | "admin";
}
