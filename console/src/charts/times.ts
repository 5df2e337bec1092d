// How charts write the time of a step. Hours are in the zone that the user chose. Days are those of UTC, as the server
// counts them.
import type { components } from "../schema";

export type Step = components["schemas"]["StatsResponse"]["step"];

interface Zoned {
  hour: Intl.DateTimeFormat;
  day: Intl.DateTimeFormat;
  full: Intl.DateTimeFormat;
}

function inZone(timeZone: "UTC" | undefined): Zoned {
  const make = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-GB", timeZone ? { ...options, timeZone } : options);
  const day = { day: "numeric", month: "short" } as const;
  const hour = { hour: "2-digit", minute: "2-digit" } as const;
  return { hour: make(hour), day: make(day), full: make({ weekday: "short", ...day, ...hour }) };
}

const LOCAL = inZone(undefined);
const UTC = inZone("UTC");
const FULL_DAY = new Intl.DateTimeFormat("en-GB", {
  weekday: "short",
  day: "numeric",
  month: "short",
  year: "numeric",
  timeZone: "UTC",
});

/** For the axis. `isLong` says that the axis covers more than two days. */
export function axisTime(at: string, step: Step, isLong: boolean, isUtc: boolean): string {
  const time = new Date(at);
  if (step === "day") return UTC.day.format(time);
  const zone = isUtc ? UTC : LOCAL;
  return (isLong ? zone.day : zone.hour).format(time);
}

/** For tables, tooltips and summaries. */
export function fullTime(at: string, step: Step, isUtc: boolean): string {
  if (step === "day") return FULL_DAY.format(new Date(at));
  return (isUtc ? UTC : LOCAL).full.format(new Date(at));
}
