// The frame around the pages of a signed-in user: who it is, sign-out, and navigation.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { location } from "../lib/router";
import type { Route } from "../lib/routes";
import { useStore } from "../lib/store";
import type { SessionResponse } from "../pending";
import { holds, signOut } from "../session";
import { Button } from "./button";
import { SessionWatch } from "./session-watch";
import { Badge, UserText, inUtc } from "./text";

interface Props {
  session: SessionResponse;
  routes: Route[];
  path: string;
  children: ComponentChildren;
}

export function Shell({ session, routes, path, children }: Props) {
  const [isOpen, setOpen] = useState(false);
  const main = useRef<HTMLElement>(null);
  useEffect(() => setOpen(false), [path]);
  const { user } = session;
  return (
    <div class="shell">
      <button type="button" class="skip button primary" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <header class="top">
        <button
          type="button"
          class="button secondary menu-button"
          aria-expanded={isOpen}
          aria-controls="navigation"
          onClick={() => setOpen(!isOpen)}
        >
          Menu
        </button>
        <p class="brand">Latchkey</p>
        <div class="who">
          <div class="who-text">
            <UserText value={user.email} />
          </div>
          <Badge>{user.role}</Badge>
        </div>
        <Button onClick={() => signOut()}>Sign out</Button>
      </header>
      <div class={isOpen ? "side open" : "side"} id="navigation">
        <nav aria-label="Pages">
          <Group title="Your account" routes={routes.filter((route) => !route.scopes)} session={session} path={path} />
          <Group title="Administration" routes={routes.filter((route) => route.scopes)} session={session} path={path} />
        </nav>
        <ZoneSwitch />
      </div>
      <main ref={main} tabIndex={-1}>
        {children}
      </main>
      <SessionWatch session={session} />
    </div>
  );
}

interface GroupProps {
  title: string;
  routes: Route[];
  session: SessionResponse;
  path: string;
}

function Group({ title, routes, session, path }: GroupProps) {
  const shown = routes.filter((route) => route.label && holds(session, route.scopes));
  if (shown.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <ul>
        {shown.map((route) => {
          const isCurrent = path === route.path;
          const isAbove = path.startsWith(`${route.path}/`);
          return (
            <li key={route.path}>
              <a href={`#/${route.path}`} aria-current={isCurrent ? "page" : isAbove ? "true" : undefined}>
                {route.label}
              </a>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

/** Times in local time or UTC, on all pages. */
function ZoneSwitch() {
  const isUtc = useStore(inUtc);
  useStore(location);
  return (
    <label class="zone">
      <input type="checkbox" checked={isUtc} onChange={(event) => inUtc.set(event.currentTarget.checked)} />
      <span>Show times in UTC</span>
    </label>
  );
}
