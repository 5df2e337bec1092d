// What can be done with an invitation.
import { call, type Invitation } from "../../api";
import { ConfirmDialog } from "../../components/dialog";
import { Notice, notify } from "../../components/notice";
import { UserText } from "../../components/text";

interface Props {
  invitation: Invitation;
  onClose: () => void;
}

interface ResendProps extends Props {
  onResend: (invitation: Invitation) => Promise<void>;
}

export function ResendDialog({ invitation, onResend, onClose }: ResendProps) {
  return (
    <ConfirmDialog
      title="Send this invitation again?"
      confirmLabel="Send again"
      kind="primary"
      onConfirm={() => onResend(invitation)}
      onClose={onClose}
    >
      <p>
        <UserText value={invitation.email} /> gets a mail with a new link, and the invitation is extended. Earlier links
        stay valid until one of them is used or they expire.
      </p>
    </ConfirmDialog>
  );
}

export function RevokeDialog({ invitation, onRevoked, onClose }: Props & { onRevoked: () => void }) {
  const revoke = async () => {
    await call("delete", "/users/invitations/{id}", { path: { id: invitation.id } });
    notify("The invitation is revoked.");
    onRevoked();
  };
  return (
    <ConfirmDialog title="Revoke this invitation?" confirmLabel="Revoke invitation" onConfirm={revoke} onClose={onClose}>
      <p>
        The links that were sent to <UserText value={invitation.email} /> stop working at once. You can invite the
        address again.
      </p>
    </ConfirmDialog>
  );
}

/** Says what to do without mails. With `isError`, as the answer to a click. */
export function WithoutMail({ isError }: { isError: boolean }) {
  return (
    <Notice kind={isError ? "error" : "warning"}>
      <p class="notice-title">This server sends no mails</p>
      <p>
        The setting <code>mail.url</code> is not set. Invite users on the command line of the server:{" "}
        <code>latchkey user invite EMAIL --role ROLE</code> prints a link, which you deliver yourself. For a new link to an
        address in this list, revoke its invitation first.
      </p>
    </Notice>
  );
}
