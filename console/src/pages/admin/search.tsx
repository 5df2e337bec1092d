// A search field, whose text is in the address.
import { useEffect, useId, useState } from "preact/hooks";
import { Button } from "../../components/button";

interface Props {
  label: string;
  help?: string;
  /** The text in the address. */
  value: string;
  onSearch: (text: string) => void;
}

export function Search({ label, help, value, onSearch }: Props) {
  const id = useId();
  const [text, setText] = useState(value);
  // The back button changes the address.
  useEffect(() => setText(value), [value]);
  const submit = (event: Event) => {
    event.preventDefault();
    onSearch(text.trim());
  };
  return (
    <form class="search" role="search" onSubmit={submit}>
      <label for={id}>{label}</label>
      <div class="input-group">
        <input
          id={id}
          class="input"
          type="search"
          dir="auto"
          autocomplete="off"
          maxLength={255}
          aria-describedby={help ? `${id}-help` : undefined}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <Button type="submit">Search</Button>
      </div>
      {help && (
        <p class="help" id={`${id}-help`}>
          {help}
        </p>
      )}
    </form>
  );
}
