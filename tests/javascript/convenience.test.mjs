// What LhttpClient does for its user: presence, JSON, Blobs, progress, chunks, events, signals. Against a real server.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import * as lhttp from "../../lhttp_tx/web/static/lhttp.mjs";
import { startServer } from "./server.mjs";
import { FakeWebSocket, sockets } from "./websocket.mjs";

const { ConnectionLost, LhttpClient, Presence, RemoteProtocolError, ServerError } = lhttp;
const FAST = { initialDelay: 100, maxDelay: 100 };
const OPTIONS = ["--presence", "room.*", "--presence-grace", "0", "--login-parameter", "user"];

let server;
const open = [];

before(async () => {
  server = await startServer(0, OPTIONS);
});
after(() => server.stop());
afterEach(() => Promise.all(open.splice(0).map((client) => client.close())));

async function connected(options = {}, query = "") {
  const client = new LhttpClient(server.url + query, { reconnect: FAST, ...options });
  open.push(client);
  await client.connect();
  return client;
}

test("a value is published as JSON and arrives as one", async () => {
  const client = await connected();
  const data = [];
  await client.subscribe("json", (message) => data.push(message.data));
  for (const value of [{ a: [1, "é"] }, [], 5, true, null, "text", Uint8Array.of(255)]) await client.publish("json", value);
  assert.deepEqual(data, [{ a: [1, "é"] }, [], 5, true, null, "text", Uint8Array.of(255)]);
});

test("a content-type of the program's own stays, and a body that only claims to be JSON is text", async () => {
  const client = await connected();
  const seen = [];
  await client.subscribe("json", (message) => seen.push([message.headers.get("content-type"), message.data]));
  await client.publish("json", { a: 1 }, { headers: { "Content-Type": "application/vnd.x+json; v=1" } });
  await client.publish("json", "{", { headers: { "content-type": "json" } });
  await client.publish("json", '{"a":1}', { headers: { "content-type": "text/jsonish" } });
  assert.deepEqual(seen, [
    ["application/vnd.x+json; v=1", { a: 1 }],
    ["json", "{"],
    ["text/jsonish", '{"a":1}'],
  ]);
});

test("what is no value of JSON is refused", async () => {
  const client = await connected();
  await assert.rejects(client.publish("json", () => {}), TypeError);
  await assert.rejects(client.publish("json", 1n), TypeError);
});

test("a Blob is sent with its type, also as a part", async () => {
  const client = await connected();
  const seen = [];
  await client.subscribe("blob", (message) => seen.push(message));
  await client.publish("blob", new Blob([Uint8Array.of(1, 255)], { type: "image/x" }));
  assert.equal(seen[0].headers.get("content-type"), "image/x");
  assert.deepEqual(seen[0].data, Uint8Array.of(1, 255));
  await client.publish("blob", "", { parts: [{ body: new Blob(["a"]) }, { headers: { n: "1" }, body: { b: 1 } }] });
  const [first, second] = seen[1].parts();
  assert.equal(first.text, "a");
  assert.deepEqual([second.text, second.headers.get("n")], ['{"b":1}', "1"]);
  assert.equal((await client.request("echo", new Blob(["hi"]))).text, "hi");
});

test("presence knows who is there, who comes and who goes", async () => {
  const alice = await connected({}, "?user=alice");
  await alice.subscribe("room.p", () => {});
  const watcher = await connected();
  const presence = await watcher.presence("room.p");
  assert.ok(presence instanceof Presence);
  assert.deepEqual([presence.users, presence.count, presence.complete], [["alice"], 1, true]);
  const joined = presence.once("join");
  const bob = await connected({}, "?user=bob");
  await bob.subscribe("room.p", () => {});
  assert.equal((await joined).user, "bob");
  assert.deepEqual([presence.users, presence.has("bob"), presence.count], [["alice", "bob"], true, 2]);
  const left = presence.once("leave");
  await alice.close();
  assert.equal((await left).user, "alice");
  assert.deepEqual([presence.users, presence.people.length], [["bob"], 1]);
  const ended = presence.once("end");
  await presence.close();
  assert.deepEqual([await ended, presence.closed], [{ error: null }, true]);
});

test("presence is right again after a reconnection", async () => {
  const alice = await connected({}, "?user=alice");
  await alice.subscribe("room.again", () => {});
  const watcher = await connected();
  const presence = await watcher.presence("room.again");
  const synced = presence.once("sync");
  watcher.socket.close();
  await alice.close();
  const bob = await connected({}, "?user=bob");
  await bob.subscribe("room.again", () => {});
  await synced;
  while (presence.users.join() !== "bob") await presence.once("change");
  assert.equal(presence.count, 1);
});

