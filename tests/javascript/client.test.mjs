// LhttpClient and Lhttp against a real server. Needs a WebSocket: Node 22, or Node 20 with --experimental-websocket.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, afterEach, before, test } from "node:test";

import * as lhttp from "../../lhttp_tx/web/static/lhttp.mjs";
import { freePort, makeFile, startServer } from "./server.mjs";

const { ConnectionLost, Lhttp, LhttpClient, LocalProtocolError, NoReply, ServerError, TimedOut } = lhttp;
const FAST = { initialDelay: 100, maxDelay: 100 };

let server;
const open = [];

before(async () => {
  server = await startServer();
});
after(() => server.stop());
afterEach(() => Promise.all(open.splice(0).map((client) => client.close())));

function makeClient(options = {}, url = server.url) {
  const client = new LhttpClient(url, { codec: process.env.LHTTP_CODEC, ...options });
  open.push(client);
  return client;
}

async function connected(options, url) {
  const client = makeClient(options, url);
  await client.connect();
  return client;
}

function nextEvent(client, name, condition = () => true) {
  return new Promise((resolve) => {
    const off = client.on(name, (event) => {
      if (condition(event)) {
        off();
        resolve(event);
      }
    });
  });
}

const inState = (client, state) => nextEvent(client, "state", (event) => event.state === state);

test("a publication reaches the listener of its channel, once it is confirmed", async () => {
  const [alice, bob] = [await connected(), await connected()];
  const received = [];
  await bob.subscribe("room.a", (message, channel) => {
    received.push([channel, message.text, message.headers.get("from")]);
  });
  await bob.subscribe("room.b", () => assert.fail("another channel"));
  const receipt = await alice.publish("room.a", "hello\r\n\r\nworld", { headers: { from: "5:30:48" } });
  assert.equal(receipt.command, "receipt");
  await bob.send("sync");
  assert.deepEqual(received, [["room.a", "hello\r\n\r\nworld", "5:30:48"]]);
});

test("messages of a subscription can be iterated over, and leaving the loop unsubscribes", async () => {
  const client = await connected();
  const subscription = await client.subscribe("loop");
  for (const text of ["1", "2", "3"]) await client.publish("loop", text);
  const received = [];
  for await (const message of subscription) {
    received.push(message.text);
    if (received.length === 3) break;
  }
  assert.deepEqual(received, ["1", "2", "3"]);
  assert.equal(subscription.closed, true);
  await client.publish("loop", "4");
  assert.deepEqual(await subscription.next(), { value: undefined, done: true });
});

test("a message to two channels comes to the listener of each once", async () => {
  const client = await connected();
  const received = [];
  for (const name of ["two.a", "two.b"]) {
    await client.subscribe(name, (message, channel) => received.push(`${channel} ${message.text}`));
  }
  await client.publish(["two.a", "two.b"], "x");
  await client.publish(["two.b", "two.a"], "y", { binary: true });
  await client.publish("two.b", "z");
  assert.deepEqual(received, ["two.a x", "two.b x", "two.b y", "two.a y", "two.b z"]);
});

test("two subscriptions to a channel get a message each, and end on their own", async () => {
  const client = await connected();
  const received = [];
  const first = await client.subscribe("twice", () => received.push("first"));
  await client.subscribe("twice", () => received.push("second"));
  await client.publish("twice");
  await first.unsubscribe();
  await client.publish("twice");
  assert.deepEqual(received, ["first", "second", "second"]);
});

test("the server forgets a channel with its last subscription", async () => {
  const client = await connected();
  const subscription = await client.subscribe("gone", () => {});
  await subscription.unsubscribe();
  const received = [];
  client.on("message", (message) => received.push(message));
  await client.publish("gone", "x");
  assert.deepEqual(received, []);
});

test("bytes arrive as bytes", async () => {
  const client = await connected();
  const subscription = await client.subscribe("binary");
  const body = Uint8Array.from({ length: 256 }, (_, index) => index);
  await client.publish("binary", body);
  const { value } = await subscription.next();
  assert.equal(value.binary, true);
  assert.deepEqual(value.body, body);
});

