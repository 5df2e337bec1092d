// Who changed a page, when, at what level, and which fields.
import { ApiError, call } from "../../api";
import { Notice } from "../../components/notice";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Scopes, Time, UserText } from "../../components/text";
import { useData, useList } from "../../lib/data";
import { href } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import type { components } from "../../schema";
import { actionText } from "./audit-terms";
import { Reference } from "./audit-text";

type Change = components["schemas"]["PageChangeResponse"];

const COLUMNS: Column<Change>[] = [
  { label: "Time", cell: ({ at }) => <Time value={at} />, kind: "tight" },
  { label: "Action", cell: ({ action }) => actionText(action), kind: "tight" },
  { label: "Fields", cell: ({ changed }) => changed.join(", ") || "–" },
  { label: "Version", cell: ({ version_after }) => version_after ?? "–", kind: "number" },
  { label: "Actor", cell: ({ actor }) => <Reference value={actor} />, kind: "tight" },
  { label: "Role", cell: ({ role }) => <UserText value={role} />, kind: "tight" },
  { label: "Scopes in force", cell: ({ scopes }) => <Scopes scopes={scopes} /> },
];

export function PageHistoryPage({ params }: PageProps) {
  const id = Number(params["id"]);
  const page = useData((signal) => call("get", "/page/{id}", { path: { id }, signal }), [id]);
  const list = useList(
    (after, signal) =>
      call("get", "/page/{id}/history", {
        path: { id },
        query: { ...(after !== undefined && { after }), limit: 50 },
        signal,
      }),
    [id],
  );
  const isDeleted = page.error instanceof ApiError && page.error.status === 404 && list.items.length > 0;
  return (
    <Page
      title={page.value ? `History of ${page.value.title || `page ${id}`}` : `History of page ${id}`}
      back={{ href: href("pages"), label: "Pages" }}
    >
      {isDeleted && <Notice>The page is deleted. Its history remains.</Notice>}
      <ListTable
        caption="Changes, newest first"
        columns={COLUMNS}
        keyOf={({ id: entry }) => entry}
        list={list}
        empty={{ title: "No changes are recorded" }}
      />
    </Page>
  );
}
