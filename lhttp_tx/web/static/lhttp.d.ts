// What lhttp.js and lhttp.mjs export. Times are milliseconds, sizes are bytes.

export as namespace lhttp;

export type Bytes = Uint8Array | ArrayBuffer | ArrayBufferView;
export type Body = string | Bytes;
/** What `publish` and the like take: also a Blob or File, and any other value, which is sent as JSON. */
export type Content = Body | Blob | Json;
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined };
export type HeadersInit =
  | Iterable<readonly [string, string | number | readonly (string | number)[]]>
  | Readonly<Record<string, string | number | readonly (string | number)[]>>
  | null;

export interface Limits {
  messageSize: number;
  headSize: number;
  headerCount: number;
}

export const DEFAULT_LIMITS: Readonly<Limits>;

export class LhttpError extends Error {
  constructor(reason: string, status?: number);
  readonly reason: string;
  /** The status code of the protocol, such as 403. */
  readonly status: number;
}
export class LocalProtocolError extends LhttpError {}
export class RemoteProtocolError extends LhttpError {}
export class MessageTooLarge extends RemoteProtocolError {
  constructor(reason: string);
}
export class ServerError extends LhttpError {
  constructor(reply: LhttpMessage, reason?: string, status?: number);
  readonly reply: LhttpMessage;
}
/** The server is done with a request and no reply came; `reply` is the receipt, and the status 404. */
export class NoReply extends ServerError {
  constructor(receipt: LhttpMessage, command: string);
}
export class ConnectionLost extends LhttpError {
  constructor(reason: string, details?: { code?: number; unsent?: LhttpMessage | null });
  readonly code: number;
  /** The message that was not sent; null if one was sent whose fate is unknown. */
  readonly unsent: LhttpMessage | null;
}
export class QueueFull extends LhttpError {
  constructor(reason: string, unsent?: LhttpMessage | null);
  readonly unsent: LhttpMessage | null;
}
export class TimedOut extends LhttpError {
  constructor(reason: string);
}

export class LhttpHeaders implements Iterable<readonly [string, string]> {
  constructor(init?: HeadersInit);
  get(name: string): string | undefined;
  getAll(name: string): string[];
  has(name: string): boolean;
  readonly size: number;
  [Symbol.iterator](): IterableIterator<readonly [string, string]>;
  toObject(): Record<string, string>;
}

export interface PartInit {
  headers?: HeadersInit;
  body?: Body;
}

export class LhttpPart {
  constructor(headers?: HeadersInit, body?: Body);
  readonly headers: LhttpHeaders;
  readonly body: Uint8Array;
  readonly text: string;
}

export interface MessageInit {
  command: string;
  headers?: HeadersInit;
  body?: Body;
  /** Whether it travels as a binary WebSocket message; by default if the body is bytes. */
  binary?: boolean;
}

export class LhttpMessage {
  constructor(init: MessageInit);
  readonly command: string;
  readonly headers: LhttpHeaders;
  readonly binary: boolean;
  readonly body: Uint8Array;
  readonly text: string;
  /** The body as it was given to `publish`: what JSON holds where `content-type` says so; else text, else bytes. */
  readonly data: any;
  /** As LHTTP's text goes over the wire: a Uint8Array if it is binary. */
  readonly wire: string | Uint8Array;
  readonly raw: Uint8Array;
  /** Of a receipt: channel to position, where the server keeps a history; else empty. */
  readonly positions: Positions;
  /** Of the receipt of a publication: whether one with its message id was there before. */
  readonly duplicate: boolean;
  json(): any;
  channels(name: "subscribe" | "unsubscribe" | "publish"): string[];
  parts(): LhttpPart[];
}

