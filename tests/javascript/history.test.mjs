// What LhttpClient does with histories: on a WebSocket and a clock of the test's own, which speak as the server does.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { ConnectionLost, LhttpClient, LhttpMessage, joinParts, parse } from "../../lhttp_tx/web/static/lhttp.mjs";
import { FakeWebSocket, sockets } from "./websocket.mjs";

beforeEach(() => {
  sockets.length = 0;
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0.999);
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

const SOON = { initialDelay: 1, maxDelay: 1 };
const turn = () => new Promise((resolve) => setImmediate(resolve));

function makeClient(options = {}) {
  return new LhttpClient("ws://server.example:8081/chat?token=x", {
    WebSocket: FakeWebSocket,
    heartbeat: 0,
    reconnect: SOON,
    ...options,
  });
}

/** A client that is connected, and what it is told: `told` lists messages and events as short texts. */
function connected(options) {
  const client = makeClient(options);
  const told = [];
  client.on("missed", ({ channel, position }) => told.push(`missed ${channel} ${position}`));
  client.on("recovered", ({ channel, position, count }) => told.push(`recovered ${channel} ${position} ${count}`));
  client.on("error", (error) => told.push(`error ${error.status}`));
  client.connect();
  sockets[0].open();
  return { client, told, listener: (message, channel) => told.push(`${channel}: ${message.text}`) };
}

function reconnect() {
  sockets.at(-1).end();
  mock.timers.tick(1);
  sockets.at(-1).open();
  return sockets.at(-1);
}

/** Return the headers of what was sent as an object, of the last message unless *at* says which. */
const sent = (socket, at = -1) => parse(socket.sent.at(at)).headers.toObject();

/** Answer the last message, or the one *at*, with a receipt that has these headers, too. */
function answer(socket, headers = {}, at = -1) {
  const pairs = [["receipt-id", sent(socket, at).receipt], ...Object.entries(headers)];
  socket.onmessage({ data: new LhttpMessage({ command: "receipt", headers: pairs }).wire });
}

/** Deliver a message of a channel with history, or of several. */
function deliver(socket, channels, offset, after, text = String(offset), more = "") {
  const marks = offset === null ? "" : `offset:${offset}\r\nafter:${after}\r\n`;
  socket.onmessage({ data: `LHTTP/1.0 chat\r\n${marks}publish:${channels}\r\n${more}\r\n${text}` });
}

function tellMissed(socket, channel, position = null) {
  const line = position === null ? "" : `position:${position}\r\n`;
  socket.onmessage({ data: `LHTTP/1.0 missed\r\nchannel:${channel}\r\n${line}\r\n` });
}

class Storage {
  kept = new Map();
  written = 0;
  getItem(key) {
    return this.kept.get(key) ?? null;
  }
  setItem(key, value) {
    this.written += 1;
    this.kept.set(key, value);
  }
  removeItem(key) {
    this.kept.delete(key);
  }
}

const KEY = "lhttp ws://server.example:8081/chat";

// Recovery

test("after a reconnection it asks for what was missed, and tells how much came", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  assert.equal(sent(sockets[0]).gaps, "tell");
  assert.equal(sent(sockets[0]).since, undefined);
  answer(sockets[0], { position: "room=E-4" });
  deliver(sockets[0], "room", 7, 2);
  const socket = reconnect();
  assert.deepEqual([sent(socket).subscribe, sent(socket).since, sent(socket).gaps], ["room", "room=E-7", "tell"]);
  deliver(socket, "room", 8, 7);
  deliver(socket, "room", 11, 8);
  answer(socket, { position: "room=E-12", recovered: "room" });
  deliver(socket, "room", 13, 11);
  assert.deepEqual(told, ["room: 7", "room: 8", "room: 11", "recovered room E-12 2", "room: 13"]);
  client.close();
});

test("a connection that is lost while it recovers goes on from where it was", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  let socket = reconnect();
  deliver(socket, "room", 5, 4);
  socket = reconnect();
  assert.equal(sent(socket).since, "room=E-5");
  deliver(socket, "room", 6, 5);
  answer(socket, { position: "room=E-6", recovered: "room" });
  assert.deepEqual(told, ["room: 5", "room: 6", "recovered room E-6 1"]);
  client.close();
});

test("what came twice is dropped, and what has no offset never is", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  for (const [offset, after] of [[5, 4], [5, 4], [4, 3], [null], [6, 5], [5, 4], [null]]) {
    deliver(sockets[0], "room", offset, after);
  }
  assert.deepEqual(told, ["room: 5", "room: null", "room: 6", "room: null"]);
  client.close();
});

test("a message that a server has lost and gets again has another offset, and comes once", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  deliver(sockets[0], "room", 5, 4, "x", "message-id:1\r\n");
  const socket = reconnect();
  answer(socket, { position: "room=E-1000000", recovered: "room" });
  deliver(socket, "room", 1000001, 4, "x", "message-id:1\r\n");
  deliver(socket, "room", 1000002, 1000001, "y", "message-id:2\r\n");
  mock.timers.tick(120000);
  deliver(socket, "room", 1000003, 1000002, "x again", "message-id:1\r\n");
  assert.deepEqual(told, ["room: x", "recovered room E-1000000 0", "room: y", "room: x again"]);
  assert.equal(socket.sent.length, 1);
  client.close();
});

test("offsets that no number can hold are compared as they are", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-9007199254740992" });
  deliver(sockets[0], "room", "9007199254740993", "9007199254740992", "one");
  deliver(sockets[0], "room", "9007199254740993", "9007199254740992", "one");
  deliver(sockets[0], "room", "9007199254740994", "9007199254740993", "two");
  deliver(sockets[0], "room", "10000000000000000", "9007199254740994", "three");
  assert.deepEqual(told, ["room: one", "room: two", "room: three"]);
  assert.equal(sockets[0].sent.length, 1);
  client.close();
});

