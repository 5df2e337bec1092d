// The frame of a page: its heading, which gets the focus, and what belongs to it.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Title } from "./text";

interface Props {
  title: string;
  /** One or two sentences below the heading. */
  intro?: ComponentChildren;
  /** Buttons and links beside the heading. */
  actions?: ComponentChildren;
  /** A link to the page above, as a fragment and a label. */
  back?: { href: string; label: string };
  children: ComponentChildren;
}

export function Page({ title, intro, actions, back, children }: Props) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    window.scrollTo(0, 0);
    heading.current?.focus({ preventScroll: true });
  }, []);
  useEffect(() => {
    document.title = `${title} · Latchkey`;
  }, [title]);
  return (
    <>
      <header class="page-head">
        <div class="page-title">
          {back && (
            <a class="back" href={back.href}>
              <span aria-hidden="true">‹ </span>
              {back.label}
            </a>
          )}
          <h1 ref={heading} tabIndex={-1} dir="auto">
            <Title text={title} />
          </h1>
          {intro && <p class="intro">{intro}</p>}
        </div>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {children}
    </>
  );
}

/** A titled part of a page, on a surface of its own. */
export function Card({ title, children }: { title?: string; children: ComponentChildren }) {
  return (
    <section class="card">
      {title && (
        <h2>
          <Title text={title} />
        </h2>
      )}
      {children}
    </section>
  );
}

/** Names and values, such as the fields of one object. */
export function Facts({ items }: { items: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {items.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
