/*
 * A client for LHTTP/1.0 (publish/subscribe over WebSocket), for browsers and Node. MIT licence.
 *
 * It has no dependencies. For networks that break WebSocket, it loads lhttp-http.js, which is next to it. A plain
 * script sets the globals `lhttp`, `Lhttp` and `LhttpClient`; `require` returns the same as `lhttp`; lhttp.mjs makes it
 * an ES module. lhttp.d.ts declares all exports.
 *
 * The sections are errors, codec (bytes to messages and back, with the same rules as the server), views (JSON and
 * Protocol Buffers), LhttpClient, and Lhttp, which has the interface of the original client. Times are in milliseconds,
 * sizes in bytes of UTF-8.
 */
(function (root) {
  "use strict";

  // Errors

  /** The base class of the errors in this file; `status` is a status code of the protocol. */
  class LhttpError extends Error {
    constructor(reason, status = 500) {
      super(reason);
      this.name = this.constructor.name;
      this.reason = reason;
      this.status = status;
    }
  }

  /** The program asked for a message that the protocol does not allow. */
  class LocalProtocolError extends LhttpError {}

  /** A message or a name does not follow the protocol. */
  class RemoteProtocolError extends LhttpError {
    constructor(reason, status = 400) {
      super(reason, status);
    }
  }

  /** A message or its head is larger than its limit. */
  class MessageTooLarge extends RemoteProtocolError {
    constructor(reason) {
      super(reason, 413);
    }
  }

  /** The server answered with an error; `reply` is its message. */
  class ServerError extends LhttpError {
    constructor(reply, reason = reply.headers.get("reason") || "error", status = Number(reply.headers.get("status"))) {
      super(reason, status || 500);
      this.reply = reply;
    }
  }

  /** The server has finished a request without a reply; `reply` is the receipt. The status is 404. */
  class NoReply extends ServerError {
    constructor(receipt, command) {
      super(receipt, `no reply with the command ${command}`, 404);
    }
  }

  /**
   * There is no connection. `unsent` is the message that was therefore not sent. If `unsent` is null, the message was
   * sent, and the server may have handled it. `code` is the close code of the WebSocket, 1006 without one.
   */
  class ConnectionLost extends LhttpError {
    constructor(reason, { code = 1006, unsent = null } = {}) {
      super(reason, 503);
      this.code = code;
      this.unsent = unsent;
    }
  }

  /** Too much is waiting to be sent or read; `unsent` is the message that was not sent. */
  class QueueFull extends LhttpError {
    constructor(reason, unsent = null) {
      super(reason, 429);
      this.unsent = unsent;
    }
  }

  /** No answer came in time. The server may have handled the message. */
  class TimedOut extends LhttpError {
    constructor(reason) {
      super(reason, 504);
    }
  }

  // Codec

  const DEFAULT_LIMITS = Object.freeze({ messageSize: 65536, headSize: 8192, headerCount: 64 });
  const MAX_CHANNEL_SIZE = 255;
  const PRESENCE = "$presence."; // prefix of the channels with the joins and leaves of another channel
  const RETRY_AFTER = /; retry-after=(\d{1,5}(?:\.\d{1,3})?)$/; // the end of a close reason, in seconds
  const UNWANTED = new Set([1008, 4409]); // close codes after which the client does not connect again
  const TOO_BIG = 1009; // the close code when a message was too large for the server
  const EXPIRED = 4401; // the close code when the login has expired

  const START = "LHTTP/1.0 ";
  const COMMAND = /^[\x21-\x7e]{1,64}$/;
  const NAME = /^[\x21-\x39\x3b-\x7e]+$/;
  const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f]/;
  const NOT_ASCII = /[^\x00-\x7f]/;
  const LONE_SURROGATE = /[\ud800-\udfff]/u;
  const NOT_IN_CHANNEL = /[\p{Zs}\p{Zl}\p{Zp}\p{Cc}]/u;
  const NOT_BLANK = /[^ \t]/;
  const OFFSET = /^[0-9]{1,10}$/;
  const MESSAGE_ID = /^[\x21-\x7e]{1,64}$/;
  const POSITION = /^([0-9A-Za-z_]{1,32})-(0|[1-9][0-9]{0,18})$/;
  const MARK = /^(0|[1-9][0-9]{0,18})$/; // an `offset` or `after` header, which may be too large for a number
  const MARKS = /^(LHTTP\/1\.0 [\x21-\x7e]{1,64}\r\n)offset:[0-9]{1,19}\r\nafter:[0-9]{1,19}\r\n(?:offset-of:[^\r\n]*\r\n)?/;
  const JSON_TYPE = /^(?:[a-z]+\/(?:[a-z0-9.-]+\+)?)?json[ \t]*(?:;|$)/i; // values of content-type that mean JSON
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

  /**
   * Return *value* without blanks at both ends. No regular expression for the end, because that could take quadratic
   * time.
   */
  function stripBlanks(value) {
    const start = value.search(NOT_BLANK);
    if (start < 0) return "";
    let end = value.length;
    for (let code = value.charCodeAt(end - 1); code === 32 || code === 9; code = value.charCodeAt(end - 1)) end -= 1;
    return value.slice(start, end);
  }

  /** The headers of one message or part: ordered and immutable, with names that do not depend on case. */
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

    /** Return the value of *name*, the last one if it is repeated; undefined if it is missing. */
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

    /** Return an object without prototype that maps lower-case names to values. */
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
     * Build a message, and check that the protocol allows it.
     *
     * @param init {command, headers, body, binary}: the body is a string or bytes; bytes are sent as a binary WebSocket
     *   message unless `binary` is false.
     * @throws LocalProtocolError if the protocol does not allow it.
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

    /** The whole message in the text format of LHTTP: a string, or a Uint8Array if it is binary. */
    get wire() {
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

    /** The body as text. Throws RemoteProtocolError if the body of a binary message is not UTF-8. */
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

    /**
     * The body as it was given to `publish`: a parsed value if `content-type` is JSON, else text, or bytes if it is
     * binary.
     */
    get data() {
      try {
        if (JSON_TYPE.test(this.headers.get("content-type") ?? "")) return this.json();
      } catch {
        // It is not JSON.
      }
      return this.binary ? this.body : this.text;
    }

    /** Return the channels in the header *name*, each once. Throws RemoteProtocolError if a name is malformed. */
    channels(name) {
      const values = this.headers.getAll(name);
      return values.length ? splitChannels(values, name === "publish" ? checkChannel : checkSubscription) : [];
    }

    /** Of a receipt: the position for each channel with history. Of other messages: empty. */
    get positions() {
      return Object.freeze(Object.fromEntries(positionsIn(this.headers)));
    }

    /** Of the receipt of a publication: whether a message with the same id had been published before. */
    get duplicate() {
      return this.headers.get("duplicate") === "1";
    }

    /** Return the parts of a multipart body; empty without a `multipart` header. Throws RemoteProtocolError. */
    parts() {
      const value = this.headers.get("multipart");
      return value === undefined ? [] : splitParts(value, this.body);
    }
  }

  /** The arguments of the parser for the constructor of a message. */
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
   * @param options {binary, limits}: `binary` is whether it was a binary WebSocket message, by default if *data* is
   *   bytes.
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

  /**
   * Return *message*, an LhttpMessage or the argument of its constructor, in LHTTP's text: a string, or bytes if it is
   * binary.
   */
  function serialise(message) {
    return (message instanceof LhttpMessage ? message : new LhttpMessage(message)).wire;
  }

  /** Return whether *data* has more bytes than *limit*. A UTF-16 unit has at most three bytes. */
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
   * Return *name* if it is a valid name for a channel.
   *
   * @throws RemoteProtocolError with status 400 if it is malformed, 403 if it is the name of a server channel.
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

  /** Same as checkChannel, but allows `$presence.` channels, too. */
  function checkPublished(name) {
    checkChannel(typeof name === "string" && name.startsWith(PRESENCE) ? name.slice(PRESENCE.length) : name);
    return name;
  }

  /** Same as checkPublished, but allows wildcards, too: `*` is any one token, `>` at the end is one or more tokens. */
  function checkSubscription(name) {
    if (typeof name !== "string" || name.startsWith(PRESENCE)) return checkPublished(name);
    const tokens = name.split(".");
    if (!isWildcard(name) || tokens.slice(0, -1).includes(">")) return checkChannel(name);
    try {
      checkChannel(tokens.map((token) => (token === "*" || token === ">" ? "x" : token)).join("."));
    } catch {
      checkChannel(name); // so that the error has the whole name
    }
    return name;
  }

  function isWildcard(name) {
    return name.split(".").some((token) => token === "*" || token === ">");
  }

  /** Wildcard subscriptions, to find those that match a channel. None matches a server channel. */
  class Wildcards {
    #root = new Map(); // token -> a map of the next tokens; the key "" has the wildcard that ends there
    #size = 0;

    get size() {
      return this.#size;
    }

    add(name) {
      let node = this.#root;
      for (const token of name.split(".")) {
        if (!node.has(token)) node.set(token, new Map());
        node = node.get(token);
      }
      if (!node.has("")) this.#size += 1;
      node.set("", name);
    }

    delete(name) {
      const tokens = name.split(".");
      const path = [this.#root];
      for (const token of tokens) {
        if (!path.at(-1).has(token)) return;
        path.push(path.at(-1).get(token));
      }
      if (!path.at(-1).delete("")) return;
      this.#size -= 1;
      while (tokens.length && !path.pop().size) path.at(-1).delete(tokens.pop());
    }

    matching(channel) {
      const found = [];
      if (channel[0] === "$" || channel[0] === "_") return found;
      let nodes = [this.#root];
      for (const token of channel.split(".")) {
        const following = [];
        for (const node of nodes) {
          if (node.has(">")) found.push(node.get(">").get(""));
          for (const key of [token, "*"]) if (node.has(key)) following.push(node.get(key));
        }
        nodes = following;
      }
      return [...found, ...nodes.map((node) => node.get("")).filter(Boolean)];
    }
  }

  function splitChannels(values, check = checkChannel) {
    const listed = values.flatMap((value) => value.split(/[ \t]+/)).filter(Boolean);
    const names = new Set(listed.map((name) => check(name)));
    if (!names.size) throw new RemoteProtocolError("list of channels is empty");
    return [...names];
  }

  // Positions in the history of a channel: EPOCH-OFFSET. Offsets are strings, see MARK.

  /** Return whether the offset *one* is larger than *other*. */
  function isLater(one, other) {
    return one.length > other.length || (one.length === other.length && one > other);
  }

  function splitPosition(position) {
    const [, epoch, offset] = POSITION.exec(position);
    return { epoch, offset };
  }

  function checkPosition(position) {
    if (POSITION.test(position)) return position;
    throw new LocalProtocolError(`${shown(String(position))} is not a position, which is EPOCH-OFFSET`);
  }

  /** Return the pairs of channel and position in the header `position`, a list of CHANNEL=POSITION. */
  function positionsIn(headers) {
    return wordsOf(headers, "position")
      .map((word) => [word.slice(0, word.lastIndexOf("=")), word.slice(word.lastIndexOf("=") + 1)])
      .filter(([channel, position]) => channel && POSITION.test(position));
  }

  function wordsOf(headers, name) {
    return (headers.get(name) ?? "").split(/[ \t]+/).filter(Boolean);
  }

  /** Return {offset, after} of a publication in a channel with history; null without history. */
  function marksOf({ headers }) {
    const offset = headers.get("offset");
    const after = headers.get("after");
    return MARK.test(offset ?? "") && MARK.test(after ?? "") ? { offset, after } : null;
  }

  /** Return a string that is the same for all copies of a publication, in any channel. */
  function unmarkedKey({ binary, wire }) {
    return (binary ? octetsOf(wire) : wire).replace(MARKS, "$1");
  }

  /** Return the message in a part of an answer to `history`. The server added the first `command` header. */
  function messageOf({ headers, body }) {
    const pairs = [...headers];
    const at = pairs.findIndex(([name]) => name.toLowerCase() === "command");
    if (at < 0) throw new RemoteProtocolError("a part of the history has no header command");
    const [[, command]] = pairs.splice(at, 1);
    let text = null;
    try {
      text = decoder.decode(body);
    } catch {
      // It is binary.
    }
    return new LhttpMessage({ command, headers: pairs, body: text ?? body });
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

  /** Return the parts of *body*, which begin at the *offsets* in a `multipart` header. Throws RemoteProtocolError. */
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
   * Return {multipart, body, binary} for *parts*, each {headers, body}: the value of the header `multipart`, the bytes
   * of the body, and whether the body of a part was bytes.
   *
   * @throws LocalProtocolError if there is no part, or the protocol does not allow a header.
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

  // Views: messages in the formats of the subprotocols lhttp.json and lhttp.protobuf

  const VERSION = "LHTTP/1.0";
  const JSON_KEYS = new Set(["VERSION", "COMMAND", "HEADERS", "BODY", "BODY_BASE64", "BODYS"]);
  const PART_KEYS = new Set(["HEADERS", "BODY", "BODY_BASE64"]);
  const MAX_SPLIT = 500; // the most parts that a view has as parts
  const LIKE_INDEX = /^[0-9]+$/; // keys that an object puts in another order
  const NOT_BASE64 = /[^A-Za-z0-9+/=]/; // `atob` allows blanks, too
  const NO_BYTES = new Uint8Array(0);

  /** Call *action*, and turn a LocalProtocolError into a RemoteProtocolError. */
  function reading(action) {
    try {
      return action();
    } catch (error) {
      throw error instanceof LocalProtocolError ? new RemoteProtocolError(error.reason) : error;
    }
  }

  /** Return the parts of *message* if its view has parts, else null. */
  function splitForView(message) {
    if (!message.headers.has("multipart")) return null;
    try {
      const parts = message.parts();
      return parts.length <= MAX_SPLIT ? parts : null;
    } catch {
      return null;
    }
  }

  const withoutMultipart = (headers) => [...headers].filter(([name]) => name.toLowerCase() !== "multipart");

  function checkView(message, pairs, limits) {
    if (pairs.length > limits.headerCount) {
      throw new RemoteProtocolError(`there are more than ${limits.headerCount} headers`, 413);
    }
    const { messageSize } = limits;
    const size = message.raw.length;
    if (size > messageSize) throw new MessageTooLarge(`message of ${size} bytes is larger than ${messageSize}`);
    return message;
  }

  // JSON

  /** Return the JSON view of *message*, an LhttpMessage or the argument of its constructor: a string. */
  function encodeJson(message) {
    if (!(message instanceof LhttpMessage)) message = new LhttpMessage(message);
    const parts = splitForView(message);
    const headers = jsonHeaders(parts ? withoutMultipart(message.headers) : [...message.headers]);
    const view = { VERSION, COMMAND: message.command, HEADERS: headers };
    if (parts) view.BODYS = parts.map((part) => ({ HEADERS: jsonHeaders([...part.headers]), ...jsonBody(part) }));
    else Object.assign(view, jsonBody(message));
    return JSON.stringify(view);
  }

  function jsonHeaders(pairs) {
    if (pairs.some(([name]) => LIKE_INDEX.test(name))) return pairs;
    const object = Object.create(null);
    const names = new Map();
    for (const [name, value] of pairs) {
      const key = name.toLowerCase();
      if (!names.has(key)) {
        names.set(key, name);
        object[name] = value;
      } else object[names.get(key)] = [].concat(object[names.get(key)], value);
    }
    return object;
  }

  function jsonBody(message) {
    try {
      return { BODY: message.text };
    } catch {
      return { BODY_BASE64: btoa(octetsOf(message.body)) };
    }
  }

  /**
   * Return the message of a JSON view.
   *
   * @param data a string or bytes.
   * @throws RemoteProtocolError, MessageTooLarge
   */
  function decodeJson(data, { limits = DEFAULT_LIMITS } = {}) {
    let found;
    try {
      found = JSON.parse(typeof data === "string" ? data : decoder.decode(toBytes(data)));
    } catch (error) {
      throw new RemoteProtocolError(`the JSON text is malformed: ${error.message}`);
    }
    const fields = jsonFields(found, JSON_KEYS, "the message");
    const { VERSION: version, COMMAND: command, HEADERS, BODYS, ...bodies } = fields;
    if (version !== null && version !== VERSION) throw new RemoteProtocolError(`VERSION is not '${VERSION}'`);
    if (typeof command !== "string") {
      throw new RemoteProtocolError(command === null ? "COMMAND is missing" : "COMMAND is not a string");
    }
    const pairs = jsonPairs(HEADERS);
    return reading(() => {
      let { body, binary } = jsonContent(bodies);
      if (BODYS !== null) {
        if (bodies.BODY !== null || bodies.BODY_BASE64 !== null) {
          throw new RemoteProtocolError("BODYS excludes BODY and BODY_BASE64");
        }
        if (pairs.some(([name]) => name.toLowerCase() === "multipart")) {
          throw new RemoteProtocolError("BODYS excludes the header multipart, which follows from it");
        }
        if (!Array.isArray(BODYS) || !BODYS.length) {
          throw new RemoteProtocolError("BODYS is not a list of at least one part");
        }
        const joined = joinParts(BODYS.map(jsonPart));
        pairs.push(["multipart", joined.multipart]);
        ({ body, binary } = joined);
      }
      return checkView(new LhttpMessage({ command, headers: pairs, body, binary }), pairs, limits);
    });
  }

  /** Return the values of an object by its upper-case keys; null for missing keys. */
  function jsonFields(found, known, what) {
    if (typeof found !== "object" || found === null || Array.isArray(found)) {
      throw new RemoteProtocolError(`${what} is not a JSON object`);
    }
    const fields = Object.fromEntries([...known].map((key) => [key, null]));
    const seen = new Set();
    for (const [key, value] of Object.entries(found)) {
      const name = key.toUpperCase();
      if (!known.has(name) || NOT_ASCII.test(key)) {
        throw new RemoteProtocolError(`${what} has an unknown key ${shown(key)}`);
      }
      if (seen.has(name)) throw new RemoteProtocolError(`${what} has ${name} twice`);
      seen.add(name);
      fields[name] = value;
    }
    return fields;
  }

  function jsonPairs(found) {
    if (found === null) return [];
    if (typeof found !== "object") throw new RemoteProtocolError("HEADERS is neither an object nor a list of pairs");
    const pairs = [];
    const add = (name, value, why) => {
      if (typeof name !== "string" || typeof value !== "string") throw new RemoteProtocolError(why);
      pairs.push([name, stripBlanks(value)]);
    };
    if (Array.isArray(found)) {
      for (const pair of found) {
        const isPair = Array.isArray(pair) && pair.length === 2;
        add(...(isPair ? pair : [null, null]), "HEADERS lists something that is not a pair of strings");
      }
      return pairs;
    }
    for (const [name, value] of Object.entries(found)) {
      const why = `the value of header ${shown(name)} is not a string or a list of strings`;
      for (const one of Array.isArray(value) ? value : [value]) add(name, one, why);
    }
    return pairs;
  }

  function jsonContent({ BODY, BODY_BASE64 }) {
    if (BODY_BASE64 !== null) {
      if (BODY !== null) throw new RemoteProtocolError("BODY and BODY_BASE64 exclude each other");
      if (typeof BODY_BASE64 !== "string") throw new RemoteProtocolError("BODY_BASE64 is not a string");
      try {
        if (BODY_BASE64.length % 4 || NOT_BASE64.test(BODY_BASE64)) throw new Error("not canonical");
        return { body: bytesOf(atob(BODY_BASE64)), binary: true };
      } catch {
        throw new RemoteProtocolError("BODY_BASE64 is not base64 (RFC 4648, section 4)");
      }
    }
    if (BODY !== null && typeof BODY !== "string") throw new RemoteProtocolError("BODY is not a string");
    return { body: BODY ?? "", binary: false };
  }

  function jsonPart(found) {
    const { HEADERS, ...bodies } = jsonFields(found, PART_KEYS, "a part");
    return { headers: jsonPairs(HEADERS), body: jsonContent(bodies).body };
  }

  // Protocol Buffers: the messages of lhttp.proto, without a library

  /**
   * Return the Protocol Buffers view of *message*, an LhttpMessage or the argument of its constructor: a Uint8Array.
   */
  function encodeProtobuf(message) {
    if (!(message instanceof LhttpMessage)) message = new LhttpMessage(message);
    const parts = splitForView(message);
    const headers = parts ? withoutMultipart(message.headers) : message.headers;
    const chunks = [...field(2, encoder.encode(message.command))];
    for (const pair of headers) chunks.push(...field(3, headerField(pair)));
    for (const part of parts ?? []) {
      const inner = Array.from(part.headers, (pair) => field(1, headerField(pair))).flat();
      chunks.push(...field(5, concat([...inner, ...(part.body.length ? field(2, part.body) : [])])));
    }
    if (!parts && message.body.length) chunks.push(...field(4, message.body));
    if (message.binary) chunks.push(Uint8Array.of(48, 1));
    return concat(chunks);
  }

  function headerField([name, value]) {
    return concat([...field(1, encoder.encode(name)), ...(value ? field(2, encoder.encode(value)) : [])]);
  }

  /** Return a field whose value is *bytes*, as chunks. */
  function field(number, bytes) {
    const head = [(number << 3) | 2];
    let size = bytes.length;
    for (; size > 127; size = Math.floor(size / 128)) head.push((size & 127) | 128);
    head.push(size);
    return [Uint8Array.from(head), bytes];
  }

  function concat(chunks) {
    const whole = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return whole;
  }

  /**
   * Return the message of a Protocol Buffers view. Fields that are not in the schema are skipped.
   *
   * @throws RemoteProtocolError, MessageTooLarge
   */
  function decodeProtobuf(data, { limits = DEFAULT_LIMITS } = {}) {
    if (typeof data === "string") throw new RemoteProtocolError("a Protocol Buffers view is bytes, not text");
    let command = NO_BYTES;
    let body = NO_BYTES;
    let binary = false;
    const pairs = [];
    const parts = [];
    for (const [number, value] of fieldsOf(toBytes(data))) {
      if (number === 1 && value.length && octetsOf(value) !== VERSION) {
        throw new RemoteProtocolError(`version is not '${VERSION}'`);
      }
      if (number === 2) command = value;
      else if (number === 3) pairs.push(readHeader(value));
      else if (number === 4) body = value;
      else if (number === 5) parts.push(value);
      else if (number === 6) binary = value;
    }
    return reading(() => {
      if (!command.length) throw new RemoteProtocolError("command is missing");
      const text = decodeField(command, "command");
      if (parts.length) {
        if (body.length) throw new RemoteProtocolError("parts exclude a body");
        if (pairs.some(([name]) => name.toLowerCase() === "multipart")) {
          throw new RemoteProtocolError("parts exclude the header multipart, which follows from them");
        }
        const joined = joinParts(parts.map(readPart));
        pairs.push(["multipart", joined.multipart]);
        body = joined.body;
      }
      if (!binary) {
        try {
          body = decoder.decode(body);
        } catch {
          binary = true;
        }
      }
      return checkView(new LhttpMessage({ command: text, headers: pairs, body, binary }), pairs, limits);
    });
  }

  function readHeader(bytes) {
    let name = NO_BYTES;
    let content = NO_BYTES;
    for (const [number, value] of fieldsOf(bytes)) {
      if (number === 1) name = value;
      else if (number === 2) content = value;
    }
    return [decodeField(name, "header name"), stripBlanks(decodeField(content, "header value"))];
  }

  function readPart(bytes) {
    const headers = [];
    let body = NO_BYTES;
    for (const [number, value] of fieldsOf(bytes)) {
      if (number === 1) headers.push(readHeader(value));
      else if (number === 2) body = value;
    }
    return { headers, body };
  }

  function decodeField(bytes, what) {
    try {
      return decoder.decode(bytes);
    } catch {
      throw new RemoteProtocolError(`${what} is not UTF-8`);
    }
  }

  /** Yield the number and the value of each field in the schema: bytes, or for a number whether it is not 0. */
  function* fieldsOf(bytes) {
    let at = 0;
    const cutOff = () => new RemoteProtocolError("the message is cut off");
    const varint = () => {
      let number = 0;
      for (let count = 0; count < 10; count += 1) {
        if (at >= bytes.length) throw cutOff();
        const byte = bytes[at++];
        number += (byte & 127) * 2 ** (7 * count);
        if (byte < 128) return number;
      }
      throw new RemoteProtocolError("a number has more than 10 bytes");
    };
    while (at < bytes.length) {
      const tag = varint();
      const [number, kind] = [Math.floor(tag / 8), tag % 8];
      let value = null;
      if (kind === 2) {
        const size = varint();
        if (size > bytes.length - at) throw cutOff();
        value = bytes.subarray(at, at + size);
        at += size;
      } else if (kind === 0) value = varint() !== 0;
      else if (kind === 1 || kind === 5) {
        at += kind === 1 ? 8 : 4;
        if (at > bytes.length) throw cutOff();
      } else throw new RemoteProtocolError(`field ${number} has the wire type ${kind}`);
      if (!(number > 0 && number < 2 ** 29)) throw new RemoteProtocolError("the number of a field is out of bounds");
      if (number <= 5 ? kind === 2 : number === 6 && kind === 0) yield [number, value];
    }
  }

  /** For each value of the option `codec`: the subprotocol, and the functions to write and read messages. */
  const CODECS = Object.freeze({
    text: { subprotocol: null, write: (message) => message.wire, read: parse },
    json: { subprotocol: "lhttp.json", write: encodeJson, read: decodeJson },
    protobuf: { subprotocol: "lhttp.protobuf", write: encodeProtobuf, read: decodeProtobuf },
  });

  // Client

  const DEFAULT_OPTIONS = Object.freeze({
    command: "chat", // of messages without a command
    timeout: 10000, // for a receipt or a reply, from the time the message is sent
    connectTimeout: 10000, // for one attempt to connect
    closeTimeout: 2000, // for the server to answer a close
    heartbeat: 30000, // after this time without messages, the client sends a ping; 0: never
    queueSize: 256, // messages that may wait for a connection
    bufferSize: 1024, // messages that may wait for a `for await` loop
    maxUnsent: 8388608, // bytes that the WebSocket may hold
    reconnect: true,
    resend: true, // whether a publication is sent again if the connection is lost before the answer
    positions: null, // where positions outlive the page: localStorage, or an object with its methods
    login: null, // a function that returns the headers of the login message, or a promise
    limits: Object.freeze({ messageSize: 16777216, headSize: 1048576, headerCount: 1024 }), // of received messages
    codec: "text", // text, json or protobuf; text if the server does not support the other
    WebSocket: null, // the class; by default the global one
    transports: null, // the allowed ones, in this order; by default TRANSPORTS, or only `WebSocket` if that is given
    fallbackUrl: null, // the URL that has /connect and /send below it; by default the root of the host
    comeBack: 60000, // after this time over HTTP, WebSocket is tried again, with longer waits later; 0: never
    protocols: undefined,
  });

  const SEND_OPTIONS = ["command", "headers", "parts", "signal", "onProgress", "binary", "receipt", "timeout"];

  /** The options of each call. A name that is misspelled would have no effect, and nobody would notice. */
  const CALL_OPTIONS = Object.freeze({
    publish: [...SEND_OPTIONS, "id"],
    send: SEND_OPTIONS,
    request: [...SEND_OPTIONS, "reply"],
    history: ["limit", "since", "before", "order", "timeout", "signal"],
    subscribe: ["command", "headers", "last", "since", "onRecovered", "onMissed", "signal"],
    presence: ["signal"],
    uploadChunks: ["headers", "chunkSize", "parallel", "id", "timeout", "signal", "onProgress"],
  });

  const DEFAULT_RECONNECT = Object.freeze({
    initialDelay: 500, // the maximum of the first wait, which is random; the maximum doubles with each wait,
    maxDelay: 30000, // up to this
    attempts: Infinity, // attempts until the client is closed
  });

  const DEFAULT_RESEND = Object.freeze({
    messages: 256, // the most messages that may wait to be sent again,
    bytes: 4194304, // and their size
    time: 100000, // since a message was first sent; by default, a server remembers message ids for two minutes
  });

  const MAX_SINCE = 4096; // bytes of `since` in one message, so that its head stays below a server's limit of 8192
  const MAX_LAST = 9999999;
  const MAX_TRACKED = 1024; // channels of one wildcard subscription whose last offset is remembered
  const MAX_KEPT = 512; // channels whose positions are in a storage
  const KEEPING = 500; // the delay of writing there, so that several changes are written together
  const MAX_REFUSALS = 2; // of logins, in a row or on one connection, which a server may close after three
  const MAX_LATER_REFUSALS = 10; // of logins in a row, of a client that has been logged in before
  const MIN_RENEWAL = 1000; // the least time between a login and the next one
  const ODD_RENEWAL = 30000; // the same if the login has already expired according to this clock
  const MAX_TIMER = 2147483647; // the longest delay of setTimeout
  const PROGRESS = 50; // the time between two calls of onProgress
  const PRESENCE_AGAIN = 3000; // after this time, presence is requested again if an answer was an error or not complete
  const TRIAL = "lhttp.trial"; // the subprotocol of a WebSocket without a session
  const STABLE = 5000; // a connection that lasted this long is good: the next wait begins at initialDelay
  const MAX_TURNS = 64;
  const MAX_OFFSETS = 1024;
  const MAX_IDS = 256; // message ids of one channel in one subscription
  const SAME_ID = 120000; // within this time, messages with the same id are the same message
  const RANKS = Object.freeze({ next: 6, newer: 5, unknown: 4, hole: 3, had: 2, other: 1, twice: 0 }); // of copies
  const OPEN = 1; // WebSocket.readyState
  const TRANSPORTS = Object.freeze(["websocket", "stream", "poll"]);
  const DEAF = 3000; // after this time without messages since the opening, the client checks a transport with a ping
  const CUTS = 2; // short connections in a row after which the next transport is used
  const MAX_COME_BACK = 16; // the maximum factor of `comeBack`
  const HTTP_SOCKET = Symbol.for("lhttp-tx HttpSocket 0.1.0"); // where lhttp-http.js puts its class
  const SCRIPT = root.document?.currentScript?.src || null;

  /** Load lhttp-http.js, which is next to this script, unless it has been loaded. */
  async function loadHttp() {
    if (root[HTTP_SOCKET] || !SCRIPT) return;
    await import(new URL("lhttp-http.js", SCRIPT).href).catch(() => {}); // without it, only WebSocket is used
  }

  /** Call *listener*. If it throws, report an uncaught error, and continue. */
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
    result.promise.catch(() => {}); // an unhandled rejection is no error
    return result;
  }

  /** The base class of objects with events. */
  class Emitter {
    #listeners = new Map();

    /** Call *listener* for each event *name*. Returns a function that removes it. */
    on(name, listener) {
      if (typeof listener !== "function") throw new TypeError("the listener is not a function");
      if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
      this.#listeners.get(name).add(listener);
      return () => this.off(name, listener);
    }

    off(name, listener) {
      this.#listeners.get(name)?.delete(listener);
    }

    /**
     * Call *listener* for the next event *name*. Returns a function that removes it. With an object of options instead
     * of a listener, return a promise of the event. The promise rejects if `options.signal` is aborted before.
     */
    once(name, listener = {}) {
      if (typeof listener === "function") {
        const off = this.on(name, (event) => {
          off();
          listener(event);
        });
        return off;
      }
      return new Promise((resolve, reject) => {
        const stop = whenAborted(listener?.signal, (reason) => {
          off();
          reject(reason);
        });
        const off = this.once(name, (event) => {
          stop();
          resolve(event);
        });
      });
    }

    /** Call the listeners. Returns whether there are any. */
    _fire(name, event) {
      const listeners = [...(this.#listeners.get(name) ?? [])];
      for (const listener of listeners) call(listener, event);
      return listeners.length > 0;
    }
  }

  /**
   * Call *action* with the reason when *signal* is aborted, or immediately if it is. Returns a function that prevents
   * this.
   */
  function whenAborted(signal, action) {
    if (!signal) return () => {};
    const abort = () => action(signal.reason);
    if (signal.aborted) queueMicrotask(abort);
    else signal.addEventListener("abort", abort, { once: true });
    return () => signal.removeEventListener("abort", abort);
  }

  const isBlob = (body) => typeof root.Blob === "function" && body instanceof root.Blob;

  /** Return the headers *init* with `content-type: *type*`, unless they have a `content-type`. */
  function withType(init, type) {
    const pairs = pairsOf(init);
    return !type || pairs.some(([name]) => name.toLowerCase() === "content-type") ? pairs : [...pairs, ["content-type", type]];
  }

  /** Return {headers, body} with a body that is a string or bytes. Other values become JSON. */
  function filled({ headers, body = "" }) {
    if (typeof body === "string" || isBytes(body)) return { headers, body };
    const text = JSON.stringify(body);
    if (text === undefined) throw new TypeError("the body is neither text, nor bytes, nor a value of JSON");
    return { headers: withType(headers, "application/json"), body: text };
  }

  /** Same as `filled`, but reads a Blob or File, and then returns a promise. */
  function filledLater({ headers, body }) {
    if (!isBlob(body)) return filled({ headers, body });
    return body.arrayBuffer().then((bytes) => ({ headers: withType(headers, body.type), body: bytes }));
  }

  /** A promise that calls *unheard* with its error if the program does not wait for the promise. */
  class Answer extends Promise {
    #isAwaited = false;

    static get [Symbol.species]() {
      return Promise;
    }

    static to(action, unheard) {
      const answer = new Answer((resolve) => resolve(action()));
      Promise.prototype.then.call(answer, null, (error) => {
        setTimeout(() => answer.#isAwaited || unheard(error), 0); // by then, the program has called `then` if it waits
      });
      return answer;
    }

    then(...listeners) {
      this.#isAwaited = true;
      return super.then(...listeners);
    }
  }

  /** Resolve with the result of *action*, or of its promise. Rejects if that takes longer than *timeout*. */
  function within(timeout, action) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new TimedOut(`login returned nothing in ${timeout} ms`)), timeout);
      timer.unref?.(); // in Node, where only the connection keeps the program running
      new Promise((done) => done(action())).then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  function webSocketUrl(url) {
    const absolute = new URL(url, root.location?.href);
    if (absolute.protocol === "http:") absolute.protocol = "ws:";
    if (absolute.protocol === "https:") absolute.protocol = "wss:";
    if (!/^wss?:$/.test(absolute.protocol)) throw new TypeError(`${shown(String(url))} is not a WebSocket URL`);
    absolute.hash = "";
    return absolute.href;
  }

  /** The position of a subscription in the history of one channel. */
  class Track {
    epoch = null; // null until a receipt has it
    last = null; // no message up to this offset is missing; null while unknown
    own = null; // the offset of the last message of this channel; null while unknown
    pending = 0; // the number of the message that requests missed messages; 0: none
    count = 0; // messages that have come since then
    ids = new Map(); // message id -> when it came, of the last messages
    held = null; // while the newest messages are requested: messages of another subscription, perhaps
    torn = false; // whether some are missing, because the newest messages were requested again on another connection

    constructor(position = null) {
      if (position !== null) this.moveTo(position);
    }

    get position() {
      return this.epoch === null ? null : `${this.epoch}-${this.last}`;
    }

    moveTo(position) {
      const { epoch, offset } = splitPosition(position);
      this.epoch = epoch;
      this.reach(offset);
    }

    reach(offset, own = null) {
      this.last = offset;
      this.own = own;
    }

    /** Expect the messages that the message *number* requests. */
    ask(number, isHolding = false) {
      this.pending = number;
      this.count = 0;
      this.held = isHolding ? [] : null;
    }

    /**
     * Return "next", "newer", "hole" (messages before it are missing), "twice" or "other" (probably of another
     * channel).
     */
    judge({ offset, after }) {
      if (this.last === null) return "newer";
      if (!isLater(offset, this.last)) return "twice";
      if (after === (this.own ?? this.last)) return "next";
      if (isLater(after, this.last)) return "hole";
      return this.own === null ? "newer" : "other";
    }
  }

  /**
   * Positions in a storage, of at most MAX_KEPT channels. Those that were least recently used are removed first.
   *
   * @param storage has getItem, setItem and removeItem.
   * @param key the key of all positions in the storage.
   * @param fail called with the first error of the storage. Errors of the storage have no other effect.
   */
  class Keeper {
    #storage;
    #key;
    #fail;
    #kept = null; // channel -> position
    #changed = new Set();
    #timer = null;

    constructor(storage, key, fail) {
      this.#storage = storage;
      this.#key = key;
      this.#fail = fail;
    }

    get(channel) {
      this.#kept ??= new Map(this.#read());
      return this.#kept.get(channel) ?? null;
    }

    set(channel, position) {
      this.#kept ??= new Map(this.#read());
      this.#kept.delete(channel);
      this.#kept.set(channel, position);
      if (this.#kept.size > MAX_KEPT) this.#kept.delete(this.#kept.keys().next().value);
      this.#changed.add(channel);
      this.#timer ??= setTimeout(() => this.save(), KEEPING);
    }

    delete(channel) {
      if (this.get(channel) === null) return;
      this.set(channel, "");
      this.#kept.delete(channel);
    }

    /** Write all changes now. Other tabs may have written other channels. */
    save() {
      clearTimeout(this.#timer);
      this.#timer = null;
      if (!this.#changed.size) return;
      const others = this.#read().filter(([channel]) => !this.#changed.has(channel));
      const ours = [...this.#kept].filter(([channel]) => this.#changed.has(channel));
      this.#changed.clear();
      const all = [...others, ...ours].slice(-MAX_KEPT);
      this.#try(() => {
        if (all.length) this.#storage.setItem(this.#key, JSON.stringify(Object.fromEntries(all)));
        else this.#storage.removeItem(this.#key);
      });
    }

    #read() {
      let text = null;
      this.#try(() => (text = this.#storage.getItem(this.#key)));
      try {
        const entries = Object.entries(JSON.parse(text) ?? {});
        return entries.filter(([, position]) => POSITION.test(position)).slice(-MAX_KEPT);
      } catch {
        return []; // it was written by another program
      }
    }

    #try(action) {
      try {
        action();
      } catch (error) {
        this.#fail?.(new LhttpError(`positions cannot be kept: ${error?.message ?? error}`));
        this.#fail = null;
      }
    }
  }

  /**
   * A subscription, the result of `subscribe`: with a listener, or to iterate over its messages.
   *
   * Events: message ({message, channel}); confirmed (subscription), when the server has confirmed it, once for each
   * connection; recovered and missed, as for the client; end ({error}), with null if the program ended it.
   */
  class Subscription extends Emitter {
    #client;
    #listener;
    #buffer = [];
    #waiting = [];
    #buffering;
    #ended = false;
    #error = null;
    #taken = null; // channel and position of the message that a loop is handling

    constructor(client, channels, listener, options) {
      super();
      this.channels = Object.freeze(channels);
      this.#client = client;
      this.#listener = listener;
      this.#buffering = !listener;
      this._options = options;
      this._ready = deferred();
      this._confirmed = false;
      this._unsure = new Set();
      this._tracks = new Map(); // channel -> Track, for channels with history
    }

    /** Whether it has ended: it was unsubscribed or refused, or the client is closed. */
    get closed() {
      return this.#ended;
    }

    /**
     * The position of the last message of each channel with history, including the message that the listener is
     * handling.
     */
    get positions() {
      const known = this.channels.map((channel) => [channel, this._tracks.get(channel)?.position ?? null]);
      return Object.freeze(Object.fromEntries(known.filter(([, position]) => position !== null)));
    }

    /**
     * The channels for which the server's last receipt was not sure that all nodes of its cluster pass on their
     * messages.
     */
    get unsure() {
      return this.channels.filter((channel) => this._unsure.has(channel));
    }

    /** End the subscription. Resolves when the server has confirmed it, or immediately without a connection. */
    unsubscribe() {
      return this.#client._answer(() => this.#client._unsubscribe(this));
    }

    [Symbol.asyncIterator]() {
      this.#buffering = true;
      return this;
    }

    /** Resolve with the next message. */
    next() {
      this.#keepTaken();
      if (this.#buffer.length) return Promise.resolve({ value: this.#take(this.#buffer.shift()), done: false });
      if (this.#error) {
        const error = this.#error;
        this.#error = null;
        return Promise.reject(error);
      }
      if (this.#ended) return Promise.resolve({ value: undefined, done: true });
      return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }

    /** Unsubscribe. Called when the program leaves a `for await` loop. */
    return() {
      this.#keepTaken();
      this.unsubscribe().catch(() => {});
      this.#buffer.length = 0;
      return Promise.resolve({ value: undefined, done: true });
    }

    #take({ message, channel, position }) {
      this.#taken = position === null ? null : [channel, position];
      return message;
    }

    #keepTaken() {
      if (this.#taken) this.#client._keep(...this.#taken);
      this.#taken = null;
    }

    /** Whether the program has handled all messages that have come. */
    get _idle() {
      return !this.#buffer.length && !this.#taken;
    }

    _push(message, channel, bufferSize) {
      const position = this._tracks.get(channel)?.position ?? null;
      if (this.#listener) call(this.#listener, message, channel);
      this._fire("message", { message, channel });
      if (this.#listener && !this.#buffering && position !== null) this.#client._keep(channel, position);
      if (!this.#buffering || this.#ended) return;
      const entry = { message, channel, position };
      if (this.#waiting.length) {
        this.#waiting.shift().resolve({ value: this.#take(entry), done: false });
      } else if (this.#buffer.length < bufferSize) {
        this.#buffer.push(entry);
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
      this._fire("end", { error });
    }
  }

  /**
   * The members of a channel, kept up to date. After each reconnection, and after missed messages, they are requested
   * again. Those who left and those who came in the meantime are told before the sync, as far as it is certain: someone
   * who is missing in a list has left only if the list has all members.
   *
   * Events: join and leave ({user, connection}); sync (the Presence), when the server has sent all members; change (the
   * Presence), after each join, leave and sync; end ({error}).
   */
  class Presence extends Emitter {
    #client;
    #subscription = null;
    #people = new Map(); // key of a user, or of an anonymous connection -> {user, connections}
    #knowsAll = false; // whether no member is missing in #people
    #isSynced = false;
    #early = null; // events that came during a request
    #timer = null;
    #error = null;

    constructor(client, channel) {
      super();
      this.#client = client;
      this.channel = channel;
      this.count = this.connections = 0; // all members, and all their connections, listed or not
      this.complete = true; // false while a node of the cluster does not hear all others
    }

    static async _of(client, channel, { signal }) {
      const presence = new Presence(client, channel);
      const synced = deferred();
      presence.once("sync", () => synced.resolve());
      presence.once("end", ({ error }) => synced.reject(error ?? new ConnectionLost("client is closed")));
      presence.#subscription = await client.subscribe(PRESENCE + channel, (message) => presence.#told(message), { signal });
      presence.#subscription.on("confirmed", () => presence.#ask());
      presence.#subscription.on("missed", () => presence.#ask());
      presence.#subscription.once("end", ({ error }) => presence.#end(error));
      presence.#ask();
      await synced.promise;
      return presence;
    }

    /** The members, each {user, connections}. The server lists at most 500. */
    get people() {
      return [...this.#people.values()];
    }

    /** The names of the members that have one. */
    get users() {
      return this.people.map(({ user }) => user).filter((user) => user !== null);
    }

    /** Return whether *user* is a listed member. */
    has(user) {
      return this.#people.has(`u${user}`);
    }

    get closed() {
      return this.#subscription?.closed ?? false;
    }

    /** End the subscription to the channel's presence. */
    close() {
      return this.#subscription.unsubscribe();
    }

    async #ask() {
      clearTimeout(this.#timer);
      const early = (this.#early = []);
      let found;
      try {
        const answer = await this.#client.request("presence", "", { headers: { channel: this.channel } });
        found = answerOf(answer);
      } catch (error) {
        if (early !== this.#early || this.closed) return;
        this.#early = null;
        if (error instanceof ConnectionLost) return; // it is requested again with the next connection
        const isFinal = error instanceof ServerError && error.status < 500 && error.status !== 429;
        if (isFinal || error instanceof RemoteProtocolError) {
          this.#error = error;
          this.close().catch(() => {});
        } else this.#again();
        return;
      }
      if (early !== this.#early || this.closed) return; // it was requested again
      this.#early = null;
      const [old, knewAll] = [this.#people, this.#knowsAll];
      this.#people = new Map(found.people.map((person) => [keyOf(person.user, person.connections[0]), person]));
      this.#knowsAll = this.#people.size >= found.count;
      for (const event of early) this.#apply(event); // which the answer may include or not
      this.count = found.count;
      this.connections = found.connections;
      this.complete = found.complete !== false;
      this.#isSynced = true;
      if (!this.complete) this.#again();
      if (this.#knowsAll) this.#tell("leave", old, this.#people);
      if (knewAll) this.#tell("join", this.#people, old);
      this.#show("sync", this);
      this.#show("change", this);
    }

    /** Tell about the members of *some* who are not in *others*. */
    #tell(name, some, others) {
      for (const [key, { user, connections }] of [...some]) {
        if (!others.has(key)) this.#show(name, { user, connection: connections[0] });
      }
    }

    #show(name, event) {
      if (!this.closed) this._fire(name, event); // a listener may have closed it
    }

    #again() {
      this.#timer = setTimeout(() => this.#ask(), PRESENCE_AGAIN);
    }

    #told(message) {
      let event;
      try {
        event = message.json();
      } catch {
        return;
      }
      if (event.event !== "join" && event.event !== "leave") return;
      if (this.#early) this.#early.push(event);
      if (!this.#isSynced) return;
      const isNew = this.#apply(event);
      this.count = event.count;
      this.connections = event.connections;
      if (isNew) this.#show(event.event, { user: event.user, connection: event.connection });
      this.#show("change", this);
    }

    /** Note a join or leave. Return whether it was new. */
    #apply({ event, user, connection }) {
      const key = keyOf(user, connection);
      if (event === "leave") return this.#people.delete(key) || !this.#knowsAll;
      if (this.#people.has(key)) return false;
      this.#people.set(key, { user, connections: [connection] });
      return true;
    }

    #end(error) {
      clearTimeout(this.#timer);
      this.#early = null;
      this._fire("end", { error: this.#error ?? error });
    }
  }

  /** Return the list in the answer to a presence message, which another server could have made up. */
  function answerOf(message) {
    let found = null;
    try {
      found = message.json();
    } catch {} // the next line refuses it
    const isPerson = (person) => Array.isArray(person?.connections) && person.connections.length > 0;
    if (Array.isArray(found?.people) && found.people.every(isPerson)) return found;
    throw new RemoteProtocolError("the answer has no list of people");
  }

  function keyOf(user, connection) {
    return user === null ? `c${connection}` : `u${user}`;
  }

  /**
   * A client with a connection, which it opens again when it is lost.
   *
   * Events, with `on(name, listener)`:
   *   state    ({state, previous, error, delay}): closed, connecting, open, reconnecting
   *   login    ({user, expires}): the server has accepted a login; the first one comes before the state is open
   *   message  (message): every message except receipts, errors and replies to `request`
   *   error    (error): an error without a promise, or of a promise that the program does not wait for; it goes to the
   *                     console if there is no listener
   *   receive  (message): every message
   *   recovered ({channel, position, count, subscription}): after a lost connection or missing messages, the *count*
   *                     messages that were missing have come, and none is missing now
   *   missed   ({channel, position, subscription}): messages may be missing, and will not come; messages continue
   *                     after *position*, which is null in a channel without history
   */
  class LhttpClient extends Emitter {
    #options;
    #reconnect;
    #state = "closed";
    #socket = null;
    #ways;
    #way = 0; // the index of the transport for the next connection
    #mode = "websocket"; // the transport of this connection
    #bad = 0; // short connections in a row
    #isDeaf = false; // whether no message came through this connection
    #returning = null;
    #returns = 0;
    #codec = CODECS.text;
    #opening = null;
    #closing = null;
    #isEnded = false; // whether it was closed after the last connect()
    #down = null; // called when the close of a socket is complete
    #attempts = 0;
    #openedAt = 0;
    #heardAt = 0;
    #timer = null; // of connecting, of the wait before it, or of the heartbeat
    #user = null;
    #expires = null;
    #renewal = null; // the timer of the next login
    #refusals = 0; // of logins: in a row before the connection is open, or all on an open connection
    #isKnown = false; // whether a login has succeeded since it was closed
    #lag = 0; // how much this clock is behind the server's, if known
    #queue = [];
    #resend;
    #again = []; // publications that were sent on a lost connection, without an answer
    #pending = new Map();
    #subscriptions = new Set();
    #channels = new Map(); // channel or wildcard subscription -> the subscriptions to it
    #wildcards = new Wildcards(); // the wildcards among the keys of #channels
    #turns = new Map();
    #shared = new Map(); // key of a publication to several channels -> the copies that have come
    #offsets = new Map(); // offset of a publication to several channels -> the channel of the copy with it
    #holes = new Set(); // channels whose missing messages were requested
    #asked = 0;
    #keeper = null;
    #prefix = Math.random().toString(36).slice(2, 10);
    #count = 0;
    #online = () => this.#retryNow();
    #leaving = () => this.#keeper?.save();

    /**
     * @param url ws, wss, http or https; in a browser, it may be relative to the page. The client does not connect yet.
     */
    constructor(url, options = {}) {
      super();
      for (const name of Object.keys(options)) {
        if (!(name in DEFAULT_OPTIONS)) throw new TypeError(`LhttpClient has no option ${name}`);
      }
      this.url = webSocketUrl(url);
      const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
      this.#options = { ...DEFAULT_OPTIONS, ...given };
      const { reconnect } = this.#options;
      this.#reconnect = reconnect ? { ...DEFAULT_RECONNECT, ...(reconnect === true ? {} : reconnect) } : null;
      const { resend, positions } = this.#options;
      this.#resend = resend ? { ...DEFAULT_RESEND, ...(resend === true ? {} : resend) } : null;
      if (positions) {
        for (const name of ["getItem", "setItem", "removeItem"]) {
          if (typeof positions[name] !== "function") throw new TypeError(`the option positions has no method ${name}`);
        }
        const { origin, host, protocol, pathname } = new URL(this.url);
        const address = origin === "null" ? `${protocol}//${host}` : origin; // some browsers have no origin for ws:
        this.#keeper = new Keeper(positions, `lhttp ${address}${pathname}`, (error) => this.#emit("error", error));
      }
      if (this.#options.login && typeof this.#options.login !== "function") {
        throw new TypeError("the option login is not a function");
      }
      const { codec, protocols } = this.#options;
      if (!Object.hasOwn(CODECS, codec)) throw new TypeError("the option codec is text, json or protobuf");
      if (codec !== "text" && protocols === undefined) this.#options.protocols = [CODECS[codec].subprotocol, "lhttp"];
      this.#ways = this.#options.transports ?? (this.#options.WebSocket ? ["websocket"] : TRANSPORTS);
      if (!this.#ways.length || [...this.#ways].some((name) => !TRANSPORTS.includes(name))) {
        throw new TypeError(`the option transports lists some of ${TRANSPORTS.join(", ")}`);
      }
      this.#options.WebSocket ??= root.WebSocket;
      if (!this.#options.WebSocket && this.#ways.includes("websocket")) {
        throw new TypeError("there is no global WebSocket: pass a class as the option WebSocket, such as that of ws");
      }
    }

    /** closed, connecting, open or reconnecting. */
    get state() {
      return this.#state;
    }

    /** The current WebSocket, or an object with its interface; null without a connection. */
    get socket() {
      return this.#socket;
    }

    /** The transport of the current connection: websocket, stream or poll; null without one. */
    get transport() {
      return this.#state === "open" ? this.#mode : null;
    }

    /** The name of the user, according to the server; null while the client is not logged in. */
    get user() {
      return this.#user;
    }

    /** When the login expires, in milliseconds since 1970 by the server's clock; null if it does not expire. */
    get expires() {
      return this.#expires;
    }

    /** How many messages wait for a connection. */
    get queued() {
      return this.#queue.length + this.#again.length;
    }

    /**
     * Connect. Resolves when the connection is open. With `reconnect`, the client tries until then, or until `close()`.
     *
     * With the option `login`, the connection is open when the server has accepted the login. Rejects with
     * ConnectionLost after the last attempt or `close()`, and with the server's error if it refuses the login.
     *
     * @param options {signal}: if it is aborted before the connection is open, the client is closed.
     */
    connect({ signal } = {}) {
      if (!signal) return this.#connect();
      return new Promise((resolve, reject) => {
        const stop = whenAborted(signal, (reason) => {
          reject(reason);
          if (this.#state !== "open") this.close();
        });
        if (signal.aborted) return;
        this.#connect().then(resolve, reject).finally(stop);
      });
    }

    #connect() {
      if (this.#state === "open") return Promise.resolve();
      this.#isEnded = false;
      const isWanted = this.#opening !== null;
      this.#opening ??= deferred();
      const { promise } = this.#opening;
      if (this.#state === "closed" && !isWanted) {
        if (this.#closing) this.#closing.then(() => this.#opening?.promise === promise && this.#start());
        else this.#start();
      }
      return promise;
    }

    #start() {
      this.#attempts = 0;
      root.addEventListener?.("online", this.#online);
      root.addEventListener?.("pagehide", this.#leaving);
      if (this.#ways[this.#way] === "websocket" || root[HTTP_SOCKET]) this.#dial();
      else loadHttp().then(() => this.#state === "closed" && this.#opening && this.#dial());
    }

    /**
     * Log in again now, as another user or with other rights. Other messages do not wait for this.
     *
     * Resolves when the server has accepted the result of the option `login`. If it is another user, the client opens a
     * new connection. Then subscriptions are restored, and messages without an answer fail with ConnectionLost.
     */
    login() {
      return this._answer(() => this.#logInNow());
    }

    async #logInNow() {
      if (!this.#options.login) throw new TypeError("the client was made without the option login");
      if (this.#state === "closed") throw new ConnectionLost("client is closed");
      if (this.#state !== "open") await this.connect();
      try {
        await this.#logIn({ isAsked: true });
      } catch (error) {
        if (this.#state === "closed" || this.#state === "open") throw error;
        await this.connect(); // with a login
      }
    }

    /**
     * Close the connection, and do not reconnect. All subscriptions end. Promises that wait reject with ConnectionLost.
     *
     * When the connection is closed, resolves with the messages that were never sent, in order.
     */
    async close(code = 1000, reason = "") {
      const unsent = this.#queue.map((entry) => entry.message);
      const socket = this.#socket;
      this.#end(new ConnectionLost("client was closed", { code }), null);
      if (socket && !this.#closing) {
        const down = deferred();
        const timer = setTimeout(() => this.#drop("no answer to the close"), this.#options.closeTimeout);
        this.#closing = down.promise;
        this.#down = () => {
          clearTimeout(timer);
          this.#closing = null;
          down.resolve();
        };
        socket.close(code, reason);
      }
      await this.#closing;
      return unsent;
    }

    /**
     * Publish *body* to a channel or a list of channels.
     *
     * @param body a string, bytes, a Blob or File, or a value that is sent as JSON. A Blob is read first, so later
     *   messages may be sent before it.
     * @param options {command, headers, parts, binary, receipt, timeout, id, signal, onProgress}: `id` is the message
     *   id, 1 to 64 visible ASCII characters; by default a new one. The server does not publish a second message with
     *   the same id. When `signal` is aborted, the promise rejects, and a message that was not sent is discarded.
     *   `onProgress` is called with {sent, total}, in bytes.
     * @returns a promise that resolves with the receipt when the server has the message, or, with `receipt: false`,
     *   with null when the message was passed to the WebSocket. The receipt has its `positions` in the histories, and
     *   `duplicate`. Rejects with ServerError, ConnectionLost, QueueFull or TimedOut. Without a connection the message
     *   waits for one. If the connection is lost before the answer, the message is sent again with the same id, within
     *   the bounds of the option `resend`.
     */
    publish(channels, body = "", options = {}) {
      return this.#answerWith("publish", body, options, (ready, own) => this.#publish(channels, ready, own));
    }

    #publish(channels, body, { id, ...options }) {
      const headers = [["publish", listOf(channels).join(" ")]];
      const own = pairsOf(options.headers);
      if (id === undefined) id = new LhttpHeaders(own).get("message-id");
      else own.push(["message-id", id]);
      const hasReceipt = options.receipt ?? true;
      if (id === undefined && hasReceipt) {
        id = randomId(); // nobody can guess the next id and use it first
        own.push(["message-id", id]);
      }
      if (id !== undefined && !MESSAGE_ID.test(id)) {
        throw new LocalProtocolError(`message id ${shown(String(id))} is not 1 to 64 visible ASCII characters`);
      }
      return this.#send(headers, body, { ...options, headers: own, again: hasReceipt });
    }

    /**
     * Send a message to the server, as `publish` does, but without channels. The command selects the processor. The
     * body of the receipt is the backend's answer if there is an `upstream` header.
     */
    send(command, body = "", options = {}) {
      return this.#answerWith("send", body, options, (ready, own) => this.#send([], ready, { ...own, command }));
    }

    /** Send *parts*, each {headers, body}, as one multipart message. Resolves with the reply, as `request` does. */
    upload(command, parts, options = {}) {
      return this.request(command, "", { ...options, parts });
    }

    /**
     * Send a message. Resolves with the reply of a processor.
     *
     * The reply is the message with the `receipt` header of the request, which the server adds unless the processor set
     * headers. Otherwise the reply is the next message with the command `options.reply`, by default the command of the
     * request. Rejects with NoReply (404) if the server has finished without a reply.
     */
    request(command, body = "", options = {}) {
      const reply = options.reply ?? command;
      return this.#answerWith("request", body, options, (ready, own) =>
        this.#send([], ready, { ...own, command, receipt: true, reply }),
      );
    }

    /** Call *action* with options that have the filled body or parts. Only a Blob makes this wait. */
    #answerWith(name, body, options, action) {
      return this._answer(() => {
        checkOptions(name, options);
        options.signal?.throwIfAborted();
        const parts = options.parts ? [...options.parts] : null;
        if (![body, ...(parts ?? []).map((part) => part.body)].some(isBlob)) {
          const ready = filled({ headers: options.headers, body });
          return action(ready.body, { ...options, headers: ready.headers, parts: parts?.map(filled) });
        }
        const whole = filledLater({ headers: options.headers, body });
        return Promise.all([whole, ...(parts ?? []).map(filledLater)]).then(([ready, ...others]) => {
          options.signal?.throwIfAborted();
          return action(ready.body, { ...options, headers: ready.headers, parts: parts ? others : undefined });
        });
      }, options.signal);
    }

    /**
     * Publish several messages at once, each {channels, body} with the options of `publish`.
     *
     * @returns a promise of a list of {receipt, error}, in the same order. One of the two is null.
     */
    batch(messages) {
      const publishing = Array.from(messages, ({ channels, body, ...options }) => this.publish(channels, body, options));
      return Promise.all(
        publishing.map((one) => one.then((receipt) => ({ receipt, error: null }), (error) => ({ receipt: null, error }))),
      );
    }

    /**
     * Send a Blob, a File or bytes in chunks. This continues after a reconnection.
     *
     * Each chunk is a message with the headers `upload`, an id that is the same for all chunks, `content-range`, as in
     * HTTP, and, if they are known, `content-type` and `filename`. If the connection is lost before the answer to a
     * chunk, the chunk is sent again, so it may come twice, and after later ones.
     *
     * @param options {headers, chunkSize, parallel, id, timeout, signal, onProgress}: `parallel` is how many chunks may
     *   wait for their answers. `onProgress` is called with {sent, total}: the bytes that the server has.
     * @returns a promise of {id, reply}: the last reply of a processor, or null.
     */
    uploadChunks(command, file, options = {}) {
      return this._answer(() => {
        checkOptions("uploadChunks", options);
        return this.#uploadChunks(command, file, options);
      }, options.signal);
    }

    async #uploadChunks(command, file, { headers, chunkSize = 32768, parallel = 4, id = randomId(), ...options }) {
      const whole = isBlob(file) ? file : new root.Blob([typeof file === "string" ? file : toBytes(file)]);
      const total = whole.size;
      const name = stripBlanks(String(file.name ?? "").replace(new RegExp(CONTROLS, "g"), " "));
      const common = withType(headers, whole.type);
      common.push(["upload", id], ...(name && !LONE_SURROGATE.test(name) ? [["filename", name]] : []));
      const { timeout, signal, onProgress } = options;
      let [next, sent, last, reply] = [0, 0, -1, null];
      const send = async (start) => {
        const body = await whole.slice(start, start + chunkSize).arrayBuffer();
        const end = start + body.byteLength;
        const range = total ? `bytes ${start}-${end - 1}/${total}` : "bytes */0";
        const own = [...common, ["content-range", range]];
        for (;;) {
          signal?.throwIfAborted();
          try {
            const answer = await this.#send([], body, { command, headers: own, reply: command, timeout, signal });
            if (start > last) [last, reply] = [start, answer];
            break;
          } catch (error) {
            if (error instanceof NoReply) break;
            if (!(error instanceof ConnectionLost) || this.#state === "closed") throw error;
          }
        }
        sent += body.byteLength;
        if (onProgress) call(onProgress, { sent, total });
      };
      const work = async () => {
        while (next < total || (next === 0 && total === 0)) {
          const start = next;
          next += total ? chunkSize : 1;
          await send(start);
        }
      };
      const workers = Array.from({ length: Math.max(1, parallel) }, work);
      try {
        await Promise.all(workers);
      } catch (error) {
        next = Infinity; // the other loops end after their current chunk
        throw error;
      }
      return { id, reply };
    }

    /**
     * Follow the members of a channel with presence.
     *
     * @param options {signal}: as for `subscribe`.
     * @returns a promise of a Presence, which resolves when the members are known. Rejects with ServerError, with
     *   status 404 if the channel has no presence, and 403 if no channel of the server has.
     */
    presence(channel, options = {}) {
      return this._answer(() => {
        checkOptions("presence", options);
        return Presence._of(this, checkChannel(channel), options);
      }, options.signal);
    }

    /**
     * Return a page of the history of a channel.
     *
     * @param options {limit, since, before, order, timeout}: at most *limit* messages: the first ones after the
     *   position *since*, or the last ones before the position *before*, or else the oldest. `order: "newest"` begins
     *   with the newest, and cannot be combined with *since*.
     * @returns a promise of {channel, messages, position, more, missed, next}. *next* has the options for the next
     *   page, or is null after the last page. *missed* is whether messages after *since* have been removed from the
     *   history. Rejects with ServerError, with status 404 if the channel has no history.
     */
    history(channel, options = {}) {
      return this._answer(() => {
        checkOptions("history", options);
        return this.#history(channel, options);
      }, options.signal);
    }

    async #history(channel, { limit, since, before, order, timeout, signal }) {
      const asked = Object.entries({ limit, since, before, order }).filter(([, value]) => value != null);
      for (const position of [since, before]) if (position != null) checkPosition(position);
      const headers = [["channel", checkChannel(channel)], ...pairsOf(asked)];
      const answer = await this.#send(headers, "", { command: "history", reply: "history", timeout, signal });
      const position = answer.headers.get("position") ?? "";
      if (answer.headers.get("channel") !== channel || !POSITION.test(position)) {
        throw new RemoteProtocolError(`the answer is no history of channel ${shown(channel)}`);
      }
      const messages = answer.parts().map(messageOf);
      const more = answer.headers.get("more") === "1";
      let next = null;
      if (more && messages.length) {
        const { since: _, before: __, ...same } = Object.fromEntries(asked);
        const first = messages.at(order === "newest" ? -1 : 0).headers.get("offset");
        const isBackward = order === "newest" || before != null;
        const { epoch } = splitPosition(position);
        next = isBackward ? { ...same, before: `${epoch}-${first}` } : { ...same, since: position };
      }
      return { channel, messages, position, more, missed: answer.headers.get("missed") === "1", next };
    }

    /**
     * Subscribe to a channel or a list of channels, now and after each reconnection.
     *
     * In channels with history, messages that were missed without a connection come first, and no message comes twice.
     *
     * @param channels names of channels, or wildcards such as `room.*` and `room.>`.
     * @param listener called with each message and its channel. Without a listener, iterate over the result:
     *   `for await (const message of await client.subscribe("room"))`.
     * @param options {command, headers, last, since, onRecovered, onMissed}: *command* and *headers* are those of the
     *   message that subscribes. *last*: how many of the newest messages come first if no position is known. *since*: a
     *   position, or an object of channel to position; messages after it come first; null: ignore stored positions.
     *   *onRecovered* and *onMissed* are listeners for the events `recovered` and `missed`. The subscription ends when
     *   *signal* is aborted.
     * @returns a promise of a Subscription, which resolves when the server has confirmed it. Without a connection it
     *   waits for one, even before `connect()`. Rejects with ServerError, or with ConnectionLost if the client is
     *   closed.
     */
    subscribe(channels, listener = null, options = {}) {
      if (isOptions(listener)) [listener, options] = [null, listener];
      return this._answer(() => this.#subscribe(channels, listener, options), options.signal);
    }

    async #subscribe(channels, listener, options) {
      checkOptions("subscribe", options);
      if (listener !== null && typeof listener !== "function") throw new TypeError("the listener is not a function");
      const subscription = new Subscription(this, listOf(channels, checkSubscription), listener, options);
      if (this.#isEnded) throw new ConnectionLost("client is closed");
      options.signal?.throwIfAborted();
      this.#findPositions(subscription);
      this.#subscriptionMessage(subscription, { channels: subscription.channels }, "0"); // may throw
      this.#subscriptions.add(subscription);
      for (const channel of subscription.channels) {
        if (!this.#channels.has(channel)) this.#channels.set(channel, new Set());
        if (isWildcard(channel)) this.#wildcards.add(channel);
        this.#channels.get(channel).add(subscription);
      }
      const stop = whenAborted(options.signal, (reason) => {
        subscription._ready.reject(reason);
        subscription.unsubscribe().catch(() => {});
      });
      subscription.once("end", stop);
      if (this.#state === "open") this.#establish(subscription);
      await subscription._ready.promise;
      return subscription;
    }

    /** Set the positions from which a subscription continues: those of the program, or else stored ones. */
    #findPositions(subscription) {
      const { last, since } = subscription._options;
      if (last !== undefined && !(Number.isInteger(last) && last >= 0 && last <= MAX_LAST)) {
        throw new LocalProtocolError(`last ${shown(String(last))} is not a number of messages`);
      }
      const given = typeof since === "string" ? null : Object.entries(since ?? {});
      for (const [channel, position] of given ?? []) {
        if (!subscription.channels.includes(channel)) {
          throw new LocalProtocolError(`since names ${shown(channel)}, which is not subscribed to`);
        }
        checkPosition(position);
      }
      if ((last || since != null) && subscription.channels.some(isWildcard)) {
        throw new LocalProtocolError("a wildcard subscription has no history: leave out since and last");
      }
      const positions = new Map(given ?? subscription.channels.map((name) => [name, checkPosition(since)]));
      for (const channel of subscription.channels) {
        const position = positions.get(channel) ?? (since === undefined ? this.#kept(channel) : null);
        if (position !== null) subscription._tracks.set(channel, new Track(position));
      }
    }

    #kept(channel) {
      return isWildcard(channel) ? null : (this.#keeper?.get(channel) ?? null);
    }

    /** Store a position, if the program wants that. */
    _keep(channel, position) {
      this.#keeper?.set(channel, position);
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

    /** The server has ended the subscriptions to a channel. They end as if it had refused them. */
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

    /**
     * Return a promise of the result of *action*. If the program does not wait for the promise, an error is an event,
     * unless it is the reason of *signal*.
     */
    _answer(action, signal) {
      return Answer.to(action, (error) => {
        if (signal?.aborted && error === signal.reason) return;
        if (error instanceof LhttpError) this.#emit("error", error);
        else throw error; // a bug in the program
      });
    }

    #send(headers, body, options = {}) {
      const { command, headers: own, parts, receipt = true, timeout, reply, direct, again, signal, onProgress } = options;
      let { binary } = options;
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
      return this._submit(message, { token, timeout, reply, direct, again, signal, onProgress });
    }

    /**
     * @param first whether it is a login, which may be sent before the connection is open.
     * @param again whether the message may be sent again if the connection is lost before the answer.
     * @param apply called with the receipt, before any later message is handled.
     * @param progress returns a number. If the number has changed at the time limit, the answer gets as much time
     *   again.
     * @param signal when it is aborted, the promise rejects, and a message that was not sent is discarded.
     * @param onProgress called with {sent, total}, in bytes.
     */
    _submit(message, options = {}) {
      const { token = null, timeout, reply = null, direct = false, first = false } = options;
      const { again = false, apply = null, progress = null, signal = null, onProgress = null } = options;
      return new Promise((done, failed) => {
        const stop = whenAborted(signal, (reason) => this.#abandon(entry, reason));
        const resolve = (value) => (stop(), done(value));
        const reject = (error) => (stop(), failed(error));
        const entry = { message, token, resolve, reject, reply, again, apply, progress, timer: null, answer: null };
        entry.sentAt = null;
        entry.onProgress = onProgress;
        entry.timeout = timeout ?? this.#options.timeout;
        if ((this.#state === "open" || first) && this.#socket?.readyState === OPEN) this.#write(entry);
        else if ((this.#state === "closed" && !this.#opening) || direct) {
          const advice = this.#state === "closed" ? ": call connect()" : "";
          reject(new ConnectionLost(`there is no connection${advice}`, { unsent: message }));
        } else if (this.#queue.length < this.#options.queueSize) this.#queue.push(entry);
        else reject(new QueueFull(`${this.#queue.length} messages wait for a connection already`, message));
      });
    }

    /**
     * Reject *entry*. If it was sent, it stays in #pending, so that its reply is not taken for the reply to another
     * message.
     */
    #abandon(entry, reason) {
      for (const list of [this.#queue, this.#again]) {
        const at = list.indexOf(entry);
        if (at < 0) continue;
        list.splice(at, 1);
        clearTimeout(entry.timer);
      }
      entry.again = false;
      entry.reject(reason);
    }

    /** Report how much of *data* has left the WebSocket. */
    #watch(entry, data) {
      const socket = this.#socket;
      const total = typeof data === "string" ? encoder.encode(data).length : data.length;
      let sent = -1;
      const look = () => {
        if (socket !== this.#socket) return; // the message is sent again, or fails
        const now = Math.max(sent, total - Math.min(socket.bufferedAmount, total));
        if (now > sent) call(entry.onProgress, { sent: now, total });
        sent = now;
        if (sent < total) setTimeout(look, PROGRESS);
      };
      look();
    }

    #write(entry) {
      const { message, token, resolve, reject, timeout } = entry;
      if (this.#socket.bufferedAmount > this.#options.maxUnsent) {
        const unsent = entry.sentAt === null ? message : null;
        reject(new QueueFull(`${this.#socket.bufferedAmount} bytes wait in the WebSocket already`, unsent));
        return;
      }
      const data = this.#codec.write(message);
      this.#socket.send(data);
      if (entry.onProgress) this.#watch(entry, data);
      entry.sentAt ??= Date.now();
      if (token === null) {
        resolve(null);
        return;
      }
      let progress = entry.progress?.();
      const expired = () => {
        if (entry.progress && progress !== entry.progress()) {
          progress = entry.progress();
          entry.timer = setTimeout(expired, timeout);
          return;
        }
        this.#pending.delete(token);
        reject(new TimedOut(`no answer to ${message.command} in ${timeout} ms`));
      };
      entry.timer = setTimeout(expired, timeout);
      this.#pending.set(token, entry);
    }

    /**
     * Keep a message that was sent, for the next connection, if the bounds of `resend` allow. Returns whether it is
     * kept.
     */
    #keepToSend(entry, error) {
      if (!entry.again || !this.#resend || !this.#reconnect || this.#down || this.#state === "closed") return false;
      const { messages, bytes, time } = this.#resend;
      const rest = entry.sentAt + time - Date.now();
      const size = this.#again.reduce((sum, { message }) => sum + message.raw.length, entry.message.raw.length);
      if (rest <= 0 || this.#again.length >= messages || size > bytes) return false;
      this.#again.push(entry);
      entry.timer = setTimeout(() => {
        this.#again.splice(this.#again.indexOf(entry), 1);
        entry.reject(error);
      }, rest);
      return true;
    }

    #token() {
      this.#count += 1;
      return `${this.#prefix}-${this.#count}`;
    }

    // Subscriptions

    #subscriptionMessage({ _options: { command, headers } }, { channels, since = null, last = 0 }, token) {
      const pairs = [["subscribe", channels.join(" ")]];
      if (since) pairs.push(["since", channels.map((channel) => `${channel}=${since.get(channel)}`).join(" ")]);
      if (last) pairs.push(["last", last]);
      pairs.push(["gaps", "tell"], ...pairsOf(headers), ["receipt", token]);
      return new LhttpMessage({ command: command ?? this.#options.command, headers: pairs });
    }

    /** Subscribe at the server, on a connection that does not have *subscription*. */
    #establish(subscription) {
      const wasConfirmed = subscription._confirmed;
      for (const channel of subscription._tracks.keys()) {
        if (!subscription.channels.includes(channel)) subscription._tracks.delete(channel); // it belongs to a wildcard
      }
      const questions = this.#questions(subscription);
      let unanswered = questions.length;
      const asking = questions.map((question) =>
        this.#ask(subscription, question, (receipt) => {
          unanswered -= 1;
          if (!unanswered) subscription._confirmed = true;
          for (const channel of question.channels) {
            this.#arrived(subscription, channel, receipt, wasConfirmed || question.since !== null);
          }
        }),
      );
      Promise.all(asking).then(
        () => {
          subscription._ready.resolve();
          if (!subscription.closed) subscription._fire("confirmed", subscription);
        },
        (error) => {
          if (subscription.closed || error instanceof ConnectionLost) return; // the next connection subscribes again
          if (subscription._confirmed && error.status >= 500) {
            this.#drop(`subscribing again failed: ${error.reason}`);
            return;
          }
          subscription._ready.reject(error);
          subscription._end(error);
          // The server may have subscribed to some of the channels.
          if (error instanceof TimedOut || asking.length > 1) this._unsubscribe(subscription).catch(() => {});
          else this.#forget(subscription);
          if (subscription._confirmed) this.#emit("error", error);
        },
      );
    }

    /** Return {channels, since, last} for each message that subscribes. */
    #questions({ channels, _tracks, _options, _confirmed }) {
      const since = new Map();
      for (const channel of channels) {
        const position = _tracks.get(channel)?.position ?? null;
        if (position !== null && !isWildcard(channel)) since.set(channel, position);
      }
      const last = _confirmed ? 0 : (_options.last ?? 0);
      const others = channels.filter((channel) => !since.has(channel));
      const questions = others.length ? [{ channels: others, since: null, last }] : [];
      let room = 0;
      for (const [channel, position] of since) {
        const size = 2 * encoder.encode(channel).length + position.length + 3;
        room -= size;
        if (room < 0) {
          questions.push({ channels: [], since, last: 0 });
          room = MAX_SINCE - size;
        }
        questions.at(-1).channels.push(channel);
      }
      return questions;
    }

    /** Send one message that subscribes, and call *apply* with its receipt. */
    #ask(subscription, { channels, since, last }, apply) {
      const token = this.#token();
      const message = this.#subscriptionMessage(subscription, { channels, since, last }, token);
      for (const channel of channels) {
        this.#asked += 1;
        if (last && !subscription._tracks.has(channel)) subscription._tracks.set(channel, new Track());
        const isShared = this.#channels.get(channel).size > 1;
        subscription._tracks.get(channel)?.ask(this.#asked, Boolean(last) && isShared);
      }
      const progress = () => channels.reduce((sum, name) => sum + (subscription._tracks.get(name)?.count ?? 0), 0);
      return this._submit(message, { token, direct: true, apply, progress });
    }

    /**
     * Apply a receipt to the track of *channel*. *wasAway*: whether *subscription* may have missed messages, so that an
     * event says whether they have come.
     */
    #arrived(subscription, channel, { headers }, wasAway) {
      if (subscription.closed) return;
      if (wordsOf(headers, "unsure").includes(channel)) subscription._unsure.add(channel);
      else subscription._unsure.delete(channel);
      const position = new Map(positionsIn(headers)).get(channel) ?? null;
      const track = subscription._tracks.get(channel) ?? new Track();
      let isMissing = !wordsOf(headers, "recovered").includes(channel);
      if (position === null) {
        subscription._tracks.delete(channel); // the channel has no history
        this.#keeper?.delete(channel);
      } else {
        const { epoch, offset } = splitPosition(position);
        const isSame = track.epoch === epoch || track.epoch === null;
        if (track.epoch === null && track.last !== null && isLater(track.last, offset)) {
          isMissing = wasAway = true; // the messages before the connection was lost had another epoch
          track.reach(offset);
        }
        if (track.torn) isMissing = wasAway = true;
        track.torn = false;
        if (!isSame) {
          track.own = null;
          this.#offsets.clear();
        }
        if (!isSame || track.last === null || isLater(offset, track.last)) track.reach(offset, track.own);
        if (isMissing && wasAway) track.reach(offset);
        track.epoch = epoch;
        subscription._tracks.set(channel, track);
      }
      const held = track.held ?? [];
      track.pending = 0;
      track.held = null;
      for (const message of held) subscription._push(message, channel, this.#options.bufferSize);
      this.#keepIdle(subscription, channel);
      if (wasAway) this.#tell(isMissing ? "missed" : "recovered", subscription, channel, position, track.count);
    }

    /** Store the position of *subscription*, unless it has messages that the program has not handled yet. */
    #keepIdle(subscription, channel) {
      const position = isWildcard(channel) ? null : (subscription._tracks.get(channel)?.position ?? null);
      if (position !== null && subscription._idle) this._keep(channel, position);
    }

    #tell(name, subscription, channel, position, count) {
      const event = { channel, position, ...(name === "recovered" ? { count } : {}), subscription };
      const { onRecovered, onMissed } = subscription._options;
      const listener = name === "recovered" ? onRecovered : onMissed;
      if (listener) call(listener, event);
      subscription._fire(name, event);
      this.#emit(name, event);
    }

    /** Messages of *channel* are missing: request them by subscribing again, once for all subscriptions. */
    #recover(channel) {
      const subscriptions = [...(this.#channels.get(channel) ?? [])].filter(({ _tracks }) => {
        const track = _tracks.get(channel);
        return track && track.position !== null && !track.pending;
      });
      if (this.#holes.has(channel) || !subscriptions.length) return;
      const tracks = subscriptions.map(({ _tracks }) => _tracks.get(channel));
      const first = tracks.reduce((one, other) => (isLater(one.last, other.last) ? other : one));
      this.#holes.add(channel);
      const question = { channels: [channel], since: new Map([[channel, first.position]]), last: 0 };
      const apply = (receipt) => {
        this.#holes.delete(channel);
        for (const subscription of subscriptions) this.#arrived(subscription, channel, receipt, true);
      };
      const asking = this.#ask(subscriptions[tracks.indexOf(first)], question, apply);
      for (const track of tracks) track.ask(this.#asked);
      asking.catch((error) => {
        if (error instanceof ConnectionLost || !this.#holes.delete(channel)) return;
        if (error.status >= 500 || error.status === 429) {
          this.#drop(`missed messages cannot be read: ${error.reason}`);
        } else {
          this.#revoked(channel, error);
          this.#emit("error", error);
        }
      });
    }

    /**
     * Handle a `missed` message of the server: messages are missing, and do not come. Returns whether *message* is one.
     */
    #isGap({ command, headers }) {
      if (command !== "missed" || ["publish", "receipt"].some((name) => headers.has(name))) return false;
      const channel = headers.get("channel") ?? "";
      const told = POSITION.test(headers.get("position") ?? "") ? headers.get("position") : null;
      const names = told === null ? [channel] : [channel, ...this.#wildcards.matching(channel)];
      let isKnown = false;
      for (const name of names) {
        for (const subscription of [...(this.#channels.get(name) ?? [])]) {
          isKnown = true;
          const track = subscription._tracks.get(channel);
          if (told !== null && track) {
            if (name === channel) track.moveTo(told);
            else track.reach(splitPosition(told).offset);
          }
          this.#keepIdle(subscription, name);
          this.#tell("missed", subscription, channel, told);
        }
      }
      return isKnown;
    }

    /** Forget *subscription*, and return its channels that no other subscription has. */
    #forget(subscription) {
      if (!this.#subscriptions.delete(subscription)) return [];
      return subscription.channels.filter((channel) => {
        const others = this.#channels.get(channel);
        others.delete(subscription);
        if (others.size) return false;
        this.#wildcards.delete(channel);
        return this.#channels.delete(channel);
      });
    }

    #deliver(message) {
      let listed;
      try {
        listed = splitChannels(message.headers.getAll("publish"), checkPublished);
      } catch {
        return;
      }
      const marks = marksOf(message);
      const named = marks && message.headers.get("offset-of"); // the channel of this copy
      if (named && listed.includes(named)) listed = [named];
      const copies = []; // pairs of a channel, and the channel or wildcard that was subscribed to
      for (const channel of listed) {
        if (this.#channels.has(channel)) copies.push([channel, channel]);
        if (this.#wildcards.size) for (const name of this.#wildcards.matching(channel)) copies.push([channel, name]);
      }
      if (!copies.length) return;
      const [channel, name] = copies.length > 1 ? this.#copy(message, marks, copies) : copies[0];
      for (const subscription of [...this.#channels.get(name)]) {
        if (marks === null || this.#isDue(subscription, name, channel, marks, message)) {
          subscription._push(message, channel, this.#options.bufferSize);
        }
      }
    }

    /**
     * Return whether to deliver a message of a channel with history now, and update the track.
     *
     * A message that came before is not delivered. Neither is a message after a hole: it comes again when the hole is
     * filled.
     */
    #isDue(subscription, name, channel, marks, message) {
      const tracks = subscription._tracks;
      let track = tracks.get(channel);
      if (name !== channel && !track) {
        tracks.set(channel, (track = new Track()));
        if (tracks.size > MAX_TRACKED + subscription.channels.length) tracks.delete(tracks.keys().next().value);
      }
      if (!track) return true; // the channel has no history: the client that published it wrote the headers
      let judged = track.judge(marks);
      if (track.held && judged === "twice") {
        track.held = null; // the first of the requested messages
        track.ids.clear();
        judged = "newer";
      }
      if (judged === "twice") return false;
      if (judged === "hole" && track.epoch === null) {
        track.torn = true; // the receipt tells
        judged = "newer";
      }
      if (judged === "hole" && name === channel && !track.held) {
        if (!track.pending) this.#recover(channel);
        return false;
      }
      track.reach(marks.offset, marks.offset);
      track.count += 1;
      const id = message.headers.get("message-id");
      if (id !== undefined) {
        const isAgain = Date.now() - track.ids.get(id) < SAME_ID; // a killed server may have lost the first
        remember(track.ids, id, Date.now(), MAX_IDS);
        if (isAgain) return false;
      }
      track.held?.push(message);
      return !track.held;
    }

    /** Return which of *copies*, pairs of a channel and a subscribed name, *message* is. */
    #copy(message, marks, copies) {
      if (marks === null) {
        const isKept = ([channel, name]) =>
          [...this.#channels.get(name)].some(({ _tracks }) => _tracks.get(channel)?.epoch != null);
        const others = message.headers.get("store") === "no" ? copies : copies.filter((copy) => !isKept(copy));
        const possible = others.length ? others : copies; // messages of channels with history have marks
        return possible[possible.length > 1 ? this.#turn(message, possible.length) : 0];
      }
      const { offset } = marks;
      const known = this.#offsets.get(offset); // the channel of an earlier copy with this offset
      const key = unmarkedKey(message);
      const had = this.#shared.get(key) ?? new Set();
      const all = copies.map((copy) => {
        const [channel, name] = copy;
        const tracks = [...this.#channels.get(name)].map(({ _tracks }) => _tracks.get(channel));
        const ranks = tracks.map((track) => RANKS[track ? track.judge(marks) : "unknown"]);
        let rank = Math.max(...ranks);
        if (rank === RANKS.newer && had.has(copy.join(" "))) rank = RANKS.had;
        return { copy, rank, order: Math.min(...tracks.map((track) => track?.pending || Infinity)) };
      });
      const isPossible = ({ copy, rank }) => known === undefined || known === copy[0] || rank === RANKS.next;
      const possible = all.filter(isPossible);
      const ranked = possible.length ? possible : all;
      const best = ranked.reduce((one, other) =>
        other.rank > one.rank || (other.rank === one.rank && other.order < one.order) ? other : one,
      );
      if (best.rank === RANKS.hole) {
        for (const { copy, rank } of ranked) if (rank === best.rank && copy[0] === copy[1]) this.#recover(copy[0]);
        return best.copy;
      }
      had.add(best.copy.join(" "));
      remember(this.#offsets, offset, best.copy[0], MAX_OFFSETS);
      this.#shared.delete(key);
      if (had.size < copies.length) remember(this.#shared, key, had, MAX_TURNS);
      return best.copy;
    }

    /**
     * Return which of *count* copies of a message without marks this is. The server sends one for each subscribed name
     * that matches.
     */
    #turn(message, count) {
      const key = message.binary ? octetsOf(message.wire) : message.wire;
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
        message = this.#codec.read(data, { limits: this.#options.limits });
      } catch (error) {
        this.#emit("error", error);
        return;
      }
      this.#emit("receive", message);
      if (this.#settle(message) || this.#state === "closed" || this.#isGap(message)) return;
      this.#deliver(message);
      this.#emit("message", message);
    }

    /** Settle the promise that *message* answers. Returns whether there is one. A publication is never an answer. */
    #settle(message) {
      const { command, headers } = message;
      const published = headers.has("publish");
      const answered = published ? undefined : this.#pending.get(headers.get("receipt-id"));
      if (answered && (command === "receipt" || command === "error")) {
        this.#settled(answered);
        if (command === "receipt") answered.apply?.(message);
        if (command === "error") answered.reject(new ServerError(message));
        else if (answered.reply === null) answered.resolve(message);
        else if (answered.answer !== null) answered.resolve(answered.answer);
        else answered.reject(new NoReply(message, answered.reply));
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
        request = [...this.#pending.values()].find((entry) => entry.reply === command && !entry.answer);
      }
      if (!request?.reply || request.answer) return false;
      request.answer = message;
      request.resolve(message);
      return true;
    }

    #settled(entry) {
      clearTimeout(entry.timer);
      this.#pending.delete(entry.token);
    }

    #emit(name, value) {
      if (!this._fire(name, value) && name === "error") root.console?.warn(`lhttp: ${value.reason ?? value}`);
    }

    // Logging in

    /**
     * Log in with the result of the option `login`, before anything else is sent, or to renew the login.
     *
     * @param refused {credentials, error} of a refused login. The same credentials are not sent again.
     * @param failures how many logins have failed since the last success.
     * @param isAsked whether the program waits for the result, so that an error is no event.
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
      if (this.#expires - this.#lag <= Date.now()) this.#lag = 0; // the clocks were not the reason
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
        return await this._submit(message, { token, reply: "login", direct: true, first: true });
      } catch (error) {
        if (error.unsent) error.unsent = null; // it has the credentials
        if (!(error instanceof NoReply)) throw error;
      }
      throw new RemoteProtocolError("the server has no logins: it ignored the login message", 404);
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

    /** Log in again after half of the remaining time, but after at most *most*. */
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
      const { WebSocket, protocols, connectTimeout, fallbackUrl } = this.#options;
      if (!root[HTTP_SOCKET] && this.#ways.includes("websocket")) this.#way = this.#ways.indexOf("websocket");
      const mode = (this.#mode = this.#ways[this.#way]);
      let socket;
      try {
        if (mode !== "websocket") socket = new root[HTTP_SOCKET](this.url, { mode, base: fallbackUrl });
        else socket = protocols === undefined ? new WebSocket(this.url) : new WebSocket(this.url, protocols);
      } catch (error) {
        this.#end(new ConnectionLost(error.message), error);
        return;
      }
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this.#connected();
      socket.onmessage = (event) => this.#receive(event.data);
      socket.onerror = () => setTimeout(() => this.#failed(socket), 0); // a close event may not follow
      socket.onclose = ({ code, reason }) => this.#lost(code, reason);
      this.#timer = setTimeout(() => this.#drop(`no connection in ${connectTimeout} ms`), connectTimeout);
    }

    #connected() {
      clearTimeout(this.#timer);
      const protocol = this.#socket.protocol || null; // empty or lhttp if the server supports no other codec
      this.#codec = Object.values(CODECS).find(({ subprotocol }) => subprotocol === protocol) ?? CODECS.text;
      this.#openedAt = this.#heardAt = Date.now();
      if (this.#options.login) this.#logIn().catch(() => {});
      else this.#opened();
    }

    #opened() {
      this.#openedAt = Date.now();
      const socket = this.#socket;
      const previous = this.#state;
      this.#state = "open";
      for (const subscription of this.#subscriptions) this.#establish(subscription);
      for (const entry of this.#again.splice(0)) {
        clearTimeout(entry.timer);
        this.#write(entry);
      }
      for (const entry of this.#queue.splice(0)) this.#write(entry);
      if (this.#options.heartbeat) this.#timer = setTimeout(() => this.#beat(), this.#options.heartbeat);
      this.#opening?.resolve();
      this.#opening = null;
      this.#emit("state", { state: "open", previous, error: null, delay: null });
      if (this.#ways.length > 1) setTimeout(() => this.#listen(socket), DEAF).unref?.();
      if (this.#ways.includes("websocket") && this.#mode !== "websocket") this.#comeBackLater();
    }

    /** If no message has come since the opening, check with a ping that the connection works, or else drop it. */
    async #listen(socket) {
      const isSilent = () => socket === this.#socket && this.#state === "open" && this.#heardAt <= this.#openedAt;
      if (!isSilent()) return;
      await this.#send([], "", { command: "ping", direct: true, timeout: DEAF }).catch(() => {});
      if (!isSilent()) return;
      this.#isDeaf = true;
      this.#drop("no messages come through this transport");
    }

    /** Use the next transport if this one does not work, but the server can be reached. */
    #changeWay(code, wasOpen) {
      clearTimeout(this.#returning);
      const isYoung = !wasOpen || Date.now() - this.#openedAt < STABLE;
      const isBad = this.#isDeaf || (code === 1006 && isYoung);
      const weight = this.#isDeaf || !wasOpen ? CUTS : 1;
      const mode = this.#mode;
      this.#isDeaf = false;
      if (!isBad) this.#bad = 0;
      if (!isBad || this.#ways.length < 2) return;
      const { fallbackUrl } = this.#options;
      const reaching = loadHttp().then(() => root[HTTP_SOCKET]?.reaches(this.url, fallbackUrl));
      reaching.then((isReached) => {
        if (!isReached || mode !== this.#ways[this.#way]) return;
        this.#bad += weight;
        if (this.#bad < CUTS) return;
        this.#way = (this.#way + 1) % this.#ways.length;
        this.#bad = 0;
      });
    }

    #comeBackLater() {
      const { comeBack } = this.#options;
      if (!comeBack) return;
      const delay = Math.min(comeBack * Math.min(2 ** this.#returns, MAX_COME_BACK), MAX_TIMER);
      this.#returning = setTimeout(() => this.#comeBack(), delay);
      this.#returning.unref?.();
    }

    /** Return to WebSocket if a second connection, made to try this, gets an answer and is not cut. */
    async #comeBack() {
      const socket = this.#socket;
      this.#returns += 1;
      const isGood = await this.#tryWebSocket();
      for (let turn = 0; isGood && turn < 20; turn += 1) {
        if (socket !== this.#socket || this.#state !== "open") return;
        if (!this.#pending.size && !socket.bufferedAmount) {
          this.#way = this.#ways.indexOf("websocket");
          this.#drop("coming back to WebSocket");
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, 250)); // until no message waits for an answer
      }
      if (socket === this.#socket && this.#state === "open") this.#comeBackLater();
    }

    #tryWebSocket() {
      return new Promise((resolve) => {
        const { WebSocket, connectTimeout } = this.#options;
        let timer = null;
        let trial = null;
        const end = (isGood) => {
          clearTimeout(timer);
          if (trial) trial.onopen = trial.onmessage = trial.onclose = trial.onerror = null;
          trial?.close();
          resolve(isGood);
        };
        timer = setTimeout(() => end(false), connectTimeout);
        try {
          trial = new WebSocket(this.url, TRIAL);
        } catch {
          end(false);
          return;
        }
        trial.onopen = () => trial.send(`${START}ping\r\nreceipt:trial\r\n\r\n`);
        trial.onmessage = () => {
          clearTimeout(timer);
          trial.onmessage = null;
          timer = setTimeout(() => end(true), STABLE);
        };
        trial.onclose = trial.onerror = () => end(false);
      });
    }

    async #beat() {
      const { heartbeat } = this.#options;
      const socket = this.#socket;
      const heardAt = this.#heardAt;
      if (Date.now() - heardAt >= heartbeat) {
        await this.#send([], "", { command: "ping", direct: true, timeout: heartbeat }).catch(() => {});
        if (socket === this.#socket && heardAt === this.#heardAt) this.#drop("no answer to a ping");
      }
      if (socket === this.#socket && this.#state === "open") {
        const rest = heartbeat - (Date.now() - this.#heardAt);
        this.#timer = setTimeout(() => this.#beat(), Math.max(rest, 1));
      }
    }

    #failed(socket) {
      if (socket === this.#socket && !this.#openedAt) this.#drop("");
    }

    /** Drop the connection without waiting for the close. With an *error*, do not reconnect. */
    #drop(reason, error = null) {
      const socket = this.#socket;
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {};
      try {
        socket.close();
      } catch {
        // It is closed already.
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
      this.#holes.clear();
      const what = reason || (wasOpen ? "connection lost" : "no connection");
      const error = new ConnectionLost(what, { code });
      const pending = [...this.#pending.values()];
      // A message that was too large would end the next connection, too.
      const largest = code === TOO_BIG ? pending.reduce((one, other) => (sizeOf(other) > sizeOf(one) ? other : one), null) : null;
      for (const entry of pending) {
        this.#settled(entry);
        if (entry === largest || !this.#keepToSend(entry, error)) entry.reject(error);
      }
      if (this.#down) {
        const down = this.#down;
        this.#down = null;
        down();
        return;
      }
      if (wasOpen && Date.now() - this.#openedAt >= STABLE) {
        this.#attempts = 0;
        if (this.#mode === "websocket") this.#returns = 0;
      }
      this.#changeWay(code, wasOpen);
      if (wasOpen) this.#refusals = 0;
      this.#openedAt = 0;
      if (refusal || !this.#reconnect || UNWANTED.has(code) || this.#attempts >= this.#reconnect.attempts) {
        this.#end(refusal ?? error, refusal ?? error);
        return;
      }
      const asked = wasOpen ? RETRY_AFTER.exec(reason) : null;
      const delay = asked
        ? Math.random() * Math.min(this.#reconnect.maxDelay, Number(asked[1]) * 1000)
        : this.#backoff(this.#attempts);
      if (!asked) this.#attempts += 1;
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

    /** Reject all promises that wait, and become closed. *cause* is null if the program closed the client. */
    #end(error, cause) {
      clearTimeout(this.#timer);
      this.#logOut();
      this.#refusals = 0;
      this.#isKnown = false;
      this.#isEnded = true;
      this.#openedAt = 0;
      clearTimeout(this.#returning);
      root.removeEventListener?.("online", this.#online);
      root.removeEventListener?.("pagehide", this.#leaving);
      for (const { timer, reject } of this.#again.splice(0)) {
        clearTimeout(timer);
        reject(new ConnectionLost(error.reason, { code: error.code }));
      }
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
      this.#keeper?.save();
      this.#enter("closed", { error: cause ? error : null });
    }
  }

  /** Set an entry of a map, as the last one. Remove the first one if there are more than *most*. */
  function remember(map, key, value, most) {
    map.delete(key);
    map.set(key, value);
    if (map.size > most) map.delete(map.keys().next().value);
  }

  function sizeOf(entry) {
    return entry?.message.raw.length ?? -1;
  }

  function isOptions(value) {
    return typeof value === "object" && value !== null;
  }

  /** Throw a TypeError if the method *name* has no such options. */
  function checkOptions(name, options) {
    for (const option of Object.keys(options)) {
      if (!CALL_OPTIONS[name].includes(option)) throw new TypeError(`${name}() has no option ${option}`);
    }
  }

  /** Return 16 random letters and digits. */
  function randomId() {
    const numbers = new Uint8Array(16).map(() => Math.random() * 256);
    root.crypto?.getRandomValues?.(numbers);
    return Array.from(numbers, (number) => "0123456789abcdefghijklmnopqrstuv"[number & 31]).join("");
  }

  function listOf(channels, check = checkChannel) {
    const names = [...new Set(typeof channels === "string" ? [channels] : channels)].map((name) => check(name));
    if (!names.length) throw new LocalProtocolError("there is no channel");
    return names;
  }

  // The original's interface

  /**
   * The argument of the callbacks of Lhttp: the message that came, if any, and methods to send others.
   *
   * `addHeader` applies only to the next message. The command stays until another is set.
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

    /** Return the value of a header, or undefined; without *name*, an object with all headers. */
    getHeader(name) {
      if (name === undefined) return this.message?.headers.toObject() ?? {};
      return this.message?.headers.get(name);
    }

    addHeader(name, value) {
      this.#headers.push([String(name), stripBlanks(String(value))]);
    }

    /** Return the body: a string, or a Uint8Array if the message is binary. */
    getBody() {
      if (!this.message) return "";
      return this.message.binary ? this.message.body : this.message.text;
    }

    /** Return the parts of a multipart body, each with `headers`, `body` and `text`. */
    getMultipart() {
      return this.message?.parts() ?? [];
    }

    /** Send a message with the added headers, and the command that was set, or else the command of this message. */
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
   * The original client: connects immediately, and calls `on_open`, `on_message`, `on_close` and `on_error`, each with
   * an LhttpContext. `context` is one for sending at any time. Messages wait until the connection is open.
   *
   * @param options those of LhttpClient. It reconnects only if `reconnect` is given. Then it calls `on_open` each time.
   */
  class Lhttp {
    #client;

    constructor(url, options = {}) {
      this.on_open = this.on_message = this.on_close = this.on_error = function () {};
      const client = (this.#client = new LhttpClient(url, { reconnect: false, heartbeat: 0, ...options }));
      const fail = (error) => notify("on_error", null, error);
      const context = (message, error) => new LhttpContext(client, fail, message, error);
      let constructing = true; // immediate errors wait until the callbacks are set
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
      client.connect().catch(() => {}); // on_error and on_close are called
      constructing = false;
    }

    /** The current WebSocket, or an object with its interface; null without a connection. */
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
    Emitter,
    Lhttp,
    LhttpClient,
    LhttpContext,
    LhttpError,
    LhttpHeaders,
    LhttpMessage,
    LhttpPart,
    LocalProtocolError,
    MessageTooLarge,
    NoReply,
    Presence,
    QueueFull,
    RemoteProtocolError,
    ServerError,
    Subscription,
    TimedOut,
    checkChannel,
    decodeJson,
    decodeProtobuf,
    encodeJson,
    encodeProtobuf,
    joinParts,
    parse,
    serialise,
    splitParts,
  });

  root[Symbol.for("lhttp-tx 0.1.0")] = exported; // where lhttp.mjs finds it
  if (typeof module === "object" && module.exports) {
    module.exports = exported;
    require("./lhttp-http.js");
  } else Object.assign(root, { lhttp: exported, Lhttp, LhttpClient });
})(globalThis);
