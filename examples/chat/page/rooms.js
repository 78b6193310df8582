// What rooms are made of: messages by their places, who is here, how far one has read. The hub keeps what was said.
// A place is {offset, epoch}: `subscribe` since a place gives what came after it, `history` back from one what was before.

import { link } from "./link.js";
import { model } from "./model.js";
import { outbox } from "./outbox.js";

const PAGE = 50;
const AGAIN_AFTER = 2_000; // milliseconds

// What a room has beside what all conversations have.
export function furnish(room) {
  const nobody = { here: new Map(), count: 0 };
  return Object.assign(room, { place: null, read: null, live: false, more: true, life: 0, ...nobody });
}

// Subscribe from where one was: what was missed comes behind the answer, as messages.
export async function follow(room) {
  try {
    const since = room.place ?? room.read ?? undefined;
    begin(room, await link.request("subscribe", { channel: room.id, since }));
  } catch (error) {
    if (error.code === "forbidden") model.leave(room.id);
    else if (error.code !== "lost") setTimeout(() => link.connected && !room.live && follow(room), AGAIN_AFTER);
  }
}

// The answer to `subscribe`, or what the server says when it subscribed us.
export function begin(room, { offset, epoch, recovered, presence }) {
  room.live = true;
  if (presence) isHere(room, presence);
  if (epoch === undefined) return; // nothing new: we were subscribed
  room.read ??= { offset, epoch };
  if (recovered) room.place ??= room.read;
  else Object.assign(room, { place: { offset, epoch }, messages: [], more: true, loaded: false, life: room.life + 1 });
  if (!recovered || (room.id === model.current && !room.loaded)) back(room).catch(() => {});
  model.onchange();
}

// A message of the channel: live, or one that was missed.
export function hear(room, { offset, data }, timestamp) {
  room.place = { offset, epoch: room.place.epoch };
  const message = shown({ ...room.place, data, timestamp });
  if (room.messages.some(({ id }) => id === message.id)) return;
  room.messages.push(message);
}

// Put a page of older messages ahead of those held.
export async function back(room) {
  const { life } = room;
  if (room.filling === life) return;
  room.filling = life;
  const found = [];
  try {
    while (found.length < PAGE && room.more) {
      const since = place(found[0] ?? room.messages[0]);
      const asked = { channel: room.id, archive: true, back: true, limit: PAGE - found.length, since };
      const { publications } = await link.request("history", asked);
      if (life !== room.life) return; // it began anew meanwhile
      room.more = publications.length > 0;
      found.unshift(...publications.map(shown));
    }
    const ids = new Set(found.map(({ id }) => id));
    room.messages = [...found, ...room.messages.filter(({ id }) => !ids.has(id))];
    room.loaded = true;
  } finally {
    if (room.filling === life) room.filling = false;
  }
  model.markRead();
  model.onchange();
}

export function unread(room) {
  const seen = room.messages.findLastIndex((message) => !isBehind(room.read, message));
  return room.messages.slice(seen + 1).filter(({ from }) => from !== model.me.name).length;
}

// Whether a message stands behind a place; of another epoch nobody can tell, and it counts as new.
export function isBehind(read, { offset, epoch }) {
  return read?.epoch !== epoch || offset > read.offset;
}

export function place(message) {
  return message && { offset: message.offset, epoch: message.epoch };
}

// Whether the room has a message with this key of ours, said at this time or later.
export async function wasSaid(channel, key, from) {
  for (let since; ; ) {
    const { publications } = await link.request("history", { channel, archive: true, from, since });
    if (publications.some(({ data }) => data.key === key && data.from === model.me.name)) return true;
    if (!publications.length) return false;
    since = place(publications.at(-1));
  }
}

// Who is here

export function isHere(room, { members, count }) {
  Object.assign(room, { here: new Map(members.map((member) => [member.userId, member])), count });
}

export const comings = {
  presence: isHere,
  presence_join: change,
  presence_update: change,
  presence_leave(room, { members, count }) {
    for (const { userId } of members) room.here.delete(userId);
    room.count = count;
  },
};

function change(room, { members, count }) {
  for (const member of members) room.here.set(member.userId, member);
  room.count = count;
}

// That one types is part of one's presence: others see it come and go, and it goes with the connection.
export function setTyping(room, typing) {
  link.request("presence", { channel: room.id, state: typing ? { typing } : null }).catch(() => {});
}

function shown({ offset, epoch, data, timestamp }) {
  if (data.from === model.me?.name) outbox.done(data.key);
  return { id: `${epoch}/${offset}`, offset, epoch, timestamp, ...data };
}
