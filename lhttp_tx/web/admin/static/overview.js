// The first view: the state of the cluster.

import { call, may, mayUseAll, refusal } from "./api.js";
import { add, el, name, note, panel } from "./dom.js";
import { count, since } from "./format.js";
import { incidents } from "./incidents.js";
import { poll } from "./poll.js";
import { rates } from "./rates.js";
import { Table, facts, showFacts } from "./table.js";

const SECONDS = 3;

/** Show the overview. */
export function overview(main, _, signal) {
  const told = note("", { role: "alert" });
  const tiles = new Tiles();
  add(main, [el("h1", {}, "Overview"), told, tiles.element]);
  if (may("rates")) add(main, rates(signal, told));
  if (may("incidents") && mayUseAll()) add(main, incidents(signal));
  const about = el("div", { class: "columns" });
  add(main, about);
  if (may("nodes")) add(about, nodes(tiles, signal, told));
  if (may("info")) add(about, server(signal));
  if (!may("nodes")) add(main, note(`${refusal("nodes")} So it does not see how many connections there are.`));
}

/** Numbers in large type. */
class Tiles {
  constructor() {
    this.element = el("div", { class: "tiles" });
    this.values = new Map();
  }

  set(title, value, hint) {
    if (!this.values.has(title)) {
      const number = el("strong");
      this.values.set(title, number);
      add(this.element, el("p", { class: "tile", title: hint }, el("span", {}, title), number));
    }
    this.values.get(title).textContent = value;
  }
}

const NODE_COLUMNS = [
  { title: "Node", same: (row) => row.node, cell: (row) => name(row.node) },
  { title: "Connections", isNumber: true, cell: (row) => count(row.connections) },
  { title: "Users", isNumber: true, cell: (row) => (row.users === undefined ? "?" : count(row.users)) },
  { title: "Channels", isNumber: true, cell: (row) => count(row.channels) },
  { title: "Subscriptions", isNumber: true, cell: (row) => count(row.subscriptions) },
];

function nodes(tiles, signal, told) {
  const table = new Table(NODE_COLUMNS, (row) => row.node, "No node answers.");
  const missing = note("");

  async function load() {
    const { nodes: found, unanswered } = await call("nodes", {}, signal);
    const total = (key) => found.reduce((sum, node) => sum + (node[key] ?? 0), 0);
    tiles.set("Connections", count(total("connections")));
    tiles.set("Users", count(total("users")), "A user on two nodes counts twice.");
    tiles.set("Channels", count(total("channels")), "A channel with subscribers on two nodes counts twice.");
    tiles.set("Subscriptions", count(total("subscriptions")));
    tiles.set("Nodes", unanswered.length ? `${found.length} of ${found.length + unanswered.length}` : count(found.length));
    table.show(found.sort((one, other) => (one.node < other.node ? -1 : 1)));
    missing.textContent = unanswered.length ? `These nodes did not answer: ${unanswered.join(", ")}` : "";
  }

  poll(load, SECONDS, signal, (error) => (told.textContent = error?.message ?? ""));
  return panel("Nodes", table.element, missing);
}

function server(signal) {
  const list = facts([]);

  async function load() {
    const found = await call("info", {}, signal);
    showFacts(list, [
      ["Name", name(found.node)],
      ["Version", found.version],
      ["Running for", since(found.started)],
      ["Bus", state(found.bus, found.bus_up)],
      ["History", found.history === "none" ? "none" : state(found.history, found.history_up)],
    ]);
  }

  poll(load, 10, signal, () => {});
  return panel("The node that answers", list);
}

function state(text, isUp) {
  return [name(text), " ", el("span", { class: isUp ? "state good" : "state bad" }, isUp ? "works" : "away")];
}
