// HttpSocket of lhttp-http.js, the transport of clients without WebSocket, and when LhttpClient changes its transport: on
// requests and a clock of the test's own.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { LhttpClient } from "../../lhttp_tx/web/static/lhttp.mjs";
import { FakeWebSocket, sockets } from "./websocket.mjs";

const HttpSocket = globalThis[Symbol.for("lhttp-tx HttpSocket 0.1.0")];
const TOLD = { session: "secret", wait: 20, timeout: 40, buffer: 8000 };

/** All requests that were made, in order. */
const requests = [];

class FakeRequest {
  constructor(url, options) {
    this.url = new URL(url);
    this.path = this.url.pathname.slice(1) + this.url.search;
    this.method = options.method ?? "GET";
    this.options = options;
    this.isAborted = false;
    this.answered = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    options.signal?.addEventListener("abort", () => {
      this.isAborted = true;
      this.reject(new DOMException("aborted", "AbortError"));
      this.controller?.error(new DOMException("aborted", "AbortError"));
    });
    requests.push(this);
  }

  async answer(text = "", status = 200) {
    this.resolve(new Response(status === 204 ? null : text, { status }));
    await turn();
  }

  async fail() {
    this.reject(new TypeError("fetch failed"));
    await turn();
  }

  /** Answer with a stream, of which *text* has come. */
  async write(text) {
    if (!this.controller) {
      const body = new ReadableStream({ start: (controller) => (this.controller = controller) });
      this.resolve(new Response(body, { status: 200 }));
    }
    this.controller.enqueue(typeof text === "string" ? new TextEncoder().encode(text) : text);
    await turn();
  }

  async end() {
    this.controller.close();
    await turn();
  }

  async text() {
    return Buffer.from(await this.options.body.arrayBuffer()).toString("latin1");
  }
}

async function turn() {
  for (let count = 0; count < 5; count += 1) await new Promise((resolve) => setImmediate(resolve));
}

async function pass(milliseconds) {
  mock.timers.tick(milliseconds);
  await turn();
}

const newest = (method = "GET") => requests.filter((request) => request.method === method).at(-1);
const paths = (method) => requests.filter((request) => request.method === method).map((request) => request.path);
const event = (number, message) => `id: ${number}\ndata: ${JSON.stringify(message)}\n\n`;

