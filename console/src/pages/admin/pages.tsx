// The pages of all users, each with a link to its history.
import { call } from "../../api";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Time, UserText } from "../../components/text";
import { useList } from "../../lib/data";
import { href } from "../../lib/router";
import type { components } from "../../schema";
import { Reference } from "./audit-text";

type Item = components["schemas"]["PageListItemResponse"];

const COLUMNS: Column<Item>[] = [
  {
    label: "Title",
    cell: (page) => (
      <a href={href(`pages/${page.id}/history`)}>
        <UserText value={page.title} otherwise={`Page ${page.id}`} />
      </a>
    ),
  },
  { label: "Owner", cell: ({ owner }) => <Reference value={`user:${owner}`} />, kind: "tight" },
  { label: "Version", cell: ({ version }) => version, kind: "number" },
  { label: "Last change", cell: (page) => <Time value={page.updated_at} />, kind: "tight" },
  { label: "Changed by", cell: ({ updated_by }) => <Reference value={`user:${updated_by}`} />, kind: "tight" },
];

export function PagesPage() {
  const list = useList((after, signal) => call("get", "/page/", { query: { after: after ?? 0, size: 50 }, signal }), []);
  return (
    <Page title="Pages" intro="The pages of all users. Choose one to see who changed it.">
      <ListTable
        caption="Pages by id"
        columns={COLUMNS}
        keyOf={({ id }) => id}
        list={list}
        empty={{ title: "No pages yet", text: "Pages are created with POST /page/." }}
      />
    </Page>
  );
}