test("parts go both ways", async () => {
  const client = await connected();
  const subscription = await client.subscribe("files");
  const parts = [{ headers: { name: "ä.txt" }, body: "text" }, { body: Uint8Array.of(0, 255) }];
  const reply = await client.request("parts", "", { parts });
  assert.equal(reply.text, "{'name': 'ä.txt'} b'text'\n{} b'\\x00\\xff'");
  await client.publish("files", "", { parts });
  const { value } = await subscription.next();
  assert.deepEqual(value.parts().map((part) => [part.headers.get("name"), part.body]), [
    ["ä.txt", new TextEncoder().encode("text")],
    [undefined, Uint8Array.of(0, 255)],
  ]);
  assert.equal((await client.upload("parts", parts)).text, reply.text);
});

test("a request resolves with its reply, each with its own", async () => {
  const client = await connected();
  const replies = await Promise.all(["1", "2", "3"].map((body) => client.request("echo", body)));
  assert.deepEqual(replies.map((reply) => reply.text), ["1", "2", "3"]);
});

test("a reply with other headers is known by its command", async () => {
  const client = await connected();
  const reply = await client.request("other", "x", { reply: "auth" });
  assert.equal(reply.headers.get("content-type"), "image/png");
});

test("a request that nobody replies to fails with 404 at once, an upload too", async () => {
  const client = await connected();
  const requests = {
    nobody: () => client.request("nobody"),
    "of-nobody": () => client.request("nobody", "", { reply: "of-nobody" }),
    upload: () => client.upload("upload", [{ body: "text" }]),
  };
  for (const [command, request] of Object.entries(requests)) {
    await assert.rejects(request(), (error) => {
      assert.ok(error instanceof NoReply && error instanceof ServerError);
      assert.deepEqual([error.status, error.reason], [404, `no reply with the command ${command}`]);
      assert.equal(error.reply.command, "receipt");
      return true;
    });
  }
});

test("a subscription made before connecting is there when the connection is", async () => {
  const client = makeClient();
  const received = [];
  const subscribing = client.subscribe("early", (message) => received.push(message.text));
  await client.connect();
  await subscribing;
  await client.publish("early", "x");
  assert.deepEqual(received, ["x"]);
});

test("a client that was closed and connects again subscribes and publishes", async () => {
  const client = await connected();
  const received = [];
  const closing = client.close();
  client.connect();
  client.subscribe("anew", (message) => received.push(message.text));
  await client.publish("anew", "x");
  await closing;
  await client.close();
  await client.connect();
  await client.subscribe("anew", (message) => received.push(message.text));
  await client.publish("anew", "y");
  assert.deepEqual(received, ["x", "y"]);
});

test("wildcard subscriptions bring what belongs to them, by the name of its channel", async () => {
  const rules = '[[channel]]\nmatch = "room.>"\nwildcards = true\n[[channel]]\nmatch = "hall"\npresence = true\n';
  const own = await startServer(0, ["--config", makeFile("rules.toml", rules)]);
  const [alice, bob] = [await connected({}, own.url), await connected({}, own.url)];
  const received = [];
  for (const name of ["room.*", "room.>", "room.7"]) {
    await bob.subscribe(name, (message, channel) => received.push(`${name} ${channel} ${message.text}`));
  }
  const loop = await bob.subscribe("room.*.b");
  await alice.publish("room.7", "x");
  await alice.publish(["room.8", "room.9.b", "room"], "y");
  await bob.send("sync");
  assert.deepEqual(received.sort(), [
    ...["room.* room.7 x", "room.* room.8 y", "room.7 room.7 x"],
    ...["room.> room.7 x", "room.> room.8 y", "room.> room.9.b y"],
  ]);
  assert.equal((await loop.next()).value.text, "y");
  await loop.unsubscribe();
  await assert.rejects(bob.subscribe(">"), (error) => error instanceof ServerError && error.status === 403);
  const presence = nextEvent(bob, "receive", ({ command }) => command === "presence");
  await bob.subscribe("$presence.hall", () => {});
  await alice.subscribe("hall", () => {});
  assert.equal((await presence).headers.get("event"), "join");
  await Promise.all([alice.close(), bob.close()]);
  await own.stop();
});

test("what a processor refuses rejects with its status and reason", async () => {
  const client = await connected();
  await assert.rejects(client.request("refuse"), (error) => {
    assert.ok(error instanceof ServerError);
    assert.deepEqual([error.status, error.reason], [409, "the seat is taken"]);
    return true;
  });
});

test("an answer that does not come in time rejects", async () => {
  const client = await connected();
  await assert.rejects(client.request("hang", "", { timeout: 50 }), TimedOut);
});

