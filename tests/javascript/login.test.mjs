// How LhttpClient logs in and stays logged in, on a WebSocket and a clock of the test's own.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { ConnectionLost, LhttpClient, LocalProtocolError, ServerError } from "../../lhttp_tx/web/static/lhttp.mjs";
import { FakeWebSocket, sockets } from "./websocket.mjs";

const SECRET = "sesame-9f2";
const START = 1_800_000_000_000;
const MONTH = 30 * 86_400_000;
const PASSWORD = () => ({ user: "alice", password: SECRET });

beforeEach(() => {
  sockets.length = 0;
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: START });
  mock.method(Math, "random", () => 1);
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Let time pass, and what hangs on it happen. */
async function pass(time) {
  mock.timers.tick(time);
  await turn();
}

/** Return a client, and what it tells: names of states, of users that log in, and errors. */
function makeClient(login, options = {}) {
  const client = new LhttpClient("ws://server.example:8081/", {
    ...{ WebSocket: FakeWebSocket, heartbeat: 0, login, reconnect: { initialDelay: 100, maxDelay: 1000 } },
    ...options,
  });
  const told = [];
  client.on("state", ({ state }) => told.push(state));
  client.on("login", ({ user }) => told.push(`login ${user}`));
  client.on("error", (error) => told.push(error));
  return { client, told };
}

/** Return one whose connection is open at the other end, too. */
async function dialled(login, options) {
  const { client, told } = makeClient(login, options);
  const connecting = client.connect();
  connecting.catch(() => {});
  await open();
  return { client, told, connecting };
}

/** Return one that is logged in; *life* is for how long, in milliseconds. */
async function loggedIn(login = PASSWORD, life = null, options = {}) {
  const made = await dialled(login, options);
  await accept(life);
  return made;
}

async function open() {
  sockets.at(-1).open();
  await turn();
}

/** Answer the last login as the server does: with a message that has no receipt header, and a receipt. */
async function accept(life = null, user = "alice") {
  const socket = sockets.at(-1);
  const expires = life === null ? "" : `expires:${Math.floor((Date.now() + life) / 1000)}\r\n`;
  socket.onmessage({ data: `LHTTP/1.0 login\r\nuser:${user}\r\n${expires}\r\n` });
  socket.answer();
  await turn();
}

async function refuse(status = 401) {
  sockets.at(-1).fail(status);
  await turn();
}

const count = () => sockets.at(-1).sent.filter((data) => data.startsWith("LHTTP/1.0 login\r\n")).length;
const lines = () => sockets.at(-1).sent.map((data) => data.split("\r\n").slice(0, 2).join(" "));

test("nothing is sent before the server has answered the login", async () => {
  const { client, told, connecting } = await dialled(PASSWORD);
  const subscribing = client.subscribe("room", () => {});
  client.publish("room", "x").catch(() => {});
  await turn();
  assert.deepEqual(lines(), ["LHTTP/1.0 login user:alice"]);
  assert.deepEqual([client.state, client.user, told], ["connecting", null, ["connecting"]]);
  await accept();
  await connecting;
  assert.deepEqual(lines().slice(1), ["LHTTP/1.0 chat subscribe:room", "LHTTP/1.0 chat publish:room"]);
  assert.deepEqual(told, ["connecting", "login alice", "open"]);
  client.close();
  await assert.rejects(subscribing);
});

test("the client knows who it is and how long", async () => {
  const { client } = await loggedIn(PASSWORD, 60_000);
  assert.deepEqual([client.user, client.expires], ["alice", START + 60_000]);
  sockets[0].end();
  assert.deepEqual([client.user, client.expires], [null, null]);
  client.close();
});

test("after the connection was lost it logs in first, with what login returns then", async () => {
  const tokens = ["one", "two"];
  const { client, told } = await loggedIn(async () => ({ token: tokens.shift() }));
  client.subscribe("room", () => {});
  sockets[0].answer();
  await turn();
  sockets[0].end();
  await pass(100);
  await open();
  assert.deepEqual(lines(), ["LHTTP/1.0 login token:two"]);
  assert.equal(client.state, "reconnecting");
  await accept();
  assert.deepEqual(lines().slice(1), ["LHTTP/1.0 chat subscribe:room"]);
  assert.deepEqual(told.slice(-3), ["reconnecting", "login alice", "open"]);
  client.close();
});

