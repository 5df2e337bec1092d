// Requests to the API, typed by the OpenAPI document.
import type { components, paths } from "./schema";
import { Store } from "./lib/store";
import type { PendingPaths } from "./pending";

type Api = paths & PendingPaths;
type Method = "get" | "post" | "put" | "patch" | "delete";
type Schemas = components["schemas"];

export type User = Schemas["UserResponse"];
export type Key = Schemas["KeyResponse"];
export type FreshKey = Schemas["FreshKeyResponse"];
export type IssuedKey = Schemas["IssuedKeyResponse"];
export type Session = Schemas["SessionResponse"];
export type SessionItem = Schemas["SessionItemResponse"];
export type Registration = Schemas["RegisterRequest"];
export type Invitation = Schemas["InvitationResponse"];
export type AuditEntry = Schemas["AuditEntryResponse"];
export type Problem = Schemas["Problem"];
export type FieldError = Schemas["FieldError"];
export type Scope = Schemas["Scope"];

type PathsWith<M extends Method> = {
  [P in keyof Api]: Api[P] extends { [K in M]: { responses: unknown } } ? P : never;
}[keyof Api] &
  string;
type Operation<M extends Method, P extends keyof Api> = Api[P] extends { [K in M]: infer O } ? O : never;
type Json<T> = T extends { content: { "application/json": infer B } } ? B : undefined;
type Success<O> = O extends { responses: infer R }
  ? { [S in keyof R]: S extends 200 | 201 | 202 | 204 ? Json<R[S]> : never }[keyof R]
  : never;
type Part<O, N extends string> = O extends { parameters: { [K in N]?: infer V } } ? Exclude<V, undefined> : never;
type Body<O> = O extends { requestBody?: infer B } ? Json<Exclude<B, undefined>> : undefined;

type Optional<T> = { [K in keyof T]?: T[K] | undefined };

interface Request<O> {
  path?: Part<O, "path">;
  query?: Optional<Part<O, "query">>;
  headers?: Record<string, string>;
  body?: Body<O>;
  signal?: AbortSignal;
}

/** The server answered with an error. */
export class ApiError extends Error {
  override name = "ApiError";

  constructor(
    readonly status: number,
    /** Absent if the body is not a problem document, as from a proxy. */
    readonly problem: Problem | undefined,
    /** Seconds, from `Retry-After`. */
    readonly retryAfter: number | undefined,
  ) {
    super(problem?.detail ?? `The server answered with status ${status}.`);
  }

  get code(): string {
    return this.problem?.code ?? "";
  }

  /** Whether the same request may succeed a little later. */
  get isTemporary(): boolean {
    return this.status === 503 || this.status === 502 || this.status === 504;
  }
}

/** The server did not answer. */
export class OfflineError extends Error {
  override name = "OfflineError";

  constructor() {
    super("The server does not answer.");
  }
}

/** What the session store wants to know about each answer. */
export interface Observer {
  /** An answer that proves that the session is open. */
  onAnswer(date: Date): void;
  /** The server no longer accepts the session. */
  onRejected(): void;
}

let observer: Observer | undefined;

export function observe(by: Observer): void {
  observer = by;
}

/** The directory above `/console/`, which also works behind a path prefix. */
const ROOT = new URL("..", document.baseURI);
/** Codes of the answers to a request without an accepted credential. */
const REJECTED = new Set(["not_authenticated", "invalid_token"]);

/** Sends one request. Errors are `ApiError`, `OfflineError`, or an abort. */
export async function call<M extends Method, P extends PathsWith<M>>(
  method: M,
  path: P,
  request: Request<Operation<M, P>> = {},
): Promise<Success<Operation<M, P>>> {
  const response = await send(method, path, request as AnyRequest);
  const content = response.text().then((text) => (text === "" ? undefined : JSON.parse(text)));
  return (await content.catch(lost)) as Success<Operation<M, P>>;
}

