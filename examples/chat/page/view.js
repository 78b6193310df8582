// What is shown. Whatever people wrote goes through textContent, so it is never taken as HTML.
// Lists keep the elements they have: a screen reader hears what is new, and the focus stays where it is.

import { model } from "./model.js";
import { outbox } from "./outbox.js";

const HUES = 8; // classes hue0 to hue7
const TOGETHER = 5 * 60_000; // milliseconds between messages that stand under one name
const TOAST_FOR = 6_000;
const KINDS = ["info", "success", "warning", "error"];
const MOST_NOTES = 50;

export const element = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });

export function draw() {
  if (model.me === null) return;
  const conversation = model.get(model.current);
  drawLists();
  drawMessages(conversation);
  const { room, name } = conversation;
  element("title").textContent = room ? `# ${name}` : name;
  element("about").textContent = room ? `${conversation.count} here` : model.online.has(name) ? "online" : "offline, gets it later";
  element("text").placeholder = room ? `Message # ${name}` : name === model.me.name ? "A note to yourself" : `Message ${name}`;
  element("members").hidden = !room;
  const names = room ? typingIn(conversation) : [...conversation.typing.keys()];
  element("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing…` : "";
  const unread = [...model.conversations.keys()].reduce((sum, id) => sum + (id === model.current ? 0 : model.unread(id)), 0);
  badge(element("elsewhere"), unread);
  document.title = `${unread ? `(${unread}) ` : ""}${model.me.name} · Hubbub chat`;
}

function typingIn({ here }) {
  return [...here.values()].filter(({ userId, state }) => state?.typing && userId !== model.me.name).map(({ userId }) => userId);
}

export function status(state, text) {
  element("status").dataset.state = state;
  element("status").textContent = text;
  element("offline").hidden = state !== "offline" || model.me === null;
}

export function toast(title, text, kind = "info") {
  const box = make("div", KINDS.includes(kind) ? `toast ${kind}` : "toast");
  box.append(make("b", "", title), make("span", "", text));
  element("toasts").append(box);
  setTimeout(() => box.remove(), TOAST_FOR);
}

// A toast that can be read again later, behind the bell.
export function note(title, text, kind, at = Date.now()) {
  toast(title, text, kind);
  const item = make("li");
  item.append(make("b", "", title), make("span", "", text), make("time", "", clock.format(at)));
  element("notes").prepend(item);
  while (element("notes").children.length > MOST_NOTES) element("notes").lastChild.remove();
  element("no-notes").hidden = true;
  if (!element("news").matches(":popover-open")) badge(element("unseen"), Number(element("unseen").textContent) + 1);
}

export function forgetNotes() {
  element("toasts").replaceChildren();
  element("notes").replaceChildren();
  element("no-notes").hidden = false;
  badge(element("unseen"), 0);
}

export function badge(box, count) {
  box.textContent = count || "";
  box.hidden = !count;
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `${count} unread`);
}

// The lists of conversations

function drawLists() {
  const ids = [...model.conversations.keys()];
  const people = new Set([...model.people, ...ids.filter((id) => id.startsWith("user:")).map((id) => id.slice(5))]);
  const rooms = ids.filter((id) => id.startsWith("room:")).sort();
  const rank = (name) => (model.unread(`user:${name}`) ? 0 : model.online.has(name) ? 1 : 2);
  const sorted = [...people].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  keep(element("rooms"), rooms, (id) => id, makeEntry, drawEntry);
  keep(element("people"), sorted.map((name) => `user:${name}`), (id) => id, makeEntry, drawEntry);
}

function makeEntry(id) {
  const [item, button, name] = [make("li"), make("button"), id.slice(5)];
  button.type = "button";
  button.dataset.conversation = id;
  const sign = id.startsWith("room:") ? make("span", "hash", "#") : avatar(name);
  button.append(sign, make("span", "who", name === model.me.name && id.startsWith("user:") ? `${name} (you)` : name));
  button.append(make("span", "unread"));
  item.append(button);
  return item;
}

function drawEntry(item, id) {
  const [button] = item.children;
  button.setAttribute("aria-current", id === model.current);
  badge(button.lastChild, id === model.current && !document.hidden ? 0 : model.unread(id));
  if (id.startsWith("room:")) return;
  const online = model.online.has(id.slice(5));
  button.firstChild.classList.toggle("online", online);
  button.firstChild.setAttribute("aria-label", online ? "online" : "offline");
}

export function avatar(name) {
  const sign = make("span", `avatar hue${[...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % HUES}`, name.slice(0, 1));
  sign.setAttribute("role", "img");
  return sign;
}

// The messages

function drawMessages(conversation) {
  const [scroll, list] = [element("scroll"), element("messages")];
  const changed = list.dataset.conversation !== conversation.id;
  const first = list.firstChild?.dataset.key;
  const before = scroll.scrollHeight;
  const atEnd = changed || before - scroll.scrollTop - scroll.clientHeight < 80;
  if (changed) list.replaceChildren();
  list.dataset.conversation = conversation.id;
  keep(list, itemsOf(conversation), ({ key }) => key, makeMessage, drawMessage);
  element("earlier").hidden = conversation.room ? !conversation.loaded || !conversation.more : !(conversation.messages[0]?.number > 1);
  element("empty").hidden = !conversation.loaded || list.children.length > 0;
  element("empty").textContent = `Nothing here yet. Say hello to ${conversation.room ? "the room" : conversation.name}.`;
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
  else if (list.firstChild?.dataset.key !== first) scroll.scrollTop += scroll.scrollHeight - before;
}

// Days, messages, and what is on its way.
function itemsOf(conversation) {
  const items = [];
  let last = null;
  for (const message of conversation.messages) {
    const day = calendar.format(message.timestamp);
    if (last === null || day !== calendar.format(last.timestamp)) items.push({ key: `day ${day}`, day });
    const follows = items.at(-1).message && last.from === message.from && message.timestamp - last.timestamp < TOGETHER;
    items.push({ key: `message ${message.id ?? message.number}`, message, follows, note: conversation.notes?.get(message.number) });
    last = message;
  }
  for (const { key, text, at, failed, conversation: id } of outbox.entries) {
    if (id !== conversation.id) continue;
    const note = failed ? `not sent: ${failed}` : "waiting to be sent";
    items.push({ key: `key ${key}`, message: { from: model.me.name, message: text, timestamp: at }, note, failed, waits: true });
  }
  return items;
}

function makeMessage({ day, message }) {
  if (day) return make("li", "day", day);
  const [item, head, bubble] = [make("li"), make("p", "meta"), make("div", "bubble")];
  head.append(make("b", "", message.from), make("time", "", clock.format(message.timestamp)));
  bubble.append(make("p", "body", message.message), make("p", "note"));
  const sign = avatar(message.from);
  sign.setAttribute("aria-hidden", "true");
  item.append(sign, head, bubble);
  return item;
}

function drawMessage(item, { day, message, follows, note, failed, waits }) {
  if (day) return;
  const mine = message.from === model.me.name;
  item.className = [mine && "mine", follows && "follows", failed && "failed", waits && "waits"].filter(Boolean).join(" ");
  item.querySelector(".note").textContent = note ?? "";
}

// Elements

function keep(list, items, keyOf, create, update) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const child = old.get(key) ?? create(item);
    child.dataset.key = key;
    old.delete(key);
    update(child, item);
    if (child === place) place = place.nextSibling;
    else list.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}

export function make(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
