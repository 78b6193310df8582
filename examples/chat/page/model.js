// What the page knows: who is there, and the conversations with their messages; of rooms, `rooms.js` knows more.
// What two people say is numbered without a hole. What is held is one piece without a hole, too: a message that does not
// follow the last one held says that something was missed, and `fill` asks for it.

import { history } from "./api.js";
import { link } from "./link.js";
import { outbox } from "./outbox.js";
import { back, begin, comings, follow, furnish, hear, isBehind, place, unread } from "./rooms.js";

const PAGE = 50;
const TOO_FAR = 200; // missed more than this: begin again with the newest
const TYPING_FOR = 4_000; // milliseconds

export const model = {
  me: null, // { name, admin }
  people: [],
  online: new Set(),
  conversations: new Map(), // by id: room:lobby, user:bob
  current: "room:lobby",
  onchange: () => {},

  reset(me) {
    Object.assign(this, { me, people: [], online: new Set(), conversations: new Map(), current: "room:lobby" });
  },

  get(id) {
    if (!this.conversations.has(id)) {
      const [kind, name] = [id.slice(0, 4), id.slice(5)];
      const conversation = { id, name, room: kind === "room", messages: [], loaded: false, filling: false };
      const pair = { last: 0, read: 0, typing: new Map(), notes: new Map() };
      this.conversations.set(id, conversation.room ? furnish(conversation) : Object.assign(conversation, pair));
    }
    return this.conversations.get(id);
  },

  // The answer to `enter`, after each connect.
  async entered({ people, online, conversations, rooms }) {
    this.people = people;
    this.online = new Set(online);
    for (const { id, room, live } of [...this.conversations.values()]) if (room && !live && !(id in rooms)) this.leave(id);
    for (const [id, { last, read }] of Object.entries(conversations)) {
      const conversation = this.get(id);
      conversation.last = Math.max(conversation.last, last);
      conversation.read = Math.max(conversation.read, read);
      if (conversation.loaded) fill(conversation);
    }
    for (const [id, read] of Object.entries(rooms)) this.wasSeen({ channel: id, ...read });
    this.show(this.current);
    await Promise.all(Object.keys(rooms).map((id) => follow(this.get(id))));
  },

  // The connection went.
  lost() {
    for (const conversation of this.conversations.values()) if (conversation.room) conversation.live = false;
  },

  // We are in a room no more.
  leave(id) {
    this.conversations.delete(id);
    if (this.current === id) this.show("room:lobby");
    this.onchange();
  },

  // What the server says of a room.
  hear(message, timestamp) {
    const room = this.get(message.channel);
    hear(room, message, timestamp);
    this.markRead();
    this.onchange();
  },

  subscribed(payload) {
    if (payload.channel.startsWith("room:")) begin(this.get(payload.channel), payload);
  },

  comes(type, payload) {
    const room = this.conversations.get(payload.channel);
    if (room) comings[type](room, payload);
    this.onchange();
  },

  show(id) {
    this.current = id;
    const conversation = this.get(id);
    if (conversation.room && conversation.live && !conversation.loaded) back(conversation).catch(() => {});
    else if (!conversation.room && !conversation.loaded) load(conversation);
    this.markRead();
    this.onchange();
  },

  // Take a message between two people, live or from the history: {number, from, message, timestamp, key}.
  take(id, message) {
    const conversation = this.get(id);
    const held = lastHeld(conversation);
    conversation.last = Math.max(conversation.last, message.number);
    conversation.typing.delete(message.from);
    if (message.from === this.me.name) {
      outbox.done(message.key);
      if (conversation.read === message.number - 1) conversation.read = message.number;
      if (!conversation.loaded) load(conversation); // so that `unread` leaves it out
    }
    if (conversation.loaded && message.number === held + 1) conversation.messages.push(message);
    else if (conversation.loaded && message.number > held) fill(conversation);
    this.markRead();
    this.onchange();
  },

  // What somebody looks at is read, here and on their other tabs.
  markRead() {
    const conversation = this.get(this.current);
    const { id, last, read, loaded } = conversation;
    if (document.hidden || !loaded || !link.connected) return;
    if (conversation.room) return markSeen(conversation);
    if (last <= read) return;
    conversation.read = last;
    link.send("read", { conversation: id, number: last });
  },

  // One of our other tabs did.
  wasSeen({ channel, ...seen }) {
    const room = this.get(channel);
    if (isBehind(room.read, seen)) room.read = seen;
    this.onchange();
  },

  wasRead({ conversation, number }) {
    this.get(conversation).read = Math.max(this.get(conversation).read, number);
    this.onchange();
  },

  types(id, name) {
    const { typing } = this.get(id);
    if (name === this.me.name) return;
    clearTimeout(typing.get(name));
    typing.set(name, setTimeout(() => typing.delete(name) && this.onchange(), TYPING_FOR));
    this.onchange();
  },

  unread(id) {
    if (this.conversations.get(id)?.room) return unread(this.get(id));
    const { last, read, messages } = this.conversations.get(id) ?? { last: 0, read: 0, messages: [] };
    const mine = messages.filter(({ number, from }) => number > read && from === this.me.name).length;
    return Math.max(0, last - read - mine);
  },

  async earlier() {
    const conversation = this.get(this.current);
    if (conversation.room) return back(conversation);
    const before = conversation.messages[0].number;
    const found = await history(conversation.id, { before, limit: PAGE });
    if (conversation.messages[0].number === before) conversation.messages.unshift(...found);
    this.onchange();
  },
};

function markSeen(room) {
  const last = room.messages.at(-1);
  if (!last || !isBehind(room.read, last)) return;
  room.read = place(last);
  link.send("seen", { channel: room.id, ...room.read });
}

async function load(conversation) {
  if (conversation.filling) return;
  conversation.filling = true;
  try {
    conversation.messages = await history(conversation.id, { limit: PAGE });
    conversation.loaded = true;
  } catch {
    return; // it is tried again after the next connect
  } finally {
    conversation.filling = false;
  }
  await fill(conversation);
}

async function fill(conversation) {
  if (conversation.filling) return;
  conversation.filling = true;
  try {
    while (lastHeld(conversation) < conversation.last) {
      const far = conversation.last - lastHeld(conversation) > TOO_FAR;
      const found = await history(conversation.id, far ? { limit: PAGE } : { after: lastHeld(conversation), limit: TOO_FAR });
      if (far) conversation.messages = [];
      const fresh = found.filter(({ number }) => number > lastHeld(conversation)); // some came live meanwhile
      if (!found.length) break;
      conversation.messages.push(...fresh);
      for (const { from, key } of fresh) if (from === model.me?.name) outbox.done(key);
    }
  } catch {
    // The connection went again; `entered` comes after the next one.
  } finally {
    conversation.filling = false;
  }
  model.markRead();
  model.onchange();
}

function lastHeld({ messages }) {
  return messages.at(-1)?.number ?? 0;
}