test("there is no presence where the server keeps none", async () => {
  const client = await connected();
  await assert.rejects(client.presence("other"), (error) => error instanceof ServerError && error.status === 404);
});

test("what comes while presence is asked for is applied after the answer", async () => {
  sockets.length = 0;
  const client = new LhttpClient("ws://host/", { WebSocket: FakeWebSocket, heartbeat: 0, reconnect: FAST });
  open.push(client);
  client.connect();
  const [socket] = sockets;
  socket.open();
  const asking = client.presence("room");
  const event = (kind, user) =>
    socket.onmessage({
      data: `LHTTP/1.0 presence\r\npublish:$presence.room\r\n\r\n${JSON.stringify({ event: kind, user, connection: "c", count: 9, connections: 9 })}`,
    });
  socket.answer();
  await new Promise((done) => setTimeout(done, 10));
  assert.match(socket.sent.at(-1), /^LHTTP\/1.0 presence\r\nchannel:room\r\n/);
  event("join", "new");
  event("join", "old");
  event("leave", "gone");
  const people = ["old", "gone"].map((user) => ({ user, connections: [user] }));
  const body = JSON.stringify({ channel: "room", count: 2, connections: 2, people });
  socket.onmessage({ data: `LHTTP/1.0 presence\r\nchannel:room\r\nreceipt:${socket.token}\r\n\r\n${body}` });
  socket.answer();
  const presence = await asking;
  assert.deepEqual(presence.users, ["old", "new"]);
  event("join", "later");
  assert.deepEqual([presence.users, presence.count], [["old", "new", "later"], 9]);
  const joined = [];
  presence.on("join", ({ user }) => joined.push(user));
  event("join", "later");
  event("join", "last");
  assert.deepEqual(joined, ["last"]);
  const closing = client.close();
  socket.end(1000);
  await closing;
});

/** A presence on a fake socket, the events that it fires, and functions of the server. */
async function followed(people, count = people.length) {
  sockets.length = 0;
  const client = new LhttpClient("ws://host/", { WebSocket: FakeWebSocket, heartbeat: 0, reconnect: { initialDelay: 1, maxDelay: 1 } });
  open.push(client);
  client.connect();
  sockets[0].open();
  const last = () => sockets.at(-1);
  const sent = async (pattern) => {
    while (!pattern.test(last().sent.at(-1) ?? "")) await new Promise((done) => setTimeout(done, 1));
  };
  const event = (kind, user, total = 9) => {
    const body = { event: kind, user, connection: user, count: total, connections: total };
    last().onmessage({ data: `LHTTP/1.0 presence\r\npublish:$presence.room\r\n\r\n${JSON.stringify(body)}` });
  };
  const list = async (users, total = users.length, body = null) => {
    await sent(/^LHTTP\/1.0 presence\r\n/);
    const found = { channel: "room", count: total, connections: total, people: users.map((user) => ({ user, connections: [user] })) };
    const head = `LHTTP/1.0 presence\r\nchannel:room\r\nreceipt:${last().token}\r\n\r\n`;
    last().onmessage({ data: head + (body ?? JSON.stringify(found)) });
    last().answer();
    await new Promise((done) => setTimeout(done, 5));
  };
  const reconnect = async () => {
    const before = sockets.length;
    last().end();
    while (sockets.length === before) await new Promise((done) => setTimeout(done, 1));
    last().open();
    await sent(/subscribe:/);
    last().answer();
  };
  const asking = client.presence("room");
  last().answer();
  await list(people, count);
  const presence = await asking;
  const told = [];
  for (const name of ["join", "leave"]) presence.on(name, ({ user, connection }) => told.push([name, user, connection]));
  presence.on("sync", () => told.push(["sync", ...presence.users]));
  const end = async () => {
    const closing = client.close();
    last().end(1000);
    await closing;
  };
  return { presence, told, event, list, reconnect, end };
}

test("presence tells who left and who came while the connection was lost, before the sync", async () => {
  const { told, list, reconnect, event, end } = await followed(["alice", "bob"]);
  await reconnect();
  event("join", "carol"); // the list may have it already
  event("leave", "nobody");
  await list(["bob", "carol", "dave"]);
  assert.deepEqual(told, [
    ["join", "carol", "carol"],
    ["leave", "alice", "alice"],
    ["join", "dave", "dave"],
    ["sync", "bob", "carol", "dave"],
  ]);
  await end();
});

