// Charts of sign-ins, registrations, guarded requests, keys and the queue of password hashes.
import { call } from "../../api";
import { BarChart } from "../../charts/bar-chart";
import { exact } from "../../charts/scale";
import { Button } from "../../components/button";
import { Page } from "../../components/page";
import { Time } from "../../components/text";
import { useData } from "../../lib/data";
import { href } from "../../lib/router";
import type { PageProps } from "../../lib/routes";
import type { components } from "../../schema";
import { Loaded } from "../../components/loaded";

type Stats = components["schemas"]["StatsResponse"];
type Counts = Omit<components["schemas"]["StatsItemResponse"], "at">;

const HOURS = 3_600_000;

const PERIODS = [
  { name: "day", label: "24 hours", hours: 24, step: "hour" },
  { name: "week", label: "7 days", hours: 7 * 24, step: "hour" },
  { name: "month", label: "30 days", hours: 30 * 24, step: "day" },
  { name: "year", label: "365 days", hours: 365 * 24, step: "day" },
] as const;
type Period = (typeof PERIODS)[number];

export function StatisticsPage({ query }: PageProps) {
  const period = PERIODS.find(({ name }) => name === query.get("period")) ?? PERIODS[0];
  const data = useData((signal) => call("get", "/stats", { query: range(period), signal }), [period.name]);
  return (
    <Page
      title="Statistics"
      intro={data.value && <>From <Time value={data.value.from} /> to <Time value={data.value.to} /></>}
      actions={<Button onClick={data.reload}>Refresh</Button>}
    >
      <nav class="periods" aria-label="Period">
        {PERIODS.map(({ name, label }) => (
          <a key={name} href={href("statistics", { period: name })} aria-current={name === period.name ? "true" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      <Loaded data={data}>{(stats) => <Charts stats={stats} />}</Loaded>
    </Page>
  );
}

/** Up to now, and whole steps from the beginning. */
function range({ hours, step }: Period) {
  const now = Date.now();
  const unit = step === "day" ? 24 * HOURS : HOURS;
  const from = Math.floor((now - hours * HOURS) / unit + 1) * unit;
  return { from: new Date(from).toISOString(), to: new Date(now).toISOString(), step };
}

function Charts({ stats }: { stats: Stats }) {
  const values = (name: keyof Counts) => stats.items.map((item) => item[name]);
  const sum = (name: keyof Counts) => exact(values(name).reduce((all, value) => all + value, 0));
  const common = { step: stats.step, times: stats.items.map(({ at }) => at) };
  return (
    <>
      <dl class="figures">
        <Figure name="Sign-ins" value={sum("sign_ins_succeeded")} />
        <Figure name="Failed sign-ins" value={sum("sign_ins_failed")} />
        <Figure name="Registrations" value={sum("registrations")} />
        <Figure name="Guarded requests" value={sum("requests_authorized")} />
        <Figure name="Refusals" value={sum("requests_refused")} />
      </dl>
      <div class="charts">
        <BarChart
          {...common}
          title="Sign-ins"
          description="Attempts by outcome. Throttled ones were rejected before the password was checked."
          total="sum"
          series={[
            { label: "Succeeded", values: values("sign_ins_succeeded") },
            { label: "Failed", values: values("sign_ins_failed") },
            { label: "Throttled", values: values("sign_ins_throttled") },
          ]}
        />
        <BarChart
          {...common}
          title="Guarded requests"
          description="Requests with a credential: passed, or refused for a bad one or a missing scope."
          total="sum"
          series={[
            { label: "Authorized", values: values("requests_authorized") },
            { label: "Refused", values: values("requests_refused") },
          ]}
        />
        <BarChart
          {...common}
          title="Registrations"
          description="New accounts."
          total="sum"
          series={[{ label: "Registrations", values: values("registrations") }]}
        />
        <BarChart
          {...common}
          title="Keys in use"
          description="API keys that were used at least once in the step."
          total="highest"
          series={[{ label: "Keys", values: values("keys_used") }]}
        />
        <BarChart
          {...common}
          title="Hash queue"
          description="The most passwords that waited to be hashed at the same time."
          total="highest"
          series={[{ label: "Waiting", values: values("hash_queue_max") }]}
        />
      </div>
    </>
  );
}

function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
