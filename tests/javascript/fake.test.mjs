// What LhttpClient does with time and with odd connections, on a WebSocket and a clock of the test's own.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { ConnectionLost, Lhttp, LhttpClient, QueueFull } from "../../lhttp_tx/web/static/lhttp.mjs";
import { FakeWebSocket, sockets } from "./websocket.mjs";

beforeEach(() => {
  sockets.length = 0;
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 1);
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

function makeClient(options = {}) {
  return new LhttpClient("ws://server.example:8081/", { WebSocket: FakeWebSocket, heartbeat: 0, ...options });
}

function connected(options) {
  const client = makeClient(options);
  client.connect();
  sockets[0].open();
  return client;
}

/** Let the console say nothing, and return what it would have. */
function quietConsole() {
  const said = [];
  mock.method(console, "warn", (text) => said.push(text));
  return said;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("the waits double up to a bound, and are random below it", () => {
  const client = makeClient({ reconnect: { initialDelay: 100, maxDelay: 1000 } });
  const delays = [];
  client.on("state", ({ delay }) => delay !== null && delays.push(delay));
  client.connect();
  for (let attempt = 0; attempt < 6; attempt += 1) {
    sockets.at(-1).end();
    mock.timers.tick(1000);
  }
  assert.deepEqual(delays, [100, 200, 400, 800, 1000, 1000]);
  Math.random = () => 0.25;
  sockets.at(-1).end();
  assert.equal(delays.at(-1), 250);
  client.close();
});

test("a client comes back within the time that a server asks for, and at random", () => {
  const client = makeClient({ reconnect: { initialDelay: 100, maxDelay: 5000 } });
  const delays = [];
  client.on("state", ({ delay }) => delay !== null && delays.push(delay));
  client.connect();
  for (const reason of [
    "server is going away; retry-after=0.5",
    "server is going away; retry-after=99999",
    "server is going away; retry-after=-3",
    "server is going away",
  ]) {
    sockets.at(-1).open();
    sockets.at(-1).end(1001, reason);
    mock.timers.tick(5000);
  }
  assert.deepEqual(delays, [500, 5000, 100, 200]);
  Math.random = () => 0.5;
  sockets.at(-1).open();
  sockets.at(-1).end(1001, "server is going away; retry-after=2");
  assert.equal(delays.at(-1), 1000);
  client.close();
});

test("a connection that fails soon does not shorten the waits, one that lasts does", () => {
  const client = makeClient({ reconnect: { initialDelay: 100, maxDelay: 1000 } });
  const delays = [];
  client.on("state", ({ delay }) => delay !== null && delays.push(delay));
  client.connect();
  for (const life of [10, 10, 10, 60000, 10]) {
    sockets.at(-1).open();
    mock.timers.tick(life);
    sockets.at(-1).end();
    mock.timers.tick(1000);
  }
  assert.deepEqual(delays, [100, 200, 400, 100, 200]);
  client.close();
});

test("no wait is left over after closing", async () => {
  const client = makeClient();
  const connecting = assert.rejects(client.connect(), ConnectionLost);
  sockets[0].end();
  await client.close();
  await connecting;
  mock.timers.tick(100000);
  assert.equal(sockets.length, 1);
});

test("an attempt that takes too long is given up for another", () => {
  const client = makeClient({ connectTimeout: 3000, reconnect: { initialDelay: 1, maxDelay: 1 } });
  client.connect();
  mock.timers.tick(3000);
  assert.deepEqual(sockets[0].closed, []);
  mock.timers.tick(1);
  assert.equal(sockets.length, 2);
  client.close();
});

test("an error without a close event counts as the end", () => {
  const client = makeClient({ reconnect: { initialDelay: 1, maxDelay: 1 } });
  client.connect();
  sockets[0].onerror({});
  mock.timers.tick(1);
  mock.timers.tick(1);
  assert.equal(sockets.length, 2);
  client.close();
});

test("a server that does not accept the connection is not asked again", async () => {
  const client = makeClient();
  client.connect();
  sockets[0].open();
  sockets[0].end(1008, "connection not accepted");
  mock.timers.tick(100000);
  assert.deepEqual([client.state, sockets.length], ["closed", 1]);
});

test("a client whose user is logged in elsewhere does not come back", async () => {
  const client = makeClient();
  client.connect();
  sockets[0].open();
  sockets[0].end(4409, "logged in elsewhere");
  mock.timers.tick(100000);
  assert.deepEqual([client.state, sockets.length], ["closed", 1]);
});

test("closing a client that was never connected, or waits to connect again, ends what waits", async () => {
  const client = makeClient();
  const early = client.subscribe("a", () => {});
  assert.deepEqual(await client.close(), []);
  await assert.rejects(early, ConnectionLost);
  await assert.rejects(client.subscribe("a", () => {}), ConnectionLost);
  client.connect();
  sockets[0].open();
  const closing = client.close();
  const again = client.connect();
  const late = client.publish("a", "x");
  const last = client.close();
  sockets[0].end(1000);
  await closing;
  assert.deepEqual((await last).map((message) => message.text), ["x"]);
  await assert.rejects(again, ConnectionLost);
  await assert.rejects(late, (error) => error.unsent.text === "x");
  assert.deepEqual([client.state, sockets.length], ["closed", 1]);
});

test("what fails and nobody waits for is an event, and in the console where nobody listens", async () => {
  const said = quietConsole();
  const heard = [];
  const client = connected();
  const off = client.on("error", (error) => heard.push(error.reason));
  client.subscribe("a..b");
  client.subscribe("room", () => {});
  sockets[0].fail(403);
  await turn();
  mock.timers.tick(0);
  assert.deepEqual(heard, ['channel "a..b" has an empty token', "why"]);
  off();
  client.publish("room");
  sockets[0].fail(429);
  await turn();
  mock.timers.tick(0);
  assert.deepEqual([heard.length, said], [2, ["lhttp: why"]]);
  const waited = assert.rejects(client.publish("room"), { status: 413 });
  sockets[0].fail(413);
  await waited;
  mock.timers.tick(0);
  assert.deepEqual([heard.length, said.length], [2, 1]);
});

test("a mistake of the program that nobody waits for is an uncaught error", async () => {
  connected().subscribe("room", "no function");
  await turn();
  assert.throws(() => mock.timers.tick(0), TypeError);
});

test("wildcard subscriptions that are no names are refused before anything is sent", async () => {
  const client = connected();
  for (const name of ["a.>.b", "a..*", ".*", "a b.*", "*." + "a".repeat(254)]) {
    await assert.rejects(client.subscribe(name), (error) => error.status === 400, name);
  }
  await assert.rejects(client.subscribe("$x.*"), (error) => error.status === 403);
  await assert.rejects(client.publish("a.*"), (error) => error.status === 400);
  assert.deepEqual(sockets[0].sent, []);
});

test("a copy comes for each name that brings a message, and each name gets one", async () => {
  const client = connected();
  const heard = [];
  for (const name of ["a.*", "a.>", "*.b", "a.b", "a.*.c"]) {
    client.subscribe(name, (_, channel) => heard.push(`${name} ${channel}`));
    sockets[0].answer();
  }
  await turn();
  const receive = (channels) => sockets[0].onmessage({ data: `LHTTP/1.0 x\r\npublish:${channels}\r\n\r\n` });
  for (let copy = 0; copy < 5; copy += 1) receive("a.b a.b.c.d other");
  assert.deepEqual(heard.splice(0).sort(), ["*.b a.b", "a.* a.b", "a.> a.b", "a.> a.b.c.d", "a.b a.b"]);
  for (const channel of ["a", "$a.b", "a.*", "b", ".", "*.b"]) receive(channel);
  assert.deepEqual(heard, []);
});

test("a wildcard subscription that has ended brings nothing", async () => {
  const client = connected();
  const heard = [];
  const subscribing = ["a.*", "a.>", "a.*.c"].map((name) => {
    const one = client.subscribe(name, () => heard.push(name));
    sockets[0].answer();
    return one;
  });
  const [first, , third] = await Promise.all(subscribing);
  for (const subscription of [first, third]) {
    const ending = subscription.unsubscribe();
    sockets[0].answer();
    await ending;
  }
  sockets[0].onmessage({ data: "LHTTP/1.0 x\r\npublish:a.b\r\n\r\n" });
  const revoked = "LHTTP/1.0 error\r\nstatus:403\r\nreason:why\r\nunsubscribed:a.>\r\n\r\n";
  quietConsole();
  sockets[0].onmessage({ data: revoked });
  sockets[0].onmessage({ data: "LHTTP/1.0 x\r\npublish:a.b\r\n\r\n" });
  assert.deepEqual(heard, ["a.>"]);
});

test("the server's own channels of presence can be subscribed to", async () => {
  const heard = [];
  const client = connected();
  client.subscribe("$presence.room", (message) => heard.push(message.headers.get("event")));
  sockets[0].answer();
  await turn();
  const listed = "publish:$presence.room\r\nevent:join\r\n\r\n";
  sockets[0].onmessage({ data: `LHTTP/1.0 presence\r\n${listed}{}` });
  assert.deepEqual(heard, ["join"]);
  await assert.rejects(client.subscribe("$nodes"), (error) => error.status === 403);
  await assert.rejects(client.publish("$presence.room", ""), (error) => error.status === 403);
  client.close();
});

test("after a silence the client sends a ping", async () => {
  const client = connected({ heartbeat: 1000 });
  mock.timers.tick(1000);
  assert.match(sockets[0].sent[0], /^LHTTP\/1.0 ping\r\n/);
  sockets[0].answer();
  await turn();
  mock.timers.tick(1000);
  assert.equal(sockets[0].sent.length, 2);
  client.close();
});

test("a server that does not answer a ping is dropped", async () => {
  const client = connected({ heartbeat: 1000 });
  mock.timers.tick(1000);
  mock.timers.tick(1000);
  await turn();
  assert.equal(client.state, "reconnecting");
  assert.deepEqual(sockets[0].closed, []);
  client.close();
});

test("the client sends no ping while messages come", () => {
  const client = connected({ heartbeat: 1000 });
  for (let second = 0; second < 3; second += 1) {
    mock.timers.tick(900);
    sockets[0].onmessage({ data: "LHTTP/1.0 news\r\n\r\n" });
  }
  assert.deepEqual(sockets[0].sent, []);
  client.close();
});

test("subscriptions come before what waited", async () => {
  const client = connected({ reconnect: { initialDelay: 1, maxDelay: 1 } });
  client.subscribe("room", () => {});
  sockets[0].answer();
  await turn();
  sockets[0].end();
  client.publish("room", "x").catch(() => {});
  mock.timers.tick(1);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent.map((data) => data.split("\r\n")[1]), ["subscribe:room", "publish:room"]);
  client.close();
});

test("a subscription that cannot be renewed for a while is tried with another connection", async () => {
  const client = connected({ reconnect: { initialDelay: 1, maxDelay: 1 } });
  const subscribing = client.subscribe("room", () => {});
  sockets[0].answer();
  const subscription = await subscribing;
  sockets[0].end();
  mock.timers.tick(1);
  sockets[1].open();
  sockets[1].fail(503);
  await turn();
  assert.deepEqual([client.state, subscription.closed], ["reconnecting", false]);
  client.close();
});

test("a subscription that is refused later ends, and the rest goes on", async () => {
  const client = connected({ reconnect: { initialDelay: 1, maxDelay: 1 } });
  const errors = [];
  client.on("error", (error) => errors.push(error.status));
  const subscribing = client.subscribe("room");
  sockets[0].answer();
  const subscription = await subscribing;
  sockets[0].end();
  mock.timers.tick(1);
  sockets[1].open();
  sockets[1].fail(403);
  await turn();
  assert.deepEqual([client.state, subscription.closed, errors], ["open", true, [403]]);
  await assert.rejects(subscription.next(), (error) => error.status === 403);
  client.close();
});

test("what was subscribed to a channel that the server takes back ends, and the rest goes on", async () => {
  const client = connected({ reconnect: { initialDelay: 1, maxDelay: 1 } });
  const errors = [];
  client.on("error", (error) => errors.push(error.status));
  const subscriptions = [];
  for (const channels of [["a"], ["a", "b"], ["b"]]) {
    const subscribing = client.subscribe(channels);
    sockets[0].answer();
    subscriptions.push(await subscribing);
  }
  const taken = "LHTTP/1.0 error\r\nstatus:403\r\nreason:why\r\nunsubscribed:a\r\n";
  sockets[0].onmessage({ data: `${taken}publish:b\r\n\r\n` }); // anybody may have published this
  assert.deepEqual(subscriptions.map(({ closed }) => closed), [false, false, false]);
  sockets[0].onmessage({ data: `${taken}\r\n` });
  assert.deepEqual(subscriptions.map(({ closed }) => closed), [true, true, false]);
  assert.deepEqual(errors, [403]);
  await assert.rejects(subscriptions[0].next(), (error) => error.status === 403);
  const count = sockets[0].sent.length;
  sockets[0].onmessage({ data: `${taken}\r\n` });
  assert.equal(sockets[0].sent.length, count);
  sockets[0].end();
  mock.timers.tick(1);
  sockets[1].open();
  assert.equal(sockets[1].sent.length, 1);
  assert.match(sockets[1].sent[0], /\r\nsubscribe:b\r\n/);
  client.close();
});

test("what a subscription has beside a channel that is taken back is given back", async () => {
  const client = connected();
  client.on("error", () => {});
  const subscribing = client.subscribe(["a", "b", "c"], null, { command: "join" });
  sockets[0].answer();
  await subscribing;
  sockets[0].onmessage({ data: "LHTTP/1.0 error\r\nstatus:403\r\nreason:why\r\nunsubscribed:b\r\n\r\n" });
  assert.match(sockets[0].sent.at(-1), /^LHTTP\/1\.0 join\r\nunsubscribe:a c\r\n/);
  client.close();
});

test("a subscription whose answer does not come is taken back", async () => {
  const client = connected({ timeout: 1000 });
  const rejected = assert.rejects(client.subscribe("room"), (error) => error.status === 504);
  mock.timers.tick(1000);
  await rejected;
  assert.match(sockets[0].sent.at(-1), /\r\nunsubscribe:room\r\n/);
  client.close();
});

test("a WebSocket that holds too much takes no more", async () => {
  const client = connected({ maxUnsent: 10 });
  sockets[0].bufferedAmount = 11;
  await assert.rejects(client.publish("a", "x"), (error) => error instanceof QueueFull && error.unsent.text === "x");
  client.close();
});

test("a message that cannot be read is an error event, and the next one works", () => {
  const client = connected();
  const events = [];
  client.on("error", (error) => events.push(error.status));
  client.on("message", (message) => events.push(message.text));
  for (const data of ["HTTP/1.1 200 OK\r\n\r\n", "LHTTP/1.0 c\r\n\r\nx"]) sockets[0].onmessage({ data });
  assert.deepEqual(events, [400, "x"]);
  client.close();
});

test("closing waits for the server, but not for ever", async () => {
  const client = connected({ closeTimeout: 500 });
  const lost = assert.rejects(client.publish("a", "x"), ConnectionLost);
  let done = false;
  const closing = client.close().then(() => (done = true));
  await turn();
  assert.deepEqual([client.state, sockets[0].closed, done], ["closed", [1000, ""], false]);
  mock.timers.tick(500);
  await closing;
  await lost;
});

test("an answer that comes while it closes still counts", async () => {
  const client = connected();
  const publishing = client.publish("a", "x");
  const closing = client.close();
  sockets[0].answer();
  sockets[0].end(1000);
  assert.equal((await publishing).command, "receipt");
  await closing;
});

test("http addresses become WebSocket addresses, others are refused", () => {
  assert.equal(new LhttpClient("https://a.example/x#y", { WebSocket: FakeWebSocket }).url, "wss://a.example/x");
  assert.equal(makeClient().url, "ws://server.example:8081/");
  for (const url of ["localhost:8081", "ftp://a/", "/chat"]) {
    assert.throws(() => new LhttpClient(url, { WebSocket: FakeWebSocket }), TypeError, url);
  }
});

test("an option that does not exist is refused", () => {
  assert.throws(() => makeClient({ reconect: true }), /no option reconect/);
});

test("the original tells what fails while it is constructed", async () => {
  class Refusing {
    constructor() {
      throw new Error("mixed content");
    }
  }
  const client = new Lhttp("ws://server.example/", { WebSocket: Refusing });
  const called = [];
  client.on_error = ({ error }) => called.push(error.reason);
  client.on_close = () => called.push("closed");
  await turn();
  assert.deepEqual(called, ["mixed content", "closed"]);
});
