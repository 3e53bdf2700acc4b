// Browses the history of a channel.

import { call, may } from "./api.js";
import { ask, attempt, say } from "./dialog.js";
import { el, name, note, panel } from "./dom.js";
import { counted } from "./format.js";
import { bodiesBox, bodyOf, headersOf } from "./message.js";
import { Table } from "./table.js";

const SHOWN = 25;

/** Return the panel, and a function that reads the newest messages again. */
export function history(channel, signal) {
  let isShown = false;
  let messages = [];
  const told = note("Loading", { role: "status" });
  const columns = [
    { title: "Position", cell: (row) => name(row.position), same: (row) => row.position },
    { title: "Command", cell: (row) => name(row.command), same: (row) => row.command },
    { title: "Headers", cell: (row) => headersOf(row.headers), same: (row) => JSON.stringify(row.headers) },
    { title: "Body", cell: (row) => bodyOf(row, isShown), same: () => String(isShown) },
  ];
  const table = new Table(columns, (row) => row.position, "Nothing is kept here.");
  const older = el("button", { type: "button" }, "Older");
  const newest = el("button", { type: "button" }, "Newest");
  older.addEventListener("click", () => attempt(older, () => read({ before: messages[0].position })));
  newest.addEventListener("click", () => attempt(newest, () => read()));
  const bar = el("nav", { class: "pages", "aria-label": "Pages of the history" }, older, newest);
  const box = bodiesBox((value) => {
    isShown = value;
    table.show([...messages].reverse());
  });
  const remove = el("button", { type: "button", class: "danger" }, "Remove");
  remove.addEventListener("click", async () => {
    const isDone = await ask({
      title: ["Remove the history of ", name(channel)],
      children: [note("All its messages are gone for good. Clients that were away miss them.")],
      verb: "Remove",
      act: () => call("history_remove", { channel }),
    });
    if (isDone) {
      say("Removed");
      await again();
    }
  });

  async function read(where = {}) {
    const found = await call("history", { channel, limit: SHOWN, ...where }, signal);
    messages = found.messages;
    table.show([...messages].reverse());
    told.textContent = messages.length ? `${counted(messages.length, "message")}, the newest first` : "";
    older.disabled = !found.more || !messages.length;
    table.element.hidden = false;
    bar.hidden = !found.more && where.before === undefined;
  }

  async function again() {
    try {
      await read();
    } catch (error) {
      if (signal.aborted) return;
      told.textContent = error.status === 404 ? "The server does not keep the history of this channel." : error.message;
      table.element.hidden = true;
      bar.hidden = true;
      box.hidden = true;
      remove.hidden = true;
    }
  }

  again();
  const actions = el("div", { class: "inline" }, box, may("history_remove") ? remove : null);
  return { element: panel("History", { actions }, told, table.element, bar), again };
}