test("malformed channels are refused before anything is sent", async () => {
  const client = await connected();
  await assert.rejects(client.subscribe("a..b"), (error) => error.status === 400);
  await assert.rejects(client.publish("$SYS"), (error) => error.status === 403);
  await assert.rejects(client.publish([]), LocalProtocolError);
});

test("a subscription that the server refuses rejects and leaves nothing", async () => {
  const client = await connected();
  const names = Array.from({ length: 129 }, (_, index) => `many.${index}`);
  await assert.rejects(client.subscribe(names), (error) => error.status === 429);
  await client.publish("many.1", "x");
});

test("an error that belongs to no promise is an event", async () => {
  const client = await connected();
  const error = nextEvent(client, "error");
  await client.send("refuse", "", { receipt: false });
  assert.equal((await error).status, 409);
});

test("what is published is never taken for an answer", async () => {
  const [mallory, bob] = [await connected(), await connected()];
  await bob.subscribe("trap", () => {});
  const receive = nextEvent(bob, "receive", ({ command, headers }) => command === "receipt" && headers.has("publish"));
  let token;
  bob.on("receive", (message) => (token = message.headers.get("receipt-id") ?? token));
  await bob.send("sync");
  const next = token.replace(/\d+$/, (number) => Number(number) + 1);
  const hanging = bob.request("hang", "", { timeout: 300 });
  hanging.catch(() => {}); // it may be over before the rest is
  await mallory.publish("trap", "", { command: "receipt", headers: { "receipt-id": next } });
  await receive;
  await assert.rejects(hanging, TimedOut);
});

test("states tell how the connection is", async () => {
  const client = makeClient();
  const states = [];
  client.on("state", ({ state }) => states.push(state));
  assert.equal(client.state, "closed");
  await client.connect();
  await client.connect();
  await client.close();
  assert.deepEqual(states, ["connecting", "open", "closed"]);
});

test("a closed client can be connected again", async () => {
  const client = await connected();
  await client.close();
  await client.connect();
  assert.equal((await client.request("echo", "x")).text, "x");
});

test("closing ends subscriptions and refuses what comes after", async () => {
  const client = await connected();
  const subscription = await client.subscribe("end");
  const next = subscription.next();
  await client.close();
  assert.deepEqual(await next, { value: undefined, done: true });
  await assert.rejects(client.publish("end", "x"), (error) => {
    assert.ok(error instanceof ConnectionLost);
    assert.equal(error.unsent.text, "x");
    return true;
  });
  await assert.rejects(client.subscribe("end"), ConnectionLost);
});

test("without reconnect, a server that is not there rejects", async () => {
  const client = makeClient({ reconnect: false }, `ws://127.0.0.1:${await freePort()}/`);
  await assert.rejects(client.connect(), ConnectionLost);
  assert.equal(client.state, "closed");
});

test("a client gives up after as many attempts as it was told", async () => {
  const client = makeClient({ reconnect: { ...FAST, attempts: 2 } }, `ws://127.0.0.1:${await freePort()}/`);
  const waiting = client.publish("a", "x");
  await assert.rejects(waiting, ConnectionLost); // not connected at all yet
  const connecting = client.connect();
  const queued = client.publish("a", "y");
  const subscribing = client.subscribe("a");
  await assert.rejects(connecting, ConnectionLost);
  await assert.rejects(queued, (error) => error.unsent.text === "y");
  await assert.rejects(subscribing, ConnectionLost);
});

for (const way of ["kill", "stop"]) {
  test(`after ${way} and start it connects, subscribes and sends what waited`, async () => {
    let own = await startServer();
    const [alice, bob] = [await connected({ reconnect: FAST }, own.url), await connected({ reconnect: FAST }, own.url)];
    const received = [];
    await bob.subscribe("room", (message) => received.push(message.text));
    const lost = [inState(alice, "reconnecting"), inState(bob, "reconnecting")];
    await own[way]();
    const [event] = await Promise.all(lost);
    assert.ok(event.error instanceof ConnectionLost);
    const queued = bob.publish("room", "written while away");
    assert.equal(bob.queued, 1);
    const late = bob.subscribe("late");
    own = await startServer(own.port);
    await Promise.all([late, queued]);
    if (alice.state !== "open") await inState(alice, "open");
    await alice.publish("room", "again");
    await bob.send("sync");
    assert.deepEqual(received, ["written while away", "again"]);
    await own.stop();
  });
}

