// socket.io on Node.
"use strict"
const http = require("node:http")
const { Server } = require("socket.io")

const TEXT = "pushed ".repeat(4)
const pause = (ms) => new Promise((done) => (ms ? setTimeout(done, ms) : setImmediate(done)))

const server = http.createServer(async (request, response) => {
  if (request.url.startsWith("/socket.io/")) return // socket.io's own listener answers
  const [name, count, other] = request.url.slice(1).split("/")
  if (name === "pid") return response.end(String(process.pid))
  if (name === "broadcast") {
    for (let n = 0; n < +count; n++) {
      io.emit("event", { text: TEXT, n })
      if (+other) await pause(+other)
    }
  } else if (name === "push") {
    for (let n = 0; n < +count; n++) {
      io.to(`u${(n * 7919) % +other}`).emit("event", { text: TEXT, n })
      if (n % 20 === 19) await pause(0)
    }
  }
  response.end("done")
})

const io = new Server(server, { pingInterval: 300_000, pingTimeout: 60_000, serveClient: false })
io.on("connection", (socket) => {
  const { uid } = socket.handshake.query
  if (uid !== undefined) socket.join(uid)
  socket.on("echo", (data, ack) => ack(data))
})
server.listen({ port: +process.argv[2], host: "127.0.0.1", backlog: 4096 })