beforeEach(() => {
  requests.length = sockets.length = 0;
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 1);
  mock.method(globalThis, "fetch", (url, options) => new FakeRequest(url, options).answered);
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

function made(options, url = "ws://server.example:8081/ws?token=t") {
  const socket = new HttpSocket(url, options);
  socket.got = [];
  socket.log = [];
  socket.onopen = () => socket.log.push("open");
  socket.onmessage = ({ data }) => socket.got.push(data);
  socket.onclose = ({ code, reason, wasClean }) => socket.log.push(`close ${code} ${reason} ${wasClean}`);
  return socket;
}

async function begun(options) {
  const socket = made(options);
  await newest("POST").answer(JSON.stringify(TOLD));
  return socket;
}

async function streaming() {
  const socket = await begun({ mode: "stream" });
  await newest().write(": hello\n\n");
  return socket;
}

const polled = (last, ...messages) => newest().answer(JSON.stringify({ last, messages }));

// Beginning

test("a session begins with one request, and its secret never stands in an address", async () => {
  const socket = await streaming();
  assert.equal(requests[0].url.href, "http://server.example:8081/connect?token=t");
  socket.send("x");
  for (const request of requests.slice(1)) {
    assert.equal(request.options.headers.Authorization, "Bearer secret");
    assert.ok(!request.path.includes("secret") && !request.path.includes("token"));
  }
  socket.close();
});

test("the requests go where the option says", async () => {
  made({ mode: "poll", base: "https://other.example/chat/" }, "wss://server.example/");
  assert.equal(requests[0].url.href, "https://other.example/chat/connect");
  await requests[0].answer(JSON.stringify(TOLD));
  assert.equal(requests[1].url.href, "https://other.example/chat/connect?poll=1&after=0");
});

test("a poll is open with the session, a stream with its first byte", async () => {
  const poll = await begun({ mode: "poll" });
  assert.deepEqual(poll.log, ["open"]);
  const stream = await begun({ mode: "stream" });
  assert.deepEqual(stream.log, []);
  assert.throws(() => stream.send("x"), /not open/);
  await newest().write(":");
  assert.deepEqual(stream.log, ["open"]);
});

test("a server that is read only without cookies is asked without them", async () => {
  const socket = made({ mode: "poll" });
  assert.equal(newest("POST").options.credentials, "include");
  await newest("POST").fail();
  assert.equal(newest("POST").options.credentials, "omit");
  await newest("POST").answer(JSON.stringify(TOLD));
  assert.equal(newest().options.credentials, "omit");
  assert.deepEqual(socket.log, ["open"]);
});

for (const [status, text] of [[401, "log in"], [403, "no"], [503, "too many connections"]]) {
  test(`a session that is refused with ${status} ends the socket`, async () => {
    const socket = made({ mode: "stream" });
    await newest("POST").answer(`${text}\n`, status);
    if (status >= 500) await newest("POST").answer(text, status);
    assert.deepEqual(socket.log, [`close 1006 ${status < 500 ? text : ""} false`]);
    await pass(100000);
    assert.equal(requests.length, status < 500 ? 1 : 2);
  });
}

test("a session that comes after the socket was closed is ended", async () => {
  const socket = made({ mode: "stream" });
  socket.close();
  await newest("POST").answer(JSON.stringify(TOLD));
  assert.equal(newest("DELETE").options.headers.Authorization, "Bearer secret");
  await turn();
  assert.deepEqual(socket.log, ["close 1006  false"]);
  assert.deepEqual(paths("GET"), []);
});

// Streams

test("messages of a stream come in order, however the bytes are cut", async () => {
  const socket = await streaming();
  const bytes = Buffer.from(event(1, "ä\u2028") + event(2, { base64: "AP8=" }) + event(3, "b"));
  for (const byte of bytes) await newest().write(Uint8Array.of(byte));
  assert.equal(socket.got[0], "ä\u2028");
  assert.deepEqual([...new Uint8Array(socket.got[1])], [0, 255]);
  assert.equal(socket.got[2], "b");
});

test("a stream that has ended is opened again behind the last message, and none comes twice", async () => {
  const socket = await streaming();
  await newest().write(event(1, "a") + event(2, "b"));
  await newest().end();
  await pass(1000);
  assert.equal(newest().path, "connect?after=2");
  await newest().write(event(1, "a") + event(2, "b") + event(3, "c"));
  assert.deepEqual(socket.got, ["a", "b", "c"]);
  assert.deepEqual(socket.log, ["open"]);
});

test("half an event at the end of a stream is not taken", async () => {
  const socket = await streaming();
  await newest().write(event(1, "a") + 'id: 2\ndata: "b"\n');
  await newest().end();
  await pass(1000);
  assert.deepEqual(socket.got, ["a"]);
  assert.equal(newest().path, "connect?after=1");
});

test("three streams that bring nothing are enough", async () => {
  const socket = await streaming();
  await newest().end();
  for (let count = 0; count < 2; count += 1) {
    await pass(5000);
    await newest().write(":");
    await newest().end();
  }
  assert.deepEqual(socket.log, ["open", "close 1006 streams are cut false"]);
  assert.deepEqual(paths("DELETE"), ["connect"]);
  assert.equal(newest("DELETE").options.headers.Authorization, "Bearer secret");
});

test("a stream that is held back is given up, and another transport has its turn", async () => {
  const socket = await begun({ mode: "stream" });
  await pass(4999);
  assert.deepEqual(socket.log, []);
  await pass(1);
  assert.ok(newest().isAborted);
  assert.deepEqual(socket.log, ["close 1006 streams are held back false"]);
  assert.deepEqual(paths("DELETE"), ["connect"]);
});

test("a stream that falls silent is opened again", async () => {
  const socket = await streaming();
  await newest().write(event(1, "a"));
  await pass(29999);
  assert.ok(!newest().isAborted);
  await pass(1);
  assert.ok(newest().isAborted);
  await pass(5000);
  assert.equal(newest().path, "connect?after=1");
  assert.deepEqual(socket.log, ["open"]);
});

test("a client says now and then what it has, so that the server need not keep it", async () => {
  const socket = await streaming();
  await newest().write(event(1, "x".repeat(500)));
  assert.deepEqual(paths("POST").slice(1), []);
  await newest().write(event(2, "x".repeat(600)));
  assert.equal(newest("POST").path, "send?after=2");
  await newest("POST").answer("", 204);
  await newest().write(event(3, "x".repeat(500)));
  assert.equal(paths("POST").length, 2);
  socket.send("one");
  assert.equal(newest("POST").path, "send?number=1&after=3");
  assert.deepEqual(socket.log, ["open"]);
});

// Polls

test("a poll asks for what comes next, and again where an answer was lost", async () => {
  const socket = await begun({ mode: "poll" });
  assert.equal(newest().path, "connect?poll=1&after=0");
  await polled(2, "a", "b");
  assert.equal(newest().path, "connect?poll=1&after=2");
  await newest().fail();
  await pass(500);
  assert.equal(newest().path, "connect?poll=1&after=2");
  await polled(3, "c");
  assert.deepEqual(socket.got, ["a", "b", "c"]);
  await newest().fail();
  await pass(499);
  assert.equal(paths("GET").length, 4);
  await pass(1);
  assert.equal(newest().path, "connect?poll=1&after=3");
});

test("an answer that does not come is given up after the wait and some", async () => {
  const socket = await begun({ mode: "poll" });
  await pass(29999);
  assert.ok(!newest().isAborted);
  await pass(1);
  assert.ok(newest().isAborted);
  await pass(500);
  assert.equal(paths("GET").length, 2);
  assert.deepEqual(socket.log, ["open"]);
});

for (const status of [408, 429, 500, 503, 504]) {
  test(`a poll with status ${status} is tried again, more and more seldom, as long as the session can be there`, async () => {
    const socket = await begun({ mode: "poll" });
    const waits = [];
    for (let seconds = 0; !socket.log.includes("close 1006  false"); ) {
      const count = paths("GET").length;
      await newest().answer("", status);
      let wait = 0;
      while (paths("GET").length === count && socket.log.length < 2) {
        await pass(250);
        wait += 250;
      }
      waits.push(wait);
      seconds += wait;
      assert.ok(seconds < 60000);
    }
    assert.deepEqual(waits.slice(0, 6), [500, 1000, 2000, 4000, 5000, 5000]);
    assert.ok(waits.reduce((sum, wait) => sum + wait, 0) > 40000);
  });
}

for (const status of [400, 401, 404, 409, 410]) {
  test(`a poll with status ${status} says that the session is over`, async () => {
    const socket = await begun({ mode: "poll" });
    await newest().answer("it has ended\n", status);
    assert.deepEqual(socket.log, ["open", "close 1006 it has ended false"]);
  });
}

test("the last message says why a session has ended, and nothing comes behind it", async () => {
  const socket = await begun({ mode: "poll" });
  await polled(3, "a", "LHTTP/1.0 close\r\ncode:4408\r\nreason:too slow\r\n\r\n", "b");
  assert.deepEqual(socket.got, ["a"]);
  assert.deepEqual(socket.log, ["open", "close 4408 too slow true"]);
  assert.equal(paths("GET").length, 1);
});

test("a message that only looks like a last one is a message", async () => {
  const socket = await begun({ mode: "poll" });
  const text = "LHTTP/1.0 close\r\ncode:4408\r\nreason:x\r\npublish:room\r\n\r\n";
  await polled(1, text);
  assert.deepEqual(socket.got, [text]);
});

// Sending

test("one request at a time, in order, with numbers; what waits meanwhile goes in one", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("one");
  socket.send("zwö");
  socket.send(Uint8Array.of(1, 255));
  socket.send("three");
  assert.equal(socket.bufferedAmount, 14);
  assert.deepEqual(paths("POST").slice(1), ["send?number=1&after=0"]);
  assert.equal(await newest("POST").text(), "one");
  await newest("POST").answer("", 204);
  assert.equal(await newest("POST").text(), "zw\xc3\xb6");
  await newest("POST").answer("", 204);
  assert.equal(newest("POST").options.headers["Content-Type"], "application/octet-stream");
  socket.send("four");
  await newest("POST").answer("", 204);
  assert.equal(await newest("POST").text(), "5\nthree4\nfour");
  await newest("POST").answer("", 204);
  assert.deepEqual(paths("POST").slice(1).map((path) => path.slice(0, 13)), [1, 2, 3, 4].map((number) => `send?number=${number}`));
  assert.equal(socket.bufferedAmount, 0);
});

