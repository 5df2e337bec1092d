// Routes that docs/openapi.json does not describe yet.
import type { components } from "./schema";

type User = components["schemas"]["UserResponse"];
type Answer<S extends number, B> = { parameters: object; responses: { [K in S]: { content: { "application/json": B } } } };
type Empty = { parameters: object; responses: { 204: { content?: never } } };

export interface SessionResponse {
  id: number;
  user: User;
  scopes: string[];
  created_at: string;
  expires_at: string;
  idle_seconds: number;
}

export interface SessionListItem {
  id: number;
  created_at: string;
  last_used_at: string;
  expires_at: string;
  client: string | null;
  user_agent: string | null;
  current: boolean;
}

export interface StatsItem {
  at: string;
  sign_ins_succeeded: number;
  sign_ins_failed: number;
  sign_ins_throttled: number;
  registrations: number;
  requests_authorized: number;
  requests_refused: number;
  keys_used: number;
  hash_queue_max: number;
}

export interface StatsResponse {
  step: "hour" | "day";
  from: string;
  to: string;
  items: StatsItem[];
}

export interface ConsoleSettings {
  registration: "open" | "closed";
  name_min: number;
  password_min: number;
  password_max: number;
  idle_seconds: number;
}

export interface PendingPaths {
  "/session": {
    get: Answer<200, SessionResponse>;
    post: Answer<201, SessionResponse> & {
      requestBody: { content: { "application/json": { email: string; password: string } } };
    };
    delete: Empty;
  };
  "/me/sessions": { get: Answer<200, { items: SessionListItem[]; total: number }> };
  "/me/sessions/{id}": { delete: Empty & { parameters: { path: { id: number } } } };
  "/stats": {
    get: Answer<200, StatsResponse> & {
      parameters: { query?: { from?: string; to?: string; step?: "hour" | "day" } };
    };
  };
  "/console/settings.json": { get: Answer<200, ConsoleSettings> };
}
