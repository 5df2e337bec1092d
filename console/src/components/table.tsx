// Tables, which become cards on narrow screens, and endless lists.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { retryDelay, type List } from "../lib/data";
import { Button } from "./button";
import { EmptyState, ErrorBox, Loading } from "./notice";

export interface Column<T> {
  label: string;
  cell: (item: T) => ComponentChildren;
  /** `number` aligns right; `tight` does not wrap; `actions` holds buttons and hides its label. */
  kind?: "number" | "tight" | "actions";
}

interface TableProps<T> {
  /** What the table shows, for screen readers. */
  caption: string;
  columns: Column<T>[];
  items: readonly T[];
  keyOf: (item: T) => string | number;
}

/** The roles are explicit, because the narrow layout changes `display`, which would remove them. */
export function Table<T>({ caption, columns, items, keyOf }: TableProps<T>) {
  return (
    <table role="table" class="table">
      <caption class="hidden">{caption}</caption>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map(({ label, kind }) => (
            <th key={label} role="columnheader" scope="col" class={kind}>
              {kind === "actions" ? <span class="hidden">{label}</span> : label}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {items.map((item) => (
          <tr key={keyOf(item)} role="row">
            {columns.map(({ label, cell, kind }) => (
              <td key={label} role="cell" class={kind} data-label={label}>
                <div>{cell(item)}</div>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

interface ListTableProps<T> extends Omit<TableProps<T>, "items"> {
  list: List<T>;
  /** Shown if there is nothing. */
  empty: { title: string; text?: ComponentChildren };
}

/** A list that loads its next part when its end comes into view, or by a button. */
export function ListTable<T>({ list, empty, ...table }: ListTableProps<T>) {
  const end = useRef<HTMLDivElement>(null);
  const more = useRef(list.more);
  more.current = list.error ? () => undefined : list.more;
  useEffect(() => {
    const target = end.current;
    if (!target) return;
    const watch = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && more.current(),
      { rootMargin: "400px" },
    );
    watch.observe(target);
    return () => watch.disconnect();
    // A new part moves the end, which must be looked at again.
  }, [list.items.length, list.isComplete]);
  const isEmpty = list.isComplete && list.items.length === 0;
  return (
    <>
      {list.items.length > 0 && <Table {...table} items={list.items} />}
      {isEmpty && <EmptyState title={empty.title}>{empty.text}</EmptyState>}
      <ErrorBox error={list.error} onRetry={list.retry} isRetrying={retryDelay(list.error, 0) !== undefined} />
      {list.isLoading && <Loading />}
      {!list.isComplete && list.items.length > 0 && (
        <div ref={end} class="more">
          {/* It stays while a part loads, because otherwise the focus would be lost. */}
          <Button isPending={list.isLoading} onClick={list.more}>
            Show more
          </Button>
        </div>
      )}
    </>
  );
}
