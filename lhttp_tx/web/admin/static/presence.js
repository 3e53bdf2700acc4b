// The members of a channel.

import { call, may, mayUseAll } from "./api.js";
import { add, el, link, name, note, panel } from "./dom.js";
import { counted } from "./format.js";
import { pages } from "./table.js";

const SHOWN_IDS = 3;

function user(row) {
  if (row.user === null) return el("span", { class: "quiet" }, "none");
  return may("connections") && mayUseAll() ? link(["connections", "user", row.user], row.user) : name(row.user);
}

function ids(row) {
  const links = row.connections.slice(0, SHOWN_IDS).map((id) => [
    may("connection") && mayUseAll() ? link(["connection", id], id, { class: "short" }) : name(id),
    " ",
  ]);
  const more = row.connections.length - SHOWN_IDS;
  return [links, more > 0 ? `and ${more} more` : null];
}

/** Return the panel. It shows a note if the channel has no presence. */
export function presence(channel, signal) {
  const told = note("Loading", { role: "status" });
  const element = panel("Presence", told);

  async function load() {
    try {
      const { people, connections } = await call("presence_stats", { channel }, signal);
      told.textContent = `${counted(people, "person", "people")} with ${counted(connections, "connection")}`;
      add(element, list());
    } catch (error) {
      if (signal.aborted) return;
      told.textContent = error.status === 404 ? "The server does not keep the presence of this channel." : error.message;
    }
  }

  function list() {
    return pages({
      method: "presence",
      params: { channel },
      rows: "people",
      columns: [
        { title: "User", cell: user, same: (row) => row.user ?? "" },
        { title: "Connections", cell: ids, same: (row) => row.connections.join(" ") },
      ],
      keyOf: (row) => `${row.user ?? ""} ${row.user === null ? row.connections[0] : ""}`,
      empty: "Nobody is there.",
      signal,
      limit: 25,
    }).element;
  }

  load();
  return element;
}
