// Plain `ws` on Node with the same logic: a map of channels, one send for each subscriber, an echo.
const { WebSocketServer } = require("ws");

const channels = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 1024 }, () =>
  console.log(`listening on ${server.address().port}`));

server.on("connection", (socket) => {
  const mine = new Set();
  socket.on("message", (data, binary) => {
    const head = data.subarray(0, data.indexOf("\r\n\r\n")).toString().split("\r\n");
    const headers = new Map();
    for (const line of head.slice(1)) {
      const colon = line.indexOf(":");
      headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
    }
    for (const channel of (headers.get("subscribe") || "").split(" ").filter(Boolean)) {
      if (!channels.has(channel)) channels.set(channel, new Set());
      channels.get(channel).add(socket);
      mine.add(channel);
    }
    for (const channel of (headers.get("publish") || "").split(" ").filter(Boolean))
      for (const subscriber of channels.get(channel) || []) subscriber.send(data, { binary });
    if (head[0] === "LHTTP/1.0 echo") socket.send(data, { binary });
    if (headers.has("receipt")) socket.send(`LHTTP/1.0 receipt\r\nreceipt-id:${headers.get("receipt")}\r\n\r\n`);
  });
  socket.on("close", () => {
    for (const channel of mine) {
      channels.get(channel).delete(socket);
      if (!channels.get(channel).size) channels.delete(channel);
    }
  });
  socket.on("error", () => {});
});
