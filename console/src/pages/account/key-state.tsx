// The state of an own API key, which follows from its times.
import type { Key } from "../../api";
import { Badge, Time, UserText } from "../../components/text";

export function isExpired(key: Key): boolean {
  return key.expires_at !== null && key.expires_at !== undefined && Date.parse(key.expires_at) <= Date.now();
}

export function KeyState({ value }: { value: Key }) {
  return isExpired(value) ? <Badge kind="warning">expired</Badge> : <Badge kind="good">active</Badge>;
}

export function LastUse({ value }: { value: Key }) {
  if (!value.last_used_at) return <span class="muted">never</span>;
  return (
    <>
      <Time value={value.last_used_at} />
      {value.last_used_ip && (
        <span class="second-line">
          from <UserText value={value.last_used_ip} />
        </span>
      )}
    </>
  );
}
