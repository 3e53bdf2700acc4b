// The exports of lhttp.js and lhttp.mjs. Times are milliseconds, sizes are bytes.

export as namespace lhttp;

export type Bytes = Uint8Array | ArrayBuffer | ArrayBufferView;
export type Body = string | Bytes;
/** A body for `publish` and similar methods: also a Blob or File, or any other value, which is sent as JSON. */
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
/** The server has handled a request and no processor has replied. `reply` is the receipt. The status is 404. */
export class NoReply extends ServerError {
  constructor(receipt: LhttpMessage, command: string);
}
export class ConnectionLost extends LhttpError {
  constructor(reason: string, details?: { code?: number; unsent?: LhttpMessage | null });
  readonly code: number;
  /** The message that was not sent; null if a message was sent, and the server may or may not have handled it. */
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
  /** Whether to send it as a binary WebSocket message; by default if the body is bytes. */
  binary?: boolean;
}

export class LhttpMessage {
  constructor(init: MessageInit);
  readonly command: string;
  readonly headers: LhttpHeaders;
  readonly binary: boolean;
  readonly body: Uint8Array;
  readonly text: string;
  /** The body as it was passed to `publish`: the value of JSON if `content-type` says so, otherwise text or bytes. */
  readonly data: any;
  /** The whole message in LHTTP's text, with start line and headers: a Uint8Array if it is binary. */
  readonly wire: string | Uint8Array;
  readonly raw: Uint8Array;
  /** In a receipt: an object that maps each channel with history to a position. Empty in other messages. */
  readonly positions: Positions;
  /** In the receipt of a publication: whether the server already had a message with its id. */
  readonly duplicate: boolean;
  json(): any;
  channels(name: "subscribe" | "unsubscribe" | "publish"): string[];
  parts(): LhttpPart[];
}

export function parse(data: Body, options?: { binary?: boolean; limits?: Limits }): LhttpMessage;
export function serialise(message: LhttpMessage | MessageInit): string | Uint8Array;
/** The JSON view of a message, for the subprotocol lhttp.json. */
export function encodeJson(message: LhttpMessage | MessageInit): string;
export function decodeJson(data: Body, options?: { limits?: Limits }): LhttpMessage;
/** The Protocol Buffers view of a message, for the subprotocol lhttp.protobuf. */
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

/** The used part of the interface of `localStorage` and `sessionStorage`. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** The limits of the messages that wait to be sent again. */
export interface ResendOptions {
  messages?: number;
  bytes?: number;
  /** The longest time since a message was first sent. */
  time?: number;
}

export interface ReconnectOptions {
  /** The first wait is a random time up to this. The limit doubles with each attempt. */
  initialDelay?: number;
  maxDelay?: number;
  attempts?: number;
}

export interface ClientOptions {
  /** The command of messages without a command; by default `chat`. */
  command?: string;
  /** The time limit for a receipt or a reply, after the message was sent. */
  timeout?: number;
  connectTimeout?: number;
  closeTimeout?: number;
  /** After so long without a message, the client sends a ping; 0: never. */
  heartbeat?: number;
  /** The most messages that wait while there is no connection. */
  queueSize?: number;
  /** The most messages that wait for a `for await` loop. */
  bufferSize?: number;
  /** The most bytes in the buffer of the WebSocket. */
  maxUnsent?: number;
  reconnect?: boolean | ReconnectOptions;
  /** Whether publications without an answer are sent again after a lost connection. */
  resend?: boolean | ResendOptions;
  /** Where positions are stored, such as `localStorage`. */
  positions?: PositionStorage | null;
  /** Returns the headers of the login message, for each connection and before a login expires. */
  login?: Login | null;
  /** The limits of received messages. */
  limits?: Limits;
  /** The format on the connection; text if the server does not know it. */
  codec?: "text" | "json" | "protobuf";
  /** The class WebSocket, if there is no global one, or to use another one. */
  WebSocket?: any;
  /** The transports to use, in this order; by default all, or only `websocket` if you pass a class. */
  transports?: readonly Transport[] | null;
  /** The URL below which `connect` and `send` are; by default the root of the host. */
  fallbackUrl?: string | URL | null;
  /** The time over HTTP after which WebSocket is tried again. It doubles with each attempt; 0: never. */
  comeBack?: number;
  protocols?: string | string[];
}

/** WebSocket, or HTTP with a stream or with long polling. */
export type Transport = "websocket" | "stream" | "poll";

