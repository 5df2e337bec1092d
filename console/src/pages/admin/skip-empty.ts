// Lists of which the API returns empty parts.
import type { Part } from "../../lib/data";

/**
 * Loads parts until one has items, or the list ends. The API ends a part early after it has read many rows that do not
 * match, so that its first parts can be empty.
 */
export async function skipEmpty<T>(
  after: number | undefined,
  load: (after: number | undefined) => Promise<Part<T>>,
): Promise<Part<T>> {
  let part = await load(after);
  while (part.items.length === 0 && part.next != null) part = await load(part.next);
  return part;
}
