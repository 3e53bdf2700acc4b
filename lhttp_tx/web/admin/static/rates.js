// The plots of the overview: the rates of messages through the cluster, and their delays.

import { call } from "./api.js";
import { el, note, panel } from "./dom.js";
import { count, seconds, short, speed } from "./format.js";
import { Plot } from "./plot.js";
import { poll } from "./poll.js";

const SECONDS = 2;
const WINDOW = 600;
const each = (value) => `${short(value)}/s`;

const SUMS = new Set([
  ...["connections", "opened", "closed", "errors", "received", "received_bytes", "published", "delivered"],
  "delivered_bytes",
]);

const PLOTS = [
  { title: "Connections", lines: [{ name: "open", key: "connections" }], write: count },
  {
    title: "Coming and going",
    lines: [{ name: "opened", key: "opened" }, { name: "closed", key: "closed" }, { name: "errors", key: "errors" }],
    write: each,
    hint: "Connections that open and close, and error messages to clients.",
  },
  {
    title: "Event loop lag",
    lines: [{ name: "slowest node", key: "lag" }],
    write: seconds,
    hint: "How late a timer of the reactor was. It is high while code blocks, or if there is too much to do.",
  },
  {
    title: "Messages",
    lines: [
      { name: "received", key: "received" },
      { name: "published", key: "published" },
      { name: "delivered", key: "delivered" },
    ],
    write: each,
    needs: "received",
  },
  {
    title: "Bytes",
    lines: [{ name: "received", key: "received_bytes" }, { name: "delivered", key: "delivered_bytes" }],
    write: speed,
    needs: "received",
  },
  {
    title: "Time of the parts",
    lines: [
      { name: "processors", key: "processor" },
      { name: "bus", key: "bus" },
      { name: "history", key: "history" },
      { name: "upstream", key: "upstream" },
    ],
    write: seconds,
    needs: "received",
    hint: "Mean time of processors, confirmations of the bus and of the history store, and backends.",
  },
];

/**
 * Return the points of all nodes together. The samples of each two seconds become one point: the sum of numbers, and
 * the maximum of times. The newest two seconds are left out until every node has a sample in them.
 */
export function merge(samples) {
  const turns = new Map();
  for (const sample of samples) {
    const turn = Math.floor(sample.time / SECONDS);
    let point = turns.get(turn);
    if (point === undefined) {
      point = { time: turn * SECONDS, nodes: new Map() };
      turns.set(turn, point);
    }
    point.nodes.set(sample.node, sample);
  }
  const points = [...turns.values()].sort((one, other) => one.time - other.time);
  const last = points.at(-1);
  if (points.length > 1 && last.nodes.size < points.at(-2).nodes.size) points.pop();
  return points.map(({ time, nodes }) => {
    const point = { time };
    for (const sample of nodes.values()) {
      for (const [key, value] of Object.entries(sample)) {
        if (key === "node" || key === "time") continue;
        point[key] = SUMS.has(key) ? (point[key] ?? 0) + value : Math.max(point[key] ?? 0, value);
      }
    }
    return point;
  });
}

/** Return the panel with the plots. */
export function rates(signal, told) {
  const plots = PLOTS.map((options) => ({ ...options, plot: new Plot(options) }));
  const hint = note("");
  const kept = new Map();
  let latest = 0;

  async function load() {
    const { samples } = await call("rates", latest ? { since: Math.max(0, latest - 10) } : {}, signal);
    for (const sample of samples) kept.set(`${sample.time} ${sample.node}`, sample);
    latest = Math.floor(samples.at(-1)?.time ?? latest);
    for (const [key, sample] of kept) if (sample.time < latest - WINDOW) kept.delete(key);
    const points = merge(kept.values());
    const to = points.at(-1)?.time ?? latest;
    const from = Math.max(points[0]?.time ?? 0, to - WINDOW);
    const hasCounters = points.some((point) => point.received !== undefined);
    for (const { plot, needs } of plots) {
      plot.element.hidden = Boolean(needs) && !plot.lines.some(({ key }) => points.some((point) => key in point));
      plot.show(points, from, to);
    }
    hint.textContent = hasCounters || !points.length ? "" : "Start the server with --metrics to see messages, bytes and times.";
  }

  poll(load, SECONDS, signal, (error) => (told.textContent = error?.message ?? ""));
  return panel("The last ten minutes", el("div", { class: "plots" }, plots.map(({ plot }) => plot.element)), hint);
}
