// Routes that docs/openapi.json does not describe.

type Answer<S extends number, B> = { parameters: object; responses: { [K in S]: { content: { "application/json": B } } } };

export interface ConsoleSettings {
  registration: "open" | "verified" | "invited" | "closed";
  /** Whether the server sends mails. */
  mail: boolean;
  /** Whether a sign-in requires a verified address. */
  verified_email_required: boolean;
  name_min: number;
  password_min: number;
  password_max: number;
}

export interface PendingPaths {
  "/console/settings.json": { get: Answer<200, ConsoleSettings> };
}