test("presence tells nothing that is not certain when the server lists only some", async () => {
  const { told, list, reconnect, event, end } = await followed(["alice", "bob"], 3);
  await reconnect();
  await list(["bob", "dave"], 3);
  assert.deepEqual(told, [["sync", "bob", "dave"]]);
  event("leave", "erin");
  assert.deepEqual(told.slice(1), [["leave", "erin", "erin"]]);
  await reconnect();
  await list(["bob", "fay"]);
  assert.deepEqual(told.slice(2), [["leave", "dave", "dave"], ["sync", "bob", "fay"]]);
  await end();
});

test("a listener may close a presence, which then tells nothing more", async () => {
  const { presence, told, list, reconnect, end } = await followed(["alice", "bob"]);
  presence.once("leave", () => void presence.close());
  await reconnect();
  await list(["carol"]);
  assert.deepEqual(told, [["leave", "alice", "alice"]]);
  await end();
});

for (const body of ["no JSON", "{}", "null", '{"people":5}', '{"people":[5]}', '{"people":[{"user":null,"connections":[]}]}']) {
  test(`presence ends with an error when the answer is ${body}`, async () => {
    const { presence, list, reconnect, end } = await followed(["alice"]);
    const ended = presence.once("end");
    await reconnect();
    await list([], 0, body);
    assert.ok((await ended).error instanceof RemoteProtocolError);
    await end();
  });
}

test("a subscription has events of its own", async () => {
  const client = await connected();
  const seen = [];
  const subscription = await client.subscribe("events", () => {});
  subscription.on("message", ({ message, channel }) => seen.push([channel, message.text]));
  await client.publish("events", "x");
  assert.deepEqual(seen, [["events", "x"]]);
  const [missed, confirmed] = [subscription.once("missed"), subscription.once("confirmed")];
  client.socket.close();
  assert.equal((await missed).channel, "events");
  assert.equal(await confirmed, subscription);
  const ended = subscription.once("end");
  await subscription.unsubscribe();
  assert.deepEqual(await ended, { error: null });
});

test("once calls a listener once, and can be taken back", async () => {
  const client = await connected();
  const seen = [];
  client.once("message", (message) => seen.push(message.text));
  client.once("message", () => seen.push("never"))();
  await client.subscribe("once", () => {});
  await client.publish("once", "1");
  await client.publish("once", "2");
  assert.deepEqual(seen, ["1"]);
  const reason = new Error("enough");
  await assert.rejects(client.once("message", { signal: AbortSignal.abort(reason) }), reason);
});

