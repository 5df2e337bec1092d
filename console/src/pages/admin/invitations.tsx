// The invitations that were not accepted.
import { useState } from "preact/hooks";
import { ApiError, call, type Invitation } from "../../api";
import { Button } from "../../components/button";
import { notify } from "../../components/notice";
import { Page } from "../../components/page";
import { ListTable, type Column } from "../../components/table";
import { Badge, Time, UserText } from "../../components/text";
import { useList, type Part } from "../../lib/data";
import { href, navigate } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { useSettings } from "../../settings";
import { useHolds } from "./access";
import { Reference } from "./audit-text";
import { ResendDialog, RevokeDialog, WithoutMail } from "./invitation-acts";
import { InviteDialog } from "./invite-dialog";
import { skipEmpty } from "./skip-empty";
import { StateFilter } from "./state-filter";

const STATES = ["pending", "expired"] as const;
type InvitationState = (typeof STATES)[number];

const COLUMNS: Column<Invitation>[] = [
  { label: "E-mail", cell: ({ email }) => <UserText value={email} /> },
  { label: "Role", cell: ({ role }) => role, kind: "tight" },
  { label: "State", cell: (invitation) => <StateAndEnd invitation={invitation} />, kind: "tight" },
  { label: "Invited", cell: (invitation) => <Invited invitation={invitation} />, kind: "tight" },
];

type Open = { is: "invite" } | { is: "resend" | "revoke"; invitation: Invitation };

export function InvitationsPage({ query }: PageProps) {
  const [open, setOpen] = useState<Open>();
  // What was sent again stays in its place, so that its button keeps the focus.
  const [extended, setExtended] = useState<Record<number, Invitation>>({});
  const [isRefused, setRefused] = useState(false);
  const settings = useSettings();
  const hasMail = !isRefused && settings.value?.mail !== false;
  const isWriter = useHolds("users:write");
  const state = STATES.find((name) => name === query.get("state"));
  const list = useList((after, signal) => loadMatching(state, after, signal), [state]);

  const reload = () => {
    setExtended({});
    list.reload();
  };
  /** Sends a mail, if the server does. */
  const send = async (request: Promise<Invitation>): Promise<Invitation | undefined> => {
    try {
      const invitation = await request;
      notify(`A mail to ${invitation.email} is on its way.`);
      return invitation;
    } catch (error) {
      if (!(error instanceof ApiError && error.code === "not_configured")) throw error;
      // The settings of the server have changed since the console read them.
      setRefused(true);
      return undefined;
    }
  };
  const invite = async (email: string, role: string) => {
    const invited = await send(call("post", "/users/invitations", { body: { email, role: role as "member" } }));
    if (invited) reload();
  };
  const resend = async ({ id }: Invitation) => {
    const invitation = await send(call("post", "/users/invitations/{id}/resend", { path: { id } }));
    if (invitation) setExtended((known) => ({ ...known, [id]: invitation }));
  };
  const close = () => setOpen(undefined);
  const acts: Column<Invitation> = {
    label: "Actions",
    kind: "actions",
    cell: (invitation) => (
      <>
        {hasMail && (
          <Button aria-label={`Resend to ${invitation.email}`} onClick={() => setOpen({ is: "resend", invitation })}>
            Resend
          </Button>
        )}
        <Button
          kind="danger"
          aria-label={`Revoke the invitation of ${invitation.email}`}
          onClick={() => setOpen({ is: "revoke", invitation })}
        >
          Revoke
        </Button>
      </>
    ),
  };
  return (
    <Page
      title="Invitations"
      intro="Addresses that were invited to create an account, and have none yet. An invitation is removed 30 days after its end."
      actions={
        isWriter &&
        hasMail && (
          <Button kind="primary" onClick={() => setOpen({ is: "invite" })}>
            Invite user
          </Button>
        )
      }
    >
      {isWriter && !hasMail && <WithoutMail isError={isRefused} />}
      <div class="filters">
        <StateFilter states={STATES} state={state} onChange={(next) => navigate(href("invitations", { state: next }))} />
      </div>
      <ListTable
        caption="Invitations by id"
        columns={isWriter ? [...COLUMNS, acts] : COLUMNS}
        keyOf={({ id }) => id}
        list={{ ...list, items: list.items.map((item) => extended[item.id] ?? item) }}
        empty={
          state
            ? { title: "No invitation matches", text: <a href={href("invitations")}>Show all invitations</a> }
            : { title: "No invitations", text: "Invitations appear here until they are accepted." }
        }
      />
      {open?.is === "invite" && <InviteDialog onInvite={invite} onClose={close} />}
      {open?.is === "resend" && <ResendDialog invitation={open.invitation} onResend={resend} onClose={close} />}
      {open?.is === "revoke" && <RevokeDialog invitation={open.invitation} onRevoked={reload} onClose={close} />}
    </Page>
  );
}

function stateOf({ expires_at }: Invitation): InvitationState {
  return Date.parse(expires_at) <= Date.now() ? "expired" : "pending";
}

function StateAndEnd({ invitation }: { invitation: Invitation }) {
  const state = stateOf(invitation);
  const isExpired = state === "expired";
  return (
    <>
      <Badge kind={isExpired ? "warning" : "neutral"}>{state}</Badge>
      <span class="second-line">
        {isExpired ? "ended" : "ends"} <Time value={invitation.expires_at} />
      </span>
    </>
  );
}

/** When, and by whom. */
function Invited({ invitation: { created_at, invited_by: id } }: { invitation: Invitation }) {
  return (
    <>
      <Time value={created_at} />
      <span class="second-line">by {id === null ? "the command line" : <Reference value={`user:${id}`} />}</span>
    </>
  );
}

/** The next part of the list that has an invitation in this state. The API has no filter, so others are skipped here. */
function loadMatching(
  state: InvitationState | undefined,
  first: number | undefined,
  signal: AbortSignal,
): Promise<Part<Invitation>> {
  const limit = state ? 100 : 50;
  return skipEmpty(first, async (after) => {
    const { items, next } = await call("get", "/users/invitations", { query: { after: after ?? 0, limit }, signal });
    return { items: state ? items.filter((invitation) => stateOf(invitation) === state) : items, next };
  });
}
