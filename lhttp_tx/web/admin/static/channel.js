// The page of one channel.

import { may, refusal } from "./api.js";
import { add, el, name, note, panel } from "./dom.js";
import { history } from "./history.js";
import { CONNECTION_COLUMNS } from "./lists.js";
import { presence } from "./presence.js";
import { publishForm } from "./publish.js";
import { pages } from "./table.js";
import { traceLink } from "./trace.js";

/** Show a channel: #/channel/NAME. */
export function channelView(main, [channel], signal) {
  const kept = may("history") ? history(channel, signal) : null;
  add(main, [
    el("h1", {}, "Channel ", name(channel)),
    panel("Subscribers", { actions: traceLink("channel", channel) }, may("connections") ? subscribers() : note(refusal("connections"))),
    may("presence") && may("presence_stats") ? presence(channel, signal) : null,
    kept?.element,
    panel("Publish", may("publish") ? publishForm(channel, () => kept?.again()) : note(refusal("publish"))),
  ]);

  function subscribers() {
    return pages({
      method: "connections",
      params: { channel },
      rows: "connections",
      columns: CONNECTION_COLUMNS,
      keyOf: (row) => row.connection,
      empty: "Nobody is subscribed by this very name. Subscribers with wildcards are not listed.",
      signal,
      limit: 25,
    }).element;
  }
}
