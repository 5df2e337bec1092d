// The frame around the pages of a signed-in user: who it is, sign-out, and navigation.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Session } from "../api";
import type { Route } from "../lib/routes";
import { useStore } from "../lib/store";
import { holds, signOut } from "../session";
import { Button } from "./button";
import { SessionWatch } from "./session-watch";
import { Badge, UserText, inUtc } from "./text";

const GROUPS = [
  ["account", "Your account"],
  ["content", "Content"],
  ["admin", "Administration"],
] as const;

interface Props {
  session: Session;
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
          {GROUPS.map(([group, title]) => (
            <Group
              key={group}
              title={title}
              routes={routes.filter((route) => route.label && (route.group ?? "admin") === group && holds(session, route.scopes))}
              path={path}
            />
          ))}
        </nav>
        <footer>
          <ZoneSwitch />
        </footer>
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
  path: string;
}

function Group({ title, routes, path }: GroupProps) {
  if (routes.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <ul>
        {routes.map((route) => {
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
  return (
    <label class="zone">
      <input type="checkbox" checked={isUtc} onChange={(event) => inUtc.set(event.currentTarget.checked)} />
      <span>Show times in UTC</span>
    </label>
  );
}
