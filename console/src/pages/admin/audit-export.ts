// Downloads entries of the trail as a file.
import { send } from "../../api";
import type { Filters } from "./audit-terms";

/** Saves all entries that match as JSON lines. The API streams them, and the browser keeps large ones on disk. */
export async function exportTrail(query: Filters, signal: AbortSignal): Promise<void> {
  const response = await send("get", "/audit", { query, headers: { Accept: "application/x-ndjson" }, signal });
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = `audit-${new Date().toISOString().slice(0, 10)}.ndjson`;
  link.click();
  // The download has taken the address over by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
