// Steers the build that forge.js shows, for somebody who has signed in and has write
// access, or who has typed the admin token into this tab, at the list of deliveries.
// What shows that goes along with each call and never by itself, so no other site can
// press these buttons.
"use strict";

const steer = document.getElementById("steer");
steer.hidden = csrf ? !("may" in steer.dataset) : !sessionStorage.getItem("token");

build.addEventListener("click", async ({ target }) => {
  const wish = target.dataset.do, said = document.getElementById("said");
  if (!wish || (target.dataset.confirm && !confirm(target.dataset.confirm))) return;
  said.textContent = "";
  target.disabled = true;
  try {
    const answer = await fetch(`${base}/v1/builds/${id}:${wish}`, {
      method: "POST", headers: credentials(), body: target.dataset.body ?? "{}",
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.message);
    if (wish === "retry") location.assign(`${base}/builds/${encodeURIComponent(body.build.id)}`);
    else await showState();
  } catch (error) {
    said.textContent = error.message;
  }
  target.disabled = false;
});
