// Node's `ws` as a client: `node client.mjs URL deflate|plain`. Says in JSON lines what happens, and does what the
// JSON lines on its standard input ask for.
import { createInterface } from "node:readline";
import WebSocket from "ws";

const [url, deflate] = process.argv.slice(2);
const perMessageDeflate = deflate === "deflate" && { threshold: 0 };
const socket = new WebSocket(url, "hubbub.v1", { perMessageDeflate });
const input = createInterface({ input: process.stdin });

const say = (event, more) => console.log(JSON.stringify({ event, ...more }));

socket.on("open", () => say("open", { protocol: socket.protocol, extensions: socket.extensions }));
socket.on("message", (data) => say("message", { text: data.toString() }));
socket.on("pong", (data) => say("pong", { text: data.toString() }));
socket.on("error", (error) => say("error", { message: error.message }));
socket.on("close", (code, reason) => {
  say("close", { code, reason: reason.toString() });
  input.close();
  process.stdin.destroy();
});

const commands = {
  send: ({ parts }) => parts.forEach((part, at) => socket.send(part, { fin: at === parts.length - 1 })),
  ping: ({ text }) => socket.ping(text),
  close: ({ code, reason }) => socket.close(code, reason),
};

input.on("line", (line) => {
  const { command, ...rest } = JSON.parse(line);
  commands[command](rest);
});
