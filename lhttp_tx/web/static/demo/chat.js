// A chat in one page. A room is a channel; whoever is subscribed to it gets what is published to it.
// What people write is only ever set as text, never as markup.

import { LhttpClient, checkChannel } from "./lhttp.mjs";

const MAX_LINES = 500;
const byId = (id) => document.getElementById(id);
const client = new LhttpClient(new URL(".", location.href)); // http://... becomes ws://...
const rooms = new Map(); // name -> { name, list, item, button, unread, subscription }
const waiting = new Map(); // id of a message on its way -> its line
let current = null;

// The connection

client.on("state", ({ state, previous, delay }) => {
  const texts = { open: "Connected", connecting: "Connecting", closed: "Not connected" };
  const wait = delay === null ? "Reconnecting" : `Reconnecting in ${Math.ceil(delay / 1000)} s`;
  byId("state").dataset.state = state;
  byId("state").textContent = texts[state] ?? wait;
  if (state === "open" && previous === "reconnecting") {
    for (const room of rooms.values()) addNotice(room, "Connected again. What was written meanwhile is not shown.");
  }
});

// Rooms

function join(name) {
  if (!rooms.has(name)) {
    const room = { name, list: element("ol"), item: element("li"), button: element("button", "room"), unread: 0 };
    room.button.type = "button";
    room.button.addEventListener("click", () => show(room));
    room.item.append(room.button);
    byId("rooms").append(room.item);
    rooms.set(name, room);
    client.subscribe(name, (message) => receive(room, message)).then(
      (subscription) => {
        room.subscription = subscription;
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
  room.subscription?.unsubscribe().catch(() => {}); // it ends with the connection in any case
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
  byId("scroll").scrollTop = byId("scroll").scrollHeight;
  history.replaceState(null, "", `#${encodeURIComponent(room.name)}`);
}

function label(room) {
  room.button.textContent = room.name;
  room.button.setAttribute("aria-current", room === current ? "page" : "false");
  if (room.unread) room.button.append(element("span", "unread", String(room.unread)));
}

// Messages

function receive(room, message) {
  if (message.binary || message.text === "") return;
  const id = message.headers.get("id");
  waiting.get(id)?.remove();
  const mine = waiting.delete(id);
  addLine(room, message.headers.get("from") ?? "somebody", message.text, mine ? "mine" : "");
  if (room !== current) {
    room.unread += 1;
    label(room);
  }
}

function send(room, text) {
  const id = Math.random().toString(36).slice(2);
  const from = byId("name").value.trim() || "guest";
  const line = addLine(room, from, text, "mine waiting");
  waiting.set(id, line);
  client.publish(room.name, text, { headers: { from, id } }).catch((error) => {
    if (!waiting.delete(id)) return; // it has arrived all the same
    const again = element("button", "again", "Send again");
    again.addEventListener("click", () => {
      line.remove();
      send(room, text);
    });
    line.className = "mine failed";
    line.append(element("small", "", `Not delivered: ${error.reason}. `), again);
  });
}

function addLine(room, from, text, kind) {
  const line = element("li", kind);
  line.dataset.from = from;
  line.append(element("b", "", from), element("time", "", time()), element("p", "", text));
  line.style.setProperty("--hue", [...from].reduce((sum, char) => (sum * 31 + char.codePointAt(0)) % 360, 7));
  if (room.list.lastElementChild?.dataset.from === from) line.classList.add("follows");
  add(room, line);
  return line;
}

function addNotice(room, text) {
  add(room, element("li", "notice", text));
}

function add(room, line) {
  const scroll = byId("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  room.list.append(line);
  if (room.list.childElementCount > MAX_LINES) room.list.firstElementChild.remove();
  if (room === current && (atEnd || line.classList.contains("mine"))) scroll.scrollTop = scroll.scrollHeight;
}

function time() {
  return new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// What the visitor does

byId("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (text) send(current, text);
  byId("text").value = "";
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
  // The browser keeps nothing for this page: the name lasts as long as the page.
}

const { hash } = location; // the address of the page may name a room: /#garden
client.connect();
join("chatroom");
try {
  if (hash) join(checkChannel(decodeURIComponent(hash.slice(1))));
} catch {
  // It names none.
}
