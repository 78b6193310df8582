// The test page: one connection to the hub it is served by, everything sent and received, and counters.
// Nothing a server says is ever taken as HTML: all text goes through textContent.

const KEEP = 500; // messages in the log
const ONE_LINE = 160; // characters of a message that needs no line breaks
const LARGEST = 20_000; // characters shown of one message
const BACKOFF = { first: 500, most: 30_000, steady: 5_000 }; // milliseconds; steady: lived long enough to start anew

// The table of src/hubbub/errors.py: what the code means, and whether to come back. A test compares the two.
const CLOSE_CODES = {
  "1000": ["the work is done", false],
  "1001": ["the server stops, or the page was left", true],
  "1002": ["a frame broke the WebSocket protocol", false],
  "1003": ["a binary message, and no handler for them", false],
  "1005": ["the close frame gave no code (never sent)", true],
  "1006": ["the connection was cut without a close frame (never sent)", true],
  "1007": ["text that is not UTF-8, or a corrupt compressed message", false],
  "1008": ["a rule of this server was broken", false],
  "1009": ["a message over the size or part limit", false],
  "1011": ["the server failed; its log has the reason", true],
  "1012": ["the server restarts", true],
  "1013": ["the server is overloaded", true],
  "4001": ["the token expired: bring a new one", true],
  "4002": ["the client read too slowly and its queue was full", true],
  "4003": ["the client did not answer a ping in time", true],
  "4004": ["the server lost its place: subscribe again", true],
  "4005": ["too many messages, in spite of the errors sent before", true],
  "4500": ["too many messages that are not JSON", false],
  "4501": ["the credentials are not accepted", false],
  "4503": ["this user may not connect", false],
  "4504": ["too many connections", false],
  "4505": ["no credentials came in time", false],
  "4506": ["a newer connection took this one's place", false]
};

const QUICK = {
  ping: undefined,
  echo: { text: "hello" },
  authenticate: { token: "tester" },
  subscribe: { channel: "news" },
  publish: { channel: "news", event: "hello", data: { text: "hello" } },
  chat: { recipientId: "tester", message: "hello" },
};

const element = (id) => document.getElementById(id);
const counters = { sent: 0, received: 0, errors: 0, reconnects: 0 };
const waiting = new Map(); // id of a request -> when it was sent
let socket = null;
let retry = null; // timer of the next attempt
let attempt = 0; // of coming back, since the last steady connection
let leaving = false; // the person asked for the end
let ticket = null; // from a server that goes, for the one that is there
let lastId = 0;

// The connection

function connect() {
  clearTimeout(retry);
  retry = null;
  leaving = false;
  let opened = null; // when
  let current;
  try {
    current = socket = new WebSocket(address(), ["hubbub.v1"]);
  } catch (error) {
    show("failed", "Not an address");
    note(error.message);
    return;
  }
  show("connecting", "Connecting…");
  current.onopen = () => {
    opened = performance.now();
    if (attempt > 0) count("reconnects");
    show("open", "Connected");
    note(`connected to ${current.url}` + (current.protocol ? `, ${current.protocol}` : ""));
  };
  current.onmessage = (event) => receive(event.data);
  current.onclose = (event) => {
    socket = null;
    waiting.clear();
    if (opened !== null && performance.now() - opened > BACKOFF.steady) attempt = 0;
    closed(event, opened !== null);
  };
}

function address() {
  const url = new URL(element("url").value.trim());
  if (ticket !== null) url.searchParams.set("ticket", ticket);
  ticket = null;
  return url;
}

function moveSoon({ delay, ticket: given = null }) {
  const old = socket;
  retry = setTimeout(() => {
    if (socket !== old) return;
    ticket = given;
    note("the server goes: on to another one");
    old.onclose = null;
    waiting.clear();
    attempt = 1;
    connect();
    old.close(1000);
  }, delay);
}

function closed({ code, reason }, opened) {
  const [meaning, comeBack] = CLOSE_CODES[code] ?? ["a code of this application", code < 4500 || code > 4999];
  if (opened) note(`closed ${code}: ${meaning}` + (reason ? ` (${reason})` : ""));
  else if (!leaving) note("could not connect: check the address and that the server runs; the browser's console may say more");
  if (leaving) show("closed", "Not connected");
  else if (comeBack && element("again").checked) comeAgain();
  else show("failed", opened ? `Closed, ${code}` : "Could not connect");
}

function comeAgain() {
  const pause = Math.min(BACKOFF.most, BACKOFF.first * 2 ** attempt++) * (0.5 + Math.random() / 2);
  retry = setTimeout(connect, pause);
  show("connecting", `Trying again in ${(pause / 1000).toFixed(1)} s`);
}

function disconnect() {
  clearTimeout(retry);
  retry = null;
  leaving = true;
  socket?.close(1000);
  show("closed", socket ? "Closing…" : "Not connected");
}

function show(state, text) {
  element("status").dataset.state = state;
  element("status").textContent = text;
  element("connect").disabled = socket !== null;
  element("disconnect").disabled = socket === null && retry === null;
  element("send").disabled = state !== "open";
  for (const button of element("quick").children) button.disabled = state !== "open";
}