test("half of its time before it expires the login is renewed, and the connection goes on", async () => {
  const { client, told } = await loggedIn(PASSWORD, 60_000);
  await pass(29_999);
  assert.equal(count(), 1);
  await pass(1);
  assert.equal(count(), 2);
  const publishing = client.publish("room", "x");
  sockets[0].answer();
  await publishing;
  sockets[0].onmessage({ data: `LHTTP/1.0 login\r\nuser:alice\r\nexpires:${START / 1000 + 90}\r\n\r\n` });
  await turn();
  assert.equal(client.expires, START + 90_000);
  await pass(29_999);
  assert.equal(count(), 2);
  await pass(1);
  assert.equal(count(), 3);
  assert.deepEqual(told, ["connecting", "login alice", "open", "login alice"]);
  client.close();
});

test("a login that does not expire is not renewed", async () => {
  const { client } = await loggedIn();
  await pass(MONTH);
  assert.equal(count(), 1);
  client.close();
});

test("a login that lasts longer than timers do is renewed when the timer ends", async () => {
  const { client } = await loggedIn(PASSWORD, 12 * MONTH);
  await pass(2 ** 31 - 2);
  assert.equal(count(), 1);
  await pass(1);
  assert.equal(count(), 2);
  client.close();
});

test("the same token again is not renewed without a pause", async () => {
  const { client } = await loggedIn(PASSWORD, 8000);
  const expires = client.expires;
  const times = [];
  while (Date.now() < expires) {
    await pass(500);
    if (count() > times.length + 1) {
      times.push(Date.now() - START);
      await accept(expires - Date.now());
    }
  }
  assert.deepEqual(times, [4000, 6000, 7000, 8000]);
  client.close();
});

test("where the clock is fast, a login is renewed now and then", async () => {
  const { client } = await loggedIn(PASSWORD, -3_600_000);
  await pass(29_999);
  assert.equal(count(), 1);
  await pass(1);
  assert.equal(count(), 2);
  client.close();
});

test("where the clock is slow, the client learns it from the first login that expires", async () => {
  const { client } = await loggedIn(PASSWORD, 100_000);
  await pass(40_000);
  sockets[0].end(4401, "credentials have expired"); // 60 seconds too early
  await pass(100);
  await open();
  await accept(99_900);
  await pass(19_949);
  assert.equal(count(), 1);
  await pass(1);
  assert.equal(count(), 2);
  client.close();
});

test("a login that is ended long before its time says nothing about the clock", async () => {
  const { client } = await loggedIn(PASSWORD, 3_600_000);
  await pass(1000);
  sockets[0].end(4401, "revoked");
  await pass(100);
  await open();
  await accept(100_900);
  await pass(50_449);
  assert.equal(count(), 1);
  await pass(1);
  assert.equal(count(), 2);
  client.close();
});

test("credentials that have expired are no reason to stay away", async () => {
  const { client } = await loggedIn();
  sockets[0].end(4401, "credentials have expired");
  await pass(100);
  await open();
  await accept();
  assert.equal(client.state, "open");
  client.close();
});

test("no time to log in is a reason to try again", async () => {
  const { client } = await dialled(() => new Promise(() => {}));
  sockets[0].end(4408, "no login within 10 seconds");
  await pass(100);
  assert.deepEqual([client.state, sockets.length], ["reconnecting", 2]);
  client.close();
});

test("other credentials are tried once after a refusal, on the same connection", async () => {
  const tokens = ["stale", "fresh"];
  const { client, told } = await dialled(() => ({ token: tokens.shift() }));
  await refuse();
  assert.deepEqual(lines(), ["LHTTP/1.0 login token:stale", "LHTTP/1.0 login token:fresh"]);
  await accept();
  assert.deepEqual([client.state, told[1].status, sockets.length], ["open", 401, 1]);
  client.close();
});

test("the same wrong credentials are sent once, and end the client", async () => {
  const { client, connecting, told } = await dialled(PASSWORD);
  const queued = client.publish("room", "x");
  queued.catch(() => {});
  await refuse();
  assert.deepEqual([client.state, count(), sockets[0].closed], ["closed", 1, []]);
  await assert.rejects(connecting, (error) => error instanceof ServerError && error.status === 401);
  await assert.rejects(queued, (error) => error instanceof ConnectionLost && error.unsent.text === "x");
  assert.deepEqual(told.filter((event) => event === "closed").length, 1);
  await pass(100_000);
  assert.equal(sockets.length, 1);
});