test("a connection that is lost rejects what was sent, and says that its fate is unknown", async () => {
  const own = await startServer();
  const client = await connected({ reconnect: false }, own.url);
  const rejected = assert.rejects(client.request("hang"), (error) => error instanceof ConnectionLost && !error.unsent);
  await own.kill();
  await rejected;
});

test("a full queue rejects, and closing says what was not sent", async () => {
  const client = makeClient({ queueSize: 2, reconnect: FAST }, `ws://127.0.0.1:${await freePort()}/`);
  client.connect().catch(() => {});
  const results = ["1", "2", "3"].map((text) => client.publish("a", text));
  const outcome = Promise.allSettled(results);
  await assert.rejects(results[2], (error) => error.status === 429 && error.unsent.text === "3");
  assert.deepEqual((await client.close()).map((message) => message.text), ["1", "2"]);
  assert.deepEqual((await outcome).map(({ reason }) => reason.unsent.text), ["1", "2", "3"]);
});

test("a loop that is too slow is told so", async () => {
  const client = await connected({ bufferSize: 2 });
  const subscription = await client.subscribe("slow");
  for (const text of ["1", "2", "3"]) await client.publish("slow", text);
  const received = [];
  await assert.rejects(async () => {
    for await (const message of subscription) received.push(message.text);
  }, lhttp.QueueFull);
  assert.deepEqual(received, ["1", "2"]);
});

// Histories

/** Lose the connection as it happens to a client, and return when there is another one. */
async function interrupt(client) {
  const again = nextEvent(client, "state", ({ state, previous }) => state === "open" && previous !== "open");
  client.socket.close(4000);
  await again;
}

test("what is missed while the connection is lost comes afterwards, once and in order", async () => {
  const own = await startServer(0, ["--history", "room.>"]);
  const [alice, bob] = [await connected({}, own.url), await connected({ reconnect: FAST }, own.url)];
  const told = [];
  bob.on("recovered", ({ channel, count }) => told.push(`recovered ${channel} ${count}`));
  bob.on("missed", ({ channel, position }) => told.push(`missed ${channel} ${position}`));
  const listen = (message, channel) => told.push(`${channel} ${message.binary ? message.body : message.text}`);
  const subscription = await bob.subscribe(["room.b", "room.a", "hall"], listen);
  assert.deepEqual(Object.keys(subscription.positions), ["room.b", "room.a"]);
  const { positions, duplicate } = await alice.publish(["room.a", "room.b", "hall"], "1");
  assert.deepEqual([Object.keys(positions), duplicate], [["room.a", "room.b"], false]);
  await bob.send("sync");
  const back = interrupt(bob);
  await alice.publish(["room.a", "room.b"], "2");
  await alice.publish("room.a", Uint8Array.of(0, 255));
  await alice.publish("hall", "gone");
  await back;
  await bob.send("sync");
  assert.deepEqual(told.splice(0, 3).sort(), ["hall 1", "room.a 1", "room.b 1"]);
  assert.deepEqual(told.splice(0).sort(), [
    ...["missed hall null", "recovered room.a 2", "recovered room.b 1", "room.a 0,255", "room.a 2", "room.b 2"],
  ]);
  await alice.publish("room.a", "3");
  await bob.send("sync");
  assert.deepEqual(told, ["room.a 3"]);
  await Promise.all([alice.close(), bob.close()]);
  await own.stop();
});

test("the last messages come first, a history can be read, and a lost one is told", async () => {
  let own = await startServer(0, ["--history", "room.>", "--history-messages", "3"]);
  const client = await connected({ reconnect: FAST }, own.url);
  for (const text of ["1", "2", "3", "4"]) await client.publish("room.a", text);
  const received = [];
  const listen = (message) => received.push(message.binary ? message.body[0] : message.text);
  await client.subscribe("room.a", listen, { last: 2 });
  await client.publish("room.a", Uint8Array.of(255));
  await client.publish("room.a", "typing", { headers: { store: "no" } });
  await client.subscribe("room.a", (message) => received.push(`new ${message.text}`));
  assert.deepEqual(received, ["3", "4", 255, "typing"]);
  const page = await client.history("room.a", { order: "newest", limit: 2 });
  assert.deepEqual(page.messages.map(({ binary, body }) => [binary, body[0]]), [[true, 255], [false, 52]]);
  const rest = await client.history("room.a", page.next);
  assert.deepEqual([rest.messages.map(({ text }) => text), rest.more, rest.next], [["3"], false, null]);
  await assert.rejects(client.history("hall"), (error) => error instanceof ServerError && error.status === 404);
  const missed = nextEvent(client, "missed");
  await own.kill();
  own = await startServer(own.port, ["--history", "room.>"]);
  const { channel, position } = await missed;
  assert.equal(channel, "room.a");
  assert.match(position, /^\w+-0$/);
  await client.publish("room.a", "afresh");
  assert.deepEqual(received.slice(-2), ["afresh", "new afresh"]);
  await client.close();
  await own.stop();
});

