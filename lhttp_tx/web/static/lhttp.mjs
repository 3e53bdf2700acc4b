// lhttp.js, from the same directory, as an ES module.
import "./lhttp-http.js";
import "./lhttp.js";

export const {
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
} = globalThis[Symbol.for("lhttp-tx 0.1.0")];
