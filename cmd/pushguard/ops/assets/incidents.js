import { h } from "./view.js";
import { both, clockZone, count, day, percent, rate, span, when } from "./format.js";
import { culprit, mark, times } from "./verdict.js";
import { link } from "./state.js";
import { shareBar } from "./chart.js";
import { openLever } from "./levers.js";

const noDetector = () => h("section", { key: "none", class: "card empty" }, mark("note"),
  h("div", null, h("h2", null, "The detector is not running"), h("p", { class: "muted" }, "So no incident is found here. Rates, dedupe, the quota breaker and the brake work without it.")));

export function incidents(app, a, f) {
  const e = app.ask(`/api/v1/incidents?account=${encodeURIComponent(a.name)}`, 3);
  const list = e.value || f.incidents.filter((i) => i.account === a.name);
  const id = app.route[1];
  if (id) {
    const i = list.find((x) => x.id === id);
    if (i) return detail(app, i);
    return [h("section", { key: "gone", class: "card empty" }, mark("note"), h("div", null, h("h2", null, e.value ? "There is no such incident" : "Looking …"), h("p", null, h("a", { href: link("incidents") }, "All incidents"))))];
  }
  if (!f.detector) return [noDetector()];
  if (!list.length) return [h("section", { key: "none", class: "card empty" }, mark("good"), h("div", null, h("h2", null, "No incidents"), h("p", { class: "muted" }, "The detector watches the rates of callers, events, channels and payloads.")))];
  return [h("section", { key: "list", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Incidents")),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Incidents" }, h("table", null,
      h("thead", null, h("tr", null, ["State", "Culprit", "Began", "Lasted", "Rate", "Beyond the usual", "Action"].map((t, i) => h("th", { scope: "col", class: i === 4 || i === 5 ? "num" : "" }, t)))),
      h("tbody", null, list.map((i) => h("tr", { key: i.id },
        h("td", null, state(i)),
        h("th", { scope: "row" }, h("a", { href: link("incidents", i.id) }, culprit(i))),
        h("td", { class: "num-left", title: both(i.started_at) }, when(i.started_at, app.now)),
        h("td", null, span(((i.resolved_at ? Date.parse(i.resolved_at) : app.now) - Date.parse(i.started_at)) / 1000)),
        h("td", { class: "num" }, times(i.factor)),
        h("td", { class: "num" }, count(i.excess_messages)),
        h("td", null, i.action)))))))];
}

const state = (i) => h("span", { class: "tag " + (i.state === "open" ? "warn" : "good") }, i.state);
const any = (w) => (w && w !== "*" ? h("code", null, w) : h("span", { class: "muted" }, "any"));

