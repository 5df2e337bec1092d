// Routes in the fragment of the address, such as #/keys/7?order=newest.
import { Store } from "./store";

export interface Location {
  /** The path without its first slash, such as `keys/7`. */
  path: string;
  query: URLSearchParams;
}

export const location = new Store<Location>(parse());

function parse(): Location {
  const fragment = window.location.hash.replace(/^#\/?/, "");
  const [path = "", query = ""] = fragment.split("?", 2);
  return { path, query: new URLSearchParams(query) };
}

/** Begins to follow the address bar and the back button. */
export function startRouter(): void {
  window.addEventListener("hashchange", () => location.set(parse()));
}

/** A link to a path of the console, for `href`. Empty and absent values are left out of the query. */
export function href(path: string, query: Record<string, string | number | undefined> = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}

/** Opens a page. With `replace`, the back button skips the current page. */
export function navigate(to: string, options: { replace?: boolean } = {}): void {
  // Not by `location.hash`, whose event comes later: a message about the next page would be dismissed.
  if (options.replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  location.set(parse());
}

/** Matches `pattern`, such as `keys/:id`, and returns its parameters. An `:id` matches digits only. */
export function match(pattern: string, path: string): Record<string, string> | undefined {
  const wanted = pattern.split("/");
  const given = path.split("/");
  if (wanted.length !== given.length) return undefined;
  const parameters: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    const value = given[at] ?? "";
    if (!part.startsWith(":")) {
      if (part !== value) return undefined;
    } else if (/^[1-9][0-9]{0,18}$/.test(value)) {
      parameters[part.slice(1)] = value;
    } else {
      return undefined;
    }
  }
  return parameters;
}
