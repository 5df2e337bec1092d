// One user: what the account is, and what an administrator can do with it.
import { useState } from "preact/hooks";
import { call, type User } from "../../api";
import { Button, LinkButton } from "../../components/button";
import { ConfirmDialog } from "../../components/dialog";
import { ErrorBox, Notice, notify } from "../../components/notice";
import { Card, Facts, Page } from "../../components/page";
import { Time, UserText } from "../../components/text";
import { useSession } from "../../lib/current";
import { useData } from "../../lib/data";
import { href, navigate } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { useHolds } from "./access";
import { Loaded } from "../../components/loaded";
import { RoleDialog } from "./role-dialog";
import { UserState } from "./user-state";

export function UserPage({ params }: PageProps) {
  const id = Number(params["id"]);
  const data = useData((signal) => call("get", "/users/{id}", { path: { id }, signal }), [id]);
  const isWriter = useHolds("users:write");
  const isAuditor = useHolds("audit:read");
  const title = data.value ? `${data.value.name} ${data.value.surname}`.trim() : `User ${id}`;
  return (
    <Page
      title={title}
      back={{ href: href("users"), label: "Users" }}
      actions={isAuditor && <LinkButton href={href("audit", { user: id })}>Audit trail of this user</LinkButton>}
    >
      <Loaded data={data}>
        {(user) => (
          <>
            <Account user={user} />
            {isWriter && <Administration user={user} onChange={data.replace} />}
          </>
        )}
      </Loaded>
    </Page>
  );
}

function Account({ user }: { user: User }) {
  return (
    <Card title="Account">
      <Facts
        items={[
          ["E-mail", <UserText value={user.email} />],
          ["Website", <UserText value={user.website} />],
          ["Role", user.role_is_defined ? user.role : `${user.role} (not defined in the settings: no scopes)`],
          ["State", <UserState user={user} />],
          ["Registered", <Time value={user.created_at} isBoth />],
          ["Last change", <Time value={user.updated_at} isBoth />],
          ["Id", user.id],
        ]}
      />
    </Card>
  );
}

interface AdministrationProps {
  user: User;
  onChange: (user: User) => void;
}

type Open = "role" | "disable" | "token" | "delete";

function Administration({ user, onChange }: AdministrationProps) {
  const [open, setOpen] = useState<Open>();
  const [error, setError] = useState<unknown>();
  const isOwn = useSession().user.id === user.id;
  const close = () => setOpen(undefined);
  const enable = async (done: string) => {
    try {
      onChange(await call("patch", "/users/{id}", { path: { id: user.id }, body: { disabled: false } }));
      setError(undefined);
      notify(done);
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <Card title="Administration">
      {isOwn && <Notice kind="warning">This is your own account. Most of these acts end your session.</Notice>}
      <ErrorBox error={error} />
      <ul class="acts">
        <Act title="Role" text={`The role is ${user.role}. Another role applies at once and ends the user’s console sessions.`}>
          <Button onClick={() => setOpen("role")}>Change role</Button>
        </Act>
        {!user.disabled && user.sign_in_stopped && (
          <Act title="Unlock sign-in" text="Sign-ins are stopped after too many failed ones. Unlocking clears these.">
            <Button onClick={() => enable("Sign-in is unlocked.")}>Unlock</Button>
          </Act>
        )}
        <Act title="Sign-in" text="Ends the sign-in token and all console sessions. The user can sign in again. API keys keep working.">
          <Button onClick={() => setOpen("token")}>End sign-in</Button>
        </Act>
        {user.disabled ? (
          <Act title="Enable" text="The user can sign in again. Tokens and keys that were revoked stay revoked.">
            <Button onClick={() => enable("The account is enabled.")}>Enable account</Button>
          </Act>
        ) : (
          <Act title="Disable" text="Prevents sign-in and revokes the token, the sessions and all API keys of the user.">
            <Button kind="danger" onClick={() => setOpen("disable")}>
              Disable account
            </Button>
          </Act>
        )}
        <Act title="Delete" text="Removes the account with its keys and pages. The audit trail keeps the id of the user.">
          <Button kind="danger" onClick={() => setOpen("delete")}>
            Delete account
          </Button>
        </Act>
      </ul>
      {open === "role" && <RoleDialog user={user} onChange={onChange} onClose={close} />}
      {open === "disable" && <DisableDialog user={user} onChange={onChange} onClose={close} />}
      {open === "token" && <TokenDialog user={user} onClose={close} />}
      {open === "delete" && <DeleteDialog user={user} onClose={close} />}
    </Card>
  );
}

function Act({ title, text, children }: { title: string; text: string; children: preact.ComponentChildren }) {
  return (
    <li>
      <div>
        <h3>{title}</h3>
        <p class="help">{text}</p>
      </div>
      {children}
    </li>
  );
}

function DisableDialog({ user, onChange, onClose }: AdministrationProps & { onClose: () => void }) {
  const disable = async () => {
    onChange(await call("patch", "/users/{id}", { path: { id: user.id }, body: { disabled: true } }));
    notify("The account is disabled.");
  };
  return (
    <ConfirmDialog title="Disable this account?" confirmLabel="Disable account" onConfirm={disable} onClose={onClose}>
      <p>
        <UserText value={user.email} /> can no longer sign in. The sign-in token, the sessions and all API keys are
        revoked at once. Enabling the account again does not restore them.
      </p>
    </ConfirmDialog>
  );
}

function TokenDialog({ user, onClose }: { user: User; onClose: () => void }) {
  const end = async () => {
    await call("delete", "/users/{id}/token", { path: { id: user.id } });
    notify("The sign-in token and the sessions of the user have ended.");
  };
  return (
    <ConfirmDialog title="End the sign-in of this user?" confirmLabel="End sign-in" onConfirm={end} onClose={onClose}>
      <p>
        The sign-in token and all console sessions of <UserText value={user.email} /> end at once. To prevent the next
        sign-in, disable the account.
      </p>
    </ConfirmDialog>
  );
}

function DeleteDialog({ user, onClose }: { user: User; onClose: () => void }) {
  const remove = async () => {
    await call("delete", "/users/{id}", { path: { id: user.id } });
    navigate(href("users"), { replace: true });
    notify("The account is deleted.");
  };
  return (
    <ConfirmDialog
      title="Delete this account?"
      confirmLabel="Delete account"
      typed={user.email}
      onConfirm={remove}
      onClose={onClose}
    >
      <p>The account is deleted with its keys and pages. This cannot be undone.</p>
    </ConfirmDialog>
  );
}
