// Where you are signed in to the console.
import { useState } from "preact/hooks";
import { call, type SessionItem } from "../../api";
import { Button } from "../../components/button";
import { ConfirmDialog } from "../../components/dialog";
import { Loaded } from "../../components/loaded";
import { Notice, notify } from "../../components/notice";
import { Page } from "../../components/page";
import { Table, type Column } from "../../components/table";
import { Badge, Time, UserText } from "../../components/text";
import { useData } from "../../lib/data";
import { browserName } from "../../lib/user-agent";
import { signOut } from "../../session";

export function SessionsPage() {
  const list = useData((signal) => call("get", "/me/sessions", { signal }), []);
  const [chosen, setChosen] = useState<SessionItem[]>([]);
  const others = (list.value?.items ?? []).filter(({ current }) => !current);

  const end = async () => {
    for (const { id } of chosen) await call("delete", "/me/sessions/{id}", { path: { id } });
    notify(chosen.length === 1 ? "The session has ended." : "Your other sessions have ended.");
    list.reload();
  };
  const columns: Column<SessionItem>[] = [
    {
      label: "Browser",
      cell: ({ user_agent, current }) => (
        <>
          <span title={user_agent ?? undefined}>
            <UserText value={browserName(user_agent)} otherwise="unknown" />
          </span>{" "}
          {current && <Badge kind="good">This session</Badge>}
        </>
      ),
    },
    { label: "Address", cell: ({ client }) => <UserText value={client} /> },
    { label: "Last use", cell: ({ last_used_at }) => <Time value={last_used_at} /> },
    { label: "Signed in", cell: ({ created_at }) => <Time value={created_at} /> },
    { label: "Ends at the latest", cell: ({ expires_at }) => <Time value={expires_at} /> },
    {
      label: "Actions",
      kind: "actions",
      cell: (item) =>
        item.current ? (
          <Button onClick={() => signOut()}>Sign out</Button>
        ) : (
          <Button kind="danger" onClick={() => setChosen([item])}>
            End
          </Button>
        ),
    },
  ];
  return (
    <Page
      title="Sessions"
      intro="The browsers in which you are signed in to this console. A session that you do not use ends by itself."
      actions={
        others.length > 0 && (
          <Button kind="danger" onClick={() => setChosen(others)}>
            End all others
          </Button>
        )
      }
    >
      <Loaded data={list}>
        {({ items }) => <Table caption="Your sessions" columns={columns} items={items} keyOf={({ id }) => id} />}
      </Loaded>
      <Notice>
        Apps and scripts do not use sessions: see your <a href="#/keys">API keys</a>. If you do not know a session, end it
        and <a href="#/password">change your password</a>.
      </Notice>
      {chosen.length > 0 && (
        <ConfirmDialog
          title={chosen.length === 1 ? "End this session?" : `End ${chosen.length} sessions?`}
          confirmLabel={chosen.length === 1 ? "End session" : "End sessions"}
          onConfirm={end}
          onClose={() => setChosen([])}
        >
          <p>
            {chosen.length === 1
              ? "The browser is signed out at its next request."
              : "The browsers are signed out at their next requests."}
          </p>
        </ConfirmDialog>
      )}
    </Page>
  );
}
