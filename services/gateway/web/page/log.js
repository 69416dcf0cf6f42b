// Shows any part of a log at once, however long it is: a few thousand lines are in the
// page, and others are asked for as somebody comes near. It follows a log that grows,
// searches all of it on the server, and has an address for each line. Without this
// script links lead from part to part.
"use strict";

(() => {
  const section = document.getElementById("log"), box = document.getElementById("lines"), map = document.getElementById("map");
  const { attempt } = section.dataset;
  const canvas = map.firstElementChild, form = section.querySelector("form"), input = form.elements.q, said = document.getElementById("hits");
  const place = section.querySelector("nav");
  const address = `${base}/builds/${id}/log`;
  const most = 1000, step = 250; // rows in the page, and how many are asked for at once

  // What is known of the log, and which lines are in the page.
  let log = { lines: Number(section.dataset.lines), over: !("live" in section.dataset), steps: [], marks: [] };
  let rows = [], offset = Number(section.dataset.offset), ended = 0;
  const number = (row) => Number(row.dataset.n);
  const first = () => rows.length ? number(rows[0]) : 1;
  const last = () => rows.length ? number(rows.at(-1)) : 0;

  const query = (more) => new URLSearchParams(Object.entries({
    attempt, q: input.value, case: form.elements.case.checked ? 1 : "", regex: form.elements.regex.checked ? 1 : "", ...more,
  }).filter(([, value]) => value));

  // part makes elements of what the server has written, which is escaped.
  function part(html) {
    const made = document.createElement("template");
    made.innerHTML = html;
    return made.content;
  }

  async function ask(line, count) {
    const answer = await fetch(`${address}/lines?${query({ line, count })}`);
    if (!answer.ok) throw new Error(await answer.text());
    return part(await answer.text());
  }

  // settle looks at what is in the page now: a line that has not ended is not counted.
  function settle() {
    rows = [...box.querySelectorAll(".l:not(.open)")];
    ended = Math.max(ended, last());
    for (const row of rows) row.classList.toggle("on", number(row) >= chosen[0] && number(row) <= chosen[1]);
    markHit();
    look();
  }

  // cut removes rows from one end, so that the page stays small.
  function cut(fromTop) {
    if (rows.length <= most) return;
    const height = box.scrollHeight;
    if (fromTop) {
      const stays = rows[rows.length - most];
      while (box.firstChild !== stays) box.firstChild.remove();
    } else {
      const stays = rows[most - 1];
      while (box.lastChild !== stays) box.lastChild.remove();
    }
    if (fromTop) box.scrollTop -= height - box.scrollHeight;
    settle();
  }

  // Only the newest wish for another part counts; growth waits for it.
  let wish = 0, growing = false, missed = false;

  async function show(line, align = "center") {
    line = Math.max(1, Math.min(line, log.lines));
    const mine = ++wish;
    if (!rows.length || line < first() || line > last()) {
      const from = Math.max(1, line - step / 2);
      let made = await ask(from, step);
      if (mine !== wish) return;
      if (!made.querySelector(`[data-n="${line}"]`)) { // lines are long there
        made = await ask(line, step);
        if (mine !== wish) return;
      }
      box.replaceChildren(made);
      settle();
    }
    const row = box.querySelector(`.l[data-n="${line}"]`);
    if (!row) return;
    const above = { center: (box.clientHeight - row.offsetHeight) / 2, end: box.clientHeight - row.offsetHeight - 12 }[align];
    box.scrollTop = row.offsetTop - above;
    look();
    grow();
  }

  async function again() { // with the hits of another search
    const at = seen()[0], mine = ++wish;
    if (!rows.length) return;
    const made = await ask(Math.max(1, at - step / 2), step);
    if (mine !== wish) return;
    const top = box.querySelector(`.l[data-n="${at}"]`)?.offsetTop - box.scrollTop;
    box.replaceChildren(made);
    settle();
    const row = box.querySelector(`.l[data-n="${at}"]`);
    if (row) box.scrollTop = row.offsetTop - top;
    look();
  }

  // grow asks for more where somebody comes near the end of what is in the page. Who is at
  // an end already cannot scroll to ask again: so it looks once more itself.
  async function grow() {
    if (growing || !rows.length) {
      missed = growing;
      return;
    }
    growing = true;
    missed = false;
    const mine = wish;
    let pause = 0;
    try {
      while (box.scrollTop < 2 * box.clientHeight && first() > 1 && mine === wish) {
        for (let count = Math.min(step, first() - 1); count >= 1; count = Math.floor(count / 4) || (count > 1 ? 1 : 0)) {
          const made = await ask(first() - count, count);
          if (mine !== wish) return;
          if (Number([...made.querySelectorAll(".l")].at(-1)?.dataset.n) !== first() - 1) continue; // lines are long there: fewer of them
          const height = box.scrollHeight;
          box.prepend(made);
          box.scrollTop += box.scrollHeight - height;
          settle();
          cut(false);
          break;
        }
      }
      while (box.scrollHeight - box.scrollTop < 3 * box.clientHeight && last() < (ended = Math.max(ended, log.over ? log.lines : 0)) && mine === wish) {
        const made = await ask(last() + 1, step);
        if (mine !== wish || !made.querySelector(".l")) return;
        for (const open of box.querySelectorAll(".open")) open.remove();
        box.append(made);
        settle();
        cut(true);
      }
    } catch {
      missed = true;
      pause = 3000; // the server or the way to it is gone
    } finally {
      growing = false;
      if (missed) setTimeout(grow, pause);
    }
  }

  // seen are the first and the last line in view.
  function seen() {
    const find = (y) => {
      let low = 0, high = rows.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (rows[middle].offsetTop + rows[middle].offsetHeight > y) high = middle; else low = middle + 1;
      }
      return rows.length ? number(rows[low]) : 1;
    };
    return [find(box.scrollTop), find(box.scrollTop + box.clientHeight - 1)];
  }

  let drawing = false;

  const atBottom = () => box.scrollHeight - box.scrollTop - box.clientHeight < 24;

  // look draws the map and says where one is, once for all changes of a moment.
  function look() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      const [top, bottom] = seen();
      const whole = first() === 1 && last() >= ended && box.scrollHeight <= box.clientHeight + 1;
      map.hidden = whole;
      section.classList.toggle("mapped", !whole);
      map.setAttribute("aria-valuemax", log.lines);
      map.setAttribute("aria-valuenow", top);
      if (log.lines) place.textContent = `Lines ${top.toLocaleString("en")} to ${bottom.toLocaleString("en")} of ${log.lines.toLocaleString("en")}${log.over ? "" : ", and more to come"}`;
      if (whole) return;
      const scale = devicePixelRatio || 1, width = map.clientWidth, height = map.clientHeight;
      if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
        canvas.width = Math.round(width * scale);
        canvas.height = Math.round(height * scale);
      }
      const draw = canvas.getContext("2d"), style = getComputedStyle(section);
      const at = (line) => (line - 1) / Math.max(1, log.lines) * height * scale;
      const line = (number, colour, x, wide) => {
        draw.fillStyle = style.getPropertyValue(colour);
        draw.fillRect(x * scale, Math.min(at(number), height * scale - 2 * scale), wide * scale, 2 * scale);
      };
      draw.clearRect(0, 0, canvas.width, canvas.height);
      draw.fillStyle = style.getPropertyValue("--line");
      draw.fillRect(0, at(top), width * scale, Math.max(at(bottom + 1) - at(top), 8 * scale));
      for (const mark of log.marks) if (mark < 0) line(-mark, "--t3", 8, 8);
      for (const mark of log.marks) if (mark > 0) line(mark, "--bad", 8, 8);
      for (const hit of new Set(hits.lines.filter((_, n) => n % Math.ceil(hits.lines.length / 1000) === 0))) line(hit, "--link", 0, 7);
    });
  }

  box.addEventListener("scroll", () => {
    look();
    grow();
  }, { passive: true });
  addEventListener("resize", look);
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !["Home", "End"].includes(event.key)) return;
    event.preventDefault();
    show(event.key === "Home" ? 1 : log.lines, "end");
  });

  // The map is a scrollbar: it leads to where one points, and to a mark close by.
  function point(event) {
    const y = (event.clientY - map.getBoundingClientRect().top) / map.clientHeight, near = 3 / map.clientHeight * log.lines;
    let line = Math.round(y * log.lines) + 1;
    const marks = [...log.marks.map(Math.abs), ...hits.lines];
    const mark = marks.reduce((best, one) => Math.abs(one - line) < Math.abs(best - line) ? one : best, Infinity);
    if (Math.abs(mark - line) <= near) line = mark;
    show(line);
  }
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); event.preventDefault(); point(event); });
  map.addEventListener("pointermove", (event) => { if (map.hasPointerCapture(event.pointerId)) point(event); });
  map.addEventListener("keydown", (event) => {
    const page = seen()[1] - seen()[0];
    const by = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(Math.max(1, Math.min(log.lines, Math.round((seen()[0] + seen()[1]) / 2) + by)));
  });

  // A line's address: #step-2-L41, a range #step-2-L41-L50, with the job before it on the
  // page of a build with jobs, #lint/step-2-L41.
  let chosen = [0, -1];
  const parse = (hash) => decodeURIComponent(hash).match(/^#(?:.*\/)?step-(\d+)(?:-L(\d+)(?:-L(\d+))?)?$/);

  function choose() {
    const found = parse(location.hash);
    if (!found) return false;
    const begin = log.steps.find((one) => one.number === Number(found[1]))?.first ?? 1;
    const from = begin + Number(found[2] ?? 1) - 1;
    chosen = found[2] ? [from, begin + Number(found[3] ?? found[2]) - 1] : [0, -1];
    show(from).then(settle);
    return true;
  }
  addEventListener("hashchange", choose);
  box.addEventListener("click", (event) => {
    const link = event.target.closest(".l > a");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const now = parse(location.hash), next = parse(link.hash);
    let hash = link.hash;
    if (event.shiftKey && now?.[2] && now[1] === next[1] && now[2] !== next[2]) {
      const [from, to] = [Number(now[2]), Number(next[2])].sort((a, b) => a - b);
      hash = `#step-${now[1]}-L${from}-L${to}`;
    }
    history.replaceState(null, "", hash);
    const begin = number(link.parentElement) - Number(next[2]), lines = parse(hash);
    chosen = [begin + Number(lines[2]), begin + Number(lines[3] ?? lines[2])];
    settle();
  });

  // The search: hits that lie before where it began, and after it, the closest of each.
  // While somebody types, it begins where they were then.
  let hits = { lines: [], before: 0, total: 0 }, current = -1, searching = null, origin = null;
  for (const moves of ["wheel", "touchmove", "keydown", "pointerdown"]) box.addEventListener(moves, () => { origin = null; }, { passive: true });

  async function search(around = origin ??= seen()[0], jump = 1) {
    searching?.abort();
    hits = { lines: [], before: 0, total: 0 };
    current = -1;
    said.textContent = "";
    const mine = searching = new AbortController();
    if (!input.value) {
      origin = null;
      return again();
    }
    const after = [], before = [];
    const go = async () => {
      await again();
      if (mine !== searching) return;
      await showHit(jump > 0 && after.length ? before.length : Math.max(0, before.length - 1));
    };
    try {
      const answer = await fetch(`${address}/search?${query({ line: around })}`, { signal: mine.signal });
      if (!answer.ok) throw new Error(await answer.text());
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", done = false; !done;) {
        const read = await reader.read();
        if (read.done) break;
        const parts = (rest + read.value).split("\n");
        rest = parts.pop();
        for (const text of parts) {
          const told = JSON.parse(text);
          if (mine !== searching) return;
          (told.before ? before : after).push(...(told.lines ?? []));
          if (told.before && current >= 0) current += told.lines?.length ?? 0;
          Object.assign(hits, { total: told.count, lines: [...before, ...after], before: told.beforeCount - before.length });
          done = told.done;
          hits.done = told.done && !told.incomplete;
          hits.more = told.incomplete;
          if (current < 0 && after.length && jump > 0) await go();
          if (mine !== searching) return;
          count();
        }
      }
      if (current < 0) await (hits.lines.length ? go() : again());
      if (mine === searching) count();
    } catch (error) {
      if (mine === searching) said.textContent = error.message;
    }
  }

  function count() {
    const all = hits.total.toLocaleString("en") + (hits.more ? " or more" : "");
    said.textContent = !hits.total ? (hits.done || hits.more ? "no hits" : "…") :
      current >= 0 && hits.done ? `${(hits.before + current + 1).toLocaleString("en")} of ${all}` : `${all} ${hits.total === 1 ? "hit" : "hits"}`;
    for (const button of form.querySelectorAll("[data-hit]")) button.hidden = !hits.total;
    look();
  }

  async function showHit(at) {
    current = at;
    const line = hits.lines[at];
    count();
    await show(line);
    markHit();
  }

  function markHit() {
    for (const mark of box.querySelectorAll("mark.now")) mark.classList.remove("now");
    if (current < 0) return;
    const line = hits.lines[current], nth = current - hits.lines.indexOf(line);
    const marks = box.querySelectorAll(`.l[data-n="${line}"] mark`);
    marks[Math.min(nth, marks.length - 1)]?.classList.add("now");
  }

  function nextHit(by) {
    if (!hits.lines.length) return search();
    origin = null;
    const next = current + by, listed = hits.before + hits.lines.length;
    if (next >= 0 && next < hits.lines.length) return showHit(next);
    if (hits.before === 0 && listed >= hits.total) return showHit((next + hits.lines.length) % hits.lines.length);
    // The next one is not listed: look again around there, and from the other end past it.
    if (by > 0) return search(listed < hits.total ? hits.lines.at(-1) + 1 : 1, 1);
    return search(hits.before > 0 ? hits.lines[0] : log.lines + 1, -1);
  }

  let typing;
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); nextHit(1); });
  form.addEventListener("input", () => { hits.lines = []; clearTimeout(typing); typing = setTimeout(() => search(), 250); });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && input.value) {
      event.preventDefault();
      input.value = "";
      search();
    } else if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      nextHit(-1);
    }
  });
  addEventListener("keydown", (event) => {
    const held = (event.ctrlKey || event.metaKey) && !event.altKey, key = event.key.toLowerCase();
    if (held && key === "f" && document.activeElement !== input) {
      event.preventDefault();
      section.scrollIntoView({ block: "nearest" });
      input.focus();
      input.select();
    } else if ((held && key === "g" || key === "f3") && input.value) {
      event.preventDefault();
      nextHit(event.shiftKey ? -1 : 1);
    }
  });
  for (const button of form.querySelectorAll("[data-hit]")) button.addEventListener("click", () => nextHit(Number(button.dataset.hit)));
  document.querySelector("#keys dl")?.append(part("<div><dt><kbd>e</kbd></dt><dd>the next error in the log</dd></div>"));
  keys.e = () => {
    const errors = log.marks.filter((mark) => mark > 0), at = chosen[1] > 0 ? chosen[1] : seen()[0];
    const next = errors.find((mark) => mark > at) ?? errors[0];
    if (!next) return;
    chosen = [next, next];
    show(next).then(settle);
  };

  form.querySelector("button:not([type])").hidden = true; // it searches as one types

  // How it looks, as somebody has wished before.
  for (const button of form.querySelectorAll("[data-view]")) {
    const { view } = button.dataset;
    const set = (on) => { button.setAttribute("aria-pressed", on); section.classList.toggle(view, on); };
    button.hidden = false;
    set(localStorage.getItem(`log-${view}`) === "1");
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true", at = seen()[0];
      if (on) localStorage.setItem(`log-${view}`, "1"); else localStorage.removeItem(`log-${view}`);
      set(on);
      show(at, "center");
    });
  }

  async function outline() {
    const answer = await fetch(`${address}/outline?${new URLSearchParams({ attempt })}`);
    if (!answer.ok) throw new Error(answer.status);
    log = await answer.json();
    if (log.over) ended = log.lines;
    look();
  }

  // take takes what a log has got since.
  function take(told) {
    const stick = atBottom(), atEnd = last() >= ended && !growing, made = part(told.rows ?? told.open ?? "");
    log.lines = Math.max(log.lines, told.lines);
    for (const row of made.querySelectorAll(".e, .w")) if (log.marks.length < 2000 && told.rows) log.marks.push(row.matches(".e") ? number(row) : -number(row));
    if (told.rows) ended = Math.max(ended, number([...made.querySelectorAll(".l")].at(-1)));
    for (const step of made.querySelectorAll(".step")) {
      const next = step.nextElementSibling;
      if (next && !log.steps.some((one) => `step-${one.number}` === step.id)) log.steps.push({ number: Number(step.id.slice(5)), first: number(next), lines: 0 });
    }
    if (!atEnd) return look();
    for (const open of box.querySelectorAll(".open")) open.remove();
    for (const row of [...made.querySelectorAll(".l:not(.open)")]) if (number(row) <= last()) row.remove();
    const next = made.querySelector(".l");
    if (next && (told.missed || number(next) > last() + 1) && rows.length) {
      if (stick) show(ended, "end");
      return;
    }
    for (const step of made.querySelectorAll(".step")) if (box.querySelector(`#${step.id}`)) step.remove();
    box.append(made);
    settle();
    if (stick) {
      cut(true);
      box.scrollTop = box.scrollHeight;
    }
  }

  // follow listens while the page is seen; it goes on where the last line had ended.
  let source = null, pause = 1;
  function follow() {
    source?.close();
    source = null;
    if (log.over || document.hidden) return;
    const mine = source = new EventSource(`${address}/events?${new URLSearchParams({ attempt, offset })}`);
    mine.onopen = () => { pause = 1; };
    mine.onmessage = (event) => {
      if (event.lastEventId) offset = Number(event.lastEventId);
      take(JSON.parse(event.data));
    };
    mine.addEventListener("end", () => {
      mine.close();
      log.over = true;
      outline().catch(() => {});
    });
    mine.onerror = () => {
      if (mine.readyState !== EventSource.CLOSED || mine !== source) return;
      setTimeout(follow, pause * 1000);
      pause = Math.min(pause * 2, 30);
    };
  }
  document.addEventListener("visibilitychange", follow);

  settle();
  const shown = box.querySelector(`.l[data-n="${section.dataset.at}"]`);
  if (!log.over) box.scrollTop = box.scrollHeight;
  else if (shown) box.scrollTop = shown.offsetTop + shown.offsetHeight + 12 - box.clientHeight;
  outline().catch(() => {}).then(() => {
    if (!choose()) grow();
    if (input.value && !typing) search(Number(section.dataset.at)); // as the page's address asks for
    follow();
  });
})();
