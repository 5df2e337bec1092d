// Small pieces of text: times, badges, texts of users, and texts to copy.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Store, useStore } from "../lib/store";
import { Button } from "./button";

/** Whether times are shown in UTC. */
export const inUtc = new Store(false);

const FORMAT: Intl.DateTimeFormatOptions = {
  day: "2-digit",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
};
const LOCAL = new Intl.DateTimeFormat("en-GB", FORMAT);
const ZONED = new Intl.DateTimeFormat("en-GB", { ...FORMAT, timeZoneName: "short" });
const UTC = new Intl.DateTimeFormat("en-GB", { ...FORMAT, timeZone: "UTC", timeZoneName: "short" });

interface TimeProps {
  /** As the API returns it. */
  value: string | null | undefined;
  /** Shown for an absent value. */
  otherwise?: string;
  /** Shows local time and UTC, one below the other. */
  isBoth?: boolean;
}

/** A time in the zone that the user chose, with both zones in the tooltip, or in the text with `isBoth`. */
export function Time({ value, otherwise = "–", isBoth = false }: TimeProps) {
  const isUtc = useStore(inUtc);
  if (!value) return <span class="muted">{otherwise}</span>;
  const date = new Date(value);
  const [zoned, utc] = [ZONED.format(date), UTC.format(date)];
  if (isBoth) {
    return (
      <time dateTime={value}>
        {zoned}
        {utc !== zoned && <span class="second-line">{utc}</span>}
      </time>
    );
  }
  return (
    <time dateTime={value} title={`${zoned} – ${utc}`}>
      {isUtc ? utc : LOCAL.format(date)}
    </time>
  );
}

/** A text that a user or client chose: any direction, any length, never markup. */
export function UserText({ value, otherwise = "–" }: { value: string | null | undefined; otherwise?: string }) {
  if (!value) return <span class="muted">{otherwise}</span>;
  return (
    <bdi class="user-text" dir="auto">
      {value}
    </bdi>
  );
}

export function Badge({ kind = "neutral", children }: { kind?: "neutral" | "good" | "warning" | "bad"; children: ComponentChildren }) {
  return <span class={`badge ${kind}`}>{children}</span>;
}

/** Scopes as a wrapping list. */
export function Scopes({ scopes }: { scopes: readonly string[] }) {
  if (scopes.length === 0) return <span class="muted">none</span>;
  return (
    <ul class="scopes">
      {scopes.map((scope) => (
        <li key={scope}>
          <code>{scope}</code>
        </li>
      ))}
    </ul>
  );
}

/** Copies a text, and says so. */
export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [outcome, setOutcome] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setOutcome("Copied");
    } catch {
      setOutcome("Copying failed. Select the text and copy it.");
    }
  };
  return (
    <>
      <Button onClick={copy}>{label}</Button>
      <span class="copied" role="status">
        {outcome}
      </span>
    </>
  );
}

/** A secret that is shown only once. */
export function SecretBox({ label, secret }: { label: string; secret: string }) {
  return (
    <div class="secret">
      <p class="secret-label">{label}</p>
      <div class="secret-line">
        <code class="secret-text" tabIndex={0}>
          {secret}
        </code>
        <CopyButton text={secret} />
      </div>
    </div>
  );
}

/** A title in which short words with a hyphen, such as e-mail, stay on one line. Longer ones must break on narrow screens. */
export function Title({ text }: { text: string }) {
  const parts = text.split(/(\b\w{1,4}-\w{1,4}\b)/);
  return <>{parts.map((part, index) => (index % 2 === 1 ? <span class="unbroken">{part}</span> : part))}</>;
}
