// Asks before actions that cannot be undone, and shows their results.

import { call } from "./api.js";
import { el, name, note, show } from "./dom.js";
import { counted } from "./format.js";

let number = 0;

/** Return a field with its label. */
export function field(label, input, hint) {
  number += 1;
  input.id ||= `field-${number}`;
  return el("p", { class: "field" }, el("label", { for: input.id }, label), input, hint ? note(hint) : null);
}

/**
 * Show a dialog with fields. When the operator agrees, act is called without arguments. If it throws, the error is
 * shown, and the dialog stays open. Returns a promise of whether the action was done.
 */
export function ask({ title, children = [], verb, act, isDangerous = true, hasChoice = true }) {
  return new Promise((resolve) => {
    const told = note("", { role: "alert" });
    let isDone = false;
    const agree = el("button", { type: "submit", class: isDangerous ? "danger" : "primary" }, verb);
    const cancel = el("button", { type: "button", click: () => dialog.close() }, "Cancel");
    const form = el(
      "form",
      {
        submit: async (event) => {
          event.preventDefault();
          agree.disabled = true;
          try {
            await act();
            isDone = true;
            dialog.close();
          } catch (error) {
            told.textContent = error.message;
            agree.disabled = false;
          }
        },
      },
      el("h2", {}, title),
      children,
      told,
      el("p", { class: "buttons" }, hasChoice ? cancel : null, agree),
    );
    const dialog = el(
      "dialog",
      {
        close: () => {
          dialog.remove();
          resolve(isDone);
        },
      },
      form,
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Ask whether to close connections, and close them. whom is a user or a connection, as parameters of the API. */
export function kick(whom) {
  const [kind, who] = Object.entries(whom)[0];
  const code = el("input", { type: "number", min: 3000, max: 4999, value: 4000, required: true });
  const reason = el("input", { type: "text", maxlength: 30 });
  return ask({
    title: ["Kick the ", kind, " ", name(who)],
    children: [
      field("Close code", code, "3000 to 4999. Clients may connect again."),
      field("Reason", reason, "The client receives it."),
    ],
    verb: "Kick",
    act: async () => {
      const params = { ...whom, code: code.valueAsNumber };
      if (reason.value) params.reason = reason.value;
      reached("closed", await call("disconnect", params));
    },
  });
}

/** Show how many connections a call has reached. */
export function reached(verb, { count, unanswered }) {
  const missing = unanswered?.length ? `; ${counted(unanswered.length, "node")} did not answer` : "";
  say(`${counted(count, "connection")} ${verb}${missing}`);
}

const toasts = el("div", { class: "toasts", role: "status", "aria-live": "polite" });

/** Show a text at the edge of the page for some time. */
export function say(text) {
  if (!toasts.isConnected) document.body.append(toasts);
  const toast = el("p", {}, text);
  toasts.append(toast);
  while (toasts.childElementCount > 3) toasts.firstElementChild.remove();
  setTimeout(() => toast.remove(), 6000);
}

/** Run the action of a button, and show its error. */
export async function attempt(button, act) {
  button.disabled = true;
  try {
    return await act();
  } catch (error) {
    say(error.message);
    return undefined;
  } finally {
    button.disabled = false;
  }
}

/** Show the list of keyboard shortcuts. */
export function help(keys) {
  const list = el("dl", { class: "facts" });
  show(list, keys.map(([term, text]) => el("div", {}, el("dt", {}, el("kbd", {}, term)), el("dd", {}, text))));
  return ask({ title: "Keys", children: [list], verb: "Close", isDangerous: false, hasChoice: false, act: async () => {} });
}
