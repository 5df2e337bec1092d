// Who is signed in: the state of the session, in all tabs.
import { call, isRejected, observe, stopRepeating, type Session } from "./api";
import { Store } from "./lib/store";

export type State =
  | { is: "unknown"; error?: unknown }
  | { is: "signed-out"; notice?: string }
  | { is: "signed-in"; session: Session };

const KINDS = ["signed-in", "signed-out", "active"] as const;

interface Message {
  is: (typeof KINDS)[number];
  at: number;
}

/** The server stores the time of the last use at most once a minute, so the session may end that much earlier. */
const LAST_USE_ACCURACY = 60_000;
/** At most one message about activity to the other tabs in this time. */
const ACTIVE_EVERY = 5_000;
/** In `sessionStorage`: a sign-out that the server has not confirmed. */
const UNCONFIRMED = "sign-out";

export const state = new Store<State>({ is: "unknown" });
/** Sign-out that the server has not confirmed yet. */
export const unconfirmed = new Store(false);

const tabs = new BroadcastChannel("latchkey-session");
/** Server time minus local time, in milliseconds. */
let skew = 0;
let lastUse = Date.now();
let lastMessage = 0;
/** Raised when the session changes, so that a late answer about an earlier one is not shown. */
let epoch = 0;
/** The last sign-in or sign-out. */
let last: Promise<unknown> = Promise.resolve();

export const ENDED = "Your session has ended. Sign in again to continue.";

export function start(): void {
  observe({ onAnswer, onRejected: () => clear(ENDED) });
  tabs.addEventListener("message", ({ data }: MessageEvent<unknown>) => isMessage(data) && onMessage(data));
  // A page that the browser kept while it was hidden may show a session that has ended meanwhile.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) void load();
  });
  if (sessionStorage.getItem(UNCONFIRMED)) {
    clear();
    void confirmSignOut();
  } else {
    void load();
  }
}

/** Asks the server who is signed in. The page is empty until it answers. */
export async function load(): Promise<void> {
  change({ is: "unknown" });
  const asked = epoch;
  const found = await call("get", "/session").then(
    (session): State => ({ is: "signed-in", session }),
    (error: unknown): State => (isRejected(error) ? { is: "signed-out" } : { is: "unknown", error }),
  );
  if (asked === epoch) state.set(found);
}

/** Shows another session, or none. What was sent for the earlier one is not repeated. */
function change(to: State): void {
  epoch += 1;
  stopRepeating();
  state.set(to);
}

export async function signIn(email: string, password: string): Promise<void> {
  const session = await inTurn(() => call("post", "/session", { body: { email, password } }));
  // The sign-in has ended the old session.
  confirm();
  change({ is: "signed-in", session });
  post("signed-in");
}

/** Empties all tabs at once, and then ends the session on the server. */
export async function signOut(notice = "You are signed out."): Promise<void> {
  sessionStorage.setItem(UNCONFIRMED, "1");
  clear(notice);
  post("signed-out");
  await confirmSignOut();
}

/** Ends the session on the server, however long it is away. */
async function confirmSignOut(): Promise<void> {
  for (let wait = 1_000; sessionStorage.getItem(UNCONFIRMED); wait = Math.min(wait * 2, 30_000)) {
    try {
      await inTurn(async () => {
        if (sessionStorage.getItem(UNCONFIRMED)) await call("delete", "/session");
      });
      confirm();
    } catch (error) {
      // Any other error has left the session open.
      if (isRejected(error)) confirm();
      else unconfirmed.set(true);
    }
    if (sessionStorage.getItem(UNCONFIRMED)) await new Promise((resume) => setTimeout(resume, wait));
  }
}

function confirm(): void {
  sessionStorage.removeItem(UNCONFIRMED);
  unconfirmed.set(false);
}

/** Runs one after the other: the answer to a sign-out must not remove the cookie of a later sign-in. */
function inTurn<T>(task: () => Promise<T>): Promise<T> {
  const result = last.then(task, task);
  last = result.catch(() => undefined);
  return result;
}

/** The account or the session no longer exists on the server. */
export function ended(notice: string): void {
  clear(notice);
  post("signed-out");
}

/** Reads the session again, after a change of the account. The request also extends the idle time-out. */
export async function refresh(): Promise<void> {
  const asked = epoch;
  const session = await call("get", "/session");
  if (asked === epoch) state.set({ is: "signed-in", session });
}

/** When the session ends without a further request, in local time, and whether a request can extend it. */
export function end(session: Session): { at: number; isExtensible: boolean } {
  const absolute = Date.parse(session.expires_at) - skew;
  const idle = lastUse + session.idle_seconds * 1_000 - LAST_USE_ACCURACY;
  return { at: Math.min(absolute, idle), isExtensible: idle < absolute };
}

/** Whether the signed-in user holds all these scopes. */
export function holds(session: Session, scopes: readonly string[] = []): boolean {
  return scopes.every((scope) => session.scopes.includes(scope));
}

export function clear(notice?: string): void {
  change(notice ? { is: "signed-out", notice } : { is: "signed-out" });
}

function onAnswer(date: Date): void {
  lastUse = Date.now();
  skew = date.getTime() - lastUse;
  if (lastUse - lastMessage > ACTIVE_EVERY && state.get().is === "signed-in") post("active");
}

function post(is: Message["is"]): void {
  lastMessage = Date.now();
  tabs.postMessage({ is, at: lastMessage } satisfies Message);
}

/** Only pages of this server send messages, but one of them can be the console of another version. */
function isMessage(data: unknown): data is Message {
  const { is, at } = (data ?? {}) as Partial<Message>;
  return KINDS.some((kind) => kind === is) && Number.isFinite(at);
}

function onMessage(message: Message): void {
  if (message.is === "signed-out") clear("You signed out in another tab.");
  else if (message.is === "signed-in") {
    confirm();
    void load();
  } else {
    // A time in the future would delay the warning.
    lastUse = Math.max(lastUse, Math.min(message.at, Date.now()));
  }
}
