// What was written and is not sent yet: kept in the browser, so that neither a lost connection nor a reload loses it.
// Each entry has a key, and the server takes a key once: sent again by another tab or after a lost answer, it is one.

import { link } from "./link.js";
import { wasSaid } from "./rooms.js";

const AGAIN_AFTER = 2_000; // milliseconds
const KNOWN_FOR = 60_000; // for longer than this the hub knows a key; later we look whether the room has the message

let user = null;
let underway = false;

export const outbox = {
  entries: [], // oldest first: { key, conversation, text, at, heard, failed? }; heard is the server's time before
  onsent: () => {}, // (entry, the message as the server took it)
  onchange: () => {},

  load(name) {
    user = name;
    this.entries = [];
    this.collect();
  },

  // Also what other tabs of this user could not send.
  collect() {
    const known = new Set(this.entries.map(({ key }) => key));
    for (const [place, text] of Object.entries(localStorage)) {
      if (place.startsWith(prefix()) && !known.has(place.slice(prefix().length))) this.entries.push(JSON.parse(text));
    }
    this.entries.sort((a, b) => a.at - b.at);
  },

  add(conversation, text) {
    const key = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const entry = { key, conversation, text, at: Date.now(), heard: link.heard };
    this.entries.push(entry);
    keep(entry);
    this.flush();
  },

  done(key) {
    this.entries = this.entries.filter((entry) => entry.key !== key);
    localStorage.removeItem(prefix() + key);
  },

  forget() {
    for (const { key } of this.entries) localStorage.removeItem(prefix() + key);
    this.entries = [];
    user = null;
  },

  async flush() {
    if (underway || !link.connected) return;
    underway = true;
    this.collect();
    try {
      for (let entry; (entry = this.entries.find(({ failed }) => !failed)); ) await this.deliver(entry);
    } catch {
      setTimeout(() => this.flush(), AGAIN_AFTER);
    } finally {
      underway = false;
    }
    this.onchange();
  },

  async deliver(entry) {
    const { conversation, text, key } = entry;
    const person = conversation.startsWith("user:");
    const late = entry.heard && link.heard - entry.heard > KNOWN_FOR;
    if (!entry.heard) keep(Object.assign(entry, { heard: link.heard }));
    try {
      if (!person && late && (await wasSaid(conversation, key, entry.heard))) return this.done(key);
      const taken = person
        ? await link.request("chat", { recipientId: conversation.slice(5), message: text, key })
        : await link.request("publish", { channel: conversation, data: text, key });
      this.done(key);
      this.onsent(entry, taken);
    } catch (error) {
      if (error.passing) throw error;
      entry.failed = error.message;
      localStorage.removeItem(prefix() + key);
    }
  },
};

function prefix() {
  return `chat:outbox:${user}:`;
}

function keep(entry) {
  try {
    localStorage.setItem(prefix() + entry.key, JSON.stringify(entry));
  } catch {
    // No room or not allowed: it is kept in this tab alone.
  }
}
