/*
 * A client for LHTTP/1.0 (publish/subscribe over WebSocket), for browsers and Node. MIT licence.
 *
 * One file without dependencies. As a plain script it sets `lhttp`, `Lhttp` and `LhttpClient`; `require` returns the
 * same as `lhttp`; lhttp.mjs next to it makes it an ES module. lhttp.d.ts describes everything that is exported.
 *
 * In this order: errors, codec (bytes <-> messages, the same rules as the server's), LhttpClient, and Lhttp, which is
 * the interface of the original client. Times are milliseconds, sizes are bytes of UTF-8.
 */
(function (root) {
  "use strict";

  // Errors

  /** Everything that this file raises on purpose; `status` is the status code of the protocol. */
  class LhttpError extends Error {
    constructor(reason, status = 500) {
      super(reason);
      this.name = this.constructor.name;
      this.reason = reason;
      this.status = status;
    }
  }

  /** Something was asked for that would not parse back the same. */
  class LocalProtocolError extends LhttpError {}

  /** The grammar does not allow it. */
  class RemoteProtocolError extends LhttpError {
    constructor(reason, status = 400) {
      super(reason, status);
    }
  }

  /** A message or its head passes its limit. */
  class MessageTooLarge extends RemoteProtocolError {
    constructor(reason) {
      super(reason, 413);
    }
  }

  /** The server answered with an error; `reply` is its message. */
  class ServerError extends LhttpError {
    constructor(reply) {
      super(reply.headers.get("reason") || "error", Number(reply.headers.get("status")) || 500);
      this.reply = reply;
    }
  }

  /**
   * There is no connection. `unsent` is the message that was not sent for that reason; where it is null, a message was
   * sent and the server may or may not have handled it. `code` is the WebSocket's close code, 1006 without one.
   */
  class ConnectionLost extends LhttpError {
    constructor(reason, { code = 1006, unsent = null } = {}) {
      super(reason, 503);
      this.code = code;
      this.unsent = unsent;
    }
  }

  /** As much as allowed waits already; `unsent` is the message that was not sent. */
  class QueueFull extends LhttpError {
    constructor(reason, unsent = null) {
      super(reason, 429);
      this.unsent = unsent;
    }
  }

  /** No answer came in time. The server may or may not have handled the message. */
  class TimedOut extends LhttpError {
    constructor(reason) {
      super(reason, 504);
    }
  }

  // Codec

  const DEFAULT_LIMITS = Object.freeze({ messageSize: 65536, headSize: 8192, headerCount: 64 });
  const MAX_CHANNEL_SIZE = 255;
  const PRESENCE = "$presence."; // what the names of channels begin with that tell who comes to a channel and who goes
  const UNWANTED = new Set([1008, 4409]); // close codes after which connecting again would do no good
  const EXPIRED = 4401; // the close code when what the client had logged in with has expired

  const START = "LHTTP/1.0 ";
  const COMMAND = /^[\x21-\x7e]{1,64}$/;
  const NAME = /^[\x21-\x39\x3b-\x7e]+$/;
  const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f]/;
  const NOT_ASCII = /[^\x00-\x7f]/;
  const LONE_SURROGATE = /[\ud800-\udfff]/u;
  const NOT_IN_CHANNEL = /[\p{Zs}\p{Zl}\p{Zp}\p{Cc}]/u;
  const OFFSET = /^[0-9]{1,10}$/;
  const CR = 13;
  const LF = 10;

  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  function encode(text, what) {
    if (LONE_SURROGATE.test(text)) throw new LocalProtocolError(`${what} is not valid Unicode`);
    return encoder.encode(text);
  }

  function isBytes(data) {
    return ArrayBuffer.isView(data) || Object.prototype.toString.call(data) === "[object ArrayBuffer]";
  }

  function toBytes(data) {
    if (data instanceof Uint8Array) return data;
    if (!isBytes(data)) throw new TypeError("expected a string, a typed array or an ArrayBuffer");
    if (!ArrayBuffer.isView(data)) return new Uint8Array(data);
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }

  /** Return a string with one character for each byte. */
  function octetsOf(bytes) {
    let octets = "";
    for (let start = 0; start < bytes.length; start += 8192) {
      octets += String.fromCharCode.apply(null, bytes.subarray(start, start + 8192));
    }
    return octets;
  }

  function bytesOf(octets) {
    return Uint8Array.from(octets, (char) => char.charCodeAt(0));
  }

  function shown(text) {
    return JSON.stringify(text.slice(0, 64)) + (text.length > 64 ? "..." : "");
  }

  function stripBlanks(value) {
    return value.replace(/^[ \t]+/, "").replace(/[ \t]+$/, "");
  }

  /** The headers of one message or part: ordered, immutable, names compared without regard to case. */
  class LhttpHeaders {
    #pairs;
    #values = new Map();

    /** @param init pairs of name and value, or an object whose values are strings or lists of strings. */
    constructor(init = []) {
      this.#pairs = Object.freeze(pairsOf(init).map((pair) => Object.freeze(pair)));
      for (const [name, value] of this.#pairs) {
        const key = name.toLowerCase();
        if (this.#values.has(key)) this.#values.get(key).push(value);
        else this.#values.set(key, [value]);
      }
    }

    /** Return the value of *name*, the last one if it was repeated; undefined without it. */
    get(name) {
      return this.#values.get(String(name).toLowerCase())?.at(-1);
    }

    /** Return every value of *name*, in order. */
    getAll(name) {
      return [...(this.#values.get(String(name).toLowerCase()) ?? [])];
    }

    has(name) {
      return this.#values.has(String(name).toLowerCase());
    }

    get size() {
      return this.#pairs.length;
    }

    [Symbol.iterator]() {
      return this.#pairs[Symbol.iterator]();
    }

    /** Return an object without prototype: lower-case name to value. */
    toObject() {
      const object = Object.create(null);
      for (const key of this.#values.keys()) object[key] = this.get(key);
      return object;
    }
  }

  function pairsOf(init) {
    const pairs = [];
    const entries = init == null ? [] : init[Symbol.iterator] ? init : Object.entries(init);
    for (const [name, value] of entries) {
      for (const one of Array.isArray(value) ? value : [value]) pairs.push([String(name), String(one)]);
    }
    return pairs;
  }

  function headerLine([name, value]) {
    if (!NAME.test(name)) {
      throw new LocalProtocolError(`header name ${shown(name)} is not visible ASCII characters without a colon`);
    }
    if (LONE_SURROGATE.test(value)) throw new LocalProtocolError(`value of header ${name} is not valid Unicode`);
    if (CONTROLS.test(value)) throw new LocalProtocolError(`value of header ${name} holds a control character`);
    if (value !== stripBlanks(value)) {
      throw new LocalProtocolError(`value of header ${name} begins or ends with a blank`); // it may be a secret
    }
    return `${name}:${value}\r\n`;
  }

  /** One LHTTP message; immutable. */
  class LhttpMessage {
    #data;
    #start;
    #body = null;
    #text = null;

    /**
     * Build a message, checked to parse back the same.
     *
     * @param init {command, headers, body, binary}: the body is a string or bytes; bytes travel as a binary WebSocket
     *   message unless `binary` says otherwise.
     * @throws LocalProtocolError if the grammar does not allow it.
     */
    constructor({ command, headers = [], body = "", binary } = {}) {
      if (!COMMAND.test(command ?? "")) {
        throw new LocalProtocolError(`command ${shown(String(command))} is not 1 to 64 visible ASCII characters`);
      }
      if (body instanceof Parsed) {
        this.#data = body.data;
        this.#start = body.start;
        this.headers = headers;
      } else {
        this.headers = headers instanceof LhttpHeaders ? headers : new LhttpHeaders(headers);
        const head = START + command + "\r\n" + Array.from(this.headers, headerLine).join("") + "\r\n";
        binary ??= typeof body !== "string";
        if (binary) {
          const first = encoder.encode(head);
          const rest = typeof body === "string" ? encode(body, "body") : toBytes(body);
          this.#data = new Uint8Array(first.length + rest.length);
          this.#data.set(first);
          this.#data.set(rest, first.length);
          this.#start = first.length;
        } else {
          this.#data = head + textBody(body);
          this.#start = head.length;
        }
      }
      this.command = command;
      this.binary = Boolean(binary);
      Object.freeze(this);
    }

    /** The whole message as it goes over the wire: a string, or a Uint8Array if it is binary. */
    get data() {
      if (!this.binary && typeof this.#data !== "string") return decoder.decode(this.#data);
      return this.binary ? toWire(this.#data) : this.#data;
    }

    /** The whole message as bytes. */
    get raw() {
      return toWire(this.#data);
    }

    /** The body as bytes. */
    get body() {
      if (this.#body === null) {
        const body = typeof this.#data === "string" ? this.#data.slice(this.#start) : this.#data.subarray(this.#start);
        this.#body = toWire(body);
      }
      return this.#body;
    }

    /** The body as text; throws RemoteProtocolError if it is not UTF-8, which only a binary message's can be. */
    get text() {
      if (this.#text === null) {
        this.#text = typeof this.#data === "string" ? this.#data.slice(this.#start) : decodeBody(this.body);
      }
      return this.#text;
    }

    /** Return the body, parsed as JSON. */
    json() {
      return JSON.parse(this.text);
    }

    /** Return the channels that the header *name* lists, each once; throws RemoteProtocolError if one is malformed. */
    channels(name) {
      const values = this.headers.getAll(name);
      return values.length ? splitChannels(values, name === "publish" ? checkChannel : checkSubscription) : [];
    }

    /** Return the parts of a multipart body, none without a `multipart` header; throws RemoteProtocolError. */
    parts() {
      const value = this.headers.get("multipart");
      return value === undefined ? [] : splitParts(value, this.body);
    }
  }

  /** What the parser hands to the constructor of a message. */
  class Parsed {
    constructor(data, start) {
      this.data = data;
      this.start = start;
    }
  }

  function toWire(data) {
    return typeof data === "string" ? encoder.encode(data) : data;
  }

  function textBody(body) {
    if (typeof body === "string") {
      if (LONE_SURROGATE.test(body)) throw new LocalProtocolError("body is not valid Unicode");
      return body;
    }
    const bytes = toBytes(body);
    try {
      return decoder.decode(bytes);
    } catch {
      throw new LocalProtocolError("body of a text message is not UTF-8");
    }
  }

  function decodeBody(bytes) {
    try {
      return decoder.decode(bytes);
    } catch {
      throw new RemoteProtocolError("body is not UTF-8");
    }
  }

  /**
   * Parse one message.
   *
   * @param data the payload of one WebSocket message: a string or bytes.
   * @param options {binary, limits}: whether it came as a binary one, by default if it is bytes.
   * @throws RemoteProtocolError, MessageTooLarge
   */
  function parse(data, { binary, limits = DEFAULT_LIMITS } = {}) {
    const isText = typeof data === "string";
    const message = isText ? data : toBytes(data);
    const tooLarge = (what, size, limit) => new MessageTooLarge(`${what} of ${size} bytes is larger than ${limit}`);
    if (isLarger(message, limits.messageSize)) throw tooLarge("message", toWire(message).length, limits.messageSize);
    let end = isText ? message.indexOf("\r\n\r\n") : findBlankLine(message);
    let start = end + 4;
    if (end < 0) {
      start = end = message.length;
      const closed = isText ? message.endsWith("\r\n") : message.at(-2) === CR && message.at(-1) === LF;
      if (!closed) throw new RemoteProtocolError(end ? "no CRLF ends the head" : "message is empty");
    } else {
      end += 2;
    }
    const head = isText ? message.slice(0, end) : message.subarray(0, end);
    if (isLarger(head, limits.headSize)) throw tooLarge("head", toWire(head).length, limits.headSize);
    const [first, ...rest] = splitLines(isText && !NOT_ASCII.test(head) ? head : octetsOf(toWire(head)));
    if (!first.startsWith(START)) {
      throw new RemoteProtocolError(`start line ${shown(first)} does not begin with '${START}'`);
    }
    const command = first.slice(START.length);
    if (!COMMAND.test(command)) {
      throw new RemoteProtocolError(`command ${shown(command)} is not 1 to 64 visible ASCII characters`);
    }
    if (rest.length > limits.headerCount) {
      throw new RemoteProtocolError(`${rest.length} headers are more than ${limits.headerCount}`, 413);
    }
    const headers = new LhttpHeaders(rest.map(parseHeader));
    return new LhttpMessage({ command, headers, body: new Parsed(message, start), binary: binary ?? !isText });
  }

  /** Return what to send for *message*, an LhttpMessage or what makes one: a string, or bytes if it is binary. */
  function serialise(message) {
    return (message instanceof LhttpMessage ? message : new LhttpMessage(message)).data;
  }

  /** Tell whether *data* has more bytes than *limit*; a character has at most three for each of its units. */
  function isLarger(data, limit) {
    if (typeof data !== "string" || data.length > limit) return data.length > limit;
    return data.length * 3 > limit && encoder.encode(data).length > limit;
  }

  function findBlankLine(bytes) {
    for (let at = bytes.indexOf(CR); at >= 0; at = bytes.indexOf(CR, at + 1)) {
      if (bytes[at + 1] === LF && bytes[at + 2] === CR && bytes[at + 3] === LF) return at;
    }
    return -1;
  }

  function splitLines(octets) {
    const lines = octets.split("\r\n");
    if (lines.pop()) throw new RemoteProtocolError("no CRLF ends the last header line");
    if (lines.some((line) => /[\r\n]/.test(line))) throw new RemoteProtocolError("the head holds a bare CR or LF");
    return lines;
  }

  function parseHeader(line) {
    const colon = line.indexOf(":");
    if (colon < 0) throw new RemoteProtocolError(`header line ${shown(line)} has no colon`);
    const name = line.slice(0, colon);
    if (!NAME.test(name)) throw new RemoteProtocolError(`header name ${shown(name)} is not visible ASCII characters`);
    const value = line.slice(colon + 1);
    if (CONTROLS.test(value)) throw new RemoteProtocolError(`value of header ${name} holds a control character`);
    if (!NOT_ASCII.test(value)) return [name, stripBlanks(value)];
    try {
      return [name, decoder.decode(bytesOf(stripBlanks(value)))];
    } catch {
      throw new RemoteProtocolError(`value of header ${name} is not UTF-8`);
    }
  }

  /**
   * Return *name* if it may name a channel.
   *
   * @throws RemoteProtocolError with status 400 if it is malformed, 403 if it is one of the server's own.
   */
  function checkChannel(name) {
    const refuse = (why, status) => new RemoteProtocolError(`channel ${shown(name)} ${why}`, status);
    if (typeof name !== "string") throw new TypeError("a channel's name is a string");
    if (!name) throw new RemoteProtocolError("channel name is empty");
    if (LONE_SURROGATE.test(name)) throw refuse("is not valid Unicode");
    if (isLarger(name, MAX_CHANNEL_SIZE)) throw refuse(`is longer than ${MAX_CHANNEL_SIZE} bytes`);
    if (NOT_IN_CHANNEL.test(name)) throw refuse("holds a blank or control character");
    if (name[0] === "$" || name[0] === "_") throw refuse("is reserved for the server", 403);
    for (const token of name.split(".")) {
      if (!token) throw refuse("has an empty token");
      if (token === "*" || token === ">") throw refuse(`has the wildcard ${token} as a token`);
    }
    return name;
  }

  /** As checkChannel, and takes the names of the server's channels that tell who is in a channel. */
  function checkSubscription(name) {
    if (typeof name !== "string" || !name.startsWith(PRESENCE)) return checkChannel(name);
    checkChannel(name.slice(PRESENCE.length));
    return name;
  }

  function splitChannels(values, check = checkChannel) {
    const listed = values.flatMap((value) => value.split(/[ \t]+/)).filter(Boolean);
    const names = new Set(listed.map((name) => check(name)));
    if (!names.size) throw new RemoteProtocolError("list of channels is empty");
    return [...names];
  }

  /** One part of a multipart body: `headers`, `body` (bytes) and `text`. */
  class LhttpPart {
    constructor(headers = [], body = "") {
      this.headers = headers instanceof LhttpHeaders ? headers : new LhttpHeaders(headers);
      this.body = typeof body === "string" ? encode(body, "body") : toBytes(body);
      Object.freeze(this);
    }

    get text() {
      return decodeBody(this.body);
    }
  }

  /** Return the parts of *body* that begin at the *offsets* of a `multipart` header; throws RemoteProtocolError. */
  function splitParts(offsets, body) {
    const starts = [];
    for (const word of offsets.split(/[ \t]+/).filter(Boolean)) {
      if (!OFFSET.test(word)) throw new RemoteProtocolError(`multipart offset ${shown(word)} is not decimal`);
      const start = Number(word);
      if (starts.length && start <= starts.at(-1)) {
        throw new RemoteProtocolError(`multipart offset ${start} does not rise above ${starts.at(-1)}`);
      }
      starts.push(start);
    }
    if (!starts.length) throw new RemoteProtocolError("multipart header lists no offset");
    if (starts[0] !== 0) throw new RemoteProtocolError(`multipart offsets start at ${starts[0]}, not at 0`);
    if (starts.at(-1) >= body.length) {
      throw new RemoteProtocolError(`multipart offset ${starts.at(-1)} is not inside the body of ${body.length} bytes`);
    }
    return starts.map((start, index) => parsePart(body.subarray(start, starts[index + 1])));
  }

  function parsePart(bytes) {
    if (bytes[0] === CR && bytes[1] === LF) return new LhttpPart([], bytes.subarray(2));
    const end = findBlankLine(bytes);
    if (end < 0) throw new RemoteProtocolError("a part has no blank line between its headers and its body");
    const lines = splitLines(octetsOf(bytes.subarray(0, end + 2)));
    return new LhttpPart(lines.map(parseHeader), bytes.subarray(end + 4));
  }

  /**
   * Return {multipart, body, binary} for *parts*, each {headers, body}: the header's value, the body's bytes, and
   * whether a part came as bytes.
   *
   * @throws LocalProtocolError if there is no part, or a header would not parse back the same.
   */
  function joinParts(parts) {
    const chunks = [];
    const offsets = [];
    let size = 0;
    let binary = false;
    for (const { headers = [], body = "" } of parts) {
      const head = Array.from(new LhttpHeaders(headers), headerLine).join("") + "\r\n";
      offsets.push(size);
      for (const chunk of [encoder.encode(head), typeof body === "string" ? encode(body, "body") : toBytes(body)]) {
        chunks.push(chunk);
        size += chunk.length;
      }
      binary ||= typeof body !== "string";
    }
    if (!offsets.length) throw new LocalProtocolError("a multipart body has at least one part");
    const body = new Uint8Array(size);
    size = 0;
    for (const chunk of chunks) {
      body.set(chunk, size);
      size += chunk.length;
    }
    return { multipart: offsets.join(" "), body, binary };
  }

  // Client

  const DEFAULT_OPTIONS = Object.freeze({
    command: "chat", // of messages whose command is not given
    timeout: 10000, // for a receipt or a reply, from when the message was sent
    connectTimeout: 10000, // for one attempt to connect
    closeTimeout: 2000, // for the server to answer a close
    heartbeat: 30000, // after so long a silence the server is asked for a sign of life; 0: never
    queueSize: 256, // messages that may wait while there is no connection
    bufferSize: 1024, // messages that may wait for a `for await` loop
    maxUnsent: 8388608, // bytes that the WebSocket may hold
    reconnect: true,
    login: null, // a function that returns the headers of the login message, or a promise of them
    limits: Object.freeze({ messageSize: 16777216, headSize: 1048576, headerCount: 1024 }), // of what is received
    WebSocket: null, // the class; by default the global one
    protocols: undefined,
  });

  const DEFAULT_RECONNECT = Object.freeze({
    initialDelay: 500, // the first wait is a random time up to this, and each bound is twice the one before,
    maxDelay: 30000, // up to this
    attempts: Infinity, // how often to try before giving up
  });

  const MAX_REFUSALS = 2; // of logins, in a row or on one connection; a server may close it after three
  const MAX_LATER_REFUSALS = 10; // of logins in a row, of a client that had been logged in before
  const MIN_RENEWAL = 1000; // the least time between a login and the next one
  const ODD_RENEWAL = 30000; // the same where by this clock the login had expired before it began
  const MAX_TIMER = 2147483647; // what setTimeout can hold
  const STABLE = 5000; // a connection that lasted so long counts as good: the next wait begins at the first bound
  const MAX_TURNS = 64;
  const OPEN = 1; // WebSocket.readyState

  /** Call *listener*; what it throws is reported as an uncaught error, and stops nothing else. */
  function call(listener, ...args) {
    try {
      listener(...args);
    } catch (error) {
      if (typeof root.reportError === "function") root.reportError(error);
      else
        queueMicrotask(() => {
          throw error;
        });
    }
  }

  function deferred() {
    const result = {};
    result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
    result.promise.catch(() => {}); // whoever waits for it sees the rejection; nobody has to wait
    return result;
  }

  /** Resolve with what *action* returns, or its promise holds, unless that takes longer than *timeout*. */
  function within(timeout, action) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new TimedOut(`login returned nothing in ${timeout} ms`)), timeout);
      timer.unref?.(); // in Node; the connection is what keeps the program running
      new Promise((done) => done(action())).then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  function webSocketUrl(url) {
    const absolute = new URL(url, root.location?.href);
    if (absolute.protocol === "http:") absolute.protocol = "ws:";
    if (absolute.protocol === "https:") absolute.protocol = "wss:";
    if (!/^wss?:$/.test(absolute.protocol)) throw new TypeError(`${shown(String(url))} is no address of a WebSocket`);
    absolute.hash = "";
    return absolute.href;
  }

  /** What `subscribe` resolves with: a listener's subscription, or messages to be iterated over. */
  class Subscription {
    #client;
    #listener;
    #buffer = [];
    #waiting = [];
    #buffering;
    #ended = false;
    #error = null;

    constructor(client, channels, listener, options) {
      this.channels = Object.freeze(channels);
      this.#client = client;
      this.#listener = listener;
      this.#buffering = !listener;
      this._options = options;
      this._ready = deferred();
      this._confirmed = false;
    }

    /** Whether it has ended: unsubscribed, refused, or its client closed. */
    get closed() {
      return this.#ended;
    }

    /** End it; resolves when the server has taken it back, or at once without a connection. */
    unsubscribe() {
      return this.#client._unsubscribe(this);
    }

    [Symbol.asyncIterator]() {
      this.#buffering = true;
      return this;
    }

    /** Resolve with the next message. */
    next() {
      if (this.#buffer.length) return Promise.resolve({ value: this.#buffer.shift(), done: false });
      if (this.#error) {
        const error = this.#error;
        this.#error = null;
        return Promise.reject(error);
      }
      if (this.#ended) return Promise.resolve({ value: undefined, done: true });
      return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }

    /** Called by a `for await` loop that is left: unsubscribes. */
    return() {
      this.unsubscribe().catch(() => {});
      this.#buffer.length = 0;
      return Promise.resolve({ value: undefined, done: true });
    }

    _push(message, channel, bufferSize) {
      if (this.#listener) call(this.#listener, message, channel);
      if (!this.#buffering || this.#ended) return;
      if (this.#waiting.length) {
        this.#waiting.shift().resolve({ value: message, done: false });
      } else if (this.#buffer.length < bufferSize) {
        this.#buffer.push(message);
      } else {
        this.unsubscribe().catch(() => {});
        this.#error = new QueueFull(`${bufferSize} messages of ${this.channels.join(" ")} wait for the loop already`);
      }
    }

    _end(error = null) {
      if (this.#ended) return;
      this.#ended = true;
      const waiting = this.#waiting.splice(0);
      if (error && waiting.length) waiting.shift().reject(error);
      else this.#error = error;
      for (const { resolve } of waiting) resolve({ value: undefined, done: true });
    }
  }

  /**
   * A connection that is kept up.
   *
   * Events, with `on(name, listener)`:
   *   state    ({state, previous, error, delay}): closed, connecting, open, reconnecting
   *   login    ({user, expires}): the server has taken a login, the first one before the state is open
   *   message  (message): all that arrives, but for receipts, errors and replies to `request`
   *   error    (error): an error that belongs to no promise
   *   receive  (message): whatever arrives
   */
  class LhttpClient {
    #options;
    #reconnect;
    #listeners = new Map();
    #state = "closed";
    #socket = null;
    #opening = null;
    #closing = null;
    #down = null; // called when a socket that was closed on purpose is gone
    #attempts = 0;
    #openedAt = 0;
    #heardAt = 0;
    #timer = null; // of connecting, of waiting before it, or of the heartbeat
    #user = null;
    #expires = null;
    #renewal = null; // the timer of the next login
    #refusals = 0; // of logins: in a row before the connection is open, and all of a connection that is
    #isKnown = false; // whether a login has succeeded since it was closed
    #lag = 0; // how much this clock is behind the server's, as far as it is known
    #queue = [];
    #pending = new Map();
    #subscriptions = new Set();
    #channels = new Map();
    #turns = new Map();
    #prefix = Math.random().toString(36).slice(2, 10);
    #count = 0;
    #online = () => this.#retryNow();

    /** @param url ws, wss, http or https; in a browser it may be relative to the page. Nothing is opened yet. */
    constructor(url, options = {}) {
      for (const name of Object.keys(options)) {
        if (!(name in DEFAULT_OPTIONS)) throw new TypeError(`LhttpClient has no option ${name}`);
      }
      this.url = webSocketUrl(url);
      const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
      this.#options = { ...DEFAULT_OPTIONS, ...given };
      const { reconnect } = this.#options;
      this.#reconnect = reconnect ? { ...DEFAULT_RECONNECT, ...(reconnect === true ? {} : reconnect) } : null;
      if (this.#options.login && typeof this.#options.login !== "function") {
        throw new TypeError("the option login is not a function");
      }
      this.#options.WebSocket ??= root.WebSocket;
      if (!this.#options.WebSocket) {
        throw new TypeError("there is no global WebSocket: pass a class as the option WebSocket, such as that of ws");
      }
    }

    /** closed, connecting, open or reconnecting. */
    get state() {
      return this.#state;
    }

    /** The WebSocket of the moment, or null. */
    get socket() {
      return this.#socket;
    }

    /** Who the server says this is, or null while the client is not logged in. */
    get user() {
      return this.#user;
    }

    /** When the login expires by the server's clock, as in Date.now(); null if it does not. */
    get expires() {
      return this.#expires;
    }

    /** Messages that wait for a connection. */
    get queued() {
      return this.#queue.length;
    }

    /** Call *listener* at each event *name*; returns a function that ends it. */
    on(name, listener) {
      if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
      this.#listeners.get(name).add(listener);
      return () => this.off(name, listener);
    }

    off(name, listener) {
      this.#listeners.get(name)?.delete(listener);
    }

    /**
     * Connect. Resolves when the connection is open; with `reconnect` it is tried until it is, or until `close()`.
     *
     * With the option `login` it is open once the server has taken the login. Rejects with ConnectionLost if it was
     * given up, with the server's error if that refuses the login.
     */
    connect() {
      if (this.#closing) return this.#closing.then(() => this.connect());
      if (this.#state === "open") return Promise.resolve();
      this.#opening ??= deferred();
      const { promise } = this.#opening;
      if (this.#state === "closed") {
        this.#attempts = 0;
        root.addEventListener?.("online", this.#online);
        this.#dial();
      }
      return promise;
    }

    /**
     * Log in once more, now: as somebody else, or with other rights. Other messages go on meanwhile.
     *
     * Resolves when the server has taken what the option `login` returns. A server that wants a connection of its own
     * for another user gets one; then subscriptions are restored, and what was sent and not answered is ConnectionLost.
     */
    async login() {
      if (!this.#options.login) throw new TypeError("the client was made without the option login");
      if (this.#state === "closed") throw new ConnectionLost("client is closed");
      if (this.#state !== "open") await this.connect();
      try {
        await this.#logIn({ isAsked: true });
      } catch (error) {
        if (this.#state === "closed" || this.#state === "open") throw error;
        await this.connect(); // which logs in, too
      }
    }

    /**
     * Close the connection for good: ends all subscriptions, rejects what waits with ConnectionLost.
     *
     * Resolves with the messages that were never sent, in order, when the connection is down.
     */
    async close(code = 1000, reason = "") {
      if (this.#state === "closed") {
        await this.#closing;
        return [];
      }
      const unsent = this.#queue.map((entry) => entry.message);
      const socket = this.#socket;
      this.#end(new ConnectionLost("client was closed", { code }), null);
      if (socket) {
        const down = deferred();
        const timer = setTimeout(() => this.#drop("no answer to the close"), this.#options.closeTimeout);
        this.#closing = down.promise;
        this.#down = () => {
          clearTimeout(timer);
          this.#closing = null;
          down.resolve();
        };
        socket.close(code, reason);
        await down.promise;
      }
      return unsent;
    }

    /**
     * Publish *body* to a channel or a list of channels.
     *
     * @param options {command, headers, parts, binary, receipt, timeout}
     * @returns a promise that succeeds with the receipt when the server's bus has the message, or, with
     *   `receipt: false`, with null when it was handed to the WebSocket. It fails with ServerError, ConnectionLost,
     *   QueueFull or TimedOut. Without a connection the message waits for one.
     */
    async publish(channels, body = "", options = {}) {
      return this.#send([["publish", listOf(channels).join(" ")]], body, options);
    }

    /** Send a message to the server; as `publish`, without channels. Processors get it by its command. */
    async send(command, body = "", options = {}) {
      return this.#send([], body, { ...options, command });
    }

    /** Send *parts*, each {headers, body}, as one multipart message. */
    async upload(command, parts, options = {}) {
      return this.#send([], "", { ...options, command, parts });
    }

    /**
     * Send a message and resolve with what a processor replies to it.
     *
     * A reply is a message with the `receipt` header of the request, which it has unless the processor set headers, or
     * else the next one with the command `options.reply`, by default the request's own. If the server is done and there
     * was no reply, it resolves with the receipt, which holds a backend's answer to an `upstream` header; with
     * `options.reply` it waits for the reply until the time is over.
     */
    async request(command, body = "", options = {}) {
      const reply = options.reply ?? command;
      return this.#send([], body, { ...options, command, receipt: true, reply, waits: Boolean(options.reply) });
    }

    /**
     * Subscribe to a channel or a list of channels, now and after each reconnection.
     *
     * @param listener called with each message and the channel that it came by; without it, iterate over the result:
     *   `for await (const message of await client.subscribe("room"))`.
     * @param options {command, headers}: of the message that subscribes.
     * @returns a promise that succeeds with a Subscription once the server has confirmed it. Without a connection it
     *   waits for one. It fails with ServerError, or ConnectionLost if the client is closed.
     */
    async subscribe(channels, listener = null, options = {}) {
      if (listener !== null && typeof listener !== "function") throw new TypeError("the listener is not a function");
      const subscription = new Subscription(this, listOf(channels, checkSubscription), listener, options);
      if (this.#state === "closed") throw new ConnectionLost("client is closed");
      this.#subscriptionMessage(subscription, "0"); // refuses what is malformed before anything has changed
      this.#subscriptions.add(subscription);
      for (const channel of subscription.channels) {
        if (!this.#channels.has(channel)) this.#channels.set(channel, new Set());
        this.#channels.get(channel).add(subscription);
      }
      if (this.#state === "open") this.#establish(subscription);
      await subscription._ready.promise;
      return subscription;
    }

    async _unsubscribe(subscription) {
      const channels = this.#forget(subscription);
      subscription._end();
      subscription._ready.reject(new ConnectionLost("unsubscribed before it was confirmed"));
      if (channels.length && this.#state === "open") {
        const { command } = subscription._options;
        await this.#send([["unsubscribe", channels.join(" ")]], "", { command, direct: true });
      }
    }

    /** The server has taken a channel back: what was subscribed to it ends, as if it had been refused. */
    #revoked(channel, error) {
      for (const subscription of [...(this.#channels.get(channel) ?? [])]) {
        const others = this.#forget(subscription).filter((name) => name !== channel);
        subscription._ready.reject(error);
        subscription._end(error);
        if (others.length) {
          const { command } = subscription._options;
          this.#send([["unsubscribe", others.join(" ")]], "", { command, direct: true }).catch(() => {});
        }
      }
    }

    // Sending

    #send(headers, body, { command, headers: own, parts, binary, receipt = true, timeout, reply, waits, direct } = {}) {
      const pairs = [...headers, ...pairsOf(own)];
      if (parts) {
        const joined = joinParts(parts);
        pairs.push(["multipart", joined.multipart]);
        body = joined.body;
        binary ??= joined.binary;
      }
      const token = receipt ? this.#token() : null;
      if (token) pairs.push(["receipt", token]);
      const message = new LhttpMessage({ command: command ?? this.#options.command, headers: pairs, body, binary });
      return this._submit(message, { token, timeout, reply, waits, direct });
    }

    _submit(message, { token = null, timeout, reply = null, waits = false, direct = false, first = false } = {}) {
      return new Promise((resolve, reject) => {
        const entry = { message, token, resolve, reject, reply, waits, timer: null, answered: false, done: false };
        entry.timeout = timeout ?? this.#options.timeout;
        if ((this.#state === "open" || first) && this.#socket?.readyState === OPEN) this.#write(entry);
        else if (this.#state === "closed" || direct) {
          reject(new ConnectionLost("there is no connection", { unsent: message }));
        } else if (this.#queue.length < this.#options.queueSize) this.#queue.push(entry);
        else reject(new QueueFull(`${this.#queue.length} messages wait for a connection already`, message));
      });
    }

    #write(entry) {
      const { message, token, resolve, reject, timeout } = entry;
      if (this.#socket.bufferedAmount > this.#options.maxUnsent) {
        reject(new QueueFull(`${this.#socket.bufferedAmount} bytes wait in the WebSocket already`, message));
        return;
      }
      this.#socket.send(message.data);
      if (token === null) {
        resolve(null);
        return;
      }
      entry.timer = setTimeout(() => {
        this.#pending.delete(token);
        reject(new TimedOut(`no answer to ${message.command} in ${timeout} ms`));
      }, timeout);
      this.#pending.set(token, entry);
    }

    #token() {
      this.#count += 1;
      return `${this.#prefix}-${this.#count}`;
    }

    // Subscriptions

    #subscriptionMessage({ channels, _options: { command, headers } }, token) {
      const pairs = [["subscribe", channels.join(" ")], ...pairsOf(headers), ["receipt", token]];
      return new LhttpMessage({ command: command ?? this.#options.command, headers: pairs });
    }

    #establish(subscription) {
      const token = this.#token();
      this._submit(this.#subscriptionMessage(subscription, token), { token, direct: true }).then(
        () => {
          subscription._confirmed = true;
          subscription._ready.resolve();
        },
        (error) => {
          if (subscription.closed || error instanceof ConnectionLost) return; // the next connection does it again
          if (subscription._confirmed && error.status >= 500) {
            this.#drop(`subscribing again failed: ${error.reason}`);
            return;
          }
          subscription._ready.reject(error);
          subscription._end(error);
          if (error instanceof TimedOut) this._unsubscribe(subscription).catch(() => {}); // it may be in place
          else this.#forget(subscription);
          if (subscription._confirmed) this.#emit("error", error);
        },
      );
    }

    /** Forget *subscription*, and return its channels that no other one has. */
    #forget(subscription) {
      if (!this.#subscriptions.delete(subscription)) return [];
      return subscription.channels.filter((channel) => {
        const others = this.#channels.get(channel);
        others.delete(subscription);
        return !others.size && this.#channels.delete(channel);
      });
    }

    #deliver(message) {
      let listed;
      try {
        listed = splitChannels(message.headers.getAll("publish"), checkSubscription);
      } catch {
        return;
      }
      const channels = listed.filter((name) => this.#channels.has(name));
      if (!channels.length) return;
      const channel = channels[channels.length > 1 ? this.#turn(message, channels.length) : 0];
      for (const subscription of [...this.#channels.get(channel)]) {
        subscription._push(message, channel, this.#options.bufferSize);
      }
    }

    /** A message comes once for each channel that it was published to: return which of *count* copies this is. */
    #turn(message, count) {
      const key = message.binary ? octetsOf(message.data) : message.data;
      const turn = (this.#turns.get(key) ?? 0) % count;
      this.#turns.delete(key);
      if (turn + 1 < count) this.#turns.set(key, turn + 1);
      if (this.#turns.size > MAX_TURNS) this.#turns.delete(this.#turns.keys().next().value);
      return turn;
    }

    // Receiving

    #receive(data) {
      this.#heardAt = Date.now();
      let message;
      try {
        message = parse(data, { limits: this.#options.limits });
      } catch (error) {
        this.#emit("error", error);
        return;
      }
      this.#emit("receive", message);
      if (this.#settle(message) || this.#state === "closed") return;
      this.#deliver(message);
      this.#emit("message", message);
    }

    /** Give *message* to whom it answers; returns whether it was an answer. What was published never is. */
    #settle(message) {
      const { command, headers } = message;
      const published = headers.has("publish");
      const answered = published ? undefined : this.#pending.get(headers.get("receipt-id"));
      if (answered && (command === "receipt" || command === "error")) {
        answered.done = true;
        if (command === "error") answered.reject(new ServerError(message));
        else if (!answered.waits) answered.resolve(message);
        if (command === "error" || !answered.waits || answered.answered) this.#settled(answered);
        return true;
      }
      if (command === "error" && !published) {
        const error = new ServerError(message);
        if (headers.has("unsubscribed")) this.#revoked(headers.get("unsubscribed"), error);
        this.#emit("error", error);
        return true;
      }
      let request = this.#pending.get(headers.get("receipt"));
      if (!request?.reply && !published) {
        request = [...this.#pending.values()].find((entry) => entry.reply === command && !entry.answered);
      }
      if (!request?.reply || request.answered) return false;
      request.answered = true;
      request.resolve(message);
      if (request.done) this.#settled(request);
      return true;
    }

    #settled(entry) {
      clearTimeout(entry.timer);
      this.#pending.delete(entry.token);
    }

    #emit(name, value) {
      for (const listener of [...(this.#listeners.get(name) ?? [])]) call(listener, value);
    }

    // Logging in

    /**
     * Log in with what the option `login` returns: before anything else is sent, or to stay.
     *
     * @param refused {credentials, error} that have just been refused: the same are not sent again.
     * @param failures how often it has failed since it last succeeded.
     * @param isAsked whether somebody waits for the outcome, so that a failure is no event.
     */
    async #logIn({ refused = null, failures = 0, isAsked = false } = {}) {
      const socket = this.#socket;
      const isCurrent = () => socket === this.#socket && this.#state !== "closed";
      clearTimeout(this.#renewal);
      let credentials = null;
      let answer = null;
      try {
        const given = await within(this.#options.connectTimeout, this.#options.login);
        if (typeof given !== "object" || given === null) throw new TypeError("login returns no object with headers");
        const pairs = pairsOf(given);
        credentials = JSON.stringify(pairs);
        if (refused?.credentials === credentials) throw refused.error;
        if (isCurrent()) answer = await this.#submitLogin(pairs);
      } catch (error) {
        if (isCurrent()) this.#notLoggedIn(error, credentials, failures, isAsked);
        throw error;
      }
      if (!isCurrent()) throw new ConnectionLost("the connection ended before the login");
      const expires = answer.headers.get("expires") ?? "";
      this.#user = answer.headers.get("user") || null;
      this.#expires = /^[0-9]{1,12}$/.test(expires) ? expires * 1000 : null;
      if (this.#expires - this.#lag <= Date.now()) this.#lag = 0; // then the last end was none of the clock's doing
      this.#isKnown = true;
      this.#emit("login", { user: this.#user, expires: this.#expires });
      if (!isCurrent()) return;
      this.#renewIn();
      if (this.#state !== "open") {
        this.#refusals = 0;
        this.#opened();
      }
    }

    async #submitLogin(pairs) {
      const token = this.#token();
      const message = new LhttpMessage({ command: "login", headers: [...pairs, ["receipt", token]] });
      try {
        const answer = await this._submit(message, { token, reply: "login", direct: true, first: true });
        if (answer.command === "login") return answer;
      } catch (error) {
        if (error.unsent) error.unsent = null; // it holds the credentials
        throw error;
      }
      throw new RemoteProtocolError("the server logs nobody in: it asks nobody who they are", 404);
    }

    #notLoggedIn(error, credentials, failures, isAsked) {
      const isOpen = this.#state === "open";
      const isRefusal = error instanceof ServerError && error.status < 500 && error.status !== 429;
      this.#refusals += isRefusal;
      if (isOpen && isRefusal && error.status === 409) {
        this.#drop("another user logs in");
        return;
      }
      const most = this.#isKnown ? MAX_LATER_REFUSALS : MAX_REFUSALS;
      if (!isOpen && (error instanceof RemoteProtocolError || this.#refusals >= most)) {
        this.#drop("", error);
        return;
      }
      const socket = this.#socket;
      if (!isAsked) this.#emit("error", error);
      if (socket !== this.#socket || this.#state === "closed") return;
      if (isOpen) {
        if (this.#refusals < MAX_REFUSALS) this.#renewIn(isRefusal ? Infinity : this.#backoff(failures), failures + 1);
      } else if (isRefusal && this.#refusals === 1) {
        this.#logIn({ refused: { credentials, error } }).catch(() => {});
      } else {
        this.#drop(error instanceof LhttpError ? `login failed: ${error.reason}` : "login failed");
      }
    }

    /** Log in again when half of the time that is left has gone, or after *most* if that is sooner. */
    #renewIn(most = Infinity, failures = 0) {
      clearTimeout(this.#renewal);
      if (this.#expires === null) return;
      const rest = this.#expires - this.#lag - Date.now();
      const delay = Math.max(Math.min(rest > 0 ? rest / 2 : ODD_RENEWAL, most), MIN_RENEWAL);
      this.#renewal = setTimeout(() => this.#logIn({ failures }).catch(() => {}), Math.min(delay, MAX_TIMER));
    }

    #logOut() {
      clearTimeout(this.#renewal);
      this.#user = this.#expires = null;
    }

    // The connection

    #enter(state, { error = null, delay = null } = {}) {
      const previous = this.#state;
      this.#state = state;
      if (state !== previous || delay !== null) this.#emit("state", { state, previous, error, delay });
    }

    #dial() {
      this.#enter(this.#attempts ? "reconnecting" : "connecting");
      const { WebSocket, protocols, connectTimeout } = this.#options;
      let socket;
      try {
        socket = protocols === undefined ? new WebSocket(this.url) : new WebSocket(this.url, protocols);
      } catch (error) {
        this.#end(new ConnectionLost(error.message), error);
        return;
      }
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this.#connected();
      socket.onmessage = (event) => this.#receive(event.data);
      socket.onerror = () => setTimeout(() => this.#failed(socket), 0); // a close event follows, but not everywhere
      socket.onclose = ({ code, reason }) => this.#lost(code, reason);
      this.#timer = setTimeout(() => this.#drop(`no connection in ${connectTimeout} ms`), connectTimeout);
    }

    #connected() {
      clearTimeout(this.#timer);
      this.#openedAt = this.#heardAt = Date.now();
      if (this.#options.login) this.#logIn().catch(() => {});
      else this.#opened();
    }

    #opened() {
      this.#openedAt = Date.now();
      const previous = this.#state;
      this.#state = "open";
      for (const subscription of this.#subscriptions) this.#establish(subscription);
      for (const entry of this.#queue.splice(0)) this.#write(entry);
      if (this.#options.heartbeat) this.#timer = setTimeout(() => this.#beat(), this.#options.heartbeat);
      this.#opening?.resolve();
      this.#opening = null;
      this.#emit("state", { state: "open", previous, error: null, delay: null });
    }

    async #beat() {
      const { heartbeat } = this.#options;
      const socket = this.#socket;
      const heardAt = this.#heardAt;
      if (Date.now() - heardAt >= heartbeat) {
        await this.#send([], "", { command: "ping", direct: true, timeout: heartbeat }).catch(() => {});
        if (socket === this.#socket && heardAt === this.#heardAt) this.#drop("the server gives no sign of life");
      }
      if (socket === this.#socket && this.#state === "open") {
        const rest = heartbeat - (Date.now() - this.#heardAt);
        this.#timer = setTimeout(() => this.#beat(), Math.max(rest, 1));
      }
    }

    #failed(socket) {
      if (socket === this.#socket && !this.#openedAt) this.#drop("");
    }

    /** Give the WebSocket up without waiting for it; for good, if an *error* says why. */
    #drop(reason, error = null) {
      const socket = this.#socket;
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {};
      try {
        socket.close();
      } catch {
        // It is gone already.
      }
      this.#lost(1006, reason, error);
    }

    #lost(code = 1006, reason = "", refusal = null) {
      const wasOpen = this.#state === "open";
      clearTimeout(this.#timer);
      if (code === EXPIRED && this.#expires > Date.now()) this.#lag = this.#expires - Date.now();
      this.#logOut();
      this.#socket = null;
      this.#turns.clear();
      const what = reason || (wasOpen ? "connection lost" : "no connection");
      const error = new ConnectionLost(what, { code });
      for (const entry of [...this.#pending.values()]) {
        this.#settled(entry);
        entry.reject(error);
      }
      if (this.#down) {
        const down = this.#down;
        this.#down = null;
        down();
        return;
      }
      if (wasOpen && Date.now() - this.#openedAt >= STABLE) this.#attempts = 0;
      if (wasOpen) this.#refusals = 0;
      this.#openedAt = 0;
      if (refusal || !this.#reconnect || UNWANTED.has(code) || this.#attempts >= this.#reconnect.attempts) {
        this.#end(refusal ?? error, refusal ?? error);
        return;
      }
      const delay = this.#backoff(this.#attempts);
      this.#attempts += 1;
      this.#timer = setTimeout(() => this.#dial(), delay);
      this.#enter("reconnecting", { error, delay });
    }

    #backoff(attempts) {
      const { initialDelay, maxDelay } = this.#reconnect ?? DEFAULT_RECONNECT;
      return Math.random() * Math.min(maxDelay, initialDelay * 2 ** attempts);
    }

    #retryNow() {
      if (this.#state === "reconnecting" && !this.#socket) {
        clearTimeout(this.#timer);
        this.#dial();
      }
    }

    /** Reject whatever waits, and be closed. *cause* is null if it was asked for. */
    #end(error, cause) {
      clearTimeout(this.#timer);
      this.#logOut();
      this.#refusals = 0;
      this.#isKnown = false;
      this.#openedAt = 0;
      root.removeEventListener?.("online", this.#online);
      for (const { message, reject } of this.#queue.splice(0)) {
        reject(new ConnectionLost(error.reason, { code: error.code, unsent: message }));
      }
      for (const subscription of [...this.#subscriptions]) {
        this.#forget(subscription);
        subscription._ready.reject(error);
        subscription._end(cause ? error : null);
      }
      this.#opening?.reject(error);
      this.#opening = null;
      this.#enter("closed", { error: cause ? error : null });
    }
  }

  function listOf(channels, check = checkChannel) {
    const names = [...new Set(typeof channels === "string" ? [channels] : channels)].map((name) => check(name));
    if (!names.length) throw new LocalProtocolError("there is no channel");
    return names;
  }

  // The original's interface

  /**
   * What the callbacks of Lhttp get: the message that came, if one did, and the means to send others.
   *
   * `addHeader` counts for the next message alone; the command stays until another is set.
   */
  class LhttpContext {
    #client;
    #fail;
    #command = "";
    #headers = [];

    constructor(client, fail, message = null, error = null) {
      this.#client = client;
      this.#fail = fail;
      this.message = message;
      this.error = error;
    }

    setCommand(command) {
      this.#command = String(command);
    }

    getCommand() {
      return this.message?.command ?? "";
    }

    /** Return the value of one header, or undefined; without a name, an object of all. */
    getHeader(name) {
      if (name === undefined) return this.message?.headers.toObject() ?? {};
      return this.message?.headers.get(name);
    }

    addHeader(name, value) {
      this.#headers.push([String(name), stripBlanks(String(value))]);
    }

    /** Return the body: a string, or a Uint8Array if the message was a binary one. */
    getBody() {
      if (!this.message) return "";
      return this.message.binary ? this.message.body : this.message.text;
    }

    /** Return the parts of a multipart body, each with `headers`, `body` and `text`. */
    getMultipart() {
      return this.message?.parts() ?? [];
    }

    /** Send a message with the headers that were added, and the command that was set, or else that of this message. */
    send(body) {
      const headers = this.#headers;
      this.#headers = [];
      const message = new LhttpMessage({
        command: this.#command || this.getCommand(),
        headers,
        body: isBytes(body) ? body : String(body ?? ""),
      });
      this.#client._submit(message).catch(this.#fail);
    }

    publish(channel, command, headers, body) {
      this.#sendWith("publish", channel, command, headers, body);
    }

    subscribe(channel, command, headers, body) {
      this.#sendWith("subscribe", channel, command, headers, body);
    }

    unsubscribe(channel, command, headers, body) {
      this.#sendWith("unsubscribe", channel, command, headers, body);
    }

    #sendWith(name, channel, command, headers, body) {
      this.addHeader(name, channel);
      for (const [key, value] of pairsOf(headers)) this.addHeader(key, value);
      if (command) this.setCommand(command);
      this.send(body);
    }
  }

  /**
   * The original's client: connects at once, and calls `on_open`, `on_message`, `on_close` and `on_error`, each with a
   * context. `context` is one to send with at any time; before the connection is open, messages wait.
   *
   * @param options as those of LhttpClient; it reconnects only if `reconnect` is given, and then calls `on_open` again.
   */
  class Lhttp {
    #client;

    constructor(url, options = {}) {
      this.on_open = this.on_message = this.on_close = this.on_error = function () {};
      const client = (this.#client = new LhttpClient(url, { reconnect: false, heartbeat: 0, ...options }));
      const fail = (error) => notify("on_error", null, error);
      const context = (message, error) => new LhttpContext(client, fail, message, error);
      let constructing = true; // what fails at once is told when the callbacks are set
      const notify = (name, message = null, error = null) => {
        if (constructing) queueMicrotask(() => notify(name, message, error));
        else if (typeof this[name] === "function") call((given) => this[name](given), context(message, error));
      };
      this.context = context();
      client.on("receive", (message) => notify("on_message", message));
      client.on("error", (error) => {
        if (!(error instanceof ServerError)) fail(error);
      });
      let told = false;
      client.on("state", ({ state, previous, error }) => {
        if (state === "open") {
          told = false;
          notify("on_open");
        } else if ((previous === "open" || state === "closed") && !told) {
          told = true;
          if (error?.code === 1006) fail(error);
          notify("on_close", null, error);
        }
      });
      client.connect().catch(() => {}); // on_error and on_close tell
      constructing = false;
    }

    /** The WebSocket of the moment, or null. */
    get conn() {
      return this.#client.socket;
    }

    /** closed, connecting, open or reconnecting. */
    get state() {
      return this.#client.state;
    }

    close() {
      return this.#client.close();
    }
  }

  const exported = Object.freeze({
    ConnectionLost,
    DEFAULT_LIMITS,
    Lhttp,
    LhttpClient,
    LhttpContext,
    LhttpError,
    LhttpHeaders,
    LhttpMessage,
    LhttpPart,
    LocalProtocolError,
    MessageTooLarge,
    QueueFull,
    RemoteProtocolError,
    ServerError,
    Subscription,
    TimedOut,
    checkChannel,
    joinParts,
    parse,
    serialise,
    splitParts,
  });

  root[Symbol.for("lhttp-tx 0.1.0")] = exported; // where lhttp.mjs finds it
  if (typeof module === "object" && module.exports) module.exports = exported;
  else Object.assign(root, { lhttp: exported, Lhttp, LhttpClient });
})(globalThis);