test("a hole in the stream is closed once, and nothing behind it comes first", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener, { command: "join", headers: { key: "k" } });
  answer(sockets[0], { position: "room=E-4" });
  deliver(sockets[0], "room", 5, 4);
  deliver(sockets[0], "room", 8, 7);
  deliver(sockets[0], "room", 9, 8);
  assert.equal(sockets[0].sent.length, 2);
  assert.deepEqual([sent(sockets[0]).since, sent(sockets[0]).key], ["room=E-5", "k"]);
  assert.match(sockets[0].sent[1], /^LHTTP\/1\.0 join\r\nsubscribe:room\r\n/);
  for (const offset of [6, 7, 8, 9]) deliver(sockets[0], "room", offset, offset - 1);
  answer(sockets[0], { position: "room=E-9", recovered: "room" });
  deliver(sockets[0], "room", 10, 9);
  const numbers = [5, 6, 7, 8, 9].map((offset) => `room: ${offset}`);
  assert.deepEqual(told, [...numbers, "recovered room E-9 4", "room: 10"]);
  deliver(sockets[0], "room", 15, 14);
  assert.deepEqual([sockets[0].sent.length, sent(sockets[0]).since], [3, "room=E-10"]);
  client.close();
});

test("a hole that several subscriptions see is closed once, for all of them", async () => {
  const { client, told, listener } = connected();
  for (const name of ["one", "two"]) {
    client.subscribe("room", (message) => told.push(`${name} ${message.text}`));
    answer(sockets[0], { position: "room=E-4" });
  }
  client.subscribe("other", listener);
  answer(sockets[0], { position: "other=E-4" });
  deliver(sockets[0], "room", 7, 6);
  assert.equal(sockets[0].sent.length, 4);
  for (const offset of [5, 6, 7]) deliver(sockets[0], "room", offset, offset - 1);
  answer(sockets[0], { position: "room=E-7", recovered: "room" });
  const pairs = [5, 6, 7].flatMap((offset) => [`one ${offset}`, `two ${offset}`]);
  assert.deepEqual(told, [...pairs, "recovered room E-7 3", "recovered room E-7 3"]);
  client.close();
});

test("a hole that cannot be closed for a while is closed on another connection", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  await turn();
  deliver(sockets[0], "room", 7, 6);
  sockets[0].fail(503);
  await turn();
  assert.equal(client.state, "reconnecting");
  mock.timers.tick(1);
  sockets[1].open();
  assert.equal(sent(sockets[1]).since, "room=E-4");
  deliver(sockets[1], "room", 7, 4);
  answer(sockets[1], { position: "room=E-7", recovered: "room" });
  assert.deepEqual(told, ["room: 7", "recovered room E-7 1"]);
  client.close();
});

test("a hole whose closing is refused ends the subscription", async () => {
  const { client, told } = connected();
  const subscribing = client.subscribe("room");
  answer(sockets[0], { position: "room=E-4" });
  const subscription = await subscribing;
  deliver(sockets[0], "room", 7, 6);
  sockets[0].fail(403);
  await turn();
  assert.deepEqual([subscription.closed, told, client.state], [true, ["error 403"], "open"]);
  client.close();
});

test("what history does not reach back to is told, before anything newer", async () => {
  const { client, told, listener } = connected();
  const own = [];
  const onMissed = ({ channel, position, subscription }) => own.push([channel, position, subscription.channels]);
  client.subscribe(["a", "b"], listener, { onMissed, onRecovered: ({ count }) => own.push(count) });
  answer(sockets[0], { position: "a=E-4 b=E-4" });
  const socket = reconnect();
  assert.equal(sent(socket).since, "a=E-4 b=E-4");
  deliver(socket, "a", 6, 4);
  answer(socket, { position: "a=E-6 b=E-90", recovered: "a", missed: "b" });
  deliver(socket, "b", 91, 90);
  assert.deepEqual(told, ["a: 6", "recovered a E-6 1", "missed b E-90", "b: 91"]);
  assert.deepEqual(own, [1, ["b", "E-90", ["a", "b"]]]);
  client.close();
});

test("a history that has begun anew is missed, and its smaller offsets count", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4000" });
  const socket = reconnect();
  answer(socket, { position: "room=F-2", missed: "room" });
  deliver(socket, "room", 3, 1);
  deliver(socket, "room", 3, 1);
  assert.deepEqual(told, ["missed room F-2", "room: 3"]);
  assert.equal(sent(reconnect()).since, "room=F-3");
  client.close();
});

test("a gap that the server tells of is an event, and the stream goes on behind it", async () => {
  const { client, told, listener } = connected();
  client.on("message", () => told.push("message"));
  client.subscribe(["kept", "unkept"], listener);
  answer(sockets[0], { position: "kept=E-4" });
  tellMissed(sockets[0], "kept", "E-9");
  deliver(sockets[0], "kept", 10, 8);
  tellMissed(sockets[0], "unkept");
  assert.deepEqual(told, ["missed kept E-9", "kept: 10", "message", "missed unkept null"]);
  tellMissed(sockets[0], "nobody.is.here"); // then it is a message like any other
  assert.equal(told.at(-1), "message");
  sockets[0].onmessage({ data: "LHTTP/1.0 missed\r\nchannel:kept\r\nposition:E-1\r\npublish:kept\r\n\r\nforged" });
  assert.deepEqual(told.slice(-2), ["kept: forged", "message"]);
  assert.equal(sockets[0].sent.length, 1);
  client.close();
});

test("a receipt counts before what comes behind it, in whatever pieces it comes", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  const socket = reconnect();
  answer(socket, { position: "room=F-1", missed: "room" });
  deliver(socket, "room", 2, 1);
  assert.deepEqual(told, ["missed room F-1", "room: 2"]);
  client.close();
});

