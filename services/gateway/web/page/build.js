// Follows a build that has not ended: its state by asking for the page again
// after each change. Without this script the page shows
// what there was when it was loaded.
"use strict";

const build = document.getElementById("build");
const id = build.dataset.build;

const live = () => "live" in build.dataset;

// lines calls take with each JSON line of a streamed answer, until it ends.
async function lines(address, take) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(answer.status);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      if (!part) continue;
      const { result, error } = JSON.parse(part);
      if (error) throw new Error(error.message);
      await take(result);
    }
  }
}

// untilDone calls work until it says that nothing is left to do, with growing pauses
// while the server cannot be reached.
async function untilDone(work) {
  for (let pause = 1; ; pause = Math.min(pause * 2, 30)) {
    try {
      if (await work()) return;
      pause = 1;
    } catch { /* the next try tells */ }
    await new Promise((resume) => setTimeout(resume, pause * 1000));
  }
}

async function showState() {
  const answer = await fetch(`${base}/builds/${id}?log=0`);
  if (!answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of ["header", "dl", "#steer", "#jobs", "#steps", "#tests", "#artifacts"]) {
    const now = page.querySelector(`#build ${part}`), shown = build.querySelector(part);
    now.hidden = shown.hidden;
    if (now.outerHTML !== shown.outerHTML) shown.replaceWith(now);
  }
  document.title = page.title;
  showIcon();
  const next = page.getElementById("build").dataset;
  if (next.attempt !== build.dataset.attempt && build.dataset.attempt !== "0") location.reload();
  build.dataset.attempt = next.attempt;
  if (!("live" in next)) delete build.dataset.live;
  return !live();
}

const watchState = () => untilDone(async () => {
  let over = false;
  await lines(`${base}/v1/builds/${id}:watch`, async () => { over = await showState(); });
  return over || await showState();
});

// #lint/step-2-L41 is a line of a job's log, which is on the page of that.
function toJob() {
  const [, name, line] = decodeURIComponent(location.hash).match(/^#(.+)\/(step-[\dL-]+)$/) ?? [];
  const job = name && [...document.querySelectorAll("#jobs li > a.name")].find((link) => link.textContent === name);
  if (job) location.replace(`${job.href}#${line}`);
}
toJob();
addEventListener("hashchange", toJob);

if (live()) watchState();
