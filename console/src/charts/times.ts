// How charts write the time of a step. Hours are local; days are those of UTC, as the server counts them.
import type { StatsResponse } from "../pending";

export type Step = StatsResponse["step"];

const HOUR = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const LOCAL_DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const FULL_HOUR = new Intl.DateTimeFormat("en-GB", {
  weekday: "short",
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const FULL_DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

/** For the axis. `isLong` says that the axis covers more than two days. */
export function axisTime(at: string, step: Step, isLong: boolean): string {
  const time = new Date(at);
  if (step === "day") return DAY.format(time);
  return (isLong ? LOCAL_DAY : HOUR).format(time);
}

/** For tables and tooltips. */
export function fullTime(at: string, step: Step): string {
  return (step === "day" ? FULL_DAY : FULL_HOUR).format(new Date(at));
}