test("a request brings a hundred messages at most, and 32 KiB of small ones", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("first");
  for (let count = 0; count < 150; count += 1) socket.send("x");
  for (let count = 0; count < 3; count += 1) socket.send("y".repeat(20000));
  const counts = [];
  while (socket.bufferedAmount) {
    const before = socket.bufferedAmount;
    await newest("POST").answer("", 204);
    counts.push(before - socket.bufferedAmount);
  }
  assert.deepEqual(counts, [5, 100, 20050, 20000, 20000]);
});

test("a request whose answer is lost is sent again, the same with the same number", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("one");
  await newest("POST").fail();
  socket.send("two");
  await pass(250);
  await newest("POST").answer("", 503);
  await pass(500);
  assert.deepEqual(paths("POST").slice(1), Array(3).fill("send?number=1&after=0"));
  for (const request of requests.filter(({ path }) => path.startsWith("send"))) assert.equal(await request.text(), "one");
  await newest("POST").answer("", 204);
  assert.equal(newest("POST").path, "send?number=2&after=0");
  assert.equal(await newest("POST").text(), "two");
});

test("where a request is refused, the last message may still say why", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("one");
  await newest("POST").answer("there is no such session", 404);
  assert.deepEqual(socket.log, ["open"]);
  await polled(1, "LHTTP/1.0 close\r\ncode:1001\r\nreason:server is going away\r\n\r\n");
  await pass(1000);
  assert.deepEqual(socket.log, ["open", "close 1001 server is going away true"]);
});

