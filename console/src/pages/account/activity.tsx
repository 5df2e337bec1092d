// What you did, and what others did to what is yours.
import { call, type AuditEntry } from "../../api";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Time, UserText } from "../../components/text";
import { useList } from "../../lib/data";
import { actionText } from "../admin/audit-terms";
import { Outcome, Reference } from "../admin/audit-text";

const COLUMNS: Column<AuditEntry>[] = [
  { label: "Time", cell: ({ at }) => <Time value={at} /> },
  {
    label: "Action",
    cell: ({ action, detail, changed }) => (
      <>
        {actionText(action)}
        {(detail || changed.length > 0) && (
          <span class="second-line">
            <UserText value={detail ?? `changed: ${changed.join(", ")}`} />
          </span>
        )}
      </>
    ),
  },
  { label: "Outcome", cell: ({ outcome }) => <Outcome value={outcome} />, kind: "tight" },
  { label: "By", cell: ({ actor }) => <Reference value={actor} /> },
  { label: "Credential", cell: ({ credential }) => <UserText value={credential} /> },
  { label: "Target", cell: ({ target }) => <Reference value={target} /> },
  { label: "Address", cell: ({ client }) => <UserText value={client} /> },
];

export function ActivityPage() {
  const list = useList(
    (after, signal) => call("get", "/me/activity", { query: { limit: 50, ...(after !== undefined && { after }) }, signal }),
    [],
  );
  return (
    <Page title="Activity" intro="What was done with your account, by you or by others, newest first. Look for what you do not know.">
      <ListTable
        caption="Activity of your account"
        columns={COLUMNS}
        list={list}
        keyOf={({ id }) => id}
        empty={{ title: "No activity yet" }}
      />
    </Page>
  );
}
