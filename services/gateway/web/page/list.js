// Lists something for who has signed in, or with the admin token that is typed in, which
// leaves this tab only in calls to this Forge.
"use strict";

// element makes one; what is not an element becomes text, never markup.
function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

// buildLink leads to a build's page.
function buildLink(className, id, text) {
  const link = element("a", className, text);
  link.href = `${base}/builds/${encodeURIComponent(id)}`;
  return link;
}

// lists fills the list of this page from the JSON API, a page at a time: show
// makes the elements of an answer. The address may fill the form.
function lists(path, show) {
  const ask = document.getElementById("ask"), list = document.querySelector("ol");
  const said = document.getElementById("said"), more = document.getElementById("more");
  let next = "";

  async function load(page) {
    const { token, ...wanted } = Object.fromEntries(new FormData(ask));
    if (token) sessionStorage.setItem("token", token);
    const query = new URLSearchParams(Object.entries({ ...wanted, page_token: page }).filter(([, value]) => value));
    said.textContent = "";
    try {
      const answer = await fetch(`${base}${path}?${query}`, { headers: credentials(token) });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.message);
      if (!page) list.replaceChildren();
      list.append(...show(body));
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

  for (const [name, value] of new URLSearchParams(location.search)) {
    if (name !== "token" && ask.elements[name]) ask.elements[name].value = value;
  }
  const field = ask.elements.token;
  field.value = sessionStorage.getItem("token") ?? "";
  if (csrf) {
    field.required = false;
    field.closest("label").hidden = true;
  }
  if (csrf || field.value) load("");
}