export function parse(data: Body, options?: { binary?: boolean; limits?: Limits }): LhttpMessage;
export function serialise(message: LhttpMessage | MessageInit): string | Uint8Array;
/** The JSON view of a message, as the subprotocol lhttp.json has it. */
export function encodeJson(message: LhttpMessage | MessageInit): string;
export function decodeJson(data: Body, options?: { limits?: Limits }): LhttpMessage;
/** The Protocol Buffers view of a message, as lhttp.proto describes it. */
export function encodeProtobuf(message: LhttpMessage | MessageInit): Uint8Array;
export function decodeProtobuf(data: Bytes, options?: { limits?: Limits }): LhttpMessage;
export function checkChannel(name: string): string;
export function splitParts(offsets: string, body: Uint8Array): LhttpPart[];
export function joinParts(parts: Iterable<PartInit | LhttpPart>): {
  multipart: string;
  body: Uint8Array;
  binary: boolean;
};

/** Channel to position; a position is EPOCH-OFFSET. */
export type Positions = Readonly<Record<string, string>>;

/** What `localStorage` and `sessionStorage` are. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** What may wait to be sent again. */
export interface ResendOptions {
  messages?: number;
  bytes?: number;
  /** Since a message was first sent. */
  time?: number;
}

export interface ReconnectOptions {
  /** The first wait is a random time up to this; the bound doubles with each attempt. */
  initialDelay?: number;
  maxDelay?: number;
  attempts?: number;
}

export interface ClientOptions {
  /** Of messages whose command is not given; by default `chat`. */
  command?: string;
  /** For a receipt or a reply, from when the message was sent. */
  timeout?: number;
  connectTimeout?: number;
  closeTimeout?: number;
  /** After so long a silence the server is asked for a sign of life; 0: never. */
  heartbeat?: number;
  /** Messages that may wait while there is no connection. */
  queueSize?: number;
  /** Messages that may wait for a `for await` loop. */
  bufferSize?: number;
  /** Bytes that the WebSocket may hold. */
  maxUnsent?: number;
  reconnect?: boolean | ReconnectOptions;
  /** Whether publications are sent again whose answer a lost connection took along. */
  resend?: boolean | ResendOptions;
  /** Where positions are kept beyond the page, such as `localStorage`. */
  positions?: PositionStorage | null;
  /** Returns the headers of the login message, for each connection and before a login expires. */
  login?: Login | null;
  /** Of what is received. */
  limits?: Limits;
  /** How messages travel; with a server that does not know it, text. */
  codec?: "text" | "json" | "protobuf";
  /** The class, where there is no global one, or to use another. */
  WebSocket?: any;
  /** Which transports may be used, in this order; by default all, or the given class `WebSocket` alone. */
  transports?: readonly Transport[] | null;
  /** Where `/connect` and `/send` are; by default at the root of the host. */
  fallbackUrl?: string | URL | null;
  /** Milliseconds over HTTP after which WebSocket is tried again, and then less and less often; 0: never. */
  comeBack?: number;
  protocols?: string | string[];
}

/** WebSocket, or HTTP: messages come as a stream, or by long polling. */
export type Transport = "websocket" | "stream" | "poll";

/** Such as `{ token }`, or `{ user, password }`; it may take as long as `connectTimeout`. */
export type Login = () => NonNullable<HeadersInit> | PromiseLike<NonNullable<HeadersInit>>;

/** Bytes. */
export interface Progress {
  sent: number;
  total: number;
}

/** A part whose body may also be a Blob, or a value that is sent as JSON. */
export interface PartContent {
  headers?: HeadersInit;
  body?: Content;
}

export interface SendOptions {
  command?: string;
  headers?: HeadersInit;
  /** A multipart body, instead of the body. */
  parts?: Iterable<PartContent | LhttpPart>;
  /** Once it is aborted, the promise fails, and what was not sent is not sent any more. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  binary?: boolean;
  receipt?: boolean;
  timeout?: number;
}

export interface PublishOptions extends SendOptions {
  /** The message id, 1 to 64 visible ASCII characters; by default a new one. */
  id?: string;
}

export interface RequestOptions extends Omit<SendOptions, "command" | "receipt"> {
  /** The command of the reply. */
  reply?: string;
}

export interface SubscribeOptions {
  command?: string;
  headers?: HeadersInit;
  /** So many of the newest messages come first, where no position is known. */
  last?: number;
  /** What came behind it comes first; a position for all channels, or some of each; null: no position that is kept. */
  since?: string | Positions | null;
  onRecovered?: (event: RecoveredEvent) => void;
  onMissed?: (event: MissedEvent) => void;
  /** Once it is aborted, the subscription ends. */
  signal?: AbortSignal;
}

