// The connection: `request` sends and gives a promise of the answer, `handlers` get what the server says by itself.
// It comes back by itself, unless the close code says that this cannot help.

const PING_EVERY = 15_000; // milliseconds
const ANSWER_WITHIN = 10_000;
const PROBE_WITHIN = 3_000; // when the browser says that something changed
const BACKOFF = { first: 500, most: 30_000, steady: 5_000 }; // steady: it lived long enough to start anew

// Codes after which coming back cannot help; so are 4500 to 4999. A test compares them with the server's table.
const FINAL = [1000, 1002, 1003, 1007, 1008, 1009];
const UNAUTHORIZED = 4501;

// Errors after which the same request may well succeed.
const PASSING = ["lost", "timeout", "rate_limited", "unavailable", "storage_full", "internal"];

export const link = {
  handlers: {}, // type -> function of the payload and the server's time
  onstatus: () => {}, // (state, text)
  onopen: () => {},
  onsignedout: () => {},

  socket: null,
  wanted: false,
  attempt: 0,
  timer: 0,
  lastId: 0,
  heard: 0, // the server's time when it last said something
  waiting: new Map(), // id -> [resolve, reject]

  get connected() {
    return this.socket?.readyState === WebSocket.OPEN;
  },

  open() {
    clearTimeout(this.timer);
    this.wanted = true;
    const url = new URL(document.body.dataset.wsPath, location.href.replace(/^http/, "ws"));
    const socket = (this.socket = new WebSocket(url, ["hubbub.v1"]));
    let opened = Infinity;
    this.onstatus("connecting", "Connecting…");
    socket.onopen = () => (opened = performance.now());
    socket.onmessage = ({ data }) => socket === this.socket && this.receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.socket) return;
      if (performance.now() - opened > BACKOFF.steady) this.attempt = 0;
      this.closed(code, reason);
    };
  },

  close() {
    this.wanted = false;
    clearTimeout(this.timer);
    this.socket?.close(1000);
    this.socket = null;
    this.giveUp();
    this.onstatus("closed", "Not connected");
  },

  closed(code, reason) {
    this.socket = null;
    this.giveUp();
    if (!this.wanted) return;
    if (code === UNAUTHORIZED) {
      this.close();
      this.onsignedout();
    } else if (FINAL.includes(code) || (code >= 4500 && code <= 4999)) {
      this.wanted = false;
      this.onstatus("failed", `Closed: ${reason || code}. Reload to try again.`);
    } else {
      const pause = Math.min(BACKOFF.most, BACKOFF.first * 2 ** this.attempt++) * (0.5 + Math.random() / 2);
      this.onstatus("offline", `Offline, trying again in ${Math.ceil(pause / 1000)} s`);
      this.timer = setTimeout(() => this.open(), pause);
    }
  },

  // The server goes and others are there. The page signs in by its cookie and subscribes by itself: it needs no ticket.
  moveSoon(delay) {
    const old = this.socket;
    this.timer = setTimeout(() => {
      if (old !== this.socket) return;
      this.giveUp();
      this.open();
      old.close(1000);
    }, delay);
  },

  giveUp() {
    for (const [, reject] of this.waiting.values()) reject(failure("lost", "The connection was lost."));
    this.waiting.clear();
  },

  receive({ type, payload, id, cursor, timestamp }) {
    this.heard = Math.max(this.heard, cursor === undefined ? timestamp : 0); // what waited in the inbox is old
    const [resolve, reject] = this.waiting.get(id) ?? [];
    this.waiting.delete(id);
    if (type === "error") reject?.(failure(payload.code, payload.message));
    else if (resolve) resolve(payload);
    else if (type === "welcome") this.onopen();
    else if (type === "reconnect") this.moveSoon(payload.delay);
    else this.handlers[type]?.(payload, timestamp);
    // A durable message is ours now: the inbox may forget it, and other tabs need not show it.
    if (cursor !== undefined) this.send("ack", { cursor });
  },

  send(type, payload, id) {
    if (this.connected) this.socket.send(JSON.stringify({ type, payload, timestamp: Date.now(), id }));
  },

  request(type, payload, within = ANSWER_WITHIN) {
    return new Promise((resolve, reject) => {
      if (!this.connected) throw failure("lost", "Not connected.");
      const id = String(++this.lastId);
      this.waiting.set(id, [resolve, reject]);
      setTimeout(() => this.waiting.delete(id) && reject(failure("timeout", "No answer in time.")), within);
      this.send(type, payload, id);
    });
  },

  // A connection that does not answer is dead, whatever the browser thinks of it.
  async probe(within = ANSWER_WITHIN) {
    const asked = this.socket;
    if (!this.wanted) return;
    if (asked === null) return this.open();
    if (!this.connected) return;
    const started = performance.now();
    try {
      await this.request("ping", undefined, within);
      if (asked === this.socket) this.onstatus("open", `Connected, ${Math.ceil(performance.now() - started)} ms`);
    } catch {
      if (asked !== this.socket) return;
      asked.close();
      this.closed(1006, "no answer");
    }
  },
};

function failure(code, message) {
  return Object.assign(new Error(message), { code, passing: PASSING.includes(code) });
}

setInterval(() => document.hidden || (link.connected && link.probe()), PING_EVERY);
for (const change of ["online", "offline"]) addEventListener(change, () => link.probe(PROBE_WITHIN));
document.addEventListener("visibilitychange", () => document.hidden || link.probe(PROBE_WITHIN));
