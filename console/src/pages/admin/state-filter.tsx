// Selects the entries of a list by their state, which is in the address.
import { useId } from "preact/hooks";

interface Props {
  states: readonly string[];
  /** The state in the address; absent for all. */
  state: string | undefined;
  onChange: (state: string) => void;
}

export function StateFilter({ states, state, onChange }: Props) {
  const id = useId();
  return (
    <div class="filter">
      <label for={id}>State</label>
      <select id={id} class="input" value={state ?? ""} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">all</option>
        {states.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}
