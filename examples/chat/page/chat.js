// The chat: what the server says, and what the person does.

import { api } from "./api.js";
import { link } from "./link.js";
import { model } from "./model.js";
import { outbox } from "./outbox.js";
import { comings, follow, setTyping } from "./rooms.js";
import { openRoster } from "./roster.js";
import { badge, draw, element, forgetNotes, note, status, toast } from "./view.js";

const TYPING_EVERY = 2_000; // milliseconds
const TYPING_FOR = 4_000;

let typed = 0; // when the others were last told
let typing = null; // the room in which they see it, and the timer that ends it

// What the server says

link.onstatus = (state, text) => {
  if (state !== "open") model.lost();
  status(state, text);
};
link.onsignedout = () => leave("You were signed out.");
link.onopen = async () => {
  try {
    const [state] = await Promise.all([link.request("enter"), link.probe()]);
    await model.entered(state);
    await outbox.flush();
  } catch (error) {
    if (error.code === "unauthorized") leave("Your session has ended.");
    else if (error.code !== "lost") setTimeout(() => link.connected && link.onopen(), TYPING_EVERY);
  }
};
link.handlers = {
  message(message, timestamp) {
    if (message.channel === "people") changes[message.event]?.(message.data);
    else model.hear(message, timestamp);
  },
  subscribed: (payload) => model.subscribed(payload),
  unsubscribed({ channel, code }) {
    if (!model.conversations.has(channel)) return;
    model.get(channel).live = false;
    if (code === "unavailable") return follow(model.get(channel));
    model.leave(channel);
    toast("You have left", `# ${channel.slice(5)}`);
  },
  ...Object.fromEntries(Object.keys(comings).map((type) => [type, (payload) => model.comes(type, payload)])),
  chat(message) {
    const other = message.from === model.me.name ? message.to : message.from;
    const fresh = message.number > model.get(`user:${other}`).last;
    model.take(`user:${other}`, message);
    const seen = model.current === `user:${other}` && !document.hidden;
    if (fresh && !seen && message.from === other) toast(other, message.message);
  },
  typing: ({ from, conversation }) => model.types(conversation, from),
  read: (mark) => model.wasRead(mark),
  seen: (mark) => model.wasSeen(mark),
  notification: ({ title, message, type }) => note(title, message, type),
  system_message: ({ message, timestamp }) => note("Announcement", message, "warning", timestamp),
};

const changes = {
  online(name) {
    model.online.add(name);
    changes.joined(name);
  },
  offline(name) {
    model.online.delete(name);
    draw();
  },
  joined(name) {
    if (!model.people.includes(name)) model.people.push(name);
    draw();
  },
};

model.onchange = draw;
outbox.onchange = draw;
outbox.onsent = ({ conversation }, { delivered, ...message }) => {
  if (model.get(conversation).room) return; // it came as a message
  if (delivered === false) model.get(conversation).notes.set(message.number, "kept for the next sign-in");
  else if (delivered) model.get(conversation).notes.set(message.number, "sent");
  model.take(conversation, message);
};

// Coming and going

function arrive(me) {
  model.reset(me);
  outbox.load(me.name);
  element("me").textContent = me.admin ? `${me.name} (admin)` : me.name;
  element("announce").hidden = !me.admin;
  element("account").hidden = element("chat").hidden = false;
  element("door").hidden = true;
  element("password").value = "";
  draw();
  link.open();
}

function leave(reason) {
  link.close();
  forgetNotes();
  model.reset(null);
  element("account").hidden = element("chat").hidden = true;
  element("door").hidden = false;
  element("refused").textContent = reason;
  element("name").focus();
  document.title = "Hubbub chat";
}

async function knock(way) {
  element("refused").textContent = "";
  for (const button of element("door").querySelectorAll("button")) button.disabled = true;
  try {
    arrive(await api(way, { name: element("name").value, password: element("password").value }));
    element("text").focus();
  } catch (error) {
    element("refused").textContent = error.message;
  } finally {
    for (const button of element("door").querySelectorAll("button")) button.disabled = false;
  }
}

element("door").onsubmit = (event) => {
  event.preventDefault();
  knock(event.submitter?.value ?? "sign-in");
};
element("sign-out").onclick = async () => {
  try {
    await api("sign-out", {});
    outbox.forget();
    leave("");
  } catch (error) {
    toast("Not signed out", error.message, "error");
  }
};

// Conversations

function choose(event) {
  const id = event.target.closest("button")?.dataset.conversation;
  if (!id) return;
  stopTyping();
  model.show(id);
  element("chat").dataset.view = "talk";
  element("text").focus();
}

element("rooms").onclick = element("people").onclick = choose;
element("back").onclick = () => {
  element("chat").dataset.view = "list";
  element("rooms").querySelector("button")?.focus();
};
element("earlier").onclick = () => model.earlier().catch((error) => toast("Not loaded", error.message, "error"));
document.addEventListener("visibilitychange", () => {
  if (model.me === null) return;
  model.markRead();
  draw();
});

// Writing

element("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = element("text").value.trim();
  if (!text) return;
  element("text").value = "";
  stopTyping();
  outbox.add(model.current, text);
  draw();
  element("scroll").scrollTop = element("scroll").scrollHeight;
};
element("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  element("composer").requestSubmit();
};
element("text").oninput = () => {
  const conversation = model.get(model.current);
  if (conversation.room) return typeIn(conversation);
  if (Date.now() - typed < TYPING_EVERY) return;
  typed = Date.now();
  link.send("typing", { conversation: conversation.id });
};

function typeIn(room) {
  clearTimeout(typing?.timer);
  if (typing?.room !== room) setTyping(room, true);
  typing = { room, timer: setTimeout(stopTyping, TYPING_FOR) };
}

function stopTyping() {
  typed = 0;
  if (typing === null) return;
  clearTimeout(typing.timer);
  setTyping(typing.room, false);
  typing = null;
}

// Asking for one line: a room's name, an announcement

function ask({ question, explanation, confirm, most, act }) {
  element("question").textContent = question;
  element("explanation").textContent = explanation;
  element("confirm").textContent = confirm;
  element("answer").maxLength = most;
  element("answer").value = element("declined").textContent = "";
  element("ask").onsubmit = async (event) => {
    event.preventDefault();
    try {
      await act(element("answer").value);
      element("asking").close();
    } catch (error) {
      element("declined").textContent = error.message;
    }
  };
  element("asking").showModal();
}

element("cancel").onclick = () => element("asking").close();
element("new-room").onclick = () =>
  ask({
    question: "New room",
    explanation: "Those you add to it see it. Letters a–z, digits, dots, dashes and underscores.",
    confirm: "Create",
    most: 32,
    act: async (name) => model.show((await api("rooms", { name })).conversation),
  });
element("roster").ontoggle = (event) => event.newState === "open" && openRoster();
element("announce").onclick = () =>
  ask({
    question: "Tell everybody",
    explanation: "Goes to every connection at once, and is not kept.",
    confirm: "Announce",
    most: 500,
    act: (message) => api("announce", { message }),
  });
element("news").ontoggle = (event) => event.newState === "open" && badge(element("unseen"), 0);

// The start

const me = await api("me").catch((error) => toast("No answer", error.message, "error"));
if (me) arrive(me);
else leave("");
