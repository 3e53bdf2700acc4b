// Asks for the key.

import { login } from "./api.js";
import { field } from "./dialog.js";
import { el, note } from "./dom.js";

/**
 * Return the form. entered is called after the login. why is a text to show, such as the reason for the last logout.
 */
export function loginView(entered, why) {
  const told = note(why, { role: "alert" });
  const secret = el("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const button = el("button", { type: "submit", class: "primary" }, "Log in");
  const form = el(
    "form",
    {
      class: "login panel",
      submit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          await login(secret.value.trim());
          entered();
        } catch (error) {
          told.textContent = error.message;
          button.disabled = false;
          secret.select();
        }
      },
    },
    el("h1", {}, "LHTTP admin"),
    field("Key", secret, "The secret of a key in [admin.keys]. This tab keeps it until it is closed, or until you log out."),
    told,
    button,
  );
  queueMicrotask(() => secret.focus());
  return el("main", { class: "door" }, form);
}
