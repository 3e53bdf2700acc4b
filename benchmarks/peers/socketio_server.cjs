// Plain Socket.IO with the same logic: rooms are the channels.
const { createServer } = require("http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], pingInterval: 600000, serveClient: false });

io.on("connection", (socket) => {
  socket.on("subscribe", (channels, done) => {
    socket.join(channels.split(" "));
    done();
  });
  socket.on("publish", (channel, body) => io.to(channel).emit("message", body));
  socket.on("echo", (body) => socket.emit("echo", body));
});
http.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, () => console.log(`listening on ${http.address().port}`));
