// Shows the messages of a user, a connection, a channel or a command as they pass.

import { call, may, mayUseAll } from "./api.js";
import { field } from "./dialog.js";
import { add, address, el, link, name, note, panel } from "./dom.js";
import { bytes, clock, count, counted } from "./format.js";
import { headersOf } from "./message.js";
import { poll } from "./poll.js";

const SECONDS = 0.5;
const SHOWN = 300;
const KINDS = ["channel", "user", "connection", "command"];
const WORDS = { in: "from client", out: "to client", publish: "published", deliver: "delivered" };

function target(row) {
  const told = [];
  if (row.connection !== undefined) {
    const label = row.user ?? row.connection;
    told.push(may("connection") && mayUseAll() ? link(["connection", row.connection], label) : name(label));
  }
  if (row.channel !== undefined) told.push(told.length ? ", " : null, name(row.channel));
  if (row.count !== undefined) told.push(el("small", {}, ` to ${counted(row.count, "subscriber")} of this node`));
  return told;
}

function item(row, isOpen) {
  const details = el(
    "details",
    { open: isOpen },
    el(
      "summary",
      {},
      el("time", { title: row.node }, clock(row.time, true)),
      el("span", { class: `direction ${row.direction}` }, WORDS[row.direction] ?? row.direction),
      row.problem === undefined ? name(row.command) : el("em", {}, row.problem),
      el("span", { class: "where" }, target(row)),
      el("span", { class: "quiet" }, bytes(row.size)),
    ),
    headersOf(row.headers),
    row.body ? el("pre", { class: "body", dir: "auto" }, row.body) : null,
    row.body && row.body_size > new TextEncoder().encode(row.body).length
      ? el("small", {}, `The beginning of ${bytes(row.body_size)}.`)
      : null,
    row.body === undefined && row.body_size ? el("small", {}, `A body of ${bytes(row.body_size)}, hidden.`) : null,
  );
  return el("li", {}, details);
}

/** Show the trace: #/trace, or #/trace/KIND/NAME to begin at once. */
export function traceView(main, [kind, what], signal) {
  const kinds = mayUseAll() ? KINDS : ["channel"];
  const choice = el("select", {}, kinds.map((each) => el("option", { value: each }, each)));
  const input = el("input", { type: "text", required: true, maxlength: 255, spellcheck: "false", value: what ?? "" });
  const bodies = el("input", { type: "checkbox", disabled: !may("trace_bodies") });
  const begin = el("button", { type: "submit", class: "primary" }, "Start");
  const clear = el("button", { type: "button", click: () => list.replaceChildren() }, "Clear");
  const told = note("", { role: "status" });
  const list = el("ol", { class: "trace", "aria-label": "Messages" });
  let running = null;
  if (kinds.includes(kind)) choice.value = kind;

  const form = el(
    "form",
    {
      class: "bar",
      submit: (event) => {
        event.preventDefault();
        if (running === null) start();
        else stop();
      },
    },
    field("Follow", choice),
    field("Name", input),
    el(
      "p",
      { class: "field" },
      el("label", { class: "check" }, bodies, "Show bodies"),
      may("trace_bodies") ? null : el("small", {}, "The key may not: trace_bodies."),
    ),
    el("p", { class: "buttons" }, begin, clear),
  );

  function start() {
    const own = new AbortController();
    const random = crypto.getRandomValues(new Uint8Array(16));
    const params = {
      trace: [...random].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
      kind: choice.value,
      name: input.value.trim(),
      bodies: bodies.checked,
    };
    let after = {};
    running = { own, params };
    begin.textContent = "Stop";
    for (const each of [choice, input, bodies]) each.disabled = true;
    list.replaceChildren();

    async function load() {
      const found = await call("trace", { ...params, after }, own.signal);
      after = found.after;
      const isAtTop = list.scrollTop < 8;
      for (const row of found.messages) list.prepend(item(row, params.bodies));
      while (list.childElementCount > SHOWN) list.lastElementChild.remove();
      if (isAtTop) list.scrollTop = 0;
      const lines = [list.childElementCount ? "" : "Listening. Nothing has passed yet."];
      if (found.dropped) lines.push(`${count(found.dropped)} messages were left out, because too many passed.`);
      if (found.full.length) lines.push(`${counted(found.full.length, "node")} have too many traces already.`);
      if (found.unanswered.length) lines.push(`${counted(found.unanswered.length, "node")} did not answer.`);
      told.textContent = lines.filter(Boolean).join(" ");
    }

    poll(load, SECONDS, own.signal, (error) => {
      if (error !== null) told.textContent = error.message;
      if (error?.status === 400 || error?.status === 403) stop();
    });
  }

  function stop() {
    if (running === null) return;
    const { own, params } = running;
    running = null;
    own.abort();
    begin.textContent = "Start";
    for (const each of [choice, input]) each.disabled = false;
    bodies.disabled = !may("trace_bodies");
    call("trace", { ...params, stop: true }).catch(() => {}); // the trace times out otherwise
  }

  signal.addEventListener("abort", stop);
  add(main, [
    el("h1", {}, "Trace"),
    panel(
      "Watch messages pass",
      note(
        "A trace costs the server something while it runs: it looks at up to 100 messages and 256 KiB a second on each " +
          "node, and counts the others. It ends when you stop it, leave this view or close the tab.",
      ),
      form,
      told,
      list,
    ),
  ]);
  if (kinds.includes(kind) && what) start();
}

/** Return a link to the trace of something; null if the key may not trace. */
export function traceLink(kind, what) {
  return may("trace") ? el("a", { class: "button", href: address("trace", kind, what) }, "Trace") : null;
}
