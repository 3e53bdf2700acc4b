// The codec of the JavaScript client.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as lhttp from "../../lhttp_tx/web/static/lhttp.mjs";
import { checkMalformed, checkMalformedView, checkMessage, checkView, isServers } from "./vectors.mjs";

const { LhttpHeaders, LhttpMessage, LocalProtocolError, RemoteProtocolError } = lhttp;
const { checkChannel, joinParts, parse, serialise } = lhttp;
const read = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf-8"));
const MESSAGES = read("messages");
const MALFORMED = read("malformed");

test("there are vectors", () => {
  assert.ok(MESSAGES.length > 50 && MALFORMED.filter((entry) => !isServers(entry)).length > 80);
});

for (const entry of MESSAGES) test(`message: ${entry.name}`, () => checkMessage(lhttp, entry));
for (const entry of MALFORMED) test(`malformed: ${entry.name}`, () => checkMalformed(lhttp, entry));
for (const entry of read("views")) test(`view: ${entry.name}`, () => checkView(lhttp, entry));
for (const name of ["malformed_json", "malformed_protobuf"]) {
  for (const entry of read(name)) test(`${name}: ${entry.name}`, () => checkMalformedView(lhttp, entry));
}

test("headers whose names are numbers stay in order in JSON", () => {
  const message = new lhttp.LhttpMessage({ command: "c", headers: [["b", "1"], ["2", "x"], ["1", "y"]] });
  assert.equal(lhttp.decodeJson(lhttp.encodeJson(message)).wire, message.wire);
});

for (const [what, init] of [
  ["no command", {}],
  ["a blank in the command", { command: "a b" }],
  ["a command of 65 characters", { command: "c".repeat(65) }],
  ["a line break in a command", { command: "c\n" }],
  ["a colon in a name", { command: "c", headers: { "a:b": "1" } }],
  ["an empty name", { command: "c", headers: [["", "1"]] }],
  ["a line break in a value", { command: "c", headers: { a: "1\r\nb:2" } }],
  ["a blank before a value", { command: "c", headers: { a: " 1" } }],
  ["a lone surrogate in a value", { command: "c", headers: { a: "\ud800" } }],
  ["a lone surrogate in a text body", { command: "c", body: "\udc00" }],
  ["a lone surrogate in a binary body", { command: "c", body: "\udc00", binary: true }],
  ["text that is not UTF-8", { command: "c", body: Uint8Array.of(0xff), binary: false }],
]) {
  test(`building refuses ${what}`, () => assert.throws(() => new LhttpMessage(init), LocalProtocolError));
}

test("a body that is neither text nor bytes is refused", () => {
  assert.throws(() => new LhttpMessage({ command: "c", body: { a: 1 } }), TypeError);
});

test("headers are found in any case, the last one counts", () => {
  const headers = new LhttpHeaders([["A", "1"], ["a", "2"]]);
  assert.equal(headers.get("A"), "2");
  assert.deepEqual(headers.getAll("a"), ["1", "2"]);
  assert.equal(headers.get("b"), undefined);
});

test("an object gives headers, a list of values repeats one", () => {
  const message = new LhttpMessage({ command: "c", headers: { publish: ["a", "b"], n: 1 } });
  assert.equal(message.wire, "LHTTP/1.0 c\r\npublish:a\r\npublish:b\r\nn:1\r\n\r\n");
  assert.deepEqual(message.channels("publish"), ["a", "b"]);
});

test("headers named like members of objects are headers", () => {
  const message = parse("LHTTP/1.0 c\r\n__proto__:1\r\nconstructor:2\r\n\r\n");
  assert.equal(message.headers.get("__proto__"), "1");
  assert.equal(message.headers.toObject().constructor, "2");
  assert.equal(message.headers.get("toString"), undefined);
});

test("text travels as text, bytes as bytes", () => {
  assert.equal(serialise({ command: "c", body: "é" }), "LHTTP/1.0 c\r\n\r\né");
  assert.deepEqual(serialise({ command: "c", body: Uint8Array.of(1) }).slice(-3), Uint8Array.of(13, 10, 1).slice(-3));
  assert.deepEqual(serialise({ command: "c", body: Uint8Array.of(1).buffer }).at(-1), 1);
});

test("the body of a binary message that is not UTF-8 has no text", () => {
  const message = parse(serialise({ command: "c", body: Uint8Array.of(0xff) }));
  assert.throws(() => message.text, RemoteProtocolError);
});

test("a byte order mark is part of the body", () => {
  assert.equal(parse("LHTTP/1.0 c\r\n\r\n\ufeffx").text, "\ufeffx");
  assert.equal(parse(serialise({ command: "c", body: "\ufeffx", binary: true })).text, "\ufeffx");
});

test("parts are joined by offsets that count bytes", () => {
  const joined = joinParts([{ headers: { k: "é" }, body: "€" }, { body: Uint8Array.of(255) }]);
  assert.equal(joined.multipart, "0 11");
  assert.equal(joined.binary, true);
  const { multipart, body, binary } = joined;
  const parts = parse(serialise({ command: "u", headers: { multipart }, body, binary })).parts();
  assert.equal(parts[0].headers.get("k"), "é");
  assert.equal(parts[0].text, "€");
  assert.deepEqual(parts[1].body, Uint8Array.of(255));
});

test("joining refuses no parts and malformed headers", () => {
  assert.throws(() => joinParts([]), LocalProtocolError);
  assert.throws(() => joinParts([{ headers: { "a b": "1" } }]), LocalProtocolError);
});

test("limits can be raised and lowered", () => {
  const limits = { messageSize: 20, headSize: 15, headerCount: 1 };
  assert.equal(parse("LHTTP/1.0 c\r\n\r\nxxxxx", { limits }).text, "xxxxx");
  for (const text of ["LHTTP/1.0 c\r\n\r\nxxxxxx", "LHTTP/1.0 cccc\r\n\r\n", "LHTTP/1.0 c\r\n\r\nxxxxé"]) {
    assert.throws(() => parse(text, { limits }), (error) => error.status === 413, text);
  }
});

test("channels that belong to the server are refused with 403", () => {
  assert.throws(() => checkChannel("$SYS"), (error) => error.status === 403);
  assert.throws(() => checkChannel("a b"), (error) => error.status === 400);
  assert.equal(checkChannel("zimmer.ü"), "zimmer.ü");
});

test("a message cannot be changed", () => {
  const message = parse("LHTTP/1.0 c\r\na:1\r\n\r\n");
  assert.throws(() => {
    message.command = "d";
  }, TypeError);
  assert.throws(() => {
    [...message.headers][0][1] = "2";
  }, TypeError);
});