// Messages out

function send(type, payload) {
  const id = String(++lastId);
  const message = { type, payload, timestamp: Date.now(), id };
  waiting.set(id, performance.now());
  transmit(JSON.stringify(message), message);
}

function transmit(text, message = read(text)) {
  socket.send(text);
  count("sent");
  log("out", message?.type ?? "raw text", text, message);
}

function submit() {
  element("problem").textContent = "";
  if (socket?.readyState !== WebSocket.OPEN) return;
  if (document.querySelector("[name=mode]:checked").value === "raw") {
    transmit(element("raw").value);
    return;
  }
  const text = element("payload").value.trim();
  try {
    send(element("type").value.trim(), text ? JSON.parse(text) : undefined);
  } catch (error) {
    element("problem").textContent = `The payload is not JSON. ${error.message}`;
    element("payload").focus();
  }
}

function quick(type) {
  element("type").value = type;
  element("payload").value = QUICK[type] ? JSON.stringify(QUICK[type], null, 2) : "";
  document.querySelector("[name=mode][value=fields]").click();
  submit();
}

// Messages in

function receive(data) {
  count("received");
  if (typeof data !== "string") {
    log("in", "binary", `${data.size} bytes`);
    return;
  }
  const message = read(data);
  const sent = message && waiting.get(message.id);
  let latency = "";
  if (sent) {
    waiting.delete(message.id);
    element("latency").textContent = latency = milliseconds(performance.now() - sent);
  }
  if (message?.type === "error") count("errors");
  if (message?.type === "reconnect") moveSoon(message.payload);
  log("in", message?.type ?? "not a message", data, message, latency);
}

function read(text) {
  try {
    const message = JSON.parse(text);
    return message !== null && typeof message === "object" && typeof message.type === "string" ? message : null;
  } catch {
    return null;
  }
}

// What is shown

function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function count(name) {
  element(name).textContent = ++counters[name];
}

function note(text) {
  log("note", text);
}

function log(direction, title, text = "", message = null, extra = "") {
  const list = element("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = make("li", direction + (message?.type === "error" ? " error" : ""));
  const head = item.appendChild(make("div", "head"));
  const now = new Date();
  const time = head.appendChild(make("time", "", clock(now)));
  time.dateTime = now.toISOString();
  const arrow = head.appendChild(make("span", "arrow", { in: "↓", out: "↑", note: "·" }[direction]));
  arrow.setAttribute("aria-label", { in: "received", out: "sent", note: "event" }[direction]);
  arrow.setAttribute("role", "img");
  head.append(make(direction === "note" ? "span" : "b", "", title));
  const id = message?.id === undefined ? "" : `#${message.id}`;
  if (id || extra) head.append(make("span", "extra", [id, extra].filter(Boolean).join(" · ")));
  if (text) item.append(make("pre", "", shorten(message ? pretty(message) : text)));
  item.searchText = `${title} ${text}`.toLowerCase();
  list.append(item);
  while (list.children.length > KEEP) list.firstElementChild.remove();
  filter(item);
  element("empty").hidden = true;
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function make(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function clock(date) {
  return date.toTimeString().slice(0, 8) + "." + String(date.getMilliseconds()).padStart(3, "0");
}

function pretty(message) {
  const lines = JSON.stringify(message, null, 2);
  const line = lines.replace(/\n */g, " "); // a line break in JSON is never part of a string
  return line.length <= ONE_LINE ? line : lines;
}

function shorten(text) {
  return text.length > LARGEST ? `${text.slice(0, LARGEST)}\n… ${text.length - LARGEST} characters more` : text;
}

function filter(item) {
  const direction = element("direction").value;
  const wanted = element("filter").value.trim().toLowerCase();
  item.hidden = (direction && !item.classList.contains(direction)) || !item.searchText.includes(wanted);
}

function filterAll() {
  for (const item of element("log").children) filter(item);
}

function clear() {
  element("log").replaceChildren();
  element("empty").hidden = false;
}

// The start

const here = new URL(location.href.replace(/\/client\/?(?:[?#].*)?$/, "").replace(/^http/, "ws"));
element("url").value = here.href;
for (const type of Object.keys(QUICK)) {
  const button = element("quick").appendChild(make("button", "", type));
  button.type = "button";
  button.onclick = () => quick(type);
}
element("connection").onsubmit = (event) => {
  event.preventDefault();
  attempt = 0;
  if (socket === null) connect();
};
element("disconnect").onclick = disconnect;
element("message").onsubmit = (event) => {
  event.preventDefault();
  submit();
};
element("message").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
};
for (const radio of document.querySelectorAll("[name=mode]")) {
  radio.onchange = () => {
    element("fields").hidden = radio.value === "raw";
    element("rawfield").hidden = radio.value !== "raw";
  };
}
element("again").onchange = () => {
  if (!element("again").checked && retry !== null) disconnect();
};
element("filter").oninput = filterAll;
element("direction").onchange = filterAll;
element("clear").onclick = clear;
show("closed", "Not connected");
