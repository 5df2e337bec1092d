// A secret that the server returns only once.
import type { ComponentChildren } from "preact";
import { Button } from "./button";
import { Notice } from "./notice";
import { SecretBox } from "./text";

interface Props {
  label: string;
  secret: string;
  onClose: () => void;
  /** What else to know about it. */
  children?: ComponentChildren;
}

/** For a dialog that is not dismissible, so that Escape does not lose the secret. */
export function ShownOnce({ label, secret, onClose, children }: Props) {
  return (
    <div class="form">
      <Notice kind="warning">Copy it now. It is not shown again.</Notice>
      <SecretBox label={label} secret={secret} />
      {children}
      <div class="form-actions">
        <Button kind="primary" onClick={onClose}>
          I have copied it
        </Button>
      </div>
    </div>
  );
}
