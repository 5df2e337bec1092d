// One issued key.
import { useState } from "preact/hooks";
import { call, type IssuedKey } from "../../api";
import { Button } from "../../components/button";
import { ConfirmDialog } from "../../components/dialog";
import { notify } from "../../components/notice";
import { Card, Facts, Page } from "../../components/page";
import { Scopes, Time, UserText } from "../../components/text";
import { useData } from "../../lib/data";
import { href } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import { IssuedStateBadge } from "./issued-state";
import { Loaded } from "../../components/loaded";

export function IssuedKeyPage({ params }: PageProps) {
  const id = Number(params["id"]);
  const data = useData((signal) => call("get", "/keys/{id}", { path: { id }, signal }), [id]);
  return (
    <Page title={data.value?.name ?? `Issued key ${id}`} back={{ href: href("issued-keys"), label: "Issued keys" }}>
      <Loaded data={data}>
        {(key) => (
          <>
            <Card title="Key">
              <KeyFacts issued={key} />
            </Card>
            {Object.keys(key.metadata).length > 0 && (
              <Card title="Metadata">
                <pre class="json" tabIndex={0}>
                  {JSON.stringify(key.metadata, null, 2)}
                </pre>
              </Card>
            )}
            {!key.revoked_at && <Revocation issued={key} onRevoked={data.reload} />}
          </>
        )}
      </Loaded>
    </Page>
  );
}

function KeyFacts({ issued }: { issued: IssuedKey }) {
  return (
    <Facts
      items={[
        ["State", <IssuedStateBadge issued={issued} />],
        ["Order", <UserText value={issued.order} />],
        ["Secret", issued.hint ? <code>{issued.hint}</code> : "not claimed yet"],
        ["Scopes", <Scopes scopes={issued.scopes} />],
        ["Issued", <Time value={issued.created_at} isBoth />],
        ["Expires", <Time value={issued.expires_at} otherwise="never" isBoth />],
        ["Last use", <LastUse issued={issued} />],
        ...(issued.claim_expires_at
          ? ([
              ["Claim until", <Time value={issued.claim_expires_at} isBoth />],
              ["Claimed", <Time value={issued.claimed_at} otherwise="not yet" isBoth />],
            ] satisfies [string, preact.ComponentChildren][])
          : []),
        ...(issued.revoked_at
          ? ([["Revoked", <Time value={issued.revoked_at} isBoth />]] satisfies [string, preact.ComponentChildren][])
          : []),
        ["Id", issued.id],
      ]}
    />
  );
}

function LastUse({ issued }: { issued: IssuedKey }) {
  if (!issued.last_used_at) return <span class="muted">never</span>;
  return (
    <>
      <Time value={issued.last_used_at} /> from <UserText value={issued.last_used_ip} />
    </>
  );
}

function Revocation({ issued, onRevoked }: { issued: IssuedKey; onRevoked: () => void }) {
  const [isOpen, setOpen] = useState(false);
  const revoke = async () => {
    await call("delete", "/keys/{id}", { path: { id: issued.id } });
    notify("The key is revoked.");
    onRevoked();
  };
  return (
    <Card title="Revoke">
      <p class="help">The key stops working with the next request. Its record stays, so that the order gives no second key.</p>
      <Button kind="danger" onClick={() => setOpen(true)}>
        Revoke key
      </Button>
      {isOpen && (
        <ConfirmDialog
          title="Revoke this key?"
          confirmLabel="Revoke key"
          onConfirm={revoke}
          onClose={() => setOpen(false)}
        >
          <p>
            Whoever uses <UserText value={issued.name} /> is rejected from now on. This cannot be undone.
          </p>
        </ConfirmDialog>
      )}
    </Card>
  );
}
