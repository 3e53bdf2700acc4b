// The lists of connections, users and channels.

import { mayUseAll, may } from "./api.js";
import { kick } from "./dialog.js";
import { add, address, el, link, name, note, panel } from "./dom.js";
import { bytes, count, span } from "./format.js";
import { userMuteButtons } from "./mute.js";
import { pages } from "./table.js";
import { traceLink } from "./trace.js";

/** The columns of lists of connections. */
export const CONNECTION_COLUMNS = [
  {
    title: "Connection",
    same: (row) => row.connection,
    cell: (row) => (may("connection") && mayUseAll() ? link(["connection", row.connection], row.connection) : row.connection),
  },
  {
    title: "User",
    same: (row) => row.user ?? "",
    cell: (row) => (row.user === null ? el("span", { class: "quiet" }, "none") : userLink(row.user)),
  },
  { title: "Address", cell: (row) => row.address },
  { title: "Node", same: (row) => row.node, cell: (row) => name(row.node, { class: "name short" }) },
  { title: "Channels", isNumber: true, cell: (row) => count(row.subscriptions) },
  { title: "Queued", isNumber: true, cell: (row) => count(row.queued) },
  { title: "Unsent", isNumber: true, cell: (row) => bytes(row.unsent) },
];

function userLink(user) {
  return may("connections") && mayUseAll() ? link(["connections", "user", user], user) : name(user);
}

function channelLink(channel) {
  return link(["channel", channel], channel);
}

/** Show all connections, or those of a user: #/connections/user/NAME. */
export function connectionsView(main, [kind, user], signal) {
  const isOne = kind === "user" && user;
  add(main, el("h1", {}, isOne ? ["Connections of ", name(user)] : "Connections"));
  if (!mayUseAll()) {
    add(main, note("This key may not use all channels, so it sees connections only on the page of a channel."));
    return;
  }
  const list = pages({
    method: "connections",
    params: isOne ? { user } : {},
    rows: "connections",
    columns: CONNECTION_COLUMNS,
    keyOf: (row) => row.connection,
    empty: isOne ? "This user is not connected." : "Nobody is connected.",
    signal,
  });
  const kick = isOne && may("disconnect") ? kickButton({ user }, list.again) : null;
  const actions = isOne ? el("div", { class: "actions" }, traceLink("user", user), userMuteButtons(user), kick) : null;
  add(main, panel(isOne ? "Now" : "All, by id", { actions }, list.element));
}

/** Return a button that kicks a user or a connection. */
export function kickButton(whom, done) {
  const button = el("button", { type: "button", class: "danger" }, "Kick");
  button.addEventListener("click", async () => {
    if (await kick(whom)) done();
  });
  return button;
}

/** Show who is connected. */
export function usersView(main, _, signal) {
  const list = pages({
    method: "users",
    rows: "users",
    columns: [
      { title: "User", same: (row) => row.user, cell: (row) => userLink(row.user) },
      { title: "Connections", isNumber: true, cell: (row) => count(row.connections) },
    ],
    keyOf: (row) => row.user,
    empty: "No user is connected. Connections without a login are on the page Connections.",
    signal,
  });
  add(main, [el("h1", {}, "Users"), panel("By name", list.element), may("mutes") ? mutedPanel(signal) : null]);
}

function mutedPanel(signal) {
  const list = pages({
    method: "mutes",
    rows: "mutes",
    columns: [
      { title: "User", same: (row) => row.user, cell: (row) => userLink(row.user) },
      { title: "For another", isNumber: true, cell: (row) => span(row.seconds) },
    ],
    keyOf: (row) => row.user,
    empty: "No user is muted.",
    signal,
  });
  return panel("Muted", list.element);
}

/** Show the channels with subscribers: all, or those of a pattern, #/channels/PATTERN. */
export function channelsView(main, [pattern], signal) {
  const list = pages({
    method: "channels",
    params: pattern ? { pattern } : {},
    rows: "channels",
    columns: [
      { title: "Channel", same: (row) => row.channel, cell: (row) => channelLink(row.channel) },
      { title: "Subscribers", isNumber: true, cell: (row) => count(row.subscribers) },
    ],
    keyOf: (row) => row.channel,
    empty: "No channel has subscribers.",
    signal,
  });
  const input = el("input", { type: "text", value: pattern ?? "", placeholder: "news.>", "aria-label": "Pattern" });
  const open = el("input", { type: "text", required: true, placeholder: "news.de", "aria-label": "Name of a channel" });
  add(main, [
    el("h1", {}, "Channels"),
    el(
      "div",
      { class: "bar" },
      form(input, "Filter", () => (input.value ? address("channels", input.value.trim()) : "#/channels")),
      form(open, "Open a channel", () => address("channel", open.value.trim())),
    ),
    panel(pattern ? ["Those that match ", name(pattern)] : "By name", list.element),
  ]);
}

function form(input, verb, target) {
  function submit(event) {
    event.preventDefault();
    location.hash = target();
  }
  return el("form", { class: "inline", submit }, input, el("button", { type: "submit" }, verb));
}
