// Dialogs: the native element, which keeps the focus inside and closes with Escape.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Button } from "./button";
import { Field } from "./form";
import { ErrorBox } from "./notice";
import { Title } from "./text";

interface Props {
  title: string;
  onClose: () => void;
  /** Without it, Escape does nothing, because closing would lose something. */
  isDismissible?: boolean;
  role?: "dialog" | "alertdialog";
  children: ComponentChildren;
}

export function Dialog({ title, onClose, isDismissible = true, role = "dialog", children }: Props) {
  const id = useId();
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const opener = document.activeElement;
    const dialog = element.current;
    dialog?.showModal();
    return () => {
      dialog?.close();
      // The browser returns the focus only while the dialog is still in the document.
      if (opener instanceof HTMLElement && opener.isConnected) opener.focus();
      // The opener may leave with what the act removed, and the keyboard continues at the page then.
      setTimeout(() => {
        if (document.activeElement === document.body) document.querySelector("main")?.focus({ preventScroll: true });
      });
    };
  }, []);
  const cancel = (event: Event) => {
    event.preventDefault();
    if (isDismissible) onClose();
  };
  return (
    <dialog ref={element} role={role} aria-labelledby={`${id}-title`} onCancel={cancel}>
      <h2 id={`${id}-title`} dir="auto">
        <Title text={title} />
      </h2>
      {children}
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  /** What happens, and whether it can be undone. */
  children: ComponentChildren;
  confirmLabel: string;
  /** `primary` for an act that destroys nothing. */
  kind?: "danger" | "primary";
  /** The user must type this text. */
  typed?: string;
  onConfirm: () => Promise<unknown>;
  onClose: () => void;
}

/** Asks before an act that destroys something or sends a mail. Errors of the act appear in the dialog, which stays open. */
export function ConfirmDialog(props: ConfirmProps) {
  const { title, children, confirmLabel, kind = "danger", typed, onConfirm, onClose } = props;
  const [text, setText] = useState("");
  const [mismatch, setMismatch] = useState(false);
  const [error, setError] = useState<unknown>();
  const [isPending, setPending] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (typed !== undefined && text.trim() !== typed.trim()) {
      setMismatch(true);
      input.current?.focus();
      return;
    }
    setPending(true);
    try {
      await onConfirm();
    } catch (failure) {
      setError(failure);
      setPending(false);
      return;
    }
    onClose();
  };
  return (
    <Dialog title={title} role="alertdialog" onClose={onClose}>
      <form class="form" noValidate onSubmit={submit}>
        <div class="prose">{children}</div>
        {typed !== undefined && (
          <Field
            label="To confirm, type"
            help={<code dir="auto">{typed}</code>}
            error={mismatch ? "The text differs." : undefined}
          >
            {(attributes) => (
              <input
                {...attributes}
                ref={input}
                class="input"
                dir="auto"
                autocomplete="off"
                autocapitalize="none"
                spellcheck={false}
                value={text}
                onInput={(event) => {
                  setText(event.currentTarget.value);
                  setMismatch(false);
                }}
              />
            )}
          </Field>
        )}
        <ErrorBox error={error} />
        <div class="form-actions">
          <Button kind={kind} type="submit" isPending={isPending}>
            {confirmLabel}
          </Button>
          {/* Enter must not do anything before it was read. */}
          <Button onClick={onClose} autofocus={typed === undefined}>
            Cancel
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
