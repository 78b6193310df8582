// What the page knows: who is there, and the conversations with their messages.
// The messages of a conversation are numbered without a hole. What is held is one piece without a hole, too: a message
// that does not follow the last one held says that something was missed, and `fill` asks for it.

import { history } from "./api.js";
import { link } from "./link.js";
import { outbox } from "./outbox.js";

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
      this.conversations.set(id, {
        ...{ id, name, room: kind === "room", last: 0, read: 0, messages: [], loaded: false, filling: false },
        ...{ typing: new Map(), notes: new Map() },
      });
    }
    return this.conversations.get(id);
  },

  // The answer to `enter`, after each connect.
  entered({ people, online, conversations }) {
    this.people = people;
    this.online = new Set(online);
    for (const [id, { last, read }] of Object.entries(conversations)) {
      const conversation = this.get(id);
      conversation.last = Math.max(conversation.last, last);
      conversation.read = Math.max(conversation.read, read);
      if (conversation.loaded) fill(conversation);
    }
    this.show(this.current);
  },

  show(id) {
    this.current = id;
    const conversation = this.get(id);
    if (!conversation.loaded) load(conversation);
    this.markRead();
    this.onchange();
  },

  // Take a message, live or from the history: {number, from, message, timestamp, key}.
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
    const { id, last, read, loaded } = this.get(this.current);
    if (document.hidden || !loaded || last <= read || !link.connected) return;
    this.get(id).read = last;
    link.send("read", { conversation: id, number: last });
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
    const { last, read, messages } = this.conversations.get(id) ?? { last: 0, read: 0, messages: [] };
    const mine = messages.filter(({ number, from }) => number > read && from === this.me.name).length;
    return Math.max(0, last - read - mine);
  },

  async earlier() {
    const conversation = this.get(this.current);
    const before = conversation.messages[0].number;
    const found = await history(conversation.id, { before, limit: PAGE });
    if (conversation.messages[0].number === before) conversation.messages.unshift(...found);
    this.onchange();
  },
};

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