test("where a request is refused and nobody says why, the connection is lost", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("one");
  await newest("POST").answer("there is no such session", 404);
  await pass(1000);
  assert.deepEqual(socket.log, ["open", "close 1006  false"]);
  socket.send("two");
  await pass(100000);
  assert.equal(paths("POST").length, 2);
});

test("a message that is too large for the server gets an error, and the others go on", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("LHTTP/1.0 chat\r\nReceipt:7\r\npublish:a\r\n\r\nreceipt:8");
  socket.send("two");
  await newest("POST").answer("body is larger\nthan 10 bytes\n", 413);
  assert.deepEqual(socket.got, ["LHTTP/1.0 error\r\nstatus:413\r\nreason:body is larger than 10 bytes\r\nreceipt-id:7\r\n\r\n"]);
  assert.deepEqual([newest("POST").path, await newest("POST").text()], ["send?number=1&after=0", "two"]);
  await newest("POST").answer("", 204);
  socket.send("three");
  await newest("POST").answer("no", 413);
  assert.equal(socket.got[1], "LHTTP/1.0 error\r\nstatus:413\r\nreason:no\r\n\r\n");
  assert.equal(socket.bufferedAmount, 0);
});

test("several messages that are too large together go one by one", async () => {
  const socket = await begun({ mode: "poll" });
  for (const text of ["one", "two", "three"]) socket.send(text);
  await newest("POST").answer("", 204);
  assert.equal(await newest("POST").text(), "3\ntwo5\nthree");
  await newest("POST").answer("too large", 413);
  assert.deepEqual([newest("POST").path, await newest("POST").text()], ["send?number=2&after=0", "two"]);
  await newest("POST").answer("", 204);
  assert.deepEqual([newest("POST").path, await newest("POST").text()], ["send?number=3&after=0", "three"]);
  assert.deepEqual(socket.got, []);
});

// The end

test("what was sent before the end arrives before it", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("one");
  socket.send("two");
  socket.close(1000, "bye");
  await turn();
  assert.deepEqual(paths("DELETE"), []);
  await newest("POST").answer("", 204);
  assert.equal(await newest("POST").text(), "two");
  await newest("POST").answer("", 204);
  assert.deepEqual(paths("DELETE"), ["connect"]);
  assert.deepEqual(socket.log, ["open", "close 1000 bye true"]);
  assert.ok(newest().isAborted);
});

test("a server that takes nothing more does not hold the end up", async () => {
  const socket = await begun({ mode: "poll" });
  socket.send("one");
  socket.close();
  await pass(2000);
  assert.deepEqual(paths("DELETE"), ["connect"]);
  assert.deepEqual(socket.log, ["open", "close 1005  true"]);
});

test("nothing comes behind the end", async () => {
  const socket = await begun({ mode: "poll" });
  socket.close();
  await polled(1, "late");
  await turn();
  assert.deepEqual(socket.got, []);
  await pass(100000);
  assert.deepEqual(socket.log, ["open", "close 1005  true"]);
});

// Which transport a client uses

function makeClient(options = {}) {
  const transports = ["websocket", "stream", "poll"];
  const reconnect = { initialDelay: 1000, maxDelay: 1000 };
  const given = { WebSocket: FakeWebSocket, transports, heartbeat: 0, comeBack: 0, reconnect, ...options };
  const client = new LhttpClient("ws://server.example:8081/", given);
  client.connect().catch(() => {});
  return client;
}

/** Say that the server answers requests at all, and come to the next attempt. */
async function reach() {
  await turn();
  await newest().answer("", 401);
  await pass(1000);
}

