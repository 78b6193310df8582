// The page of the chat: a connection that comes back by itself, and what it shows.
// What other people wrote only ever goes through textContent, so it is never taken as HTML.

const ROOM = "room";
const PING_EVERY = 15_000; // milliseconds
const ANSWER_WITHIN = 10_000;
const TOAST_FOR = 5_000;
const KEEP = 300; // messages in one conversation
const BACKOFF = { first: 500, most: 30_000, steady: 5_000 }; // steady: it lived long enough to start anew

// Codes after which coming back cannot help; so are 4500 to 4999. A test compares them with the server's table.
const FINAL = [1000, 1002, 1003, 1007, 1008, 1009];

const element = (id) => document.getElementById(id);
const conversations = new Map(); // key -> { key, user, messages, unread }; the room has no user
let current = ROOM;
let me = null;
let online = [];

// The connection: `request` sends and gives a promise of the answer, `handlers` get what the server says by itself.

const link = {
  socket: null,
  attempt: 0,
  lastId: 0,
  waiting: new Map(), // id -> [resolve, reject]

  open() {
    const url = new URL(document.body.dataset.wsPath, location.href.replace(/^http/, "ws"));
    const socket = (this.socket = new WebSocket(url, ["hubbub.v1"]));
    let opened = Infinity;
    status("connecting", "Connecting…");
    socket.onopen = () => (opened = performance.now());
    socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => {
      if (performance.now() - opened > BACKOFF.steady) this.attempt = 0;
      this.closed(code, reason);
    };
  },

  closed(code, reason) {
    for (const [, reject] of this.waiting.values()) reject(new Error("The connection was lost."));
    this.waiting.clear();
    element("enter").disabled = true;
    if (FINAL.includes(code) || (code >= 4500 && code <= 4999)) {
      status("failed", `Closed: ${reason || code}. Reload to try again.`);
      return;
    }
    const pause = Math.min(BACKOFF.most, BACKOFF.first * 2 ** this.attempt++) * (0.5 + Math.random() / 2);
    status("connecting", `Connection lost, trying again in ${Math.ceil(pause / 1000)} s`);
    setTimeout(() => this.open(), pause);
  },

  receive({ type, payload, id }) {
    const [resolve, reject] = this.waiting.get(id) ?? [];
    this.waiting.delete(id);
    if (type === "error") reject?.(new Error(payload.message));
    else if (resolve) resolve(payload);
    else handlers[type]?.(payload);
  },

  request(type, payload) {
    return new Promise((resolve, reject) => {
      if (this.socket.readyState !== WebSocket.OPEN) throw new Error("Not connected.");
      const id = String(++this.lastId);
      this.waiting.set(id, [resolve, reject]);
      setTimeout(() => this.waiting.delete(id) && reject(new Error("No answer.")), ANSWER_WITHIN);
      this.socket.send(JSON.stringify({ type, payload, timestamp: Date.now(), id }));
    });
  },
};

const handlers = {
  welcome() {
    status("open", "Connected");
    element("enter").disabled = false;
    ping();
    if (me !== null) join(me).catch((error) => status("failed", error.message));
  },
  online({ users }) {
    online = users;
    drawConversations();
  },
  message({ channel, event, data }) {
    if (channel !== ROOM || event !== "said") return;
    add(ROOM, { from: data.from, text: String(data.message), at: Date.now(), mine: data.from === me });
  },
  chat({ from, message, timestamp }) {
    add(keyOf(from), { from, text: message, at: timestamp, mine: false }, from);
    if (current !== keyOf(from)) toast(from, message);
  },
  system_message({ message, timestamp }) {
    add(ROOM, { system: true, text: message, at: timestamp });
    toast("Announcement", message, "warning");
  },
  notification({ title, message, type }) {
    toast(title, message, type);
  },
};

async function ping() {
  const started = performance.now();
  const asked = link.socket;
  try {
    await link.request("ping");
    if (asked === link.socket) status("open", `Connected, ${Math.ceil(performance.now() - started)} ms`);
  } catch {
    // A lost connection has been shown already, and a slow one shows at the next ping.
  }
}

// What the person does

async function join(name) {
  const { userId } = await link.request("authenticate", { token: name });
  await link.request("subscribe", { channel: ROOM });
  me = userId;
  sessionStorage.setItem("name", me); // of this tab only, so that two tabs can be two people
  element("me").textContent = `You are ${me}`;
  document.title = `${me} · Hubbub chat`;
  element("join").hidden = true;
  element("chat").hidden = false;
  draw();
}

