// Shows messages. Their bodies are shown only if the operator wants to see them.

import { el } from "./dom.js";
import { bytes, count } from "./format.js";

const MOST = 4000;

/** Return a text with the size of a body. */
export function sizeOf(message) {
  if (message.body_base64 !== undefined) {
    const padding = (message.body_base64.match(/=*$/)?.[0] ?? "").length;
    return (message.body_base64.length / 4) * 3 - padding;
  }
  return new TextEncoder().encode(message.body ?? "").length;
}

/** Return the body as text, cut if it is long, or only its size if bodies are hidden. */
export function bodyOf(message, isShown) {
  const size = sizeOf(message);
  if (!size) return el("span", { class: "quiet" }, "empty");
  if (!isShown) return el("span", { class: "quiet" }, bytes(size));
  const isText = message.body !== undefined;
  const text = isText ? message.body : message.body_base64;
  return el(
    "div",
    {},
    isText ? null : el("small", {}, "base64"),
    el("pre", { class: "body", dir: "auto" }, text.slice(0, MOST)),
    text.length > MOST ? el("small", {}, `and ${count(text.length - MOST)} more characters`) : null,
  );
}

/** Return the headers, one on each line. */
export function headersOf(headers) {
  return el("pre", { class: "headers" }, headers.map(([name, value]) => `${name}: ${value}`).join("\n"));
}

/** Return a checkbox to show bodies. changed is called with whether they are shown. */
export function bodiesBox(changed) {
  const box = el("input", { type: "checkbox", change: () => changed(box.checked) });
  return el("label", { class: "check" }, box, "Show bodies");
}
