// A chart of bars over time, with a summary in words and a table of its data.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Button } from "../components/button";
import { inUtc } from "../components/text";
import { useStore } from "../lib/store";
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
  /** `sum`: the values of the steps add up. `highest`: they do not. */
  total: "sum" | "highest";
  step: Step;
  times: string[];
  series: Series[];
}

interface DrawnProps extends Props {
  isUtc: boolean;
}

const HEIGHT = 184;
const AXIS = { left: 44, bottom: 26, top: 10 };
/** Pixels for one label of the time axis. */
const LABEL_WIDTH = 64;
const FALLBACK_WIDTH = 560;

export function BarChart(props: Props) {
  const [isTable, setTable] = useState(false);
  const isUtc = useStore(inUtc);
  const id = useId();
  const drawn = { ...props, isUtc };
  return (
    <section class="card chart" aria-labelledby={`${id}-title`}>
      <header class="chart-head">
        <div>
          <h2 id={`${id}-title`}>{props.title}</h2>
          <p class="help">{props.description}</p>
        </div>
        <Button aria-expanded={isTable} aria-controls={`${id}-table`} onClick={() => setTable(!isTable)}>
          {isTable ? "Hide table" : "Show table"}
          <span class="hidden"> of {props.title.toLowerCase()}</span>
        </Button>
      </header>
      {props.series.length > 1 && <Legend series={props.series} />}
      <Bars {...drawn} />
      <p class="help">{summary(drawn)}</p>
      <div id={`${id}-table`} hidden={!isTable}>
        {isTable && <Table {...drawn} />}
      </div>
    </section>
  );
}

function Legend({ series }: { series: Series[] }) {
  return (
    <ul class="chart-legend">
      {series.map(({ label, values }, index) => (
        <li key={label}>
          <svg width="12" height="12" aria-hidden="true">
            <rect class={`series-${index + 1}`} width="12" height="12" rx="3" />
          </svg>
          {label} <strong>{exact(sum(values))}</strong>
        </li>
      ))}
    </ul>
  );
}

function Bars(props: DrawnProps) {
  const { title, step, times, series, isUtc } = props;
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const ticks = valueTicks(Math.max(0, ...stepTotals(props)));
  const top = ticks[ticks.length - 1] ?? 1;
  const inner = { width: width - AXIS.left, height: HEIGHT - AXIS.top - AXIS.bottom };
  const column = inner.width / Math.max(times.length, 1);
  const gap = column > 8 ? column / 4 : column > 3 ? 1 : 0;
  const y = (value: number) => AXIS.top + inner.height * (1 - value / top);
  return (
    <div class="chart-box" ref={box}>
      <svg role="img" width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`}>
        <title>{`${title}. ${summary(props)}`}</title>
        {ticks.map((tick) => (
          <g key={tick} class="chart-grid">
            <line x1={AXIS.left} x2={width} y1={y(tick)} y2={y(tick)} />
            <text x={AXIS.left - 8} y={y(tick)} dy="0.32em" text-anchor="end">
              {short(tick)}
            </text>
          </g>
        ))}
        {timeTicks(times.length, inner.width / LABEL_WIDTH).map((at) => (
          <text key={at} class="chart-time" x={AXIS.left + column * at} y={HEIGHT - 6}>
            {axisTime(times[at] ?? "", step, times.length > 48, isUtc)}
          </text>
        ))}
        {times.map((time, at) => (
          <g key={time} class="chart-column">
            <title>{stepText(props, at)}</title>
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

function sum(values: number[]): number {
  return values.reduce((all, value) => all + value, 0);
}

/** The height of each column. */
function stepTotals({ times, series }: Props): number[] {
  return times.map((_, at) => sum(series.map(({ values }) => values[at] ?? 0)));
}

function stepText({ times, step, series, isUtc }: DrawnProps, at: number): string {
  const values = series.map(({ label, values }) => `${label}: ${exact(values[at] ?? 0)}`);
  return [fullTime(times[at] ?? "", step, isUtc), ...values].join("\n");
}

/** The total and the highest value with its time, in words. */
function summary(props: DrawnProps): string {
  const { total, step, times, isUtc } = props;
  const totals = stepTotals(props);
  const highest = Math.max(0, ...totals);
  if (highest === 0) return "None in this period.";
  const time = fullTime(times[totals.indexOf(highest)] ?? "", step, isUtc);
  if (total === "highest") return `At most ${exact(highest)}, on ${time}.`;
  return `${exact(sum(totals))} in all, at most ${exact(highest)} in one ${step} (${time}).`;
}

function Table({ title, step, times, series, isUtc }: DrawnProps) {
  return (
    <div class="chart-table" tabIndex={0} role="region" aria-label={`Data of ${title.toLowerCase()}`}>
      <table>
        <thead>
          <tr>
            <th scope="col">{step === "day" ? "Day (UTC)" : isUtc ? "Hour (UTC)" : "Hour (local time)"}</th>
            {series.map(({ label }) => (
              <th key={label} scope="col">
                {label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.map((time, at) => (
            <tr key={time}>
              <th scope="row">{fullTime(time, step, isUtc)}</th>
              {series.map(({ label, values }) => (
                <td key={label}>{exact(values[at] ?? 0)}</td>
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
    const observer = new ResizeObserver(() => setWidth(Math.max(200, Math.floor(element.clientWidth))));
    observer.observe(element);
    return () => observer.disconnect();
  }, [box]);
  return width;
}