export interface ChunkOptions {
  headers?: HeadersInit;
  /** Bytes of a message; by default 32768. */
  chunkSize?: number;
  /** How many wait for their answers at one time; by default 4. */
  parallel?: number;
  /** What all chunks have in common; by default a new one. */
  id?: string;
  timeout?: number;
  signal?: AbortSignal;
  /** Bytes that the server has. */
  onProgress?: (progress: Progress) => void;
}

export interface BatchEntry extends PublishOptions {
  channels: string | Iterable<string>;
  body?: Content;
}

export type BatchResult =
  | { receipt: LhttpMessage | null; error: null }
  | { receipt: null; error: Error };

export interface HistoryOptions {
  limit?: number;
  /** The messages behind this position. */
  since?: string;
  /** The last messages before this position. */
  before?: string;
  /** Which comes first; `newest` does not go with `since`. */
  order?: "newest" | "oldest";
  timeout?: number;
  signal?: AbortSignal;
}

export interface HistoryPage {
  channel: string;
  messages: LhttpMessage[];
  /** Of the last message, or of the end of the history. */
  position: string;
  more: boolean;
  /** Whether the history does not reach back to `since`. */
  missed: boolean;
  /** The options for the page after this one; null if there is none. */
  next: HistoryOptions | null;
}

export type State = "closed" | "connecting" | "open" | "reconnecting";

export interface StateEvent {
  state: State;
  previous: State;
  error: LhttpError | null;
  /** How long it waits before it connects again. */
  delay: number | null;
}

export interface LoginEvent {
  user: string | null;
  /** By the server's clock, in milliseconds since 1970; null if it does not expire. */
  expires: number | null;
}

/** Nothing is missing, though the connection was lost or a message failed to come. */
export interface RecoveredEvent {
  channel: string;
  position: string;
  /** How many messages that were missing have come. */
  count: number;
  subscription: Subscription;
}

/** Something may be missing, and does not come. */
export interface MissedEvent {
  /** A channel or a wildcard subscription. */
  channel: string;
  /** Behind which messages go on; null in a channel without history. */
  position: string | null;
  subscription: Subscription;
}

export interface ClientEvents {
  state: StateEvent;
  login: LoginEvent;
  message: LhttpMessage;
  error: Error;
  receive: LhttpMessage;
  recovered: RecoveredEvent;
  missed: MissedEvent;
}

/** Something with events. */
export class Emitter<Events> {
  protected constructor();
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
  off<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): void;
  once<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
  once<Name extends keyof Events>(name: Name, options?: { signal?: AbortSignal }): Promise<Events[Name]>;
}

export class LhttpClient extends Emitter<ClientEvents> {
  constructor(url: string | URL, options?: ClientOptions);
  readonly url: string;
  readonly state: State;
  readonly socket: any;
  /** How the connection of the moment is made; null without one. */
  readonly transport: Transport | null;
  readonly queued: number;
  /** Who the server says this is; null while not logged in. */
  readonly user: string | null;
  readonly expires: number | null;
  /** If `signal` is aborted before the connection is open, the client is closed. */
  connect(options?: { signal?: AbortSignal }): Promise<void>;
  /** Log in once more, now. */
  login(): Promise<void>;
  /** Resolves with the messages that were never sent. */
  close(code?: number, reason?: string): Promise<LhttpMessage[]>;
  /** Resolves with the receipt, which has `positions` and `duplicate`; with null if `receipt` is false. */
  publish(
    channels: string | Iterable<string>,
    body?: Content,
    options?: PublishOptions & { receipt?: true },
  ): Promise<LhttpMessage>;
  publish(channels: string | Iterable<string>, body?: Content, options?: PublishOptions): Promise<LhttpMessage | null>;
  send(command: string, body?: Content, options?: Omit<SendOptions, "command">): Promise<LhttpMessage | null>;
  /** Resolves with the reply; fails with NoReply where none comes. */
  upload(
    command: string,
    parts: Iterable<PartContent | LhttpPart>,
    options?: Omit<RequestOptions, "parts">,
  ): Promise<LhttpMessage>;
  /** In chunks, which go on after a reconnection; resolves with the last reply of a processor, or null. */
  uploadChunks(
    command: string,
    file: Blob | Body,
    options?: ChunkOptions,
  ): Promise<{ id: string; reply: LhttpMessage | null }>;
  /** Several publications in one go; resolves with what became of each. */
  batch(messages: Iterable<BatchEntry>): Promise<BatchResult[]>;
  /** Who is in a channel, kept right. Fails with ServerError, whose status is 404 where there is no presence. */
  presence(channel: string, options?: { signal?: AbortSignal }): Promise<Presence>;
  /** Fails with NoReply where no reply comes. */
  request(command: string, body?: Content, options?: RequestOptions): Promise<LhttpMessage>;
  /** Fails with ServerError, whose status is 404 where there is no history. */
  history(channel: string, options?: HistoryOptions): Promise<HistoryPage>;
  /** To channels, or to wildcards such as `room.*` and `room.>`; also before `connect`. */
  subscribe(
    channels: string | Iterable<string>,
    listener?: ((message: LhttpMessage, channel: string) => void) | null,
    options?: SubscribeOptions,
  ): Promise<Subscription>;
  subscribe(channels: string | Iterable<string>, options: SubscribeOptions): Promise<Subscription>;
}

