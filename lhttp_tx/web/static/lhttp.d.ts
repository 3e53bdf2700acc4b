// What lhttp.js and lhttp.mjs export. Times are milliseconds, sizes are bytes.

export as namespace lhttp;

export type Bytes = Uint8Array | ArrayBuffer | ArrayBufferView;
export type Body = string | Bytes;
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
  constructor(reply: LhttpMessage);
  readonly reply: LhttpMessage;
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
  /** As it goes over the wire: a Uint8Array if it is binary. */
  readonly data: string | Uint8Array;
  readonly raw: Uint8Array;
  json(): any;
  channels(name: "subscribe" | "unsubscribe" | "publish"): string[];
  parts(): LhttpPart[];
}

export function parse(data: Body, options?: { binary?: boolean; limits?: Limits }): LhttpMessage;
export function serialise(message: LhttpMessage | MessageInit): string | Uint8Array;
export function checkChannel(name: string): string;
export function splitParts(offsets: string, body: Uint8Array): LhttpPart[];
export function joinParts(parts: Iterable<PartInit | LhttpPart>): {
  multipart: string;
  body: Uint8Array;
  binary: boolean;
};

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
  /** Returns the headers of the login message, for each connection and before a login expires. */
  login?: Login | null;
  /** Of what is received. */
  limits?: Limits;
  /** The class, where there is no global one, or to use another. */
  WebSocket?: any;
  protocols?: string | string[];
}

/** Such as `{ token }`, or `{ user, password }`; it may take as long as `connectTimeout`. */
export type Login = () => NonNullable<HeadersInit> | PromiseLike<NonNullable<HeadersInit>>;

export interface SendOptions {
  command?: string;
  headers?: HeadersInit;
  /** A multipart body, instead of the body. */
  parts?: Iterable<PartInit | LhttpPart>;
  binary?: boolean;
  receipt?: boolean;
  timeout?: number;
}

export interface RequestOptions extends Omit<SendOptions, "command" | "receipt"> {
  /** The command of the reply. */
  reply?: string;
}

export interface SubscribeOptions {
  command?: string;
  headers?: HeadersInit;
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

export interface ClientEvents {
  state: StateEvent;
  login: LoginEvent;
  message: LhttpMessage;
  error: Error;
  receive: LhttpMessage;
}

export class LhttpClient {
  constructor(url: string | URL, options?: ClientOptions);
  readonly url: string;
  readonly state: State;
  readonly socket: any;
  readonly queued: number;
  /** Who the server says this is; null while not logged in. */
  readonly user: string | null;
  readonly expires: number | null;
  on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): () => void;
  off<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): void;
  connect(): Promise<void>;
  /** Log in once more, now. */
  login(): Promise<void>;
  /** Resolves with the messages that were never sent. */
  close(code?: number, reason?: string): Promise<LhttpMessage[]>;
  publish(channels: string | Iterable<string>, body?: Body, options?: SendOptions): Promise<LhttpMessage | null>;
  send(command: string, body?: Body, options?: Omit<SendOptions, "command">): Promise<LhttpMessage | null>;
  upload(
    command: string,
    parts: Iterable<PartInit | LhttpPart>,
    options?: Omit<SendOptions, "command" | "parts">,
  ): Promise<LhttpMessage | null>;
  request(command: string, body?: Body, options?: RequestOptions): Promise<LhttpMessage>;
  subscribe(
    channels: string | Iterable<string>,
    listener?: ((message: LhttpMessage, channel: string) => void) | null,
    options?: SubscribeOptions,
  ): Promise<Subscription>;
}

export class Subscription implements AsyncIterableIterator<LhttpMessage> {
  private constructor();
  readonly channels: readonly string[];
  readonly closed: boolean;
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
