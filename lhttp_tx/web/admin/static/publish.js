// Publishes a message to a channel.

import { call } from "./api.js";
import { attempt, field, say } from "./dialog.js";
import { el } from "./dom.js";

function headersOf(text) {
  const headers = {};
  for (const line of text.split("\n").filter((each) => each.trim())) {
    const at = line.indexOf(":");
    if (at < 1) throw new Error(`A header looks like NAME:VALUE, not ${line.slice(0, 40)}`);
    headers[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return headers;
}

/** Return the form. done is called after each publication. */
export function publishForm(channel, done) {
  const command = el("input", { type: "text", value: "message", required: true, maxlength: 64, spellcheck: "false" });
  const headers = el("textarea", { rows: 2, spellcheck: "false", placeholder: "content-type:text/plain" });
  const body = el("textarea", { rows: 3 });
  const store = el("input", { type: "checkbox" });
  store.checked = true;
  const button = el("button", { type: "submit", class: "primary" }, "Publish");

  async function publish() {
    const params = { channel, command: command.value.trim(), headers: headersOf(headers.value), body: body.value };
    if (!store.checked) params.store = false;
    const { positions } = await call("publish", params);
    const position = positions?.[channel];
    say(position === undefined ? "Published" : `Published at ${position}`);
    body.value = "";
    done();
  }

  return el(
    "form",
    {
      class: "publish",
      submit: (event) => {
        event.preventDefault();
        attempt(button, publish);
      },
    },
    field("Command", command),
    field("Headers, one a line", headers),
    el("div", { class: "wide" }, field("Body", body)),
    el("p", { class: "wide last" }, el("label", { class: "check" }, store, "Keep it in the history, if the channel has one"), button),
  );
}