test("a signal ends a request, and a reply that comes late is taken for no other's", async () => {
  const client = await connected();
  const controller = new AbortController();
  const asking = client.request("echo", "late", { signal: controller.signal });
  controller.abort();
  await assert.rejects(asking, { name: "AbortError" });
  assert.equal((await client.request("echo", "next")).text, "next");
  await assert.rejects(client.publish("x", "", { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("a signal takes back what waits for a connection", async () => {
  sockets.length = 0;
  const client = new LhttpClient("ws://host/", { WebSocket: FakeWebSocket, heartbeat: 0 });
  client.connect();
  const controller = new AbortController();
  const publishing = client.publish("a", "x", { signal: controller.signal });
  const kept = client.publish("a", "y");
  controller.abort();
  await assert.rejects(publishing, { name: "AbortError" });
  assert.equal(client.queued, 1);
  sockets[0].open();
  assert.match(sockets[0].sent[0], /y$/);
  sockets[0].answer();
  await kept;
  const closing = client.close();
  sockets[0].end(1000);
  await closing;
});

test("a signal ends a subscription and a connect that takes too long", async () => {
  const client = await connected();
  const controller = new AbortController();
  const subscription = await client.subscribe("ends", () => {}, { signal: controller.signal });
  const ended = subscription.once("end");
  controller.abort();
  await ended;
  assert.equal(subscription.closed, true);
  sockets.length = 0;
  const other = new LhttpClient("ws://host/", { WebSocket: FakeWebSocket });
  const limit = new AbortController();
  const connecting = other.connect({ signal: limit.signal });
  limit.abort();
  sockets[0].end();
  await assert.rejects(connecting, { name: "AbortError" });
  assert.equal(other.state, "closed");
});

test("progress ends with everything", async () => {
  const client = await connected();
  const steps = [];
  await client.request("echo", "x".repeat(50000), { onProgress: (step) => steps.push(step) });
  assert.ok(steps.length > 0 && steps.at(-1).total > 50000, JSON.stringify(steps));
});

test("progress tells what has left the WebSocket", async () => {
  sockets.length = 0;
  const client = new LhttpClient("ws://host/", { WebSocket: FakeWebSocket, heartbeat: 0 });
  client.connect();
  const [socket] = sockets;
  socket.open();
  socket.send = function (data) {
    this.sent.push(data);
    this.bufferedAmount = data.length;
  };
  const steps = [];
  const sending = client.send("c", "x".repeat(100), { onProgress: ({ sent }) => steps.push(sent) });
  socket.bufferedAmount = 50;
  await new Promise((done) => setTimeout(done, 120));
  socket.bufferedAmount = 0;
  await new Promise((done) => setTimeout(done, 120));
  socket.answer();
  await sending;
  const total = socket.sent[0].length;
  assert.deepEqual(steps, [0, total - 50, total]);
  const closing = client.close();
  socket.end(1000);
  await closing;
});

test("a file in chunks arrives whole, also across a reconnection", async () => {
  const client = await connected();
  const content = Uint8Array.from({ length: 200001 }, (_, index) => index % 251);
  const received = new Uint8Array(content.length);
  const ranges = new Set();
  const reader = await connected();
  await reader.subscribe("chunks", (message) => {
    const [, start, end, total] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(message.headers.get("content-range"));
    assert.equal(Number(total), content.length);
    assert.equal(message.headers.get("upload"), "u1");
    assert.equal(message.headers.get("content-type"), "x/y");
    received.set(message.body, Number(start));
    ranges.add(`${start}-${end}`);
  });
  const steps = [];
  let cut = false;
  const file = new Blob([content], { type: "x/y" });
  const { id, reply } = await client.uploadChunks("put", file, {
    id: "u1",
    chunkSize: 10000,
    headers: { publish: "chunks" },
    onProgress: ({ sent, total }) => {
      steps.push(sent);
      assert.equal(total, content.length);
      if (sent > 50000 && !cut) {
        cut = true;
        client.socket.close();
      }
    },
  });
  await reader.send("sync");
  assert.deepEqual([id, reply, cut, ranges.size, steps.at(-1)], ["u1", null, true, 21, content.length]);
  assert.deepEqual(received, content);
  const last = await client.uploadChunks("echo", "abc", { chunkSize: 2 });
  assert.equal(last.reply.text, "c");
  assert.equal((await client.uploadChunks("echo", "")).reply.headers.get("content-range"), "bytes */0");
});

test("chunks fail with the error of one of them, and with a closed client", async () => {
  const client = await connected();
  await assert.rejects(client.uploadChunks("refuse", "abc", { chunkSize: 1 }), ServerError);
  const sending = client.uploadChunks("hang", "abc");
  await client.close();
  await assert.rejects(sending, ConnectionLost);
});

test("a batch tells what became of each message", async () => {
  const client = await connected();
  const seen = [];
  await client.subscribe("batch", (message) => seen.push(message.data));
  const results = await client.batch([{ channels: "batch", body: 1 }, { channels: "$no", body: 2 }, { channels: "batch", body: 3 }]);
  assert.deepEqual(results.map(({ receipt, error }) => receipt?.command ?? error.status), ["receipt", 403, "receipt"]);
  assert.deepEqual(seen, [1, 3]);
});

test("a subscription tells where a node of the cluster did not answer", async () => {
  sockets.length = 0;
  const client = new LhttpClient("ws://host/", { WebSocket: FakeWebSocket, heartbeat: 0 });
  client.connect();
  const [socket] = sockets;
  socket.open();
  const subscribing = client.subscribe(["a", "b"], () => {});
  socket.onmessage({ data: `LHTTP/1.0 receipt\r\nreceipt-id:${socket.token}\r\nunsure:b\r\n\r\n` });
  assert.deepEqual((await subscribing).unsure, ["b"]);
  const closing = client.close();
  socket.end(1000);
  await closing;
});

test("an option that a call does not have is told", async () => {
  const client = await connected();
  const calls = {
    subscribe: () => client.subscribe("room", () => {}, { lats: 50 }),
    publish: () => client.publish("room", "chat", { from: "Ada" }),
    send: () => client.send("chat", "", { reciept: false }),
    request: () => client.request("echo", "", { replies: "welcome" }),
    history: () => client.history("room", { limt: 5 }),
    presence: () => client.presence("room", { onJoin: () => {} }),
    uploadChunks: () => client.uploadChunks("file", "abc", { chunksize: 2 }),
  };
  for (const [name, call] of Object.entries(calls)) {
    await assert.rejects(call(), (error) => error instanceof TypeError && error.message.startsWith(`${name}() has no option `));
  }
  const [result] = await client.batch([{ channels: "room", body: "", identity: "1" }]);
  assert.equal(result.error.message, "publish() has no option identity");
});

test("a call without a connection says what to do", async () => {
  const client = new LhttpClient(server.url);
  await assert.rejects(client.publish("room", "hello"), /there is no connection: call connect\(\)/);
});