test("more positions than one message holds are asked for with several", async () => {
  const { client, told, listener } = connected();
  const names = Array.from({ length: 40 }, (_, index) => `${index}.${"n".repeat(100)}`);
  const subscribing = client.subscribe(names, listener);
  assert.equal(sockets[0].sent.length, 1);
  answer(sockets[0], { position: names.map((name) => `${name}=E-4`).join(" ") });
  await subscribing;
  const socket = reconnect();
  assert.deepEqual(socket.sent.flatMap((_, at) => sent(socket, at).subscribe.split(" ")), names);
  for (const [at, data] of socket.sent.entries()) {
    assert.ok(data.length < 5000);
    const listed = sent(socket, at).subscribe.split(" ");
    assert.equal(sent(socket, at).since, listed.map((name) => `${name}=E-4`).join(" "));
    answer(socket, { position: listed.map((name) => `${name}=E-9`).join(" "), recovered: listed.join(" ") }, at);
  }
  assert.equal(told.length, 40);
  client.close();
});

test("a recovery may take longer than an answer, as long as something comes", async () => {
  const { client, told, listener } = connected({ timeout: 1000 });
  const subscribing = client.subscribe("room", listener, { since: "E-1" });
  for (const offset of [2, 3, 4]) {
    deliver(sockets[0], "room", offset, offset - 1);
    mock.timers.tick(900);
  }
  answer(sockets[0], { position: "room=E-4", recovered: "room" });
  await subscribing;
  assert.equal(told.at(-1), "recovered room E-4 3");
  const silent = client.subscribe("room", listener, { since: "E-1" });
  mock.timers.tick(1000);
  await assert.rejects(silent, (error) => error.status === 504);
  client.close();
});

test("binary messages are recovered, and are dropped when they come twice", async () => {
  const { client } = connected();
  const bodies = [];
  client.subscribe(["a", "b"], (message, channel) => bodies.push([channel, message.binary, [...message.body]]));
  answer(sockets[0], { position: "a=E-1 b=E-1" });
  const bytes = (channels, offset, after) => {
    const headers = [["offset", offset], ["after", after], ["publish", channels]];
    return new LhttpMessage({ command: "chat", headers, body: Uint8Array.of(offset, 255) }).wire;
  };
  const socket = reconnect();
  for (const [offset, after] of [[2, 1], [2, 1], [3, 2]]) socket.onmessage({ data: bytes("a", offset, after) });
  answer(socket, { position: "a=E-3 b=E-1", recovered: "a b" });
  socket.onmessage({ data: bytes("b a", 4, 1) });
  socket.onmessage({ data: bytes("b a", 5, 3) });
  assert.deepEqual(bodies.slice(0, 2), [["a", true, [2, 255]], ["a", true, [3, 255]]]);
  assert.deepEqual(bodies.slice(2).map(([channel]) => channel), ["b", "a"]);
  client.close();
});

// Several names for one message

test("copies of a message to several channels go to the channel whose history they are of", async () => {
  const { client, told, listener } = connected();
  client.subscribe(["a", "b"], listener);
  answer(sockets[0], { position: "a=E-50 b=E-50" });
  deliver(sockets[0], "b a", 51, 20, "x"); // the one before it is older than the position in both
  deliver(sockets[0], "b a", 52, 10, "x");
  deliver(sockets[0], "a b", 53, 52, "x");
  deliver(sockets[0], "a b", 54, 51, "x");
  assert.deepEqual(told.splice(0), ["b: x", "a: x", "a: x", "b: x"]);
  const socket = reconnect();
  assert.equal(sent(socket).since, "a=E-53 b=E-54");
  deliver(socket, "b a", 56, 53, "y"); // all of a comes first, and then all of b
  deliver(socket, "a", 57, 56, "z");
  deliver(socket, "b a", 55, 54, "y");
  answer(socket, { position: "a=E-57 b=E-57", recovered: "a b" });
  assert.deepEqual(told, ["a: y", "a: z", "b: y", "recovered a E-57 2", "recovered b E-57 1"]);
  assert.equal(socket.sent.length, 1);
  client.close();
});

test("a recovery in the order of the subscription is not mistaken for that of the message", async () => {
  const { client, told, listener } = connected();
  client.subscribe(["a", "b"], listener);
  answer(sockets[0], { position: "a=E-50 b=E-50" });
  const socket = reconnect();
  deliver(socket, "b a", 52, 10, "x");
  deliver(socket, "b a", 51, 20, "x");
  answer(socket, { position: "a=E-52 b=E-52", recovered: "a b" });
  assert.deepEqual(told.slice(0, 2), ["a: x", "b: x"]);
  assert.equal(sockets.at(-1).sent.length, 1);
  client.close();
});

test("a copy that comes after a reconnection goes to the channel that lacks it", async () => {
  const { client, told, listener } = connected();
  client.subscribe(["a", "b"], listener);
  answer(sockets[0], { position: "a=E-50 b=E-50" });
  deliver(sockets[0], "a b", 51, 20, "x");
  const socket = reconnect();
  deliver(socket, "a b", 52, 10, "x");
  answer(socket, { position: "a=E-52 b=E-52", recovered: "a b" });
  assert.deepEqual(told.slice(0, 2), ["a: x", "b: x"]);
  client.close();
});

test("of two channels one may have no history", async () => {
  const { client, told, listener } = connected();
  client.subscribe(["kept", "unkept"], listener);
  answer(sockets[0], { position: "kept=E-4" });
  for (const text of ["x", "y"]) {
    deliver(sockets[0], "kept unkept", text === "x" ? 5 : 6, text === "x" ? 4 : 5, text);
    deliver(sockets[0], "kept unkept", null, null, text);
  }
  for (const _ of [1, 2]) deliver(sockets[0], "kept unkept", null, null, "typing", "store:no\r\n");
  const both = (text) => [`kept: ${text}`, `unkept: ${text}`];
  assert.deepEqual(told, [...both("x"), ...both("y"), ...both("typing")]);
  client.close();
});