test("credentials that are refused twice end the client", async () => {
  let number = 0;
  const { client, connecting } = await dialled(() => ({ token: (number += 1) }));
  await refuse();
  await refuse(403);
  await assert.rejects(connecting, (error) => error.status === 403);
  assert.deepEqual([client.state, number], ["closed", 2]);
});

test("refusals on two connections count together", async () => {
  let number = 0;
  const { client, connecting } = await dialled(() => ({ token: (number += 1) }));
  await refuse();
  sockets[0].end();
  await pass(100);
  await open();
  await refuse();
  await assert.rejects(connecting, (error) => error.status === 401);
  assert.deepEqual([client.state, number], ["closed", 3]);
});

test("a client that has ended can be connected again, and may be refused once again", async () => {
  let number = 0;
  const { client } = await dialled(() => ({ token: (number += 1) }));
  await refuse();
  await refuse();
  assert.equal(client.state, "closed");
  const connecting = client.connect();
  await open();
  await refuse();
  await accept();
  await connecting;
  client.close();
});

test("a client that was logged in before it was closed begins anew", async () => {
  const { client } = await loggedIn(PASSWORD);
  const closing = client.close();
  sockets[0].end(1000);
  await closing;
  client.connect().catch(() => {});
  await open();
  await refuse();
  assert.equal(client.state, "closed");
});

for (const status of [429, 500, 503]) {
  test(`a server that answers ${status} is asked again later`, async () => {
    const { client, told } = await dialled(PASSWORD);
    await refuse(status);
    assert.deepEqual([client.state, told[1].status, sockets[0].closed], ["reconnecting", status, []]);
    await pass(100);
    await open();
    await accept();
    assert.equal(client.state, "open");
    client.close();
  });
}

test("a server that does not answer the login is left, and asked again later", async () => {
  const { client, told } = await dialled(PASSWORD, { timeout: 3000 });
  await pass(2999);
  assert.equal(client.state, "connecting");
  await pass(1);
  assert.deepEqual([client.state, told[1].status], ["reconnecting", 504]);
  client.close();
});

test("a server without logins is an error, and is not asked again", async () => {
  const { client, connecting } = await dialled(PASSWORD);
  sockets[0].answer();
  await turn();
  await assert.rejects(connecting, /the server has no logins/);
  assert.equal(client.state, "closed");
});

for (const [what, login] of [
  ["throws", () => { throw new Error("no token"); }],
  ["rejects", async () => { throw new Error("no token"); }],
  ["returns nothing", () => undefined],
  ["returns text", () => SECRET],
]) {
  test(`login that ${what} is an error event, and is called again later, after ever longer waits`, async () => {
    const { client, told } = makeClient(login);
    const delays = [];
    client.on("state", ({ delay }) => delay !== null && delays.push(delay));
    client.connect().catch(() => {});
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await open();
      assert.deepEqual([client.state, sockets.at(-1).sent, sockets.at(-1).closed], ["reconnecting", [], []]);
      await pass(1000);
    }
    assert.deepEqual(delays, [100, 200, 400]);
    const errors = told.filter((event) => event instanceof Error);
    assert.deepEqual([errors.length, errors.join().includes(SECRET)], [3, false]);
    client.close();
  });
}

test("login that does not return is not waited for without end", async () => {
  const { client, told } = await dialled(() => new Promise(() => {}), { connectTimeout: 5000 });
  await pass(4999);
  assert.equal(client.state, "connecting");
  await pass(1);
  assert.deepEqual([client.state, told[1].status], ["reconnecting", 504]);
  client.close();
});

test("as many attempts as allowed fail, and the client gives up", async () => {
  const login = () => { throw new Error("no token"); };
  const { client, connecting } = await dialled(login, { reconnect: { initialDelay: 1, attempts: 1 } });
  await pass(1);
  await open();
  await assert.rejects(connecting, /login failed/);
  assert.equal(client.state, "closed");
});

test("what cannot be sent is told of without the credentials", async () => {
  for (const password of [`${SECRET}\n`, `${SECRET} `, `${SECRET}\ud800`]) {
    const { client, told } = await dialled(() => ({ user: "alice", password }));
    assert.ok(told[1] instanceof LocalProtocolError);
    assert.match(told[1].message, /password/);
    assert.ok(!told[1].message.includes(SECRET));
    client.close();
  }
});

