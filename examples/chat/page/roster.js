// The members of the room in view: who they are and who is here, and the way in and out.

import { api } from "./api.js";
import { model } from "./model.js";
import { avatar, element, make } from "./view.js";

export async function openRoster() {
  const { id, name } = model.get(model.current);
  const path = `rooms/${name}/members`;
  element("roster-title").textContent = `# ${name}`;
  element("guest").value = "";
  element("bring").hidden = id === "room:lobby";
  element("bring").onsubmit = (event) => {
    event.preventDefault();
    attempt(id, async () => {
      await api(path, { name: element("guest").value });
      element("guest").value = "";
    });
  };
  await attempt(id, async () => {});
}

// Do something about the members, then show them.
async function attempt(id, act) {
  const path = `rooms/${id.slice(5)}/members`;
  element("unwanted").textContent = "";
  try {
    await act();
    if (model.conversations.has(id)) show(id, await api(path));
    else element("roster").hidePopover();
  } catch (error) {
    element("unwanted").textContent = error.message;
  }
}

function show(id, { members, owner }) {
  const { me } = model;
  element("those").replaceChildren(
    ...members.map((name) => {
      const [item, sign] = [make("li"), avatar(name)];
      const here = model.get(id).here.has(name);
      sign.classList.toggle("online", here);
      sign.setAttribute("aria-label", here ? "here" : "not here");
      item.append(sign, make("span", "who", name === owner ? `${name} (owner)` : name));
      if (id !== "room:lobby" && (me.admin || me.name === owner || me.name === name)) item.append(wayOut(id, name));
      return item;
    }),
  );
}

function wayOut(id, name) {
  const button = make("button", "", name === model.me.name ? "Leave" : "Remove");
  button.type = "button";
  button.setAttribute("aria-label", `${button.textContent} ${name}`);
  button.onclick = () => attempt(id, () => api(`rooms/${id.slice(5)}/members/${encodeURIComponent(name)}`, undefined, "DELETE"));
  return button;
}
