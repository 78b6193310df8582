// The app's HTTP routes.

export async function api(path, body, method = body === undefined ? "GET" : "POST") {
  const sent = body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(`api/${path}`, { method, ...sent }).catch(() => {
    throw new Error("The server cannot be reached. Try again in a moment.");
  });
  const data = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return data;
  // A text of ours is for people; anything else is a list of what does not fit.
  const text = typeof data?.detail === "string" ? data.detail : `The server did not take that (${answer.status}).`;
  throw Object.assign(new Error(text), { status: answer.status });
}

export function history(conversation, where = {}) {
  return api(`messages?${new URLSearchParams({ conversation, ...where })}`);
}
