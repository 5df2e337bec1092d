import type { ButtonHTMLAttributes, ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";

type Kind = "primary" | "secondary" | "danger" | "plain";

interface Props extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "onClick" | "type" | "class"> {
  kind?: Kind;
  type?: "button" | "submit";
  /** A request is under way. The button keeps the focus and ignores further clicks. */
  isPending?: boolean;
  /** If it returns a promise, the button is pending until the promise settles. */
  onClick?: () => unknown;
  children: ComponentChildren;
}

export function Button({ kind = "secondary", type = "button", isPending = false, onClick, children, ...rest }: Props) {
  const [isBusy, setBusy] = useState(false);
  const isMounted = useRef(true);
  const pending = isPending || isBusy;
  const click = async (event: Event) => {
    if (pending) {
      event.preventDefault();
      return;
    }
    const result = onClick?.();
    if (result instanceof Promise) {
      setBusy(true);
      await result.finally(() => isMounted.current && setBusy(false));
    }
  };
  // Not `disabled`, which would drop the focus.
  return (
    <button {...rest} class={`button ${kind}`} type={type} aria-disabled={pending || undefined} onClick={click}>
      {pending && <span class="spinner" aria-hidden="true" />}
      <span>{children}</span>
      {pending && <span class="hidden"> – in progress</span>}
    </button>
  );
}

/** A link that looks like a button. */
export function LinkButton({ href, kind = "secondary", children }: { href: string; kind?: Kind; children: ComponentChildren }) {
  return (
    <a class={`button ${kind}`} href={href}>
      {children}
    </a>
  );
}