export interface SubscriptionEvents {
  message: { message: LhttpMessage; channel: string };
  /** By the server, once for each connection. */
  confirmed: Subscription;
  recovered: RecoveredEvent;
  missed: MissedEvent;
  /** Null if it was asked for. */
  end: { error: Error | null };
}

export interface Person {
  readonly user: string | null;
  readonly connections: readonly string[];
}

export interface PresenceEvents {
  join: { user: string | null; connection: string };
  leave: { user: string | null; connection: string };
  /** When it was asked for anew. */
  sync: Presence;
  /** After each join, leave and sync. */
  change: Presence;
  end: { error: Error | null };
}

export class Presence extends Emitter<PresenceEvents> {
  private constructor();
  readonly channel: string;
  /** People, also those that are not listed. */
  readonly count: number;
  readonly connections: number;
  /** False while a node of a cluster does not hear all others. */
  readonly complete: boolean;
  readonly people: Person[];
  readonly users: string[];
  readonly closed: boolean;
  has(user: string): boolean;
  close(): Promise<void>;
}

export class Subscription extends Emitter<SubscriptionEvents> implements AsyncIterableIterator<LhttpMessage> {
  private constructor();
  readonly channels: readonly string[];
  readonly closed: boolean;
  /** Channels for which the server did not know, when it last confirmed, if all nodes of its cluster pass on. */
  readonly unsure: string[];
  /** What has come, of channels with history. */
  readonly positions: Positions;
  unsubscribe(): Promise<void>;
  next(): Promise<IteratorResult<LhttpMessage>>;
  return(): Promise<IteratorResult<LhttpMessage>>;
  [Symbol.asyncIterator](): this;
}

export class LhttpContext {
  private constructor();
  readonly message: LhttpMessage | null;
  readonly error: Error | null;
  setCommand(command: string): void;
  getCommand(): string;
  getHeader(name: string): string | undefined;
  getHeader(): Record<string, string>;
  addHeader(name: string, value: string | number): void;
  getBody(): any;
  getMultipart(): LhttpPart[];
  send(body?: any): void;
  publish(channel: string, command?: string | null, headers?: HeadersInit, body?: any): void;
  subscribe(channel: string, command?: string | null, headers?: HeadersInit, body?: any): void;
  unsubscribe(channel: string, command?: string | null, headers?: HeadersInit, body?: any): void;
}

/** The original's client. */
export class Lhttp {
  constructor(url: string | URL, options?: ClientOptions);
  on_open: (context: LhttpContext) => void;
  on_message: (context: LhttpContext) => void;
  on_close: (context: LhttpContext) => void;
  on_error: (context: LhttpContext) => void;
  readonly context: LhttpContext;
  readonly conn: any;
  readonly state: State;
  close(): Promise<LhttpMessage[]>;
}
