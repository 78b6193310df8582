// Node's `ws`, without compression, publishing as its README shows: a loop over the clients.
import { createRequire } from "node:module";

const { WebSocketServer, WebSocket } = createRequire(new URL("../../tests/peers/package.json", import.meta.url))("ws");

const welcome = { protocol: 1, connectionId: "0123456789abcdef", message: "Connected", timestamp: 1700000000000 };
const subscribers = new Set();
let n = 1000000;

function publish(count) {
  for (; count > 0; count--) {
    const payload = { channel: "news", event: "tick", data: { n: n++, text: "twenty bytes of text" } };
    const text = JSON.stringify({ type: "message", payload, timestamp: Date.now() });
    for (const client of subscribers) {
      if (client.readyState === WebSocket.OPEN) client.send(text);
    }
  }
}

function received(client, data) {
  const { type, payload } = JSON.parse(data);
  if (type === "echo") {
    client.send(JSON.stringify({ type: "echo_response", payload, timestamp: Date.now() }));
  } else if (type === "subscribe") {
    subscribers.add(client);
    client.send(JSON.stringify({ type: "subscribed", payload }));
  } else if (type === "burst") {
    publish(payload.count);
  } else if (type === "collect") {
    globalThis.gc();
  }
}

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), path: "/ws", perMessageDeflate: false });
server.on("connection", (client) => {
  client.on("message", (data) => received(client, data));
  client.on("close", () => subscribers.delete(client));
  client.on("error", console.error);
  client.send(JSON.stringify({ type: "welcome", payload: welcome }));
});
