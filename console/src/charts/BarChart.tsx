// A chart of bars over time, with a summary in words and a table of its data.
import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { exact, short, timeTicks, valueTicks } from "./scale";
import { axisTime, fullTime, type Step } from "./times";

export interface Series {
  label: string;
  /** One value for each step. */
  values: number[];
}

interface Props {
  title: string;
  /** What the values mean, in one sentence. */
  description: string;
  /** `sum`: values of steps add up. `highest`: they do not. */
  total: "sum" | "highest";
  step: Step;
  times: string[];
  series: Series[];
}

const HEIGHT = 180;
const AXIS = { left: 44, bottom: 24, top: 8 };
/** Pixels for one label of the time axis. */
const LABEL_WIDTH = 72;
const FALLBACK_WIDTH = 560;

export function BarChart(props: Props): JSX.Element {
  const [isTable, setTable] = useState(false);
  const id = useId();
  return (
    <section class="chart" aria-labelledby={`${id}-title`}>
      <header class="chart-header">
        <div>
          <h2 id={`${id}-title`}>{props.title}</h2>
          <p class="chart-description">{props.description}</p>
        </div>
        <button type="button" class="button button-quiet" aria-expanded={isTable} aria-controls={`${id}-table`} onClick={() => setTable(!isTable)}>
          {isTable ? "Hide table" : "Show table"}
          <span class="visually-hidden"> of {props.title.toLowerCase()}</span>
        </button>
      </header>
      {props.series.length > 1 && <Legend series={props.series} />}
      <Bars {...props} />
      <p class="chart-summary">{summary(props)}</p>
      <div id={`${id}-table`} hidden={!isTable}>
        {isTable && <Table {...props} />}
      </div>
    </section>
  );
}

function Legend({ series }: { series: Series[] }): JSX.Element {
  return (
    <ul class="chart-legend">
      {series.map(({ label, values }, index) => (
        <li key={label}>
          <svg width="12" height="12" aria-hidden="true">
            <rect class={`series-${index + 1}`} width="12" height="12" rx="2" />
          </svg>
          {label} <strong>{exact(values.reduce((sum, value) => sum + value, 0))}</strong>
        </li>
      ))}
    </ul>
  );
}

function Bars({ title, step, times, series, ...props }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const sums = times.map((_, at) => series.reduce((sum, { values }) => sum + (values[at] ?? 0), 0));
  const ticks = valueTicks(Math.max(0, ...sums));
  const top = ticks[ticks.length - 1] ?? 1;
  const inner = { width: width - AXIS.left, height: HEIGHT - AXIS.top - AXIS.bottom };
  const column = inner.width / Math.max(times.length, 1);
  const gap = column > 6 ? 2 : column > 3 ? 1 : 0;
  const y = (value: number) => AXIS.top + inner.height * (1 - value / top);
  const isLong = times.length > 48;
  return (
    <div class="chart-box" ref={box}>
      <svg role="img" width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`}>
        <title>{`${title}: ${summary({ title, step, times, series, ...props })}`}</title>
        {ticks.map((tick) => (
          <g key={tick} class="chart-grid">
            <line x1={AXIS.left} x2={width} y1={y(tick)} y2={y(tick)} />
            <text x={AXIS.left - 8} y={y(tick)} dy="0.32em" text-anchor="end">
              {short(tick)}
            </text>
          </g>
        ))}
        {timeTicks(times.length, inner.width / LABEL_WIDTH).map((at) => (
          <text key={at} class="chart-time" x={AXIS.left + column * (at + 0.5)} y={HEIGHT - 6} text-anchor="middle">
            {axisTime(times[at] ?? "", step, isLong)}
          </text>
        ))}
        {times.map((time, at) => (
          <g key={time} class="chart-column">
            <title>{columnText(time, step, series, at)}</title>
            <rect class="chart-hit" x={AXIS.left + column * at} y={AXIS.top} width={column} height={inner.height} />
            {stack(series, at).map(({ index, from, to }) => (
              <rect
                key={index}
                class={`series-${index + 1}`}
                x={AXIS.left + column * at + gap / 2}
                width={Math.max(column - gap, 0.5)}
                y={y(to)}
                // A value above 0 is always visible.
                height={Math.max(y(from) - y(to), 1)}
              />
            ))}
          </g>
        ))}
      </svg>
    </div>
  );
}

/** The parts of one column that are above 0, from below. */
function stack(series: Series[], at: number): { index: number; from: number; to: number }[] {
  let below = 0;
  return series.flatMap(({ values }, index) => {
    const from = below;
    below += values[at] ?? 0;
    return below > from ? [{ index, from, to: below }] : [];
  });
}

function columnText(time: string, step: Step, series: Series[], at: number): string {
  return [fullTime(time, step), ...series.map(({ label, values }) => `${label}: ${exact(values[at] ?? 0)}`)].join("\n");
}

/** The totals, or the highest value and its time, in words. */
function summary({ total, step, times, series }: Props): string {
  const sums = times.map((_, at) => series.reduce((sum, { values }) => sum + (values[at] ?? 0), 0));
  const highest = Math.max(0, ...sums);
  if (highest === 0) return "None in this period.";
  const peak = `${exact(highest)} on ${fullTime(times[sums.indexOf(highest)] ?? "", step)}`;
  if (total === "highest") return `Highest: ${peak}.`;
  const all = exact(sums.reduce((sum, value) => sum + value, 0));
  return `${all} in all. The ${step} with the most: ${peak}.`;
}

function Table({ title, step, times, series }: Props): JSX.Element {
  return (
    <div class="chart-table" tabIndex={0} role="region" aria-label={`Data of ${title.toLowerCase()}`}>
      <table>
        <thead>
          <tr>
            <th scope="col">{step === "day" ? "Day (UTC)" : "Hour"}</th>
            {series.map(({ label }) => (
              <th key={label} scope="col" class="number">
                {label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.map((time, at) => (
            <tr key={time}>
              <th scope="row">{fullTime(time, step)}</th>
              {series.map(({ label, values }) => (
                <td key={label} class="number">
                  {exact(values[at] ?? 0)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The width of the element in pixels, so that the text of the chart keeps its size. */
function useWidth(box: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(FALLBACK_WIDTH);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const measure = () => setWidth(Math.max(240, Math.floor(element.clientWidth)));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [box]);
  return width;
}
