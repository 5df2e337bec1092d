// Where the bars and the labels of a chart are.

/** The labels of the value axis: up to five round numbers from 0, of which the last is at least `highest`. */
export function valueTicks(highest: number): number[] {
  const rough = Math.max(highest, 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((candidate) => candidate * power >= rough) ?? 10;
  // Counts are whole numbers.
  const step = Math.max(1, Math.ceil(factor * power));
  const count = Math.ceil(Math.max(highest, 1) / step);
  return Array.from({ length: count + 1 }, (_, index) => index * step);
}

/** The indices of at most `most` labels of the time axis, at equal distances. */
export function timeTicks(count: number, most: number): number[] {
  const steps = [1, 2, 3, 4, 6, 8, 12, 24, 48, 72, 96, 168];
  const step = steps.find((candidate) => count / candidate <= most) ?? Math.ceil(count / Math.max(most, 1));
  return Array.from({ length: Math.ceil(count / step) }, (_, index) => index * step);
}

const WHOLE = new Intl.NumberFormat("en-GB");
const SHORT = new Intl.NumberFormat("en-GB", { notation: "compact" });

/** All digits: 1,234,567. */
export function exact(value: number): string {
  return WHOLE.format(value);
}

/** For the axis: 1.2M. */
export function short(value: number): string {
  return SHORT.format(value);
}
