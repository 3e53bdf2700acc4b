// A chat in one page. A room is a channel: the page subscribes to it, and publishes to it. If the server keeps a
// history of the room, its last messages come first. After a lost connection, the missed messages come. The texts of
// messages are only inserted as text, never as HTML.

import { LhttpClient, checkChannel } from "./lhttp.mjs";

const MAX_LINES = 500;
const PAST = 50; // earlier messages that a room begins with
const byId = (id) => document.getElementById(id);
const client = new LhttpClient(new URL(".", location.href)); // http://... becomes ws://...
const rooms = new Map(); // name -> { name, list, item, button, unread, subscription }
const waiting = new Map(); // id of a message that has not come back yet -> its line
let current = null;
let below = 0; // lines that came while the last line was out of sight
let seesEnd = true; // whether the last line is in sight
let countdown = null; // the timer that shows the time until the next attempt

// The connection

client.on("state", ({ state, previous, delay }) => {
  const texts = { open: "Connected", connecting: "Connecting", closed: "Not connected", reconnecting: "Reconnecting" };
  clearInterval(countdown);
  byId("state").dataset.state = state;
  byId("state").textContent = texts[state];
  if (delay !== null) countDown(Date.now() + delay);
  if (previous === "open") {
    for (const room of rooms.values()) {
      room.seen = [...room.list.querySelectorAll("li:not(.waiting)")].at(-1);
      room.isLive = false;
    }
  }
});

function countDown(end) {
  const rest = element("span");
  rest.setAttribute("aria-hidden", "true"); // a screen reader need not read each second
  byId("state").append(rest);
  const tell = () => {
    const seconds = Math.ceil((end - Date.now()) / 1000);
    rest.textContent = seconds > 0 ? `in ${seconds} s` : "";
  };
  tell();
  countdown = setInterval(tell, 250);
}

// Rooms

function join(name) {
  if (!rooms.has(name)) {
    const room = { name, list: element("ol"), item: element("li"), button: element("button", "room"), unread: 0 };
    room.button.type = "button";
    room.button.dir = "auto";
    room.button.addEventListener("click", () => show(room));
    room.item.append(room.button);
    byId("rooms").append(room.item);
    rooms.set(name, room);
    const onRecovered = ({ count }) => tellRecovered(room, count);
    const onMissed = ({ position }) => tellMissed(room, position);
    client.subscribe(name, (message) => receive(room, message), { last: PAST, onRecovered, onMissed }).then(
      (subscription) => {
        room.subscription = subscription;
        room.isLive = true;
        room.list.classList.toggle("kept", Object.hasOwn(subscription.positions, name));
        if (room.left) subscription.unsubscribe().catch(() => {});
      },
      (error) => addNotice(room, `This room cannot be joined: ${error.reason}`),
    );
  }
  show(rooms.get(name));
}

function leave(room) {
  if (rooms.size < 2) return;
  room.left = true;
  room.subscription?.unsubscribe().catch(() => {}); // it ends with the connection, too
  room.item.remove();
  rooms.delete(room.name);
  show([...rooms.values()].at(-1));
}

function show(room) {
  current = room;
  room.unread = 0;
  for (const other of rooms.values()) label(other);
  room.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  byId("current").textContent = room.name;
  byId("leave").hidden = rooms.size < 2;
  byId("scroll").replaceChildren(room.list);
  toEnd();
  history.replaceState(null, "", `#${encodeURIComponent(room.name)}`);
}

function label(room) {
  room.button.textContent = room.name;
  room.button.setAttribute("aria-current", room === current ? "page" : "false");
  if (room.unread) room.button.append(element("span", "unread", String(room.unread)));
}

// Messages

function receive(room, message) {
  const line = lineOf(room, message);
  if (!line) return;
  const id = message.headers.get("message-id");
  waiting.get(id)?.remove();
  if (waiting.delete(id)) line.classList.add("mine");
  add(room, line);
  if (room !== current && room.subscription) {
    room.unread += 1;
    label(room);
  }
}

/** Return the line for a message; null if there is nothing to show. */
function lineOf(room, message) {
  if (message.binary || message.text === "") return null;
  const { headers } = message;
  const sent = Number(headers.get("time") ?? (room.isLive ? Date.now() : NaN));
  const line = makeLine(headers.get("from") ?? "somebody", message.text, sent);
  line.dataset.key = headers.get("message-id") ?? headers.get("offset") ?? "";
  return line;
}

/** Show how many messages came that were missed without a connection, above the first of them. */
function tellRecovered(room, count) {
  const notice = element("li", "notice", count === 1 ? "You missed one message:" : `You missed ${count} messages:`);
  if (count && room.seen?.parentNode === room.list) insert(room, notice, room.seen);
  room.seen = null;
  room.isLive = true;
}

