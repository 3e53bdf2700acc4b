// The exports of lhttp.js and lhttp.mjs. Times are in milliseconds, sizes in bytes.

export as namespace lhttp;

export type Bytes = Uint8Array | ArrayBuffer | ArrayBufferView;
export type Body = string | Bytes;
/** The body of a publication: also a Blob or File, or any other value, which is sent as JSON. */
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
/** The server has finished a request without a reply; `reply` is the receipt. The status is 404. */
export class NoReply extends ServerError {
  constructor(receipt: LhttpMessage, command: string);
}
export class ConnectionLost extends LhttpError {
  constructor(reason: string, details?: { code?: number; unsent?: LhttpMessage | null });
  readonly code: number;
  /** The message that was not sent; null if it was sent, and the server may have handled it. */
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
  /** Whether it is sent as a binary WebSocket message; by default if the body is bytes. */
  binary?: boolean;
}

export class LhttpMessage {
  constructor(init: MessageInit);
  readonly command: string;
  readonly headers: LhttpHeaders;
  readonly binary: boolean;
  readonly body: Uint8Array;
  readonly text: string;
  /** The body as it was given to `publish`: a parsed value if `content-type` is JSON, else text or bytes. */
  readonly data: any;
  /** The whole message in the text format of LHTTP; a Uint8Array if it is binary. */
  readonly wire: string | Uint8Array;
  readonly raw: Uint8Array;
  /** Of a receipt: the position for each channel with history. Of other messages: empty. */
  readonly positions: Positions;
  /** Of the receipt of a publication: whether a message with the same id had been published before. */
  readonly duplicate: boolean;
  json(): any;
  channels(name: "subscribe" | "unsubscribe" | "publish"): string[];
  parts(): LhttpPart[];
}

export function parse(data: Body, options?: { binary?: boolean; limits?: Limits }): LhttpMessage;
export function serialise(message: LhttpMessage | MessageInit): string | Uint8Array;
/** The JSON view of a message, as in the subprotocol lhttp.json. */
export function encodeJson(message: LhttpMessage | MessageInit): string;
export function decodeJson(data: Body, options?: { limits?: Limits }): LhttpMessage;
/** The Protocol Buffers view of a message, as in lhttp.proto and the subprotocol lhttp.protobuf. */
export function encodeProtobuf(message: LhttpMessage | MessageInit): Uint8Array;
export function decodeProtobuf(data: Bytes, options?: { limits?: Limits }): LhttpMessage;
export function checkChannel(name: string): string;
export function splitParts(offsets: string, body: Uint8Array): LhttpPart[];
export function joinParts(parts: Iterable<PartInit | LhttpPart>): {
  multipart: string;
  body: Uint8Array;
  binary: boolean;
};

/** Positions by channel. A position is EPOCH-OFFSET. */
export type Positions = Readonly<Record<string, string>>;

/** The methods of `localStorage` and `sessionStorage` that the client uses. */
export interface PositionStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** The bounds of the messages that may wait to be sent again. */
export interface ResendOptions {
  messages?: number;
  bytes?: number;
  /** The longest time since a message was first sent. */
  time?: number;
}

export interface ReconnectOptions {
  /** The maximum of the first wait, which is random. The maximum doubles with each attempt. */
  initialDelay?: number;
  maxDelay?: number;
  attempts?: number;
}

export interface ClientOptions {
  /** The command of messages without one; by default `chat`. */
  command?: string;
  /** For a receipt or a reply, from the time the message is sent. */
  timeout?: number;
  connectTimeout?: number;
  closeTimeout?: number;
  /** After this time without messages, the client sends a ping; 0: never. */
  heartbeat?: number;
  /** How many messages may wait for a connection. */
  queueSize?: number;
  /** How many messages may wait for a `for await` loop. */
  bufferSize?: number;
  /** How many bytes may wait in the WebSocket. */
  maxUnsent?: number;
  reconnect?: boolean | ReconnectOptions;
  /** Whether a publication is sent again if the connection is lost before the answer. */
  resend?: boolean | ResendOptions;
  /** Where positions outlive the page, such as `localStorage`. */
  positions?: PositionStorage | null;
  /** Returns the headers of the login message, for each connection and before a login expires. */
  login?: Login | null;
  /** The limits of received messages. */
  limits?: Limits;
  /** The format of messages. If the server does not support it, the client uses text. */
  codec?: "text" | "json" | "protobuf";
  /** The class to use instead of the global one. */
  WebSocket?: any;
  /** The allowed transports, in this order; by default all, or only WebSocket if the option `WebSocket` is given. */
  transports?: readonly Transport[] | null;
  /** The URL that has `/connect` and `/send` below it; by default the root of the host. */
  fallbackUrl?: string | URL | null;
  /** After this time over HTTP, WebSocket is tried again, with longer waits later; 0: never. */
  comeBack?: number;
  protocols?: string | string[];
}

/** WebSocket, HTTP with a stream of messages, or HTTP with long polling. */
export type Transport = "websocket" | "stream" | "poll";

