// What GitHub sent, and what became of it.
"use strict";

// fate is what became of a delivery at one receiver.
function fate({ receiver, decision, attempts, error }) {
  const line = element("p", "", element("span", "where", receiver), " ");
  if (!decision) {
    line.append(error ? `not decided after ${attempts} tries: ${error}` : "not decided yet");
    return line;
  }
  line.append(decision.text);
  for (const id of decision.buildIds) line.append(" ", buildLink("", id, "its build"));
  return line;
}

const shown = ({ id, event, action, repository, receiveTime, forwards }) => element("li", "delivery",
  element("span", "name", `${event} ${action}`), element("span", "where", repository),
  element("span", "time", new Date(receiveTime).toLocaleString()),
  element("div", "fates", ...forwards.map(fate), element("p", "more", id)));

lists("/v1/deliveries", ({ deliveries }) => deliveries.map(shown));
