// lhttp.js as an ES module; the two files belong side by side.
import "./lhttp.js";

export const {
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
  NoReply,
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
} = globalThis[Symbol.for("lhttp-tx 0.1.0")];
