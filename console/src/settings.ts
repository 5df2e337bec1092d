// The settings of the server that concern the console.
import { call } from "./api";
import { useData, type Data } from "./lib/data";
import type { ConsoleSettings } from "./pending";

let known: Promise<ConsoleSettings> | undefined;

/** Loads them once. */
export function useSettings(): Data<ConsoleSettings> {
  return useData(() => {
    known ??= call("get", "/console/settings.json").catch((error: unknown) => {
      known = undefined;
      throw error;
    });
    return known;
  }, []);
}
