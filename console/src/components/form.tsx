// Forms: values, pending state, and errors beside the fields.
import type { ComponentChildren } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { ApiError } from "../api";
import { Button } from "./button";
import { ErrorBox } from "./notice";

type Values = Record<string, string>;

export interface FormState<V extends Values> {
  values: V;
  set<K extends keyof V & string>(name: K, value: V[K]): void;
  /** Messages by field. */
  errors: Partial<Record<string, string>>;
  /** An error that belongs to no field. */
  error: unknown;
  isPending: boolean;
  submit(): Promise<void>;
  reset(): void;
  /** The form's element, in which the first field with an error gets the focus. */
  element: { current: HTMLFormElement | null };
}

/** Thrown by `submit` or returned by `check`: messages by field. */
export type FieldErrors<V extends Values> = Partial<Record<keyof V & string, string>>;

interface Options<V extends Values> {
  initial: V;
  /** Checks before the request. The server checks again. */
  check?: (values: V) => FieldErrors<V>;
  submit: (values: V) => Promise<unknown>;
  /** Field of the form → for errors with another name in the API, such as the `code` of an error: its field here. */
  fieldOf?: Record<string, keyof V & string>;
}

export function useForm<V extends Values>({ initial, check, submit, fieldOf = {} }: Options<V>): FormState<V> {
  const [values, setValues] = useState(initial);
  const [errors, setErrors] = useState<Partial<Record<string, string>>>({});
  const [error, setError] = useState<unknown>();
  const [isPending, setPending] = useState(false);
  const element = useRef<HTMLFormElement>(null);

  const show = (found: Partial<Record<string, string>>, other: unknown) => {
    setErrors(found);
    setError(other);
    // After the rendering, which marks the fields.
    setTimeout(() => element.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
  };
  const run = async () => {
    if (isPending) return;
    const found = check?.(values) ?? {};
    if (Object.keys(found).length > 0) {
      show(found, undefined);
      return;
    }
    setPending(true);
    try {
      await submit(values);
      show({}, undefined);
    } catch (failure) {
      const sorted = sort(failure, initial, fieldOf);
      show(sorted.errors, sorted.rest);
    } finally {
      setPending(false);
    }
  };
  return {
    values,
    set: (name, value) => {
      setValues((known) => ({ ...known, [name]: value }));
      setErrors(({ [name]: _, ...others }) => others);
    },
    errors,
    error,
    isPending,
    submit: run,
    reset: () => {
      setValues(initial);
      setErrors({});
      setError(undefined);
    },
    element,
  };
}

/** Sorts the errors of an answer into those of the form's fields and the rest. */
function sort(failure: unknown, fields: Values, fieldOf: Record<string, string>) {
  if (!(failure instanceof ApiError)) return { errors: {}, rest: failure };
  const byCode = fieldOf[failure.code];
  if (byCode !== undefined) return { errors: { [byCode]: failure.message }, rest: undefined };
  const errors: Record<string, string> = {};
  let isComplete = true;
  for (const { field, message } of failure.problem?.errors ?? []) {
    const name = fieldOf[field] ?? field.split(/[.[]/)[0] ?? field;
    if (name in fields) errors[name] = message;
    else isComplete = false;
  }
  const isSorted = isComplete && Object.keys(errors).length > 0;
  return { errors, rest: isSorted ? undefined : failure };
}

interface FormProps<V extends Values> {
  form: FormState<V>;
  submitLabel: string;
  kind?: "primary" | "danger";
  /** Beside the submit button. */
  beside?: ComponentChildren;
  children: ComponentChildren;
}

export function Form<V extends Values>({ form, submitLabel, kind = "primary", beside, children }: FormProps<V>) {
  const onSubmit = (event: Event) => {
    event.preventDefault();
    void form.submit();
  };
  return (
    <form ref={form.element} class="form" noValidate onSubmit={onSubmit}>
      <ErrorBox error={form.error} />
      {children}
      <div class="form-actions">
        <Button kind={kind} type="submit" isPending={form.isPending}>
          {submitLabel}
        </Button>
        {beside}
      </div>
    </form>
  );
}

interface FieldProps {
  label: string;
  /** Rules and reasons, below the label. */
  help?: ComponentChildren;
  error?: string | undefined;
  /** Adds "(optional)" to the label. */
  isOptional?: boolean;
  children: (attributes: FieldAttributes) => ComponentChildren;
}

interface FieldAttributes {
  id: string;
  "aria-describedby"?: string;
  "aria-invalid"?: true;
}

/** Label, help, control and error, connected for screen readers. */
export function Field({ label, help, error, isOptional = false, children }: FieldProps) {
  const id = useId();
  const describedBy = [help && `${id}-help`, error && `${id}-error`].filter(Boolean).join(" ");
  const attributes: FieldAttributes = { id };
  if (describedBy) attributes["aria-describedby"] = describedBy;
  if (error) attributes["aria-invalid"] = true;
  return (
    <div class="field">
      <label for={id}>
        {label}
        {isOptional && <span class="optional"> (optional)</span>}
      </label>
      {help && (
        <div class="help" id={`${id}-help`}>
          {help}
        </div>
      )}
      {children(attributes)}
      {error && (
        <p class="field-error" id={`${id}-error`}>
          {error}
        </p>
      )}
    </div>
  );
}

/** Further attributes of a text control. */
interface InputAttributes {
  autoCapitalize?: "none";
  spellcheck?: boolean;
  min?: string;
  max?: string;
  maxLength?: number;
  placeholder?: string;
  inputMode?: "numeric" | "email" | "url";
}

interface TextFieldProps<V extends Values> {
  form: FormState<V>;
  name: keyof V & string;
  label: string;
  help?: ComponentChildren;
  isOptional?: boolean;
  type?: "text" | "email" | "url" | "search" | "number" | "datetime-local" | "date";
  autoComplete?: string;
  input?: InputAttributes;
}

export function TextField<V extends Values>(props: TextFieldProps<V>) {
  const { form, name, label, help, isOptional = false, type = "text", autoComplete = "off", input } = props;
  return (
    <Field label={label} help={help} error={form.errors[name]} isOptional={isOptional}>
      {(attributes) => (
        <input
          dir="auto"
          {...input}
          {...attributes}
          class="input"
          name={name}
          // Preact's types allow one literal at a time.
          type={type as "text"}
          autocomplete={autoComplete}
          required={!isOptional}
          value={form.values[name]}
          onInput={(event) => form.set(name, event.currentTarget.value as V[typeof name])}
        />
      )}
    </Field>
  );
}

interface PasswordFieldProps<V extends Values> {
  form: FormState<V>;
  name: keyof V & string;
  label: string;
  help?: ComponentChildren;
  autoComplete: "current-password" | "new-password";
}

/** A password with a button that shows it. Pasting is allowed. */
export function PasswordField<V extends Values>({ form, name, label, help, autoComplete }: PasswordFieldProps<V>) {
  const [isVisible, setVisible] = useState(false);
  return (
    <Field label={label} help={help} error={form.errors[name]}>
      {(attributes) => (
        <div class="input-group">
          <input
            {...attributes}
            class="input"
            name={name}
            type={(isVisible ? "text" : "password") as "text"}
            autocomplete={autoComplete}
            autocapitalize="none"
            spellcheck={false}
            required
            value={form.values[name]}
            onInput={(event) => form.set(name, event.currentTarget.value as V[typeof name])}
          />
          <button
            type="button"
            class="button secondary"
            aria-pressed={isVisible}
            aria-label={`Show ${label.toLowerCase()}`}
            onClick={() => setVisible(!isVisible)}
          >
            {isVisible ? "Hide" : "Show"}
          </button>
        </div>
      )}
    </Field>
  );
}

interface SelectFieldProps<V extends Values> {
  form: FormState<V>;
  name: keyof V & string;
  label: string;
  help?: ComponentChildren;
  /** Values and labels. */
  options: readonly (readonly [string, string])[];
}

export function SelectField<V extends Values>({ form, name, label, help, options }: SelectFieldProps<V>) {
  return (
    <Field label={label} help={help} error={form.errors[name]}>
      {(attributes) => (
        <select
          {...attributes}
          class="input"
          name={name}
          value={form.values[name]}
          onChange={(event) => form.set(name, event.currentTarget.value as V[typeof name])}
        >
          {options.map(([value, text]) => (
            <option key={value} value={value}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface CheckboxesProps {
  label: string;
  help?: ComponentChildren;
  error?: string | undefined;
  /** Values and labels. */
  options: readonly (readonly [string, string])[];
  chosen: readonly string[];
  onChange: (chosen: string[]) => void;
}

/** A group of checkboxes, such as scopes. */
export function Checkboxes({ label, help, error, options, chosen, onChange }: CheckboxesProps) {
  const id = useId();
  const toggle = (value: string, isOn: boolean) =>
    onChange(options.map(([option]) => option).filter((option) => (option === value ? isOn : chosen.includes(option))));
  return (
    <fieldset
      class="field"
      tabIndex={-1}
      aria-invalid={error ? true : undefined}
      aria-describedby={error || help ? `${id}-help` : undefined}
    >
      <legend>{label}</legend>
      <div id={`${id}-help`}>
        {help && <div class="help">{help}</div>}
        {error && <p class="field-error">{error}</p>}
      </div>
      <div class="checks">
        {options.map(([value, text]) => (
          <label key={value} class="check">
            <input
              type="checkbox"
              checked={chosen.includes(value)}
              onChange={(event) => toggle(value, event.currentTarget.checked)}
            />
            <span>
              <code>{value}</code>
              {text !== value && <span class="check-text">{text}</span>}
            </span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
