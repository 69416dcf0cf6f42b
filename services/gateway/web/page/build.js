// Follows a build that has not ended: its state by asking for the page again
// after each change, its log as it comes. Without this script the page shows
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

// plain is what a terminal is left showing, as the server has it: no escape
// sequences, no control characters, and of a line that was drawn over, such as a
// progress bar, its last state.
const plain = (text) => text
  .replace(/\x1b\[[01]?[G`]/g, "\r")
  .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)/g, "")
  .split("\n").map((line) => line.replace(/\r+$/, "")).map((line) => line.slice(line.lastIndexOf("\r") + 1)).join("\n")
  .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");

const mostHeld = 64 << 10;

const watchLog = () => {
  const log = document.getElementById("log");
  // A line that has not ended may be drawn over, or end within a sequence: it is
  // kept as it came, and shown anew with each chunk.
  const tail = document.createTextNode("");
  let offset = Number(log.dataset.start), fresh = true, held = "";
  const decoder = new TextDecoder();
  return untilDone(async () => {
    await lines(`${base}/v1/builds/${id}/log?follow=true&offset=${offset}`, ({ data, offset: at }) => {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      offset = Number(at) + bytes.length;
      const text = held + decoder.decode(bytes, { stream: true });
      const end = text.length - text.lastIndexOf("\n") > mostHeld ? text.length : text.lastIndexOf("\n") + 1;
      held = text.slice(end);
      const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 40;
      if (fresh) log.replaceChildren(tail);
      fresh = false;
      tail.before(plain(text.slice(0, end)));
      tail.data = plain(held);
      if (atEnd) scrollTo(0, document.body.scrollHeight);
    });
    return !live();
  });
};

if (live()) {
  watchState();
  if (document.getElementById("log")) watchLog();
}
