// What every page does: its keys, its times, and the state that its icon shows. A page
// can be read without it.
"use strict";

// base is the path that all of Forge is below; empty for the root.
const { base } = document.documentElement.dataset;

// keys is what each key does on this page; a page adds its own. A pair such as "g b" is
// pressed one after the other.
const keys = {
  "?": () => document.getElementById("keys").showModal(),
  "g h": () => location.assign(`${base}/`),
  "g b": () => location.assign(`${base}/builds`),
  "g e": () => location.assign(`${base}/environments`),
  "g d": () => location.assign(`${base}/deliveries`),
  "g w": () => location.assign(`${base}/why`),
  "/": () => document.querySelector("[data-search]")?.focus(),
  "f": () => nextFailure(),
};

let pressed = "";
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  const act = keys[`${pressed} ${event.key}`] ?? keys[event.key];
  pressed = act ? "" : event.key;
  if (!act) return;
  event.preventDefault();
  act();
});

// nextFailure goes to what failed, one after the other, and from the last to the first.
function nextFailure() {
  const all = [...document.querySelectorAll("[data-failure]")];
  if (!all.length) return;
  const next = all[(all.indexOf(document.activeElement?.closest("[data-failure]")) + 1) % all.length];
  next.closest("details")?.setAttribute("open", "");
  next.tabIndex = -1;
  next.focus();
  next.scrollIntoView({ block: "center" });
}

const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

// ago says how long ago a time was, in the largest unit that fits.
function ago(time) {
  const seconds = (time - Date.now()) / 1000;
  for (const [unit, size] of units) if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  return Math.abs(seconds) < 5 ? "now" : relative.format(Math.round(seconds), "second");
}

// span is a time that goes on, as the server writes one that is over.
function span(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}h${m}m${s}s` : m ? `${m}m${s}s` : `${s} s`;
}

function tick() {
  for (const time of document.querySelectorAll("time[datetime]:not([data-exact])")) {
    time.title ||= time.textContent;
    time.textContent = ago(Date.parse(time.dateTime));
  }
  for (const time of document.querySelectorAll("[data-since]")) {
    time.textContent = span(Math.max(0, Math.round((Date.now() - time.dataset.since) / 1000)));
  }
}

// showIcon has the icon of the tab be that of the page's state.
function showIcon() {
  const state = document.querySelector("[data-state]")?.dataset.state;
  if (state) document.querySelector("link[rel=icon]").href = `${base}/icon.svg?state=${encodeURIComponent(state)}`;
}

showIcon();
tick();
setInterval(tick, 1000);
