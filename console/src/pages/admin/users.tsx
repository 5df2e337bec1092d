// The list of users, with a search.
import { call, type User } from "../../api";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Time, UserText } from "../../components/text";
import { useList } from "../../lib/data";
import { href, navigate } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { Search } from "./search";
import { skipEmpty } from "./skip-empty";
import { UserState } from "./user-state";

const COLUMNS: Column<User>[] = [
  {
    label: "Name",
    cell: (user) => (
      <a href={href(`users/${user.id}`)}>
        <UserText value={`${user.name} ${user.surname}`.trim()} />
      </a>
    ),
  },
  { label: "E-mail", cell: ({ email }) => <UserText value={email} /> },
  { label: "Role", cell: ({ role }) => role, kind: "tight" },
  { label: "State", cell: (user) => <UserState user={user} />, kind: "tight" },
  { label: "Registered", cell: (user) => <Time value={user.created_at} />, kind: "tight" },
];

export function UsersPage({ query }: PageProps) {
  const search = query.get("search") ?? "";
  const list = useList(
    (first, signal) =>
      skipEmpty(first, (after) => call("get", "/users", { query: { after: after ?? 0, limit: 50, search }, signal })),
    [search],
  );
  return (
    <Page title="Users" intro="Everyone who has an account on this server.">
      <Search
        label="Search"
        help="A whole e-mail address, or a part of an e-mail, name or surname."
        value={search}
        onSearch={(text) => navigate(href("users", { search: text }))}
      />
      <ListTable
        caption="Users by id"
        columns={COLUMNS}
        keyOf={({ id }) => id}
        list={list}
        empty={{ title: "No user matches", text: <a href={href("users")}>Show all users</a> }}
      />
    </Page>
  );
}
