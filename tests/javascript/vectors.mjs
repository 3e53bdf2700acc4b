// The shared vectors against the codec of the JavaScript client; used in Node and in a browser.

const encoder = new TextEncoder();

function octets(entry, key) {
  if (key in entry) return encoder.encode(entry[key]);
  if (`${key}_base64` in entry) return Uint8Array.from(atob(entry[`${key}_base64`]), (char) => char.charCodeAt(0));
  return encoder.encode(entry[`${key}_repeat`].map(([text, times]) => text.repeat(times)).join(""));
}

function octetsOrRaw(entry, key) {
  return octets(entry, [key, `${key}_base64`, `${key}_repeat`].some((name) => name in entry) ? key : "raw");
}

/** What a WebSocket would hand over: a string for a text message. */
function payload(entry) {
  const raw = octets(entry, "raw");
  return entry.binary ? raw : new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
}

function same(what, found, expected) {
  const plain = (value) => JSON.stringify(value instanceof Uint8Array ? [...value] : value);
  const [left, right] = [plain(found), plain(expected)];
  if (left !== right) throw new Error(`${what} is ${left.slice(0, 200)}, not ${right.slice(0, 200)}`);
}

/** Throw unless the codec agrees with one entry of messages.json. */
export function checkMessage(lhttp, entry) {
  for (const message of [
    lhttp.parse(payload(entry)),
    lhttp.parse(octets(entry, "raw"), { binary: entry.binary }),
  ]) {
    same("command", message.command, entry.command);
    same("headers", [...message.headers], entry.headers);
    same("body", message.body, octets(entry, "body"));
    same("binary", message.binary, entry.binary);
    same("raw", message.raw, octets(entry, "raw"));
    same("wire", message.wire, payload(entry));
    for (const name of entry.channels ? ["subscribe", "unsubscribe", "publish"] : []) {
      same(name, message.channels(name), entry.channels[name] ?? []);
    }
    if (entry.parts) {
      const parts = message.parts();
      same("part headers", parts.map((part) => [...part.headers]), entry.parts.map((part) => part.headers));
      same("part bodies", parts.map((part) => [...part.body]), entry.parts.map((part) => [...octets(part, "body")]));
      same("joined parts", lhttp.joinParts(parts).body, message.body);
    }
  }
  const { command, headers, binary } = entry;
  const built = new lhttp.LhttpMessage({ command, headers, body: octets(entry, "body"), binary });
  same("built", built.raw, octetsOrRaw(entry, "built"));
  same("serialised", lhttp.serialise({ command, headers, body: octets(entry, "body"), binary }), built.wire);
}

/** Throw unless the codec refuses one entry of malformed.json, as far as it is the codec's to refuse. */
export function checkMalformed(lhttp, entry) {
  let status = null;
  try {
    const message = lhttp.parse(payload(entry));
    for (const name of ["subscribe", "unsubscribe", "publish"]) message.channels(name);
    message.parts();
  } catch (error) {
    if (!(error instanceof lhttp.RemoteProtocolError)) throw error;
    status = error.status;
  }
  same("status", status, isServers(entry) ? null : entry.status);
}

/**
 * Whether an entry of malformed.json is for the server alone to refuse: targets, what its options bound (the count of
 * subscriptions, lists of channels, tokens of a name), and wildcard subscriptions, which its rules may allow.
 */
export function isServers(entry) {
  const isWildcard = entry.reason.includes("has the wildcard") && !/publish|>\./.test(entry.raw);
  const isBounded = entry.status === 429 || entry.name === "channel: 17 tokens";
  return entry.name.startsWith("upstream:") || isBounded || isWildcard;
}

/** Throw unless both views agree with one entry of views.json. */
export function checkView(lhttp, entry) {
  const message = lhttp.parse(octets(entry, "raw"), { binary: entry.binary });
  same("JSON", sorted(JSON.parse(lhttp.encodeJson(message))), sorted(entry.json));
  same("Protocol Buffers", lhttp.encodeProtobuf(message), octets(entry, "protobuf"));
  const isPlain = (text) => text.split('"publish":').length < 3; // JSON.parse keeps the last of two equal keys
  for (const text of [JSON.stringify(entry.json), lhttp.encodeJson(message), ...(entry.also ?? []).filter(isPlain)]) {
    for (const data of [text, encoder.encode(text)]) {
      const read = lhttp.decodeJson(data);
      same("read", read.raw, octetsOrRaw(entry, "read"));
      same("read_binary", read.binary, entry.read_binary ?? entry.binary);
    }
  }
  const read = lhttp.decodeProtobuf(octets(entry, "protobuf"));
  const name = ["", "_base64", "_repeat"].some((end) => `read_protobuf${end}` in entry) ? "read_protobuf" : "read";
  same("read_protobuf", read.raw, octetsOrRaw(entry, name));
  same("binary", read.binary, entry.binary);
}

/** An object's keys in order, at every depth. */
function sorted(value) {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  return Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)).map(([key, one]) => [key, sorted(one)]);
}

/** What a server refuses because it bounds its work, and a parser that is not its own cannot tell. */
const SERVERS_VIEWS = /^(?:a key twice|brackets without end|braces without end|many small lists|many strings|too many (?:parts|fields.*|commands))$/;

/** Throw unless the codec refuses one entry of malformed_json.json or malformed_protobuf.json. */
export function checkMalformedView(lhttp, entry) {
  if (SERVERS_VIEWS.test(entry.name)) return;
  const isJson = ["json", "json_base64", "json_repeat"].some((key) => key in entry);
  let status = null;
  try {
    if (isJson) lhttp.decodeJson(octets(entry, "json"));
    else lhttp.decodeProtobuf(octets(entry, "protobuf"));
  } catch (error) {
    if (!(error instanceof lhttp.RemoteProtocolError)) throw error;
    status = error.status;
  }
  same("status", status, entry.status);
}

/** Return what fails, as lines of text, and how much was checked. */
export function checkAll(lhttp, messages, malformed, views = [], malformedViews = []) {
  const failures = [];
  let count = 0;
  for (const [check, entries] of [
    [checkMessage, messages],
    [checkMalformed, malformed],
    [checkView, views],
    [checkMalformedView, malformedViews],
  ]) {
    for (const entry of entries) {
      count += 1;
      try {
        check(lhttp, entry);
      } catch (error) {
        failures.push(`${entry.name}: ${error.message}`);
      }
    }
  }
  return { failures, count };
}
