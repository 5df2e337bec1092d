// The audit trail, newest first, with filters in the address.
import { useEffect, useState } from "preact/hooks";
import { call, type AuditEntry } from "../../api";
import { Button } from "../../components/button";
import { ErrorBox, notify } from "../../components/notice";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Time, UserText } from "../../components/text";
import { useList } from "../../lib/data";
import { href } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { exportTrail } from "./audit-export";
import { AuditFilters } from "./audit-filters";
import { actionText, apiQuery, filtersIn, type FilterValues } from "./audit-terms";
import { Outcome, Reference } from "./audit-text";
import { skipEmpty } from "./skip-empty";

const COLUMNS: Column<AuditEntry>[] = [
  {
    label: "Time",
    cell: (entry) => (
      <a href={href(`audit/${entry.id}`)}>
        <Time value={entry.at} />
      </a>
    ),
    kind: "tight",
  },
  {
    label: "Action",
    cell: ({ action, detail }) => (
      <>
        {actionText(action)}
        {detail && (
          <span class="second-line">
            <UserText value={detail} />
          </span>
        )}
      </>
    ),
  },
  { label: "Outcome", cell: ({ outcome }) => <Outcome value={outcome} />, kind: "tight" },
  { label: "Actor", cell: ({ actor }) => <Reference value={actor} />, kind: "tight" },
  { label: "Target", cell: ({ target }) => <Reference value={target} /> },
  { label: "Client", cell: ({ client }) => <UserText value={client} />, kind: "tight" },
];

export function AuditPage({ query }: PageProps) {
  const filters = filtersIn(query);
  const isFiltered = Object.values(filters).some((value) => value !== "");
  const list = useList(
    (first, signal) =>
      skipEmpty(first, (after) => {
        const query = { ...apiQuery(filters), ...(after !== undefined && { after }), limit: 50 };
        return call("get", "/audit", { query, signal });
      }),
    [query.toString()],
  );
  return (
    <Page
      title="Audit trail"
      intro="Who changed what, when, with which credential and at what level. Includes failed and denied attempts."
      actions={<Export filters={filters} />}
    >
      <AuditFilters filters={filters} />
      <ListTable
        caption="Audit entries, newest first"
        columns={COLUMNS}
        keyOf={({ id }) => id}
        list={list}
        empty={
          isFiltered
            ? { title: "No entry matches", text: <a href={href("audit")}>Show all entries</a> }
            : { title: "No entries yet" }
        }
      />
    </Page>
  );
}

/** Downloads the entries that match the filters. */
function Export({ filters }: { filters: FilterValues }) {
  const [error, setError] = useState<unknown>();
  const [running, setRunning] = useState<AbortController>();
  useEffect(() => () => running?.abort(), [running]);
  const start = async () => {
    const controller = new AbortController();
    setRunning(controller);
    setError(undefined);
    try {
      await exportTrail(apiQuery(filters), controller.signal);
      notify("The entries are in your downloads, one JSON object per line.");
    } catch (failure) {
      if (!controller.signal.aborted) setError(failure);
    }
    setRunning(undefined);
  };
  return (
    <>
      <Button onClick={start}>Export</Button>
      {running && <Button onClick={() => running.abort()}>Cancel</Button>}
      <ErrorBox error={error} />
    </>
  );
}
