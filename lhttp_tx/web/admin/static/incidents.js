// The newest errors, closed connections and warnings.

import { call, may } from "./api.js";
import { el, link, name, note, panel } from "./dom.js";
import { clock, moment } from "./format.js";
import { poll } from "./poll.js";
import { Table } from "./table.js";

const SECONDS = 3;
const SHOWN = 100;
const KINDS = [
  ["", "All"],
  ["error", "Errors"],
  ["close", "Closes"],
  ["log", "Log"],
];
const NORMAL = new Set([1000, 1001, 1005]);

function what(row) {
  if (row.kind === "log") return row.level;
  if (row.kind === "close") return row.code === null || row.code === undefined ? "closed" : `closed ${row.code}`;
  return `error ${row.code}`;
}

function severity(row) {
  if (row.kind === "log") return row.level === "warn" || row.level === "info" ? "warn" : "bad";
  if (row.kind === "close") return NORMAL.has(row.code) ? "quiet" : "warn";
  return row.code >= 500 ? "bad" : "warn";
}

function who(row) {
  if (row.connection === undefined) return "";
  const label = row.user ?? row.connection;
  return row.kind === "error" && may("connection") ? link(["connection", row.connection], label) : name(label);
}

const COLUMNS = [
  { title: "Time", cell: (row) => el("time", { title: moment(row.time) }, clock(row.time)), same: (row) => row.time },
  { title: "What", cell: (row) => el("span", { class: `state ${severity(row)}` }, what(row)), same: what },
  { title: "Who", cell: who, same: (row) => row.connection ?? "" },
  { title: "Text", cell: (row) => name(row.text, { class: "name text" }), same: (row) => row.text },
  { title: "Node", cell: (row) => name(row.node, { class: "name short" }), same: (row) => row.node },
];

/** Return the panel with the newest incidents. */
export function incidents(signal) {
  const told = note("", { role: "status" });
  const table = new Table(COLUMNS, (row) => `${row.node} ${row.number}`, "Nothing has happened.");
  let kind = "";
  let again = new AbortController();

  async function load() {
    const found = await call("incidents", { limit: SHOWN, ...(kind ? { kind } : {}) }, again.signal);
    table.show(found.incidents);
  }

  function start() {
    again = new AbortController();
    poll(load, SECONDS, again.signal, (error) => (told.textContent = error?.message ?? ""));
  }

  const choice = KINDS.map(([value, label]) => {
    const input = el("input", {
      type: "radio",
      name: "kind",
      value,
      change: () => {
        kind = value;
        again.abort();
        start();
      },
    });
    input.checked = value === kind;
    return el("label", {}, input, label);
  });
  signal.addEventListener("abort", () => again.abort());
  start();
  const actions = el("fieldset", { class: "choice" }, el("legend", { class: "hidden" }, "Which"), choice);
  return panel("Errors, closed connections and warnings", { actions, class: "incidents" }, told, table.element);
}
