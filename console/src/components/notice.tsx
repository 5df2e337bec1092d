// Messages: what was done, and what failed.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, OfflineError } from "../api";
import { location } from "../lib/router";
import { Store, useStore } from "../lib/store";
import { Button } from "./button";

const message = new Store("");

let path = location.get().path;
location.subscribe(() => {
  const next = location.get().path;
  if (next !== path) message.set("");
  path = next;
});

/** Shows what was done, above the page, until the next page. Screen readers announce it. */
export function notify(text: string): void {
  message.set("");
  // A repeated text is announced only if the region was empty in between.
  setTimeout(() => message.set(text));
}

/** The region of `notify`. It is always in the document, because regions that appear with their text are not announced. */
export function NoticeRegion() {
  const text = useStore(message);
  return (
    <div role="status" class="notices">
      {text && (
        <div class="notice success">
          <p dir="auto">{text}</p>
          <button type="button" class="close" aria-label="Dismiss" onClick={() => message.set("")}>
            ×
          </button>
        </div>
      )}
    </div>
  );
}

/** A message in the page. */
export function Notice({ kind = "info", children }: { kind?: "info" | "success" | "warning" | "error"; children: ComponentChildren }) {
  return (
    <div class={`notice ${kind}`} role={kind === "error" ? "alert" : "status"}>
      <div>{children}</div>
    </div>
  );
}

/** A message of success in place of a form. It gets the focus, which was in the form, so that it is also read out. */
export function DoneNotice({ children }: { children: ComponentChildren }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => element.current?.focus(), []);
  return (
    <div ref={element} tabIndex={-1} class="notice success">
      <div>{children}</div>
    </div>
  );
}

interface ErrorProps {
  error: unknown;
  /** Without it, there is no button. */
  onRetry?: () => unknown;
  /** The data loads again by itself. */
  isRetrying?: boolean;
}

/** What failed, what to do, and the id for the administrator. Renders nothing without an error. */
export function ErrorBox({ error, onRetry, isRetrying = false }: ErrorProps) {
  if (error === undefined || error === null) return null;
  return (
    <div class="notice error" role="alert">
      <div>
        <p class="notice-title">{headline(error)}</p>
        <p dir="auto">{explanation(error)}</p>
        {isRetrying && <p>The console tries again by itself.</p>}
        <RequestId error={error} />
      </div>
      {onRetry && <Button onClick={onRetry}>Try again</Button>}
    </div>
  );
}

function RequestId({ error }: { error: unknown }) {
  const id = error instanceof ApiError ? error.problem?.request_id : undefined;
  if (!id) return null;
  return (
    <p class="request-id">
      Request id <code>{id}</code>
    </p>
  );
}

function headline(error: unknown): string {
  if (error instanceof OfflineError) return "The server does not answer";
  if (!(error instanceof ApiError)) return "The console failed";
  if (error.status === 429) return "Too many attempts";
  if (error.isTemporary) return error.status === 504 ? "The outcome is unknown" : "The server is busy";
  if (error.status >= 500) return "The server failed";
  if (error.code === "not_configured") return "Not available on this server";
  if (error.status === 404) return "Not found";
  return "This did not work";
}

function explanation(error: unknown): string {
  if (error instanceof OfflineError) return "Check your connection. Nothing that you entered here is lost.";
  if (error instanceof ApiError) return error.message;
  return error instanceof Error ? error.message : String(error);
}

/** Text for a wait of more than a moment, so that quick answers do not flicker. */
export function Loading({ label = "Loading…" }: { label?: string }) {
  const [isVisible, setVisible] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setVisible(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return (
    <p class="loading" role="status">
      {isVisible && (
        <>
          <span class="spinner" aria-hidden="true" /> {label}
        </>
      )}
    </p>
  );
}

/** What a list shows without entries. */
export function EmptyState({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children && <p>{children}</p>}
    </div>
  );
}