test("a wildcard and a name get a copy each, and none twice", async () => {
  const { client, told } = connected();
  for (const name of ["room.*", "room.a"]) {
    client.subscribe(name, (message, channel) => told.push(`${name} ${channel} ${message.text}`));
    answer(sockets[0], name === "room.a" ? { position: "room.a=E-4" } : {});
  }
  for (const offset of [5, 5, 6, 6, 6]) deliver(sockets[0], "room.a", offset, offset - 1);
  deliver(sockets[0], "room.b", 7, 0);
  deliver(sockets[0], "room.b", 7, 0);
  const copies = [5, 6].flatMap((offset) => [`room.* room.a ${offset}`, `room.a room.a ${offset}`]);
  assert.deepEqual(told.splice(0).sort(), [...copies, "room.* room.b 7"].sort());
  const socket = reconnect();
  assert.deepEqual(socket.sent.map((_, at) => sent(socket, at).since), [undefined, "room.a=E-6"]);
  answer(socket, {}, 0);
  answer(socket, { position: "room.a=F-1", missed: "room.a" });
  assert.deepEqual(told.splice(0), ["missed room.* null", "missed room.a F-1"]);
  for (const _ of [1, 2]) deliver(socket, "room.a", 2, 1);
  assert.deepEqual(told.sort(), ["room.* room.a 2", "room.a room.a 2"]);
  client.close();
});

test("names that stand for many channels are asked for without since, beside those that have one", async () => {
  const { client, listener } = connected();
  client.subscribe(["room.*", "hall", "new"], listener);
  answer(sockets[0], { position: "hall=E-4" });
  const socket = reconnect();
  const asked = socket.sent.map((_, at) => [sent(socket, at).subscribe, sent(socket, at).since]);
  assert.deepEqual(asked, [["room.* new", undefined], ["hall", "hall=E-4"]]);
  client.close();
});

// The last messages, and positions that the program has

test("the last messages come first, and are asked for anew until they have come", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener, { last: 2 });
  assert.equal(sent(sockets[0]).last, "2");
  deliver(sockets[0], "room", 3, 2);
  const socket = reconnect();
  assert.deepEqual([sent(socket).last, sent(socket).since], ["2", undefined]);
  deliver(socket, "room", 3, 2);
  deliver(socket, "room", 4, 3);
  answer(socket, { position: "room=E-6" });
  deliver(socket, "room", 7, 4);
  assert.deepEqual(told, ["room: 3", "room: 4", "room: 7"]);
  assert.deepEqual([sent(reconnect()).last, sent(sockets.at(-1)).since], [undefined, "room=E-7"]);
  client.close();
});

test("a loss amid the last messages hides none that are missing between the answers", async () => {
  const { client, told, listener } = connected();
  client.subscribe("room", listener, { last: 2 });
  deliver(sockets[0], "room", 3, 2);
  const socket = reconnect();
  deliver(socket, "room", 8, 7);
  deliver(socket, "room", 9, 8);
  answer(socket, { position: "room=E-9" });
  deliver(socket, "room", 10, 9);
  assert.deepEqual(told, ["room: 3", "room: 8", "room: 9", "missed room E-9", "room: 10"]);
  assert.equal(sent(reconnect()).since, "room=E-10");
  answer(sockets.at(-1), { position: "room=E-10", recovered: "room" });
  assert.equal(told.at(-1), "recovered room E-10 0");
  client.close();
});

test("the last messages come to who asks for them, and not again to who has them", async () => {
  const { client, told } = connected();
  client.subscribe("room", (message) => told.push(`old ${message.text}`));
  answer(sockets[0], { position: "room=E-4" });
  for (const offset of [5, 6]) deliver(sockets[0], "room", offset, offset - 1);
  const subscribing = client.subscribe("room", { last: 3 });
  deliver(sockets[0], "room", 7, 6); // before the server has seen the message
  for (const offset of [5, 6, 7, 8]) deliver(sockets[0], "room", offset, offset - 1);
  answer(sockets[0], { position: "room=E-8" });
  deliver(sockets[0], "room", 9, 8);
  assert.deepEqual(told, [5, 6, 7, 8, 9].map((offset) => `old ${offset}`));
  const subscription = await subscribing;
  const texts = [];
  for (const _ of [1, 2, 3, 4, 5]) texts.push((await subscription.next()).value.text);
  assert.deepEqual(texts, ["5", "6", "7", "8", "9"]);
  client.close();
});

test("what came while the last messages were asked for is not lost where none of them came", async () => {
  const { client, told } = connected();
  client.subscribe("room", () => {});
  answer(sockets[0], { position: "room=E-4" });
  client.subscribe("room", (message) => told.push(message.text), { last: 1 });
  deliver(sockets[0], "room", 5, 4);
  deliver(sockets[0], "room", 6, 5);
  answer(sockets[0], { position: "room=E-6" });
  assert.deepEqual(told, ["5", "6"]);
  client.close();
});

test("a program may say since when, and subscriptions say where they are", async () => {
  const { client, told, listener } = connected();
  const subscribing = client.subscribe(["a", "b", "c"], listener, { since: { a: "E-4", b: "E-5" }, last: 1 });
  const asked = sockets[0].sent.map((_, at) => [sent(sockets[0], at).subscribe, sent(sockets[0], at).since]);
  assert.deepEqual(asked, [["c", undefined], ["a b", "a=E-4 b=E-5"]]);
  assert.deepEqual([sent(sockets[0], 0).last, sent(sockets[0], 1).last], ["1", undefined]);
  answer(sockets[0], { position: "c=E-6" }, 0);
  answer(sockets[0], { position: "a=E-6 b=E-6", recovered: "b", missed: "a" });
  const subscription = await subscribing;
  assert.deepEqual(subscription.positions, { a: "E-6", b: "E-6", c: "E-6" });
  assert.deepEqual(told, ["missed a E-6", "recovered b E-6 0"]);
  client.subscribe("d", listener, { since: "E-1" });
  assert.equal(sent(sockets[0]).since, "d=E-1");
  client.close();
});

