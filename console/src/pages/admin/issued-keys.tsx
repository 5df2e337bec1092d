// The keys that the signed-in user issued to others.
import { useState } from "preact/hooks";
import { call, type IssuedKey } from "../../api";
import { Button } from "../../components/button";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Scopes, Time, UserText } from "../../components/text";
import { useList, type Part } from "../../lib/data";
import { href, navigate } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { IssueDialog } from "./issue-dialog";
import { IssuedStateBadge, STATES, stateOf, type IssuedState } from "./issued-state";
import { Search } from "./search";
import { skipEmpty } from "./skip-empty";
import { StateFilter } from "./state-filter";

const COLUMNS: Column<IssuedKey>[] = [
  {
    label: "Name",
    cell: (key) => (
      <a href={href(`issued-keys/${key.id}`)}>
        <UserText value={key.name} />
      </a>
    ),
  },
  { label: "Order", cell: ({ order }) => <UserText value={order} /> },
  { label: "State", cell: (key) => <IssuedStateBadge issued={key} />, kind: "tight" },
  { label: "Scopes", cell: ({ scopes }) => <Scopes scopes={scopes} /> },
  { label: "Last use", cell: (key) => <Time value={key.last_used_at} otherwise="never" />, kind: "tight" },
  { label: "Issued", cell: (key) => <Time value={key.created_at} />, kind: "tight" },
];

export function IssuedKeysPage({ query }: PageProps) {
  const [isOpen, setOpen] = useState(false);
  const order = query.get("order") ?? "";
  const state = STATES.find((name) => name === query.get("state"));
  const list = useList((after, signal) => loadMatching({ order, state, after, signal }), [order, state]);
  const close = (hasIssued: boolean) => {
    setOpen(false);
    if (hasIssued) list.reload();
  };
  return (
    <Page
      title="Issued keys"
      intro="API keys that you issued to other people or services, such as for a purchase."
      actions={
        <Button kind="primary" onClick={() => setOpen(true)}>
          Issue a key
        </Button>
      }
    >
      <div class="filters">
        <Search
          label="Order"
          help="The whole identifier of the purchase."
          value={order}
          onSearch={(text) => navigate(href("issued-keys", { order: text, state }))}
        />
        <StateFilter
          states={STATES}
          state={state}
          onChange={(next) => navigate(href("issued-keys", { order, state: next }))}
        />
      </div>
      <ListTable
        caption="Issued keys by id"
        columns={COLUMNS}
        keyOf={({ id }) => id}
        list={list}
        empty={
          order || state
            ? { title: "No key matches", text: <a href={href("issued-keys")}>Show all issued keys</a> }
            : { title: "No issued keys yet", text: "Keys that you issue to others appear here." }
        }
      />
      {isOpen && <IssueDialog onClose={close} />}
    </Page>
  );
}

interface Wanted {
  order: string;
  state: IssuedState | undefined;
  after: number | undefined;
  signal: AbortSignal;
}

/** The next part of the list that has a key in this state. The API selects by order only, so others are skipped here. */
function loadMatching({ order, state, after: first, signal }: Wanted): Promise<Part<IssuedKey>> {
  const limit = state ? 100 : 50;
  return skipEmpty(first, async (after) => {
    const { items, next } = await call("get", "/keys", { query: { after: after ?? 0, limit, order }, signal });
    return { items: state ? items.filter((key) => stateOf(key) === state) : items, next };
  });
}