test("a login that does not fit into the WebSocket is told of without the credentials", async () => {
  const { client } = await loggedIn();
  sockets[0].bufferedAmount = 2 ** 30;
  await assert.rejects(client.login(), (error) => error.status === 429 && error.unsent === null);
  client.close();
});

test("login that the page closes the client in is forgotten", async () => {
  let client;
  const made = makeClient(async () => {
    client.close();
    throw new Error("logged out");
  });
  client = made.client;
  const connecting = client.connect();
  await open();
  await assert.rejects(connecting, ConnectionLost);
  assert.deepEqual(made.told, ["connecting", "closed"]);
});

test("what login returns for a connection that is gone is not sent on the next one", async () => {
  const waiting = [];
  const { client } = await dialled(() => new Promise((resolve) => waiting.push(resolve)));
  sockets[0].end();
  await pass(100);
  await open();
  waiting[0]({ token: "old" });
  await turn();
  assert.deepEqual(sockets[1].sent, []);
  waiting[1]({ token: "new" });
  await turn();
  assert.deepEqual(lines(), ["LHTTP/1.0 login token:new"]);
  client.close();
});

test("a renewal that fails is tried again, after ever longer waits, and the connection goes on", async () => {
  let calls = 0;
  const login = () => {
    calls += 1;
    if (calls > 1 && calls < 6) throw new Error("no token");
    return PASSWORD();
  };
  const { client, told } = await loggedIn(login, 600_000, { reconnect: { initialDelay: 4000, maxDelay: 10_000 } });
  await pass(300_000);
  for (const wait of [4000, 8000, 10_000, 10_000]) {
    const before = calls;
    await pass(wait - 1);
    assert.equal(calls, before);
    await pass(1);
    assert.equal(calls, before + 1);
  }
  await accept(600_000);
  assert.deepEqual(told.slice(3).map(String), [...Array(4).fill("Error: no token"), "login alice"]);
  assert.deepEqual([client.state, sockets.length, count()], ["open", 1, 2]);
  client.close();
});

test("the waits for a renewal are never longer than half of what is left", async () => {
  let calls = 0;
  const login = () => {
    calls += 1;
    if (calls > 1) throw new Error("no token");
    return PASSWORD();
  };
  const { client } = await loggedIn(login, 16_000, { reconnect: { initialDelay: 60_000, maxDelay: 60_000 } });
  await pass(8000);
  await pass(3999);
  assert.equal(calls, 2);
  await pass(1);
  assert.equal(calls, 3);
  client.close();
});

test("a renewal that is refused is tried once more on the connection, when half of the rest has gone", async () => {
  let number = 0;
  const { client, told } = await loggedIn(() => ({ token: (number += 1) }), 60_000);
  await pass(30_000);
  await refuse();
  await pass(14_999);
  assert.equal(number, 2);
  await pass(1);
  await refuse();
  await pass(14_000);
  assert.deepEqual([number, client.state, client.user], [3, "open", "alice"]);
  assert.deepEqual(told.slice(3).map((error) => error.status), [401, 401]);
  sockets[0].end(4401, "credentials have expired");
  await pass(100);
  await open();
  await refuse();
  await accept();
  assert.equal(client.state, "open");
  client.close();
});

test("a client that had been logged in is not ended by a few refusals", async () => {
  let number = 0;
  const { client, told } = await loggedIn(() => ({ token: (number += 1) }));
  sockets[0].end();
  for (let refusals = 0; refusals < 10; refusals += refusals ? 1 : 2) {
    assert.equal(client.state, "reconnecting");
    await pass(1000);
    await open();
    await refuse();
    if (!refusals) await refuse();
  }
  assert.deepEqual([client.state, number, sockets.length], ["closed", 11, 10]);
  assert.equal(told.filter(({ status }) => status === 401).length, 9);
});

test("a refusal before the first login leaves the connection two of its own", async () => {
  let number = 0;
  const { client } = await dialled(() => ({ token: (number += 1) }));
  await refuse();
  await accept(60_000);
  await pass(30_000);
  await refuse();
  await pass(15_000);
  assert.equal(number, 4);
  client.close();
});