async function say(text) {
  if (current === ROOM) {
    await link.request("publish", { channel: ROOM, data: text });
    return;
  }
  const { user, key } = conversations.get(current);
  const message = add(key, { from: me, text, at: Date.now(), mine: true, note: "sending" });
  try {
    const { delivered, reason } = await link.request("chat", { recipientId: user, message: text });
    Object.assign(message, { note: delivered ? "delivered" : `not delivered: ${reason}`, failed: !delivered });
  } catch (error) {
    Object.assign(message, { note: `not sent: ${error.message}`, failed: true });
  }
  draw();
}

async function announce(message) {
  const body = JSON.stringify({ message });
  const answer = await fetch("announce", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) toast("Not announced", `The server answered ${answer.status}.`, "error");
}

// Conversations

function keyOf(user) {
  return `user:${user}`;
}

function conversation(key, user = null) {
  if (!conversations.has(key)) conversations.set(key, { key, user, messages: [], unread: 0 });
  return conversations.get(key);
}

function add(key, message, user) {
  const found = conversation(key, user);
  found.messages.push(message);
  if (found.messages.length > KEEP) found.messages.shift();
  if (key !== current) found.unread++;
  draw();
  return message;
}

function choose(key, user) {
  current = key;
  conversation(key, user).unread = 0;
  draw();
  element("text").focus();
}

// What is shown

function status(state, text) {
  element("status").dataset.state = state;
  element("status").textContent = text;
}

function make(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function draw() {
  drawConversations();
  const { user, messages } = conversation(current);
  element("title").textContent = user ?? "The room";
  element("text").placeholder = user === null ? "Message to everybody in the room" : `Message to ${user}`;
  const list = element("messages");
  const atEnd = list.dataset.key !== current || list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.dataset.key = current;
  list.replaceChildren(...messages.map(drawMessage));
  if (!messages.length) list.append(make("li", "empty", user === null ? "Say hello to the room." : `Say hello to ${user}.`));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function drawMessage({ from, text, at, mine, system, note, failed }) {
  if (system) return make("li", "system", text);
  const item = make("li", [mine && "mine", failed && "failed"].filter(Boolean).join(" "));
  const time = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  item.append(make("p", "meta", [mine ? null : from, time, note].filter(Boolean).join(" · ")), make("p", "body", text));
  return item;
}

function drawConversations() {
  const others = new Set(online.filter((user) => user !== me));
  for (const { user } of conversations.values()) if (user !== null) others.add(user);
  const sorted = [...others].sort((a, b) => a.localeCompare(b));
  const items = [null, ...sorted].map(drawEntry);
  const list = element("conversations");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...items);
  if (focused !== null) [...list.querySelectorAll("button")].find((button) => button.dataset.key === focused)?.focus();
}

function drawEntry(user) {
  const key = user === null ? ROOM : keyOf(user);
  const unread = conversations.get(key)?.unread;
  const button = make("button");
  button.type = "button";
  button.dataset.key = key;
  button.onclick = () => choose(key, user);
  button.setAttribute("aria-current", key === current);
  const there = user !== null && online.includes(user);
  const dot = make("span", user === null ? "dot room" : there ? "dot online" : "dot", user === null ? "#" : "");
  if (user !== null) {
    dot.setAttribute("role", "img");
    dot.setAttribute("aria-label", there ? "online" : "offline");
  }
  button.append(dot, make("span", "who", user ?? "The room"));
  if (unread) button.append(make("span", "unread", String(unread)));
  const item = make("li");
  item.append(button);
  return item;
}

function toast(title, text, kind = "info") {
  const box = make("div", ["info", "success", "warning", "error"].includes(kind) ? `toast ${kind}` : "toast");
  box.append(make("b", "", title), make("span", "", text));
  element("toasts").append(box);
  setTimeout(() => box.remove(), TOAST_FOR);
}

// The start

element("join").onsubmit = async (event) => {
  event.preventDefault();
  element("refused").textContent = "";
  try {
    await join(element("name").value);
    element("text").focus();
  } catch (error) {
    element("refused").textContent = error.message;
  }
};
element("composer").onsubmit = async (event) => {
  event.preventDefault();
  const text = element("text").value;
  element("text").value = "";
  try {
    await say(text);
  } catch (error) {
    element("text").value ||= text;
    toast("Not sent", error.message, "error");
  }
};
element("announce").onclick = () => element("announcing").showModal();
element("announcement").onsubmit = () => announce(element("notice").value);
element("cancel").onclick = () => element("announcing").close();
element("announcing").onclose = () => (element("notice").value = "");
element("test-page").href = `${document.body.dataset.wsPath.replace(/\/$/, "")}/client`;
element("name").value = sessionStorage.getItem("name") ?? "";
me = sessionStorage.getItem("name");
conversation(ROOM);
setInterval(() => document.hidden || ping(), PING_EVERY);
link.open();
