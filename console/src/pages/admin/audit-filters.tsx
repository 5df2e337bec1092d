// The filters of the trail. They change the address, so that a link shows the same entries.
import { useEffect } from "preact/hooks";
import { LinkButton } from "../../components/button";
import { Field, Form, SelectField, useForm, type FormState } from "../../components/form";
import { href, navigate } from "../../lib/router";
import { ACTIONS, checkFilters, FILTERS, type FilterValues } from "./audit-terms";

const OUTCOMES = ["success", "failure", "denied"];

export function AuditFilters({ filters }: { filters: FilterValues }) {
  const form = useForm({
    initial: toFields(filters),
    check: (values) => checkFilters(toFilters(values)),
    submit: async (values) => navigate(href("audit", toFilters(values))),
  });
  // The back button, and links on this page, change the address.
  useEffect(() => {
    for (const name of FILTERS) form.set(name, toFields(filters)[name]);
  }, [JSON.stringify(filters)]);
  const active = FILTERS.filter((name) => filters[name] !== "").length;
  const clear = active > 0 && <LinkButton href={href("audit")}>Clear filters</LinkButton>;
  return (
    <details class="filter-panel" open={active > 0}>
      <summary>{active > 0 ? `Filters (${active})` : "Filters"}</summary>
      <Form form={form} submitLabel="Apply filters" beside={clear}>
        <SelectField
          form={form}
          name="action"
          label="Action"
          options={[["", "all"], ...Object.entries(ACTIONS).map(([name, text]) => [name, `${text} (${name})`] as const)]}
        />
        <SelectField
          form={form}
          name="outcome"
          label="Outcome"
          options={[["", "all"], ...OUTCOMES.map((name) => [name, name] as const)]}
        />
        <Filter form={form} name="actor" label="Actor" help="user:2, key:7, anonymous, …" />
        <Filter form={form} name="user" label="Account" help="Id of a user, such as 2" />
        <Filter form={form} name="target" label="Target" help="user:2, key:7, page:1, …" />
        <Filter form={form} name="since" label="From" help="In your local time" type="datetime-local" />
        <Filter form={form} name="until" label="Before" help="In your local time" type="datetime-local" />
      </Form>
    </details>
  );
}

interface FilterProps {
  form: FormState<FilterValues>;
  name: keyof FilterValues;
  label: string;
  help: string;
  type?: "text" | "datetime-local";
}

/** A text field that may stay empty, as all filters may. */
function Filter({ form, name, label, help, type = "text" }: FilterProps) {
  return (
    <Field label={label} help={help} error={form.errors[name]}>
      {(attributes) => (
        <input
          {...attributes}
          class="input"
          // A union of types is no member of the union of inputs.
          type={type as "text"}
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          value={form.values[name]}
          onInput={(event) => form.set(name, event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

/** Times are in UTC in the address, and local in the fields. */
function toFields(filters: FilterValues): FilterValues {
  return { ...filters, since: toLocal(filters.since), until: toLocal(filters.until) };
}

function toFilters(values: FilterValues): FilterValues {
  const trimmed = Object.fromEntries(FILTERS.map((name) => [name, values[name].trim()])) as FilterValues;
  return { ...trimmed, since: toUtc(trimmed.since), until: toUtc(trimmed.until) };
}

function toLocal(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function toUtc(time: string): string {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
