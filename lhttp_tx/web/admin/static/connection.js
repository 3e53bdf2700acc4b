// The page of one connection.

import { call, mayUseAll, may } from "./api.js";
import { attempt, reached } from "./dialog.js";
import { add, el, link, name, note, panel, show } from "./dom.js";
import { bytes, count, counted, moment, span } from "./format.js";
import { kickButton } from "./lists.js";
import { connectionMuteButtons } from "./mute.js";
import { poll } from "./poll.js";
import { facts, showFacts } from "./table.js";
import { traceLink } from "./trace.js";

const SECONDS = 2;

/** Show a connection: #/connection/ID. */
export function connectionView(main, [id], signal) {
  const told = note("", { role: "status" });
  const identity = facts([]);
  const traffic = facts([]);
  const channels = el("ul", { class: "chips" });
  const more = note("");
  const [muteButtons, showMute] = connectionMuteButtons(id, load);
  let shown = "";
  add(main, [
    el("h1", {}, "Connection ", name(id)),
    told,
    el(
      "div",
      { class: "columns" },
      panel("Who", { actions: actions() }, identity),
      panel("Now", traffic),
    ),
    panel("Subscriptions", subscribing(), channels, more),
  ]);

  function actions() {
    const kick = may("disconnect") ? kickButton({ connection: id }, () => {}) : null;
    return el("div", { class: "actions" }, traceLink("connection", id), muteButtons, kick);
  }

  function subscribing() {
    if (!may("subscribe")) return null;
    const input = el("input", { type: "text", required: true, placeholder: "news.de", "aria-label": "Name of a channel" });
    const button = el("button", { type: "submit" }, "Subscribe");
    async function submit(event) {
      event.preventDefault();
      const params = { connection: id, channels: [input.value.trim()] };
      if (await attempt(button, async () => (reached("subscribed", await call("subscribe", params)), true))) {
        input.value = "";
        await attempt(button, load);
      }
    }
    return el("form", { class: "inline", submit }, input, button);
  }

  function chip(channel) {
    const leave = el("button", { type: "button", class: "plain", "aria-label": `Unsubscribe from ${channel}` }, "×");
    leave.addEventListener("click", () =>
      attempt(leave, async () => {
        reached("unsubscribed", await call("unsubscribe", { connection: id, channels: [channel] }));
        await load();
      }),
    );
    return el("li", {}, link(["channel", channel], channel), may("unsubscribe") ? leave : null);
  }

  async function load() {
    const found = await call("connection", { connection: id }, signal);
    showFacts(identity, [
      ["User", userOf(found.user)],
      ["Address", found.address],
      ["Node", name(found.node)],
      ["Claims", found.claims.length ? found.claims.map((claim) => [name(claim), " "]) : null],
      ["Login expires", found.expires === null ? null : moment(found.expires)],
    ]);
    showMute(found);
    showFacts(traffic, [
      ["Transport", `${found.transport}, ${found.codec}`],
      ["State", found.state],
      ["Muted", found.muted ? `for ${span(found.muted)}${found.user_muted ? ", on all connections" : ""}` : null],
      ["Queued", `${counted(found.queued, "message")}, ${bytes(found.queued_bytes)}`],
      ["Unsent", bytes(found.unsent)],
      ["Subscriptions", count(found.subscriptions)],
    ]);
    const now = JSON.stringify(found.channels);
    if (now !== shown) {
      shown = now;
      show(channels, found.channels.map(chip));
    }
    const hidden = found.subscriptions - found.channels.length;
    more.textContent = hidden ? `and ${count(hidden)} more` : found.channels.length ? "" : "It is not subscribed to any channel.";
  }

  function userOf(user) {
    if (user === null) return el("span", { class: "quiet" }, "none");
    return may("connections") && mayUseAll() ? link(["connections", "user", user], user) : name(user);
  }

  poll(load, SECONDS, signal, (error) => {
    told.textContent = error === null ? "" : error.status === 404 ? "This connection has ended, or never was." : error.message;
    main.classList.toggle("stale", error !== null);
  });
}
