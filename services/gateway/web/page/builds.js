// What was built, is and will be.
"use strict";

// words is an enum's value as people read it: STATE_TIMED_OUT is timed out.
const words = (value) => value.split("_").slice(1).join(" ").toLowerCase();

// took is how long a build ran; empty where it has not come to its end.
function took({ startTime, endTime }) {
  if (!startTime || !endTime) return "";
  const seconds = Math.max(0, Math.round((Date.parse(endTime) - Date.parse(startTime)) / 1000));
  return seconds < 60 ? ` · ${seconds} s` : ` · ${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

function shown(build) {
  const { id, repository, pullRequest, action, state, title, sha, baseRef, actor, message, createTime, jobCount } = build;
  const where = `${repository.owner}/${repository.name}${pullRequest ? ` #${pullRequest}` : ""} · ${words(action)}`;
  const facts = element("p", "more", element("code", "", sha.slice(0, 7)), baseRef && ` for ${baseRef}`, actor && ` by ${actor}`, jobCount ? ` · ${jobCount} ${jobCount === 1 ? "job" : "jobs"}` : "");
  return element("li", "build",
    element("strong", `state ${words(state)}`, words(state)), buildLink("name", id, title || "A build"),
    element("span", "where", where), element("span", "time", new Date(createTime).toLocaleString(), took(build)),
    element("div", "fates", facts, ...(message ? [element("p", "message", message)] : [])));
}

lists("/v1/builds", ({ builds }) => builds.map(shown));
