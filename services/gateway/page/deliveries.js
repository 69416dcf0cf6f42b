// Lists deliveries with the admin token that is typed in, which leaves this tab
// only in calls to this Forge.
"use strict";

const ask = document.getElementById("ask"), list = document.getElementById("deliveries");
const said = document.getElementById("said"), more = document.getElementById("more");
let next = "";

// element makes one; what is not an element becomes text, never markup.
function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

// fate is what became of a delivery at one receiver.
function fate({ receiver, decision, attempts, error }) {
  const line = element("p", "", element("span", "where", receiver), " ");
  if (!decision) {
    line.append(error ? `not decided after ${attempts} tries: ${error}` : "not decided yet");
    return line;
  }
  line.append(decision.text);
  for (const id of decision.buildIds) {
    const link = element("a", "", "its build");
    link.href = `/builds/${encodeURIComponent(id)}`;
    line.append(" ", link);
  }
  return line;
}

const shown = ({ id, event, action, repository, receiveTime, forwards }) => element("li", "delivery",
  element("span", "name", `${event} ${action}`), element("span", "where", repository),
  element("span", "time", new Date(receiveTime).toLocaleString()),
  element("div", "fates", ...forwards.map(fate), element("p", "more", id)));

async function load(page) {
  const { token, ...wanted } = Object.fromEntries(new FormData(ask));
  sessionStorage.setItem("token", token);
  const query = new URLSearchParams({ ...wanted, page_token: page });
  said.textContent = "";
  try {
    const answer = await fetch(`/v1/deliveries?${query}`, { headers: { Authorization: `Bearer ${token}` } });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.message);
    if (!page) list.replaceChildren();
    list.append(...body.deliveries.map(shown));
    if (!list.children.length) said.textContent = "There are none.";
    next = body.nextPageToken;
    more.hidden = !next;
  } catch (error) {
    said.textContent = error.message;
  }
}

ask.addEventListener("submit", (event) => {
  event.preventDefault();
  load("");
});
more.addEventListener("click", () => load(next));

ask.elements.token.value = sessionStorage.getItem("token") ?? "";
if (ask.elements.token.value) load("");
