// Routes that docs/openapi.json does not describe.

type Answer<S extends number, B> = { parameters: object; responses: { [K in S]: { content: { "application/json": B } } } };

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
}

export interface PendingPaths {
  "/stats": {
    get: Answer<200, StatsResponse> & {
      parameters: { query?: { from?: string; to?: string; step?: "hour" | "day" } };
    };
  };
  "/console/settings.json": { get: Answer<200, ConsoleSettings> };
}
