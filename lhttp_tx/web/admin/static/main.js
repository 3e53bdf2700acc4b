// The frame of the dashboard: login, views by URL, keyboard shortcuts, and the light or dark theme.

import { hasKey, key, login, logout, may, onLogout } from "./api.js";
import { channelView } from "./channel.js";
import { connectionView } from "./connection.js";
import { help } from "./dialog.js";
import { address, el, name, note, show } from "./dom.js";
import { channelsView, connectionsView, usersView } from "./lists.js";
import { loginView } from "./login.js";
import { overview } from "./overview.js";
import { searchBox } from "./search.js";
import { traceView } from "./trace.js";

const VIEWS = {
  "": { title: "Overview", show: overview },
  connections: { title: "Connections", show: connectionsView, needs: "connections" },
  users: { title: "Users", show: usersView, needs: "users" },
  channels: { title: "Channels", show: channelsView, needs: "channels" },
  trace: { title: "Trace", show: traceView, needs: "trace" },
  connection: { show: connectionView },
  channel: { show: channelView },
};
const NAVIGATION = ["", "connections", "users", "channels", "trace"];
const THEMES = ["system", "light", "dark"];
const THEME = "lhttp-admin-theme";

const app = document.getElementById("app");
let current = new AbortController();
let main = null;

function theme() {
  const found = localStorage.getItem(THEME);
  return THEMES.includes(found) ? found : "system";
}

function setTheme(value) {
  localStorage.setItem(THEME, value);
  document.documentElement.dataset.theme = value;
}

function themeButton() {
  const label = () => `Theme: ${theme()}`;
  const button = el("button", { type: "button", class: "plain" }, label());
  button.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    button.textContent = label();
  });
  return button;
}

function shown() {
  return NAVIGATION.filter((path) => !VIEWS[path].needs || may(VIEWS[path].needs));
}

function frame() {
  const links = shown().map((path) => el("a", { href: path ? address(path) : "#/", "data-view": path }, VIEWS[path].title));
  main = el("main", { id: "main", tabindex: "-1" });
  show(
    app,
    el("a", { class: "skip", href: "#main", click: skip }, "Skip to the content"),
    el(
      "header",
      { class: "top" },
      el("a", { class: "brand", href: "#/" }, "LHTTP admin"),
      el("nav", { "aria-label": "Views" }, links),
      may("search") ? searchBox() : null,
      el(
        "div",
        { class: "own" },
        el("span", { class: "quiet" }, "Key ", name(key().name)),
        themeButton(),
        el("button", { type: "button", class: "plain", click: () => logout() }, "Log out"),
      ),
    ),
    main,
  );
}

function skip(event) {
  event.preventDefault();
  main.focus();
}

function parts() {
  try {
    return location.hash.replace(/^#?\/?/, "").split("/").map(decodeURIComponent);
  } catch {
    return ["?"];
  }
}

function route() {
  if (key() === null) return;
  current.abort();
  current = new AbortController();
  const [path, ...rest] = parts();
  const view = Object.hasOwn(VIEWS, path) ? VIEWS[path] : null;
  for (const each of app.querySelectorAll("[data-view]")) {
    if (each.dataset.view === path) {
      each.setAttribute("aria-current", "page");
      each.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else {
      each.removeAttribute("aria-current");
    }
  }
  main.replaceChildren();
  scrollTo(0, 0);
  document.title = `${view?.title ?? rest[0]?.slice(0, 100) ?? "Not found"} – LHTTP admin`;
  if (view === null) {
    show(main, el("h1", {}, "Not found"), note("There is no such view."));
  } else {
    view.show(main, rest, current.signal);
  }
  main.focus({ preventScroll: true });
}

function enter() {
  frame();
  route();
}

function leave(why) {
  current.abort();
  document.title = "LHTTP admin";
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  show(app, loginView(enter, why));
}

const KEYS = [
  ["/", "Search"],
  ["1 – 9", "The views, in the order above"],
  ["?", "This list"],
  ["Esc", "Close a dialog, or leave the search"],
];

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || key() === null || document.querySelector("dialog")) return;
  if (event.target.closest("input, textarea, select")) return;
  const views = shown();
  if (event.key === "/" && may("search")) {
    event.preventDefault();
    app.querySelector("#search").focus();
  } else if (event.key === "?") {
    help(KEYS);
  } else if (event.key >= "1" && event.key <= String(views.length)) {
    location.hash = views[event.key - 1] ? address(views[event.key - 1]) : "#/";
  }
}

setTheme(theme());
addEventListener("hashchange", route);
addEventListener("keydown", pressed);
onLogout(leave);
if (hasKey()) {
  login().then(enter, (error) => {
    if (error.status === 401) logout("The key is not valid any more.");
    else leave(error.message);
  });
} else {
  leave("");
}