test("through many lost connections everything comes exactly once, in order", async () => {
  const own = await startServer(0, ["--history", "room.>"]);
  const reconnect = { initialDelay: 5, maxDelay: 20 };
  const [alice, bob] = [await connected({ reconnect }, own.url), await connected({ reconnect }, own.url)];
  const received = { "room.a": [], "room.b": [] };
  bob.on("missed", () => assert.fail("missed"));
  await bob.subscribe("room.a", (message, channel) => received[channel].push(Number(message.text)));
  await bob.subscribe("room.b", (message, channel) => received[channel].push(Number(message.text)));
  const published = [];
  let outcome = null;
  const publishing = (async () => {
    for (let number = 0; number < 600; number += 1) {
      published.push(alice.publish(number % 3 ? "room.a" : ["room.b", "room.a"], String(number)));
      if (number >= 100) await published[number - 100]; // so that no more wait than may
    }
    outcome = await Promise.all(published);
  })();
  for (let round = 0; !outcome; round += 1) {
    const client = round % 2 ? alice : bob;
    if (client.state === "open") client.socket.close(4000);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await publishing;
  for (const client of [alice, bob]) if (client.state !== "open") await inState(client, "open");
  await bob.send("sync");
  const numbers = Array.from(published, (_, number) => number);
  assert.deepEqual(received["room.a"], numbers);
  assert.deepEqual(received["room.b"], numbers.filter((number) => number % 3 === 0));
  const offsets = outcome.map(({ positions }) => Number(positions["room.a"].split("-")[1]));
  assert.deepEqual(offsets, offsets.slice().sort((one, other) => one - other));
  await Promise.all([alice.close(), bob.close()]);
  await own.stop();
});

test("a server that is killed again and again, with its histories in a file, loses nothing", async () => {
  const options = ["--history", "room.>", "--history-store", `sqlite:${makeFile("killed.db", "")}`];
  let own = await startServer(0, options);
  const [alice, bob] = [await connected({ reconnect: FAST }, own.url), await connected({ reconnect: FAST }, own.url)];
  const received = [];
  bob.on("missed", () => assert.fail("missed"));
  await bob.subscribe("room.a", (message) => received.push(Number(message.text)));
  const published = [];
  for (let round = 0; round < 2; round += 1) {
    for (let number = 0; number < 100; number += 1) {
      published.push(alice.publish("room.a", String(published.length)));
    }
    await published.at(-50);
    await own.kill();
    own = await startServer(own.port, options);
  }
  await Promise.all(published);
  for (const client of [alice, bob]) if (client.state !== "open") await inState(client, "open");
  await bob.send("sync");
  assert.deepEqual(received, Array.from(published, (_, number) => number));
  await Promise.all([alice.close(), bob.close()]);
  await own.stop();
});

// Logging in

const SECRET = "0123456789abcdef".repeat(4);

function makeToken(user, seconds = 300) {
  const claims = { sub: user, exp: Math.floor(Date.now() / 1000) + seconds };
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const parts = [{ alg: "HS256", typ: "JWT" }, claims].map(encode);
  return [...parts, createHmac("sha256", SECRET).update(parts.join(".")).digest("base64url")].join(".");
}

/** Start a server that asks for tokens, within *seconds* of connecting. */
function startGuarded(port = 0, seconds = 60) {
  return startServer(port, ["--jwt-key-file", makeFile("secret", SECRET), "--login-timeout", String(seconds)]);
}

test("after the server was killed it is logged in again, subscribed again, and what waited is sent", async () => {
  let own = await startGuarded();
  let tokens = 0;
  const login = async () => ({ token: makeToken(`user${(tokens += 1)}`) });
  const client = await connected({ reconnect: FAST, login }, own.url);
  assert.equal(client.user, "user1");
  const received = [];
  await client.subscribe("room", (message) => received.push(message.text));
  const lost = inState(client, "reconnecting");
  await own.kill();
  await lost;
  assert.equal(client.user, null);
  const queued = client.publish("room", "written while away");
  own = await startGuarded(own.port);
  await queued;
  await client.publish("room", "again");
  assert.deepEqual([client.user, received], ["user2", ["written while away", "again"]]);
  await client.close();
  await own.stop();
});

test("a token that lasts seconds is renewed, and the connection outlives it", async () => {
  const own = await startGuarded();
  const client = makeClient({ login: () => ({ token: makeToken("alice", 12) }) }, own.url);
  const told = [];
  client.on("state", ({ state }) => told.push(state));
  client.on("error", (error) => told.push(error));
  let first;
  client.on("login", ({ expires }) => (first ??= expires));
  await client.connect();
  await nextEvent(client, "login", () => Date.now() > first);
  assert.equal((await client.request("echo", "still here")).text, "still here");
  assert.deepEqual(told, ["connecting", "open"]);
  await client.close();
  await own.stop();
});

test("a token that is never renewed ends the connection, and the next one logs in anew", async () => {
  const own = await startGuarded();
  let allowed = 1;
  const login = () => {
    if ((allowed -= 1) < 0) throw new Error("no token");
    return { token: makeToken("alice", 8) };
  };
  const client = await connected({ reconnect: FAST, login }, own.url);
  const { error } = await inState(client, "reconnecting");
  assert.equal(error.code, 4401);
  allowed = 1;
  await inState(client, "open");
  await client.close();
  await own.stop();
});

test("a server that refuses the token ends the client, one that had no time to look does not", async () => {
  const own = await startGuarded(0, 0.5);
  const forged = makeClient({ login: () => ({ token: makeToken("alice").slice(0, -9) + "AAAAAAAAA" }) }, own.url);
  await assert.rejects(forged.connect(), (error) => error.status === 401 && /signature/.test(error.reason));
  assert.equal(forged.state, "closed");
  let calls = 0;
  const login = () => ((calls += 1) === 1 ? new Promise(() => {}) : { token: makeToken("alice") });
  const slow = makeClient({ reconnect: FAST, login }, own.url);
  const lost = inState(slow, "reconnecting");
  const connecting = slow.connect();
  assert.equal((await lost).error.code, 4408);
  await connecting;
  assert.deepEqual([slow.user, calls], ["alice", 2]);
  await slow.close();
  await own.stop();
});

test("a page that logs in as another user gets another connection, with its subscriptions", async () => {
  const own = await startGuarded();
  let user = "alice";
  const client = await connected({ reconnect: FAST, login: () => ({ token: makeToken(user) }) }, own.url);
  const received = [];
  await client.subscribe("room", (message) => received.push(message.text));
  await client.login();
  assert.equal(client.user, "alice");
  user = "bob";
  await client.login();
  await client.publish("room", "x");
  assert.deepEqual([client.user, received], ["bob", ["x"]]);
  await client.close();
  await own.stop();
});

test("a server without logins is an error", async () => {
  const client = makeClient({ login: () => ({ token: "x" }) });
  await assert.rejects(client.connect(), /has no logins/);
});

// The original's interface

function makeOriginal(url = server.url, options) {
  const client = new Lhttp(url, options);
  open.push(client);
  const events = [];
  const waiting = [];
  for (const name of ["on_open", "on_message", "on_close", "on_error"]) {
    client[name] = (context) => {
      events.push({ name, context });
      waiting.shift()?.();
    };
  }
  const next = async () => {
    if (!events.length) await new Promise((resolve) => waiting.push(resolve));
    return events.shift();
  };
  return { client, next };
}

test("original: chat as its demo does", async () => {
  const { client, next } = makeOriginal();
  (await next()).context.subscribe("chatroom", "chat", null, "");
  client.context.publish("chatroom", "chat", null, "hello\r\n\r\nhello");
  const { name, context } = await next();
  assert.deepEqual([name, context.getCommand(), context.getBody()], ["on_message", "chat", "hello\r\n\r\nhello"]);
  assert.equal(context.getHeader("publish"), "chatroom");
  assert.deepEqual({ ...context.getHeader() }, { publish: "chatroom" });
});

test("original: headers count once, the command stays", async () => {
  const { client, next } = makeOriginal();
  await next();
  const { context } = client;
  context.setCommand("echo");
  context.addHeader("url", " http://host:80/ ");
  context.send("one");
  context.send("two");
  const [one, two] = [(await next()).context, (await next()).context];
  assert.deepEqual([one.getHeader("URL"), one.getBody()], ["http://host:80/", "one"]);
  assert.deepEqual([two.getHeader("url"), two.getBody()], [undefined, "two"]);
});

test("original: a reply has the command of the message, and none of its headers", async () => {
  const { client, next } = makeOriginal();
  const opened = (await next()).context;
  opened.subscribe("loop", "echo");
  assert.equal((await next()).context.getCommand(), "echo");
  client.context.publish("loop", "x", { a: "b:c" }, "body");
  const { context } = await next();
  assert.equal(context.getHeader("a"), "b:c");
  context.setCommand("echo");
  context.send("back");
  const back = (await next()).context;
  assert.deepEqual([back.getCommand(), back.getBody(), { ...back.getHeader() }], ["echo", "back", {}]);
});

test("original: unsubscribe, bytes and parts", async () => {
  const { client, next } = makeOriginal();
  await next();
  const { context } = client;
  context.subscribe("parts", "chat");
  context.publish("parts", "chat", { multipart: "0 3" }, "\r\na\r\nb");
  assert.deepEqual((await next()).context.getMultipart().map((part) => part.text), ["a", "b"]);
  context.publish("parts", "chat", null, Uint8Array.of(1, 255));
  assert.deepEqual((await next()).context.getBody(), Uint8Array.of(1, 255));
  context.unsubscribe("parts", "chat");
  context.publish("parts", "chat", null, "nobody hears this");
  context.publish("parts", "echo", null, "last");
  assert.equal((await next()).context.getBody(), "last");
});

test("original: errors have empty bodies", async () => {
  const { client, next } = makeOriginal();
  await next();
  client.context.subscribe("a..b", "chat");
  const { name, context } = await next();
  assert.deepEqual([name, context.getCommand(), context.getBody()], ["on_message", "error", ""]);
  assert.equal(context.getHeader("status"), "400");
});

test("original: messages wait until the connection is open", async () => {
  const { client, next } = makeOriginal();
  client.context.publish("nowhere", "echo", null, "early");
  assert.equal((await next()).name, "on_open");
  assert.equal((await next()).context.getBody(), "early");
});

test("original: a failure is on_error, then on_close, and it does not reconnect", async () => {
  const { client, next } = makeOriginal(`ws://127.0.0.1:${await freePort()}/`);
  const { name, context } = await next();
  assert.deepEqual([name, context.getCommand(), context.getBody()], ["on_error", "", ""]);
  assert.ok(context.error instanceof ConnectionLost);
  assert.equal((await next()).name, "on_close");
  assert.equal(client.state, "closed");
  client.context.publish("a", "chat", null, "x");
  assert.equal((await next()).context.error.unsent.text, "x");
});

test("original: with reconnect, on_open comes again", async () => {
  let own = await startServer();
  const { next } = makeOriginal(own.url, { reconnect: FAST });
  assert.equal((await next()).name, "on_open");
  await own.stop();
  assert.equal((await next()).name, "on_close");
  own = await startServer(own.port);
  assert.equal((await next()).name, "on_open");
  await own.stop();
});

test("original: an exception in a callback stops nothing", async (context) => {
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  context.after(() => delete globalThis.reportError);
  const { client, next } = makeOriginal();
  const told = client.on_open;
  client.on_open = (given) => {
    told(given);
    throw new Error("the page's");
  };
  await next();
  client.context.publish("a", "echo", null, "x");
  assert.equal((await next()).context.getBody(), "x");
  assert.deepEqual(reported, ["the page's"]);
});

test("original: closing is on_close alone", async () => {
  const { client, next } = makeOriginal();
  await next();
  client.close();
  assert.equal((await next()).name, "on_close");
});

for (const transports of [["websocket"], ["stream"], ["poll"]])
  test(`one message that is too large for the server fails, and the others go on over ${transports}`, async () => {
    const client = await connected({ transports, WebSocket: globalThis.WebSocket, reconnect: FAST });
    // A WebSocket has to be closed; over HTTP, the request alone fails.
    const isTooLarge = (error) => (error instanceof ConnectionLost ? error.code === 1009 : error.status === 413);
    const [large, small] = [client.publish("room", "x".repeat(200_000)), client.publish("room", "small")];
    await assert.rejects(large, isTooLarge);
    assert.equal((await small).command, "receipt");
  });
