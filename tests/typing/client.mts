// What a program in TypeScript may write, and what it may not. Checked by tests/test_types.py; never run.

import {
  type BatchResult,
  type Content,
  type Emitter,
  LhttpClient,
  LhttpMessage,
  type MissedEvent,
  Presence,
  type Progress,
  type RecoveredEvent,
  Subscription,
  decodeJson,
  decodeProtobuf,
  encodeJson,
  encodeProtobuf,
} from "lhttp-tx";

type Equal<One, Other> =
  (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;
function same<One, Other>(..._: Equal<One, Other> extends true ? [] : [never]): void {}

const client = new LhttpClient("/", { codec: "protobuf" });
// @ts-expect-error no such codec
new LhttpClient("/", { codec: "xml" });
// @ts-expect-error no such option
new LhttpClient("/", { codecs: "json" });

const receipt = client.publish("a", { any: ["value", 1, null] });
same<typeof receipt, Promise<LhttpMessage>>();
const perhaps = client.publish(["a", "b"], new Blob([]), { receipt: false });
same<typeof perhaps, Promise<LhttpMessage | null>>();
// @ts-expect-error a function is no value of JSON
client.publish("a", () => {});
// @ts-expect-error nor is a bigint
client.publish("a", 1n);

const content: Content[] = ["text", new Uint8Array(1), new ArrayBuffer(1), new Blob([]), new File([], "f"), 1, true, null, [1], { a: { b: [] } }];
for (const body of content) client.send("c", body, { signal: new AbortController().signal });

const message = new LhttpMessage({ command: "c" });
same<typeof message.data, any>();
same<typeof message.wire, string | Uint8Array>();
// @ts-expect-error it is read-only
message.command = "d";
same<ReturnType<typeof encodeJson>, string>();
same<ReturnType<typeof encodeProtobuf>, Uint8Array>();
same<ReturnType<typeof decodeJson> | ReturnType<typeof decodeProtobuf>, LhttpMessage>();
// @ts-expect-error Protocol Buffers are bytes
decodeProtobuf("text");

const subscription = await client.subscribe("a", (message, channel) => {
  same<typeof message, LhttpMessage>();
  same<typeof channel, string>();
}, { signal: AbortSignal.timeout(1) });
same<typeof subscription, Subscription>();
const stop = subscription.on("message", ({ message, channel }) => console.log(message.text, channel));
same<typeof stop, () => void>();
const off = subscription.once("recovered", (event) => same<typeof event, RecoveredEvent>());
same<typeof off, () => void>();
const missed = subscription.once("missed");
same<typeof missed, Promise<MissedEvent>>();
const ended = await subscription.once("end", { signal: AbortSignal.timeout(1) });
same<typeof ended, { error: Error | null }>();
// @ts-expect-error a subscription has no event of this name
subscription.on("state", () => {});

const state = await client.once("state");
same<typeof state.delay, number | null>();
const emitter: Emitter<{ message: LhttpMessage }> | null = null;
void emitter;

const presence = await client.presence("room");
same<typeof presence, Presence>();
same<typeof presence.users, string[]>();
presence.on("join", ({ user, connection }) => {
  same<typeof user, string | null>();
  same<typeof connection, string>();
});
presence.on("change", (changed) => same<typeof changed, Presence>());
// @ts-expect-error it is made by the client
new Presence();

const uploaded = await client.uploadChunks("put", new File([], "f"), {
  chunkSize: 1,
  onProgress: (progress) => same<typeof progress, Progress>(),
});
same<typeof uploaded, { id: string; reply: LhttpMessage | null }>();
// @ts-expect-error JSON has no chunks
client.uploadChunks("put", { a: 1 });
const results = await client.batch([{ channels: "a", body: { b: 1 }, id: "1" }]);
same<typeof results, BatchResult[]>();
for (const { receipt, error } of results) {
  if (error === null) same<typeof receipt, LhttpMessage | null>();
}
await client.upload("c", [{ headers: { a: "1" }, body: new Blob([]) }, { body: { b: 1 } }], { onProgress: () => {} });
await client.connect({ signal: AbortSignal.timeout(1) });