/** Returns `{ token }` or `{ user, password }`, within `connectTimeout`. */
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
  /** When it is aborted, the promise fails, and a message that still waits is not sent. */
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
  /** This many of the newest messages come first, if no position is known. */
  last?: number;
  /**
   * The messages after this position come first. One position for all channels, or one for each; null: ignore a stored
   * one.
   */
  since?: string | Positions | null;
  onRecovered?: (event: RecoveredEvent) => void;
  onMissed?: (event: MissedEvent) => void;
  /** When it is aborted, the subscription ends. */
  signal?: AbortSignal;
}

export interface ChunkOptions {
  headers?: HeadersInit;
  /** Bytes of a message; by default 32768. */
  chunkSize?: number;
  /** The number of chunks that wait for answers at one time; by default 4. */
  parallel?: number;
  /** The id that all chunks share; by default a new one. */
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
  /** The messages after this position. */
  since?: string;
  /** The last messages before this position. */
  before?: string;
  /** Which message comes first. `newest` cannot be combined with `since`. */
  order?: "newest" | "oldest";
  timeout?: number;
  signal?: AbortSignal;
}

export interface HistoryPage {
  channel: string;
  messages: LhttpMessage[];
  /** The position of the last message, or of the end of the history. */
  position: string;
  more: boolean;
  /** Whether the history does not reach back to `since`. */
  missed: boolean;
  /** The options for the next page; null if there is none. */
  next: HistoryOptions | null;
}

export type State = "closed" | "connecting" | "open" | "reconnecting";

export interface StateEvent {
  state: State;
  previous: State;
  error: LhttpError | null;
  /** The time before the next attempt to connect. */
  delay: number | null;
}

export interface LoginEvent {
  user: string | null;
  /** By the server's clock, in milliseconds since 1970; null if it does not expire. */
  expires: number | null;
}

/** Nothing is missing after a lost connection or a gap. */
export interface RecoveredEvent {
  channel: string;
  position: string;
  /** The number of missed messages that have come. */
  count: number;
  subscription: Subscription;
}

/** Messages may be missing, and will not come. */
export interface MissedEvent {
  /** A channel or a wildcard subscription. */
  channel: string;
  /** The position after which live messages continue; null in a channel without history. */
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

/** The base class of objects with events. */
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
  /** The transport of the current connection; null without a connection. */
  readonly transport: Transport | null;
  readonly queued: number;
  /** The user name that the server reports; null while not logged in. */
  readonly user: string | null;
  readonly expires: number | null;
  /** If `signal` is aborted before the connection is open, the client is closed. */
  connect(options?: { signal?: AbortSignal }): Promise<void>;
  /** Log in again now. */
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
  /** Resolves with the reply. Fails with NoReply without one. */
  upload(
    command: string,
    parts: Iterable<PartContent | LhttpPart>,
    options?: Omit<RequestOptions, "parts">,
  ): Promise<LhttpMessage>;
  /** Sends chunks, and continues after a reconnection. Resolves with the last reply of a processor, or null. */
  uploadChunks(
    command: string,
    file: Blob | Body,
    options?: ChunkOptions,
  ): Promise<{ id: string; reply: LhttpMessage | null }>;
  /** Publishes several messages together. Resolves with a result for each. */
  batch(messages: Iterable<BatchEntry>): Promise<BatchResult[]>;
  /**
   * The people in a channel, kept up to date. Fails with ServerError, with status 404 if the channel has no presence.
   */
  presence(channel: string, options?: { signal?: AbortSignal }): Promise<Presence>;
  /** Fails with NoReply without a reply. */
  request(command: string, body?: Content, options?: RequestOptions): Promise<LhttpMessage>;
  /** Fails with ServerError, with status 404 if the channel has no history. */
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
  /** The server has confirmed it; once for each connection. */
  confirmed: Subscription;
  recovered: RecoveredEvent;
  missed: MissedEvent;
  /** Null if the program has ended it. */
  end: { error: Error | null };
}

export interface Person {
  readonly user: string | null;
  readonly connections: readonly string[];
}

export interface PresenceEvents {
  join: { user: string | null; connection: string };
  leave: { user: string | null; connection: string };
  /** After the client has asked again. */
  sync: Presence;
  /** After each join, leave and sync. */
  change: Presence;
  end: { error: Error | null };
}

export class Presence extends Emitter<PresenceEvents> {
  private constructor();
  readonly channel: string;
  /** The number of people, including those that are not listed. */
  readonly count: number;
  readonly connections: number;
  /** False while nodes of the cluster are missing. */
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
  /** The channels for which a node of the cluster did not answer at the last confirmation: messages may be missing. */
  readonly unsure: string[];
  /** The positions of the last messages that have come, of channels with history. */
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