const modes = () => [...sockets.map(() => "websocket"), ...paths("POST").filter((path) => path === "connect").map(() => "stream")];

test("a WebSocket that is refused gives way to a stream, if the server answers requests", async () => {
  const client = makeClient();
  sockets[0].end();
  await reach();
  await newest("POST").answer(JSON.stringify(TOLD));
  await newest().write(":");
  assert.equal(client.transport, "stream");
  client.close();
});

test("where the server answers no requests either, the network is away, and WebSocket is tried again", async () => {
  const client = makeClient();
  for (let count = 0; count < 3; count += 1) {
    sockets.at(-1).end();
    await turn();
    await newest().fail();
    await pass(1000);
  }
  assert.equal(sockets.length, 4);
  assert.deepEqual(paths("POST"), []);
  client.close();
});

test("two WebSockets that are cut young give way, one does not, nor do two that have lasted", async () => {
  const client = makeClient();
  for (const life of [10, 6000, 10, 6000, 10, 10]) {
    sockets.at(-1).open();
    await pass(life);
    sockets.at(-1).end();
    await turn();
    if (life < 5000) await newest().answer("", 401);
    await pass(1000);
  }
  assert.equal(sockets.length, 6);
  assert.deepEqual(modes().slice(-1), ["stream"]);
  client.close();
});

test("a WebSocket on which nothing comes is asked, and gives way", async () => {
  const client = makeClient();
  sockets[0].open();
  await pass(3000);
  assert.match(sockets[0].sent.at(-1), /^LHTTP\/1.0 ping\r\n/);
  await pass(2999);
  assert.equal(client.state, "open");
  await pass(1);
  await reach();
  assert.deepEqual(modes(), ["websocket", "stream"]);
  client.close();
});

test("a server that closes a WebSocket with a code is no network that breaks it", async () => {
  const client = makeClient();
  for (let count = 0; count < 3; count += 1) {
    sockets.at(-1).open();
    sockets.at(-1).end(1012, "restart");
    await pass(1000);
  }
  assert.equal(sockets.length, 4);
  client.close();
});

async function onStream(client) {
  sockets[0].end();
  await reach();
  await newest("POST").answer(JSON.stringify(TOLD));
  await newest().write(":\n\n");
  await pass(1);
  await newest().write(event(1, "LHTTP/1.0 hello\r\n\r\n"));
  assert.equal(client.transport, "stream");
}

/** Let time pass on a stream that is alive. */
async function live(milliseconds) {
  for (let rest = milliseconds; rest > 0; rest -= 10000) {
    await pass(Math.min(rest, 10000));
    await newest().write(":\n\n");
  }
}

test("a client comes back to WebSocket when one beside the stream is answered and lasts", async () => {
  const client = makeClient({ comeBack: 60000 });
  await onStream(client);
  await live(59999);
  assert.deepEqual(sockets[1].args, [client.url, "lhttp.trial"]);
  sockets[1].open();
  sockets[1].answer();
  await pass(4999);
  assert.equal(client.transport, "stream");
  await pass(1);
  await pass(1000);
  assert.equal(sockets.length, 3);
  sockets[2].open();
  assert.equal(client.transport, "websocket");
  client.close();
});

test("a WebSocket beside the stream that is cut or silent is tried again, more and more seldom", async () => {
  const client = makeClient({ comeBack: 20000 });
  await onStream(client);
  const waits = [];
  for (let count = 0; count < 6; count += 1) {
    const before = sockets.length;
    for (let wait = 0; sockets.length === before; wait += 10000) {
      await live(10000);
      if (sockets.length > before) waits.push(wait + 10000);
    }
    sockets.at(-1).open();
    sockets.at(-1).end();
    await turn();
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 16].map((times) => 20000 * times));
  assert.equal(client.transport, "stream");
  client.close();
});

test("publications that are under way arrive before a client comes back", async () => {
  const client = makeClient({ comeBack: 60000 });
  await onStream(client);
  await live(59999);
  sockets[1].open();
  sockets[1].answer();
  await pass(4000);
  const publishing = client.publish("room", "hello");
  await turn();
  const sent = newest("POST");
  await pass(1000);
  assert.equal(client.transport, "stream");
  const [, token] = /receipt:(.*)\r\n/.exec(await sent.text());
  await sent.answer("", 204);
  await newest().write(event(2, `LHTTP/1.0 receipt\r\nreceipt-id:${token}\r\n\r\n`));
  await publishing;
  await pass(250);
  await pass(1000);
  sockets[2].open();
  assert.equal(client.transport, "websocket");
  client.close();
});