test("positions and numbers that are none are refused before anything is sent", async () => {
  const { client } = connected();
  const wrong = [{ since: "4" }, { since: { b: "E-4" } }, { since: "E-04" }];
  for (const options of [...wrong, { last: -1 }, { last: 1.5 }, { last: "2" }]) {
    await assert.rejects(client.subscribe("a", options), (error) => error.status === 500);
  }
  await assert.rejects(client.subscribe("a.*", { last: 1 }), /wildcard/);
  await assert.rejects(client.history("a", { before: "4" }), /not a position/);
  await assert.rejects(client.publish("a", "", { id: "two words" }), /message id/);
  assert.deepEqual(sockets[0].sent, []);
  client.close();
});

// Servers without history

test("a server without history works as before, and what a lost connection took along is told", async () => {
  const { client, told, listener } = connected();
  const subscribing = client.subscribe(["a", "b"], listener);
  sockets[0].answer();
  assert.deepEqual((await subscribing).positions, {});
  for (const offset of [9, 3, 9]) deliver(sockets[0], "a", offset, offset - 1, `forged ${offset}`);
  assert.deepEqual(told.splice(0), ["a: forged 9", "a: forged 3", "a: forged 9"]);
  const publishing = client.publish("a", "x");
  sockets[0].answer();
  const receipt = await publishing;
  assert.deepEqual([receipt.command, { ...receipt.positions }, receipt.duplicate], ["receipt", {}, false]);
  const socket = reconnect();
  assert.equal(sent(socket).since, undefined);
  socket.answer();
  assert.deepEqual(told, ["missed a null", "missed b null"]);
  const asking = client.history("a");
  socket.answer();
  await assert.rejects(asking, (error) => error.status === 404);
  client.close();
});

test("a channel that has lost its history goes on without", async () => {
  const storage = new Storage();
  const { client, told, listener } = connected({ positions: storage });
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  mock.timers.tick(500);
  assert.equal(storage.kept.size, 1);
  const socket = reconnect();
  answer(socket, { missed: "room" });
  deliver(socket, "room", null, null, "x");
  assert.deepEqual(told, ["missed room null", "room: x"]);
  assert.equal(sent(reconnect()).since, undefined);
  client.close();
  assert.equal(storage.kept.size, 0);
});

// Positions that are kept

test("positions outlive the page, and what came meanwhile is asked for", async () => {
  const storage = new Storage();
  const first = connected({ positions: storage });
  first.client.subscribe("room", first.listener);
  answer(sockets[0], { position: "room=E-4" });
  deliver(sockets[0], "room", 5, 4);
  first.client.close();
  assert.deepEqual(JSON.parse(storage.kept.get(KEY)), { room: "E-5" });
  assert.ok(!JSON.stringify([...storage.kept]).includes("token"));
  sockets.length = 0;
  const { client, told, listener } = connected({ positions: storage });
  client.subscribe(["room", "new"], listener, { last: 9 });
  client.subscribe("room", listener, { since: null });
  const asked = sockets[0].sent.map((_, at) => [sent(sockets[0], at).since, sent(sockets[0], at).last]);
  assert.deepEqual(asked, [[undefined, "9"], ["room=E-5", undefined], [undefined, undefined]]);
  answer(sockets[0], { position: "room=E-8", missed: "room" }, 1);
  assert.deepEqual(told, ["missed room E-8"]);
  client.close();
});

test("positions are written a few times a second at most, and when the page goes", async (context) => {
  const leaving = new Set();
  globalThis.addEventListener = (name, listener) => name === "pagehide" && leaving.add(listener);
  globalThis.removeEventListener = (name, listener) => leaving.delete(listener);
  context.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  const storage = new Storage();
  const { client, listener } = connected({ positions: storage });
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-0" });
  for (let offset = 1; offset <= 100; offset += 1) {
    deliver(sockets[0], "room", offset, offset - 1);
    mock.timers.tick(10);
  }
  assert.ok(storage.written >= 1 && storage.written <= 2, String(storage.written));
  deliver(sockets[0], "room", 101, 100);
  for (const listener of leaving) listener();
  assert.deepEqual(JSON.parse(storage.kept.get(KEY)), { room: "E-101" });
  client.close();
  assert.equal(leaving.size, 0);
});

test("what a loop has not taken yet is not kept as taken", async () => {
  const storage = new Storage();
  const { client } = connected({ positions: storage });
  const subscribing = client.subscribe("room");
  answer(sockets[0], { position: "room=E-4" });
  const subscription = await subscribing;
  for (const offset of [5, 6, 7]) deliver(sockets[0], "room", offset, offset - 1);
  assert.deepEqual(subscription.positions, { room: "E-7" });
  const kept = () => {
    mock.timers.tick(500);
    return JSON.parse(storage.kept.get(KEY)).room;
  };
  const found = [kept()];
  for (const _ of [1, 2]) {
    await subscription.next();
    found.push(kept());
  }
  await subscription.return();
  found.push(kept());
  assert.deepEqual(found, ["E-4", "E-4", "E-5", "E-6"]);
  client.close();
});

test("a storage that throws, is full or holds something else breaks nothing", async () => {
  const broken = () => {
    throw new Error("QuotaExceededError");
  };
  const storages = {
    full: { getItem: () => null, setItem: broken, removeItem: broken },
    closed: { getItem: broken, setItem: broken, removeItem: broken },
    foreign: { getItem: () => '{"room":"nonsense","a":5,"b":null}', setItem() {}, removeItem() {} },
    text: { getItem: () => "][", setItem() {}, removeItem() {} },
    list: { getItem: () => "[1, 2]", setItem() {}, removeItem() {} },
    promised: { getItem: async () => null, setItem() {}, removeItem() {} },
  };
  for (const [name, positions] of Object.entries(storages)) {
    sockets.length = 0;
    const { client, told, listener } = connected({ positions });
    client.subscribe("room", listener);
    assert.equal(sent(sockets[0]).since, undefined, name);
    answer(sockets[0], { position: "room=E-4" });
    for (const offset of [5, 6]) {
      deliver(sockets[0], "room", offset, offset - 1);
      mock.timers.tick(500);
    }
    const errors = ["full", "closed"].includes(name) ? ["error 500"] : [];
    assert.deepEqual(told.sort(), [...errors, "room: 5", "room: 6"], name);
    client.close();
  }
  assert.throws(() => makeClient({ positions: {} }), TypeError);
});

