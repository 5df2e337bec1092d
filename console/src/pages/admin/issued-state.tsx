// The state of an issued key, which follows from its times.
import type { IssuedKey } from "../../api";
import { Badge } from "../../components/text";

export const STATES = ["active", "unclaimed", "claim expired", "expired", "revoked"] as const;
export type IssuedState = (typeof STATES)[number];

export function stateOf(key: IssuedKey): IssuedState {
  const isPast = (time: string | null) => time !== null && Date.parse(time) <= Date.now();
  if (key.revoked_at) return "revoked";
  if (isPast(key.expires_at)) return "expired";
  if (key.claim_expires_at && !key.claimed_at) return isPast(key.claim_expires_at) ? "claim expired" : "unclaimed";
  return "active";
}

const KINDS = {
  active: "good",
  unclaimed: "neutral",
  "claim expired": "warning",
  expired: "warning",
  revoked: "bad",
} as const;

export function IssuedStateBadge({ issued }: { issued: IssuedKey }) {
  const state = stateOf(issued);
  return <Badge kind={KINDS[state]}>{state}</Badge>;
}