test("the time before the login does not make a connection a good one", async () => {
  const login = async () => new Promise((resolve) => setTimeout(() => resolve(PASSWORD()), 6000));
  const { client } = makeClient(login);
  const delays = [];
  client.on("state", ({ delay }) => delay !== null && delays.push(delay));
  client.connect().catch(() => {});
  for (let attempt = 0; attempt < 3; attempt += 1) {
    await open();
    await pass(6000);
    await accept();
    assert.equal(client.state, "open");
    sockets.at(-1).end();
    await pass(1000);
  }
  assert.deepEqual(delays, [100, 200, 400]);
  client.close();
});

test("a listener that closes the client ends it", async () => {
  for (const [event, answer] of [["error", refuse], ["login", accept]]) {
    let calls = 0;
    const { client } = await dialled(() => ({ token: (calls += 1) }));
    client.on(event, () => client.close());
    await answer();
    assert.deepEqual([client.state, client.user, calls, sockets.at(-1).closed], ["closed", null, 1, [1000, ""]]);
  }
});

test("login() renews at once", async () => {
  const { client, told } = await loggedIn(PASSWORD, 60_000);
  await pass(1000);
  const renewing = client.login();
  await turn();
  assert.equal(count(), 2);
  await accept(60_000);
  await renewing;
  await pass(29_999);
  assert.equal(count(), 2);
  await pass(1);
  assert.equal(count(), 3);
  assert.deepEqual(told.slice(3), ["login alice"]);
  client.close();
});

test("login() that is refused rejects, and the connection goes on", async () => {
  const { client, told } = await loggedIn();
  const renewing = client.login();
  await turn();
  sockets[0].fail(401);
  await assert.rejects(renewing, (error) => error.status === 401);
  assert.deepEqual([client.state, client.user, told.length], ["open", "alice", 3]);
  client.close();
});

test("login() that is refused twice stops the renewals of the connection, too", async () => {
  const { client } = await loggedIn(PASSWORD, 60_000);
  for (let refusals = 0; refusals < 2; refusals += 1) {
    const renewing = client.login();
    await turn();
    sockets[0].fail(401);
    await assert.rejects(renewing);
  }
  await pass(59_000);
  assert.equal(count(), 3);
  client.close();
});

test("login() as another user takes another connection", async () => {
  let user = "alice";
  const { client } = await loggedIn(() => ({ user, password: SECRET }));
  client.subscribe("room", () => {});
  sockets[0].answer();
  await turn();
  user = "bob";
  const renewing = client.login();
  await turn();
  await refuse(409);
  assert.deepEqual([client.state, sockets[0].closed], ["reconnecting", []]);
  await pass(100);
  await open();
  await accept(null, "bob");
  await renewing;
  assert.equal(client.user, "bob");
  assert.deepEqual(lines(), ["LHTTP/1.0 login user:bob", "LHTTP/1.0 chat subscribe:room"]);
  client.close();
});

test("login() without a connection waits for one", async () => {
  const { client } = await loggedIn();
  sockets[0].end();
  const renewing = client.login();
  await pass(100);
  await open();
  await accept();
  assert.equal(count(), 2); // the page may have become somebody else since the first
  await accept();
  await renewing;
  client.close();
});

test("login() of a client that is closed or has no such option rejects", async () => {
  await assert.rejects(makeClient(PASSWORD).client.login(), ConnectionLost);
  await assert.rejects(makeClient(null).client.login(), TypeError);
});

test("nothing is left over after closing", async () => {
  const { client } = await loggedIn(PASSWORD, 60_000, { closeTimeout: 50_000 });
  const closing = client.close();
  await pass(40_000);
  assert.deepEqual([count(), client.user, client.expires], [1, null, null]);
  sockets[0].end(1000);
  await closing;
  await pass(100_000);
  assert.deepEqual([count(), sockets.length, client.user], [1, 1, null]);
});

test("a login message that somebody publishes is no answer", async () => {
  const { client } = await dialled(PASSWORD);
  sockets[0].onmessage({ data: "LHTTP/1.0 login\r\npublish:room\r\nuser:mallory\r\n\r\n" });
  await turn();
  assert.deepEqual([client.state, client.user], ["connecting", null]);
  client.close();
});

test("an option login that is no function is refused", () => {
  assert.throws(() => makeClient({ token: SECRET }), /the option login is not a function/);
});