/** Show that messages are missing, and show the last messages that the server has. */
async function tellMissed(room, position) {
  room.seen = null;
  room.isLive = position === null;
  if (room.isLive) {
    addNotice(room, "Connected again. What was written meanwhile is not shown.");
    return;
  }
  let line = addNotice(room, "Messages are missing here.");
  const [epoch, offset] = position.split("-");
  const before = `${epoch}-${BigInt(offset) + 1n}`; // newer messages come by the subscription
  const { messages } = await client.history(room.name, { before, limit: PAST }).catch(() => ({ messages: [] }));
  const shown = new Set(Array.from(room.list.children, ({ dataset }) => dataset.key));
  for (const message of messages) {
    const found = lineOf(room, message);
    if (!found || shown.has(found.dataset.key)) continue;
    insert(room, found, line);
    line = found;
  }
  room.isLive = true;
}

function send(room, text) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(36)).join("");
  const from = byId("name").value.trim() || "guest";
  const line = makeLine(from, text, Date.now());
  line.classList.add("mine", "waiting");
  add(room, line);
  waiting.set(id, line);
  client.publish(room.name, text, { id, headers: { from, time: Date.now() } }).catch((error) => {
    if (!waiting.delete(id)) return; // it has come back
    const again = element("button", "again", "Send again");
    again.addEventListener("click", () => {
      line.remove();
      send(room, text);
    });
    line.className = "mine failed";
    line.append(element("small", "", `Not delivered: ${error.reason}. `), again);
  });
}

function makeLine(from, text, time) {
  const line = element("li");
  line.dataset.from = from;
  line.append(element("b", "", from), element("time", "", timeText(time)), element("p", "", text));
  for (const part of [line.firstChild, line.lastChild]) part.dir = "auto"; // by the text, not by the page
  line.style.setProperty("--hue", [...from].reduce((sum, char) => (sum * 31 + char.codePointAt(0)) % 360, 7));
  return line;
}

function addNotice(room, text) {
  const notice = element("li", "notice", text);
  add(room, notice);
  return notice;
}

function add(room, line) {
  const follows = isAtEnd() || line.classList.contains("mine");
  insert(room, line, room.list.lastElementChild);
  if (room.list.childElementCount > MAX_LINES) room.list.firstElementChild.remove();
  if (room !== current) return;
  if (follows) toEnd();
  else tellBelow(below + 1);
}

/** Add *line* below *previous*. If one user wrote both, the name is shown once. */
function insert(room, line, previous) {
  const atEnd = isAtEnd();
  if (previous) previous.after(line);
  else room.list.prepend(line);
  for (const one of [line, line.nextElementSibling]) {
    const from = one?.dataset.from;
    one?.classList.toggle("follows", from !== undefined && one.previousElementSibling?.dataset.from === from);
  }
  if (room === current && atEnd) toEnd();
}

function isAtEnd() {
  const scroll = byId("scroll");
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
}

function toEnd() {
  byId("scroll").scrollTop = byId("scroll").scrollHeight;
  tellBelow(0);
}

/** Show how many lines have come below the visible ones. */
function tellBelow(count) {
  below = count;
  byId("below").hidden = !count;
  byId("below").textContent = `${count} new below`;
}

/** Return the text for a time, with the day unless it is today; empty for an unknown time. */
function timeText(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "";
  const hours = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const day = date.toLocaleDateString([], { day: "numeric", month: "short" });
  return date.toDateString() === new Date().toDateString() ? hours : `${day}, ${hours}`;
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// Input

byId("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (text) send(current, text);
  byId("text").value = "";
  fitText();
});

byId("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // Shift+Enter starts a new line
  event.preventDefault();
  byId("compose").requestSubmit();
});
byId("text").addEventListener("input", fitText);
addEventListener("resize", () => {
  const saw = seesEnd; // before the page changes
  fitText();
  if (saw) toEnd();
});

/** Make the field as high as its text, up to the bound in chat.css. */
function fitText() {
  const atEnd = isAtEnd();
  const { style } = byId("text");
  style.height = "auto";
  style.height = `${byId("text").scrollHeight + 2}px`; // 2: its border
  if (atEnd) toEnd();
}

byId("below").addEventListener("click", () => {
  toEnd();
  byId("text").focus();
});
byId("scroll").addEventListener("scroll", () => {
  seesEnd = isAtEnd();
  if (seesEnd) tellBelow(0);
});

byId("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("room");
  try {
    join(checkChannel(input.value.trim()));
    input.value = "";
  } catch (error) {
    input.setCustomValidity(error.reason);
    input.reportValidity();
  }
});
byId("room").addEventListener("input", () => byId("room").setCustomValidity(""));

byId("leave").addEventListener("click", () => leave(current));

byId("name").value = `guest ${Math.floor(100 + Math.random() * 900)}`;
try {
  byId("name").value = localStorage.getItem("lhttp-name") ?? byId("name").value;
  byId("name").addEventListener("change", () => localStorage.setItem("lhttp-name", byId("name").value.trim()));
} catch {
  // The browser has no storage for this page: the name lasts as long as the page.
}

const { hash } = location; // the URL of the page may have a room: /#garden
client.connect();
join("chatroom");
try {
  if (hash) join(checkChannel(decodeURIComponent(hash.slice(1))));
} catch {
  // It has no room.
}