test("no more channels are kept than a bound, and those of other tabs stay", async () => {
  const storage = new Storage();
  const { client, listener } = connected({ positions: storage });
  storage.kept.set(KEY, '{"other":"E-3","room.599":"E-1"}');
  for (let number = 0; number < 600; number += 1) {
    client.subscribe(`room.${number}`, listener);
    answer(sockets[0], { position: `room.${number}=E-${number}` });
    if (number === 2) mock.timers.tick(500);
    if (number === 2) assert.equal(JSON.parse(storage.kept.get(KEY)).other, "E-3");
  }
  client.close();
  const kept = JSON.parse(storage.kept.get(KEY));
  assert.equal(Object.keys(kept).length, 512);
  assert.deepEqual([kept["room.599"], kept["room.0"]], ["E-599", undefined]);
});

// Publications

const ids = (socket) => socket.sent.map((data) => parse(data).headers.get("message-id"));

test("publications have ids of their own, or the program's, and say where they are", async () => {
  const { client } = connected();
  const publishing = client.publish(["a", "b"], "x");
  answer(sockets[0], { position: "a=E-4 b=E-5" });
  const { positions, duplicate } = await publishing;
  assert.deepEqual([{ ...positions }, duplicate], [{ a: "E-4", b: "E-5" }, false]);
  const again = client.publish("a", "x", { id: "order-7" });
  answer(sockets[0], { position: "a=E-4", duplicate: "1" });
  assert.equal((await again).duplicate, true);
  client.publish("a", "x", { headers: { "message-id": "order-8" } });
  client.publish("a", "x", { receipt: false });
  const [first, ...others] = ids(sockets[0]);
  assert.match(first, /^[0-9a-v]{16}$/);
  assert.deepEqual(others, ["order-7", "order-8", undefined]);
  client.close();
});

test("ids of two clients differ", () => {
  const clients = [connected().client, makeClient()];
  clients[1].connect();
  sockets[1].open();
  for (const client of clients) client.publish("a").catch(() => {});
  assert.notEqual(ids(sockets[0])[0], ids(sockets[1])[0]);
  for (const client of clients) client.close();
});

test("what was sent and not answered is sent again, once answered, before what waited", async () => {
  const { client, listener } = connected();
  client.subscribe("room", listener);
  answer(sockets[0], { position: "room=E-4" });
  const outcomes = [];
  const note = (receipt) => outcomes.push([{ ...receipt.positions }, receipt.duplicate]);
  client.publish("room", "first").then(note);
  client.publish("room", Uint8Array.of(255)).then(note);
  client.publish("room", "quiet", { receipt: false });
  const request = assert.rejects(client.request("echo"), ConnectionLost);
  const [, ...before] = sockets[0].sent;
  sockets[0].end();
  await request;
  client.publish("room", "later").then(note);
  assert.equal(client.queued, 3);
  mock.timers.tick(1);
  sockets[1].open();
  const [subscribe, first, second, later] = sockets[1].sent;
  assert.match(subscribe, /since:room=E-4/);
  assert.deepEqual([first, second], [before[0], before[1]]);
  assert.equal(parse(later).text, "later");
  for (const at of [1, 2, 3]) answer(sockets[1], { position: `room=E-${4 + at}`, ...(at < 3 && { duplicate: 1 }) }, at);
  for (const at of [1, 2, 3]) answer(sockets[1], { position: "room=E-99" }, at); // nobody asked for this
  await turn();
  assert.deepEqual(outcomes, [[{ room: "E-5" }, true], [{ room: "E-6" }, true], [{ room: "E-7" }, false]]);
  client.close();
});

test("it is sent again until it is answered, and no longer than its time", async () => {
  const { client } = connected({ resend: { time: 50 } });
  const lost = assert.rejects(client.publish("a", "x"), (error) => error instanceof ConnectionLost && !error.unsent);
  const [id] = ids(sockets[0]);
  for (let round = 0; round < 3; round += 1) assert.deepEqual(ids(reconnect()), [id]);
  sockets.at(-1).end();
  mock.timers.tick(1);
  mock.timers.tick(50);
  await lost;
  sockets.at(-1).open();
  assert.deepEqual(sockets.at(-1).sent, []);
  const late = assert.rejects(client.publish("a", "y"), ConnectionLost);
  mock.timers.tick(60);
  sockets.at(-1).end();
  await late;
  client.close();
});

test("what passes a bound in number or bytes is not sent again", async () => {
  for (const [resend, text] of [[{ messages: 2 }, ""], [{ bytes: 500 }, "t".repeat(100)]]) {
    sockets.length = 0;
    const { client } = connected({ resend });
    const outcomes = ["1", "2", "3"].map((number) => client.publish("a", number + text));
    const third = assert.rejects(outcomes[2], (error) => error instanceof ConnectionLost && error.unsent === null);
    const socket = reconnect();
    await third;
    assert.deepEqual(socket.sent.map((data) => parse(data).text[0]), ["1", "2"]);
    for (const at of [0, 1]) answer(socket, {}, at);
    await Promise.all(outcomes.slice(0, 2));
    client.close();
  }
});

test("what was too large for the server is not sent again", async () => {
  const { client } = connected();
  const outcomes = ["1", "2".repeat(100), "3"].map((text) => client.publish("a", text));
  const second = assert.rejects(outcomes[1], (error) => error instanceof ConnectionLost && error.code === 1009);
  sockets[0].end(1009, "too large");
  await second;
  mock.timers.tick(1);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent.map((data) => parse(data).text), ["1", "3"]);
  for (const at of [0, 1]) answer(sockets[1], {}, at);
  await Promise.all([outcomes[0], outcomes[2]]);
  client.close();
});