function detail(app, i) {
  const open = i.state === "open";
  return [
    h("section", { key: "head", class: "verdict " + (open ? "warn" : "good") }, mark(open ? "warn" : "good"),
      h("div", null, h("h2", null, `${culprit(i)}: ${i.per_s > 0 ? rate(i.per_s) + " messages/s, usually " + rate(i.baseline_per_s) + "; " : ""}at its highest ${times(i.factor)}`),
        h("p", null, `Began ${both(i.started_at)} on ${day(i.started_at)}, noticed ${span((Date.parse(i.detected_at) - Date.parse(i.started_at)) / 1000)} later, `,
          open ? `open for ${span((app.now - Date.parse(i.started_at)) / 1000)}.` : `resolved ${clockZone(i.resolved_at)} after ${span((Date.parse(i.resolved_at) - Date.parse(i.started_at)) / 1000)}.`,
          i.acked_by && ` Acknowledged by ${i.acked_by}.`)),
      state(i)),
    h("div", { key: "cols", class: "cols" },
      h("div", { key: "right", class: "col side" },
        h("section", { key: "act", class: "card" }, h("div", { class: "head" }, h("h2", null, "What you can do")),
          h("p", null, { contained: "Its culprits are held to their allowance.", suggested: "Containing the culprits waits for you.", released: open ? "Its culprits were released; they pass as the rules allow." : "It is over, and nobody is held because of it.", none: open ? "Nobody is held because of it." : "It is over. Nobody was held because of it." }[i.action] || i.action),
          h("div", { class: "levers" },
            open && i.action !== "contained" && h("button", { key: "c", class: "button danger", onclick: () => openLever("contain", i) }, "Contain the culprits …"),
            open && i.action === "contained" && h("button", { key: "r", class: "button", onclick: () => openLever("release", i) }, "Release the culprits …"),
            open && h("button", { key: "u", class: "button", onclick: () => openLever("accept", i) }, "It is usual from now on …"),
            open && !i.acked_by && h("button", { key: "a", class: "button", onclick: () => openLever("ack", i) }, "Acknowledge …"),
            h("a", { key: "m", class: "button", href: `/api/v1/incidents/${encodeURIComponent(i.id)}?format=markdown`, download: `incident-${i.id}.md` }, "Post-mortem draft"))),
        h("section", { key: "figures", class: "card" }, h("div", { class: "head" }, h("h2", null, "In numbers")),
          h("dl", { class: "facts" },
            h("dt", null, "Rate"), h("dd", null, i.per_s > 0 ? `${rate(i.per_s)} messages/s` : "not known"),
            h("dt", null, "Usually"), h("dd", null, i.baseline_per_s > 0 ? `${rate(i.baseline_per_s)} messages/s` : "not known"),
            h("dt", null, "Beyond the usual"), h("dd", null, `${count(i.excess_messages)} messages`),
            h("dt", null, "At the pace of the last minutes"), h("dd", null, i.forecast?.exhausted_at ? `plan used up ${clockZone(i.forecast.exhausted_at)}` : i.forecast?.used_at_reset ? "the plan lasts until the reset" : "not known yet")),
          h("p", { class: "muted small" }, h("a", { href: link("incidents") }, "All incidents")))),
      h("div", { key: "left", class: "col" },
        h("section", { key: "who", class: "card" }, h("div", { class: "head" }, h("h2", null, "Who makes the excess")),
          h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Culprits" }, h("table", null,
            h("thead", null, h("tr", null, ["Share of the excess", "Caller", "Event", "Channel", "Payload"].map((t) => h("th", { scope: "col" }, t)))),
            h("tbody", null, i.culprits.map((c, n) => h("tr", { key: n }, h("td", null, shareBar(c.share)), h("td", null, any(c.caller)), h("td", null, any(c.event)), h("td", null, any(c.channel)), h("td", null, any(c.payload)))))))),
        h("section", { key: "line", class: "card" }, h("div", { class: "head" }, h("h2", null, "Timeline")),
          h("ol", { class: "events" }, i.timeline.map((e, n) => h("li", { key: n }, mark(e.severity || "note"), h("div", null, h("time", { class: "num muted", datetime: e.at, title: both(e.at) }, when(e.at, app.now)), " ", e.text))))),
        i.samples.length > 0 && h("section", { key: "samples", class: "card" }, h("div", { class: "head" }, h("h2", null, "Samples")),
          h("p", { class: "muted small" }, "Payloads are not kept, only what tells them apart."),
          h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Samples" }, h("table", null,
            h("thead", null, h("tr", null, ["At", "Caller", "Event", "Channel", "Payload", "Bytes", "Seen"].map((t, n) => h("th", { scope: "col", class: n > 4 ? "num" : "" }, t)))),
            h("tbody", null, i.samples.map((s, n) => h("tr", { key: n }, h("td", { class: "num-left" }, when(s.at, app.now)), h("td", null, s.caller), h("td", null, h("code", null, s.event)), h("td", null, h("code", null, s.channel)), h("td", null, h("code", null, s.digest)), h("td", { class: "num" }, count(s.bytes)), h("td", { class: "num" }, s.count ? count(s.count) : "–"))))))))),
  ];
}

export { percent };