/** Returns headers such as `{ token }` or `{ user, password }`, within `connectTimeout`. */
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
  /** When it is aborted, the promise rejects, and a message that was not sent is discarded. */
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
  /** How many of the newest messages come first if no position is known. */
  last?: number;
  /** Messages after it come first: a position for all channels, or one for each; null: ignore stored positions. */
  since?: string | Positions | null;
  onRecovered?: (event: RecoveredEvent) => void;
  onMissed?: (event: MissedEvent) => void;
  /** The subscription ends when it is aborted. */
  signal?: AbortSignal;
}

export interface ChunkOptions {
  headers?: HeadersInit;
  /** Bytes of a message; by default 32768. */
  chunkSize?: number;
  /** How many chunks may wait for their answers; by default 4. */
  parallel?: number;
  /** The id of all chunks; by default a new one. */
  id?: string;
  timeout?: number;
  signal?: AbortSignal;
  /** Called with the bytes that the server has. */
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
  /** Return messages after this position. */
  since?: string;
  /** Return the last messages before this position. */
  before?: string;
  /** Which message comes first; `newest` cannot be combined with `since`. */
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
  /** Whether messages after `since` have been removed from the history. */
  missed: boolean;
  /** The options for the next page; null after the last page. */
  next: HistoryOptions | null;
}

export type State = "closed" | "connecting" | "open" | "reconnecting";

export interface StateEvent {
  state: State;
  previous: State;
  error: LhttpError | null;
  /** How long the client waits before it connects again. */
  delay: number | null;
}

export interface LoginEvent {
  user: string | null;
  /** When the login expires, in milliseconds since 1970 by the server's clock; null if it does not expire. */
  expires: number | null;
}

/** After a lost connection or missing messages, all missing messages have come. */
export interface RecoveredEvent {
  channel: string;
  position: string;
  /** How many missing messages have come. */
  count: number;
  subscription: Subscription;
}

/** Messages may be missing, and will not come. */
export interface MissedEvent {
  /** A channel or a wildcard subscription. */
  channel: string;
  /** Messages continue after it; null in a channel without history. */
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
  /** The transport of the current connection; null without one. */
  readonly transport: Transport | null;
  readonly queued: number;
  /** The name of the user, according to the server; null while the client is not logged in. */
  readonly user: string | null;
  readonly expires: number | null;
  /** If `signal` is aborted before the connection is open, the client is closed. */
  connect(options?: { signal?: AbortSignal }): Promise<void>;
  /** Log in again now. */
  login(): Promise<void>;
  /** Resolves with the messages that were never sent. */
  close(code?: number, reason?: string): Promise<LhttpMessage[]>;
  /**
   * Resolves with the receipt, which has `positions` and `duplicate`, or with null if the option `receipt` is false.
   */
  publish(
    channels: string | Iterable<string>,
    body?: Content,
    options?: PublishOptions & { receipt?: true },
  ): Promise<LhttpMessage>;
  publish(channels: string | Iterable<string>, body?: Content, options?: PublishOptions): Promise<LhttpMessage | null>;
  send(command: string, body?: Content, options?: Omit<SendOptions, "command">): Promise<LhttpMessage | null>;
  /** Resolves with the reply. Rejects with NoReply if there is none. */
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
  /** Publishes several messages at once. Resolves with the result of each. */
  batch(messages: Iterable<BatchEntry>): Promise<BatchResult[]>;
  /**
   * Follows the members of a channel. Rejects with ServerError, with status 404 if the channel has no presence, and 403
   * if no channel of the server has.
   */
  presence(channel: string, options?: { signal?: AbortSignal }): Promise<Presence>;
  /** Resolves with the reply. Rejects with NoReply if there is none. */
  request(command: string, body?: Content, options?: RequestOptions): Promise<LhttpMessage>;
  /** Resolves with a page. Rejects with ServerError, with status 404 if the channel has no history. */
  history(channel: string, options?: HistoryOptions): Promise<HistoryPage>;
  /** Subscribes to channels, or to wildcards such as `room.*` and `room.>`, even before `connect`. */
  subscribe(
    channels: string | Iterable<string>,
    listener?: ((message: LhttpMessage, channel: string) => void) | null,
    options?: SubscribeOptions,
  ): Promise<Subscription>;
  subscribe(channels: string | Iterable<string>, options: SubscribeOptions): Promise<Subscription>;
}

export interface SubscriptionEvents {
  message: { message: LhttpMessage; channel: string };
  /** The server has confirmed the subscription, once for each connection. */
  confirmed: Subscription;
  recovered: RecoveredEvent;
  missed: MissedEvent;
  /** The error is null if the program ended it. */
  end: { error: Error | null };
}

export interface Person {
  readonly user: string | null;
  readonly connections: readonly string[];
}

export interface PresenceEvents {
  join: { user: string | null; connection: string };
  leave: { user: string | null; connection: string };
  /** The server has sent all members. */
  sync: Presence;
  /** After each join, leave and sync. */
  change: Presence;
  end: { error: Error | null };
}

export class Presence extends Emitter<PresenceEvents> {
  private constructor();
  readonly channel: string;
  /** How many members there are, listed or not. */
  readonly count: number;
  readonly connections: number;
  /** False while a node of the cluster does not hear all others. */
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
  /** The channels for which the last receipt was not sure that all nodes of the cluster pass on their messages. */
  readonly unsure: string[];
  /** The position of the last message of each channel with history. */
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

/** A client with the interface of the original client. */
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
