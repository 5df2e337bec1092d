// One entry of the trail.
import { call, type AuditEntry } from "../../api";
import { EmptyState } from "../../components/notice";
import { Card, Facts, Page } from "../../components/page";
import { Scopes, Time, UserText } from "../../components/text";
import { useData } from "../../lib/data";
import { href } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { actionText } from "./audit-terms";
import { Outcome, Reference } from "./audit-text";
import { Loaded } from "../../components/loaded";

export function AuditEntryPage({ params }: PageProps) {
  const id = Number(params["id"]);
  const data = useData((signal) => loadEntry(id, signal), [id]);
  return (
    <Page title={`Audit entry ${id}`} back={{ href: href("audit"), label: "Audit trail" }}>
      <Loaded data={data}>
        {(entry) =>
          entry === "absent" ? (
            <EmptyState title="There is no such entry">It may have been pruned, or the address is wrong.</EmptyState>
          ) : (
            <Entry entry={entry} />
          )
        }
      </Loaded>
    </Page>
  );
}

/** The API lists entries only. The newest one below the next id is the entry, if it exists. */
async function loadEntry(id: number, signal: AbortSignal): Promise<AuditEntry | "absent"> {
  if (!Number.isSafeInteger(id)) return "absent";
  const { items } = await call("get", "/audit", { query: { after: id + 1, limit: 1 }, signal });
  const [entry] = items;
  return entry?.id === id ? entry : "absent";
}

function Entry({ entry }: { entry: AuditEntry }) {
  return (
    <>
      <Card title={actionText(entry.action)}>
        <Facts
          items={[
            ["Time", <Time value={entry.at} isBoth />],
            ["Action", <code>{entry.action}</code>],
            ["Outcome", <Outcome value={entry.outcome} />],
            ["Target", <Reference value={entry.target} />],
            ["Owner of the target", <UserLink id={entry.subject} />],
            ["Changed fields", entry.changed.length > 0 ? entry.changed.join(", ") : "–"],
            ["Version", versions(entry)],
            ["Detail", <UserText value={entry.detail} />],
          ]}
        />
      </Card>
      <Card title="Who">
        <Facts
          items={[
            ["Actor", <Reference value={entry.actor} />],
            ["On the account of", <UserLink id={entry.user} />],
            ["Credential", <code>{entry.credential}</code>],
            ["Role in force", <UserText value={entry.role} />],
            ["Scopes in force", <Scopes scopes={entry.scopes} />],
            ["Client", <UserText value={entry.client} />],
            ["Request id", entry.request_id ? <code>{entry.request_id}</code> : "–"],
          ]}
        />
      </Card>
    </>
  );
}

function UserLink({ id }: { id: number | null }) {
  return <Reference value={id === null ? null : `user:${id}`} />;
}

function versions({ version_before: before, version_after: after }: AuditEntry): string {
  if (before === null && after === null) return "–";
  return `${before ?? "none"} → ${after ?? "none"}`;
}
