// How the pages of the trail show actors, targets and outcomes.
import { Badge, UserText } from "../../components/text";
import { href } from "../../lib/router";
import { useHolds } from "./access";

const KINDS: Record<string, "good" | "warning" | "bad"> = { success: "good", failure: "warning", denied: "bad" };

export function Outcome({ value }: { value: string }) {
  return <Badge kind={KINDS[value] ?? "neutral"}>{value}</Badge>;
}

/** `user:2` or `page:1`, as a link to its page if there is one. */
export function Reference({ value }: { value: string | null }) {
  const isReader = useHolds("users:read");
  const [, kind, id] = /^(user|page):([1-9][0-9]{0,15})$/.exec(value ?? "") ?? [];
  if (kind === "user" && isReader) return <a href={href(`users/${id}`)}>{value}</a>;
  if (kind === "page") return <a href={href(`pages/${id}/history`)}>{value}</a>;
  if (value && /^[a-z]+:[0-9]{1,16}$/.test(value)) return <span class="reference">{value}</span>;
  return <UserText value={value} />;
}