test("nothing is sent again without being asked to, or without a reconnection", async () => {
  for (const options of [{ resend: false }, { reconnect: false }]) {
    sockets.length = 0;
    const { client } = connected(options);
    const lost = assert.rejects(client.publish("a", "x"), ConnectionLost);
    sockets[0].end();
    await lost;
    client.close();
  }
});

test("closing ends what waits to be sent again, which is none of what was never sent", async () => {
  const { client } = connected();
  const sentBefore = assert.rejects(client.publish("a", "x"), (error) => error.unsent === null);
  sockets[0].end();
  const waiting = assert.rejects(client.publish("a", "y"), (error) => error.unsent.text === "y");
  assert.deepEqual((await client.close()).map((message) => message.text), ["y"]);
  await Promise.all([sentBefore, waiting]);
});

test("a server that refuses what is sent again is the answer", async () => {
  const { client } = connected();
  const refused = assert.rejects(client.publish("a", "x"), (error) => error.status === 403);
  reconnect().fail(403);
  await refused;
  client.close();
});

// Queries

/** Answer a query with messages, pairs of an offset and a body. */
function answerHistory(socket, messages, headers = {}) {
  const parts = messages.map(([offset, body]) => ({
    headers: [["command", "say"], ["offset", offset], ["after", offset - 1], ["publish", "room"], ["command", "own"]],
    body,
  }));
  const joined = parts.length ? joinParts(parts) : { body: "" };
  const multipart = parts.length ? [["multipart", joined.multipart]] : [];
  const pairs = [["channel", "room"], ...Object.entries(headers), ...multipart];
  const body = joined.binary ? joined.body : new TextDecoder().decode(joined.body || new Uint8Array());
  socket.onmessage({ data: new LhttpMessage({ command: "history", headers: pairs, body }).wire });
  answer(socket);
}

test("a history comes as the messages that were published", async () => {
  const { client } = connected();
  const asking = client.history("room", { limit: 2 });
  const { receipt, ...headers } = sent(sockets[0]);
  assert.deepEqual({ ...headers }, { channel: "room", limit: "2" });
  answerHistory(sockets[0], [[3, "ä"], [4, Uint8Array.of(255)]], { position: "E-4", more: "1" });
  const page = await asking;
  assert.deepEqual([page.channel, page.position, page.more, page.missed], ["room", "E-4", true, false]);
  const [text, bytes] = page.messages;
  assert.deepEqual([text.command, text.text, text.binary], ["say", "ä", false]);
  assert.deepEqual([text.headers.get("offset"), text.headers.getAll("command")], ["3", ["own"]]);
  assert.deepEqual([[...bytes.body], bytes.binary], [[255], true]);
  assert.deepEqual({ ...page.next }, { limit: 2, since: "E-4" });
  client.close();
});

test("a history is read page by page, forward and backward", async () => {
  const { client } = connected();
  for (const [options, pages] of [
    [{ limit: 2 }, [[1, 2], [3, 4], [5]]],
    [{ limit: 2, since: "E-1" }, [[2, 3], [4, 5]]],
    [{ limit: 2, order: "newest" }, [[5, 4], [3, 2], [1]]],
    [{ limit: 2, before: "E-5" }, [[3, 4], [1, 2]]],
  ]) {
    const asked = [];
    const read = [];
    let next = options;
    for (const [index, offsets] of pages.entries()) {
      const asking = client.history("room", next);
      asked.push(sent(sockets[0]).since ?? sent(sockets[0]).before);
      const isForward = options.order === undefined && options.before === undefined;
      const more = index < pages.length - 1;
      const position = isForward && more ? `E-${offsets.at(-1)}` : "E-5";
      answerHistory(sockets[0], offsets.map((offset) => [offset, ""]), { position, ...(more && { more: 1 }) });
      const page = await asking;
      read.push(page.messages.map(({ headers }) => Number(headers.get("offset"))));
      ({ next } = page);
      assert.equal(next === null, !more);
    }
    assert.deepEqual(read, pages);
    const edge = options.before || options.order ? Math.min : Math.max;
    const edges = pages.slice(0, -1).map((offsets) => edge(...offsets));
    assert.deepEqual(asked, [options.since ?? options.before, ...edges.map((offset) => `E-${offset}`)]);
  }
  client.close();
});

test("an empty history, one that does not reach back, and one that is none", async () => {
  const { client } = connected();
  let asking = client.history("room", { since: "E-1" });
  answerHistory(sockets[0], [], { position: "E-9", missed: "1" });
  const { messages, missed, next } = await asking;
  assert.deepEqual([messages, missed, next], [[], true, null]);
  asking = client.history("other");
  answerHistory(sockets[0], [], { position: "E-9" });
  await assert.rejects(asking, /no history of channel/);
  asking = client.history("room");
  sockets[0].fail(404);
  await assert.rejects(asking, (error) => error.status === 404);
  client.close();
});

test("several questions at once get an answer each", async () => {
  const { client } = connected();
  const asking = [client.history("room"), client.history("room", { order: "newest" })];
  const [first, second] = sockets[0].sent.map((data) => parse(data).headers.get("receipt"));
  const say = (offset) => {
    const { multipart, body } = joinParts([{ headers: { command: "x", offset }, body: String(offset) }]);
    const headers = { channel: "room", position: "E-9", multipart };
    const text = new TextDecoder().decode(body);
    sockets[0].onmessage({ data: new LhttpMessage({ command: "history", headers, body: text }).wire });
  };
  say(1);
  sockets[0].answer(first);
  say(2);
  sockets[0].answer(second);
  const pages = await Promise.all(asking);
  assert.deepEqual(pages.map(({ messages }) => messages[0].text), ["1", "2"]);
  client.close();
});