/** Whether the server does not accept the session, or there is none. */
export function isRejected(error: unknown): boolean {
  return error instanceof ApiError && REJECTED.has(error.code);
}

interface AnyRequest {
  path?: object;
  query?: object;
  headers?: Record<string, string>;
  body?: unknown;
  signal?: AbortSignal;
}

/** Routes that do not use the session, and so do not extend it. */
const PUBLIC = new Set([
  "/console/settings.json",
  "/register",
  "/password-reset",
  "/password-reset/confirm",
  "/email-verification",
  "/email-verification/confirm",
  "/email-change/confirm",
  "/email-change/undo",
  "/registration/confirm",
  "/invitations/accept",
]);
/** Changes are repeated this many times while the server is busy. */
const REPEATS = 4;
/** The longest wait before a repetition, in seconds. */
const LONGEST_WAIT = 10;

/** Whether a change waits for a busy server. */
export const isWaiting = new Store(false);

let repetitions = new AbortController();

/** Another user may be signed in from now on, for whom a waiting change must not be sent. */
export function stopRepeating(): void {
  repetitions.abort();
  repetitions = new AbortController();
  isWaiting.set(false);
}

/** As `call`, but for answers that are not JSON. */
export async function send(method: Method, path: string, request: AnyRequest = {}): Promise<Response> {
  const { signal } = repetitions;
  for (let repeats = 0; ; repeats += 1) {
    try {
      return await sendOnce(method, path, request, signal);
    } catch (error) {
      // `busy` means that nothing was done. Reads are repeated where they are shown.
      const isRepeatable = error instanceof ApiError && error.code === "busy" && method !== "get" && repeats < REPEATS;
      if (!isRepeatable) throw error;
      const seconds = Math.min(Math.max(error.retryAfter ?? 0, 2 ** repeats), LONGEST_WAIT);
      isWaiting.set(true);
      // Different clients must not come back at the same moment.
      await new Promise((resume) => setTimeout(resume, seconds * 1_000 * (1 + Math.random() / 4)));
      // Sign-in and sign-out are independent of the session that was shown.
      if (path !== "/session") signal.throwIfAborted();
      isWaiting.set(false);
    }
  }
}

async function sendOnce(
  method: Method,
  path: string,
  request: AnyRequest,
  session: AbortSignal,
): Promise<Response> {
  const init: RequestInit = {
    method: method.toUpperCase(),
    headers: { Accept: "application/json", ...request.headers },
    credentials: "same-origin",
    cache: "no-store",
    redirect: "error",
  };
  if (request.body !== undefined) {
    init.body = JSON.stringify(request.body);
    init.headers = { ...init.headers, "Content-Type": "application/json" };
  }
  if (request.signal) init.signal = request.signal;
  const response = await fetch(url(path, request), init).catch((error: unknown) => {
    if (request.signal?.aborted) throw error;
    return lost();
  });
  if (response.ok) {
    if (!PUBLIC.has(path) && !session.aborted) observer?.onAnswer(date(response));
    return response;
  }
  const error = await failure(response);
  if (isRejected(error) && path !== "/session" && !session.aborted) observer?.onRejected();
  throw error;
}

function lost(): never {
  throw new OfflineError();
}

function url(path: string, request: AnyRequest): URL {
  const parameters = (request.path ?? {}) as Record<string, string | number>;
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(parameters[name])));
  const result = new URL(filled.slice(1), ROOT);
  for (const [name, value] of Object.entries(request.query ?? {})) {
    if (value !== undefined && value !== null && value !== "") result.searchParams.set(name, String(value));
  }
  return result;
}

function date(response: Response): Date {
  const sent = response.headers.get("Date");
  return sent ? new Date(sent) : new Date();
}

async function failure(response: Response): Promise<ApiError> {
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json") ?? false;
  const problem = isProblem ? ((await response.json().catch(() => undefined)) as Problem | undefined) : undefined;
  const seconds = Number(response.headers.get("Retry-After"));
  return new ApiError(response.status, problem, seconds > 0 ? seconds : undefined);
}
