// Finds users, connections and channels while the operator types.

import { call } from "./api.js";
import { add, address, el, name } from "./dom.js";
import { count, counted } from "./format.js";

const DELAY = 250;
const WORDS = { user: "connection", channel: "subscriber" };

function target(row) {
  return row.kind === "user" ? address("connections", "user", row.name) : address(row.kind, row.name);
}

function line(row) {
  const about = row.kind === "connection" ? row.address ?? "" : counted(row.count, WORDS[row.kind]);
  return el(
    "li",
    {},
    el("a", { href: target(row) }, el("span", { class: "kind" }, row.kind), name(row.name), el("small", {}, about)),
  );
}

/** Return the field with its list of results. */
export function searchBox() {
  const list = el("ul", { class: "found", hidden: true });
  const input = el("input", {
    id: "search",
    type: "search",
    placeholder: "Search users, connections, channels",
    "aria-label": "Search users, connections and channels",
    maxlength: 100,
    autocomplete: "off",
    spellcheck: "false",
  });
  const box = el("search", { class: "search" }, input, list);
  let asking = new AbortController();
  let timer = 0;

  function close() {
    clearTimeout(timer);
    asking.abort();
    list.hidden = true;
  }

  async function look() {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const text = input.value.trim();
    if (!text) return close();
    try {
      const { found, more, unanswered } = await call("search", { text, limit: 8 }, signal);
      if (signal.aborted) return undefined;
      list.replaceChildren(...found.map(line));
      if (!found.length) add(list, el("li", { class: "quiet" }, "Nothing has this in its name."));
      if (more) add(list, el("li", { class: "quiet" }, "There is more: write more of the name."));
      if (unanswered.length) add(list, el("li", { class: "quiet" }, `${count(unanswered.length)} nodes did not answer.`));
    } catch (error) {
      if (signal.aborted) return undefined;
      list.replaceChildren(el("li", { class: "quiet" }, error.message));
    }
    list.hidden = false;
    return undefined;
  }

  function move(event) {
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (event.key === "Escape") {
      input.value = "";
      close();
      input.blur();
    } else if (event.key === "ArrowDown" && at + 1 < links.length) {
      event.preventDefault();
      links[at + 1].focus();
    } else if (event.key === "ArrowUp" && at >= 0) {
      event.preventDefault();
      (links[at - 1] ?? input).focus();
    } else if (event.key === "Enter" && event.target === input) {
      event.preventDefault();
      if (!list.hidden && links.length) links[0].click();
      else look();
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, DELAY);
  });
  box.addEventListener("keydown", move);
  box.addEventListener("focusout", (event) => {
    if (!box.contains(event.relatedTarget)) close();
  });
  list.addEventListener("click", (event) => {
    if (event.target.closest("a")) {
      input.value = "";
      close();
    }
  });
  return box;
}