// Against a model: whatever gets lost, each message comes once and in order, or is told to be missed

/** The numbers of a generator that a seed begins: the same each time. */
function randomNumbers(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * limit);
  };
}

/** A server with histories of a few messages, whose live messages get lost and come twice. */
class ModelServer {
  stored = { a: [], b: [], c: [] }; // channel -> messages, {offset, data}
  offset = 0;
  names = new Set();
  outbox = []; // {data, live}

  constructor(random, isSplit) {
    this.random = random;
    this.isSplit = isSplit;
    this.kept = isSplit ? 6 : Infinity;
  }

  publish(channels, text) {
    if (this.isSplit && channels.length > 1) {
      for (const channel of channels) this.publish([channel], text);
      return;
    }
    for (const channel of channels) {
      const messages = this.stored[channel];
      const marks = `offset:${(this.offset += 1)}\r\nafter:${messages.at(-1)?.offset ?? 0}\r\n`;
      const data = `LHTTP/1.0 chat\r\n${marks}publish:${channels.join(" ")}\r\n\r\n${text}`;
      messages.push({ offset: this.offset, data });
      if (this.names.has(channel)) this.outbox.push({ data, live: true });
    }
  }

  receive(data) {
    const { headers } = parse(data);
    const since = new Map((headers.get("since") ?? "").split(" ").map((word) => word.split("=E-")));
    const told = { position: [], recovered: [], missed: [] };
    for (const channel of headers.get("subscribe").split(" ")) {
      this.names.add(channel);
      const messages = this.stored[channel];
      const from = Number(since.get(channel) ?? this.offset);
      const missing = messages.filter(({ offset }) => offset > from);
      if (missing.length > this.kept) told.missed.push(channel);
      else for (const { data } of missing) this.outbox.push({ data, live: false });
      if (since.has(channel) && missing.length <= this.kept) told.recovered.push(channel);
      if (headers.has("last")) {
        for (const { data } of messages.slice(-headers.get("last"))) this.outbox.push({ data, live: false });
      }
      told.position.push(`${channel}=E-${this.offset}`);
    }
    const pairs = Object.entries(told).filter(([, words]) => words.length);
    const lines = pairs.map(([name, words]) => [name, words.join(" ")]);
    const receipt = { command: "receipt", headers: [["receipt-id", headers.get("receipt")], ...lines] };
    this.outbox.push({ data: new LhttpMessage(receipt).wire, live: false });
  }

  /** Hand over up to *count* messages; live ones may be lost, or come once more. */
  deliver(socket, count, isFaulty) {
    for (const { data, live } of this.outbox.splice(0, count)) {
      const fate = live && isFaulty ? this.random(12) : 5;
      if (fate !== 0) socket.onmessage({ data });
      if (fate === 1) socket.onmessage({ data });
    }
  }
}

test("whatever is lost or comes twice, each message comes once, in order, or is told to be missed", async () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    const isSplit = seed % 2 === 1; // each channel gets publications of its own, and the histories are short
    sockets.length = 0;
    const random = randomNumbers(seed);
    const server = new ModelServer(random, isSplit);
    for (const channel of ["a", "b", "c"]) server.publish([channel], "first");
    class Connected extends FakeWebSocket {
      send(data) {
        super.send(data);
        server.receive(data);
      }
    }
    const client = makeClient({ WebSocket: Connected });
    const reached = new Map(); // of a channel in a subscription: the offset up to which nothing is owed
    const wrong = [];
    const fail = (what) => wrong.push(what);
    const subscribe = (number, channels, options) => {
      const listener = (message, channel) => {
        const offset = Number(message.headers.get("offset"));
        const key = `${number} ${channel}`;
        const owed = server.stored[channel].find((stored) => stored.offset > (reached.get(key) ?? -1));
        if (!server.stored[channel].some((stored) => stored.offset === offset)) fail(`${offset} is not of ${key}`);
        if (reached.has(key) && owed?.offset !== offset) fail(`${key}: ${offset} and not ${owed?.offset}`);
        reached.set(key, offset);
      };
      const onMissed = ({ channel, position }) => reached.set(`${number} ${channel}`, Number(position.slice(2)));
      client.subscribe(channels, listener, { ...options, onMissed }).then(({ positions }) => {
        for (const channel of channels) {
          const key = `${number} ${channel}`;
          if (!reached.has(key)) reached.set(key, Number(positions[channel].slice(2)));
        }
      });
    };
    client.connect();
    sockets[0].open();
    subscribe(1, ["a", "b"], { last: 1 });
    subscribe(2, ["b"], { last: 1 });
    subscribe(3, ["c", "a"], { last: 3 });
    const settle = async () => {
      for (let round = 0; round < 50 && (server.outbox.length || !round); round += 1) {
        server.deliver(sockets.at(-1), Infinity, false);
        await turn();
      }
    };
    await settle();
    for (let step = 0; step < 60; step += 1) {
      const channels = ["a", "b", "c"].filter(() => random(2)).sort(() => random(3) - 1);
      if (channels.length) server.publish(channels, "xyz"[random(3)]);
      if (random(3)) server.deliver(sockets.at(-1), random(6), true);
      if (!random(15)) {
        server.names.clear();
        server.outbox.length = 0;
        sockets.at(-1).end();
        for (let count = random(8); count; count -= 1) server.publish([["a"], ["b", "a"], ["c", "b"]][random(3)], "x");
        mock.timers.tick(1);
        sockets.at(-1).open();
      }
    }
    await settle();
    server.publish(["a", "b", "c"], "end"); // what follows shows what was lost at the end
    await settle();
    for (const [key, offset] of reached) {
      const last = server.stored[key.slice(2)].at(-1).offset;
      if (offset < last) fail(`${key} ends at ${offset} and not at ${last}`);
    }
    assert.deepEqual([reached.size, wrong], [5, []], `seed ${seed}`);
    client.close();
  }
});
