import { h } from "./view.js";
import { count, percent } from "./format.js";
import { change, tryCard } from "./try.js";

export function rules(app, a) {
  const e = app.ask(`/api/v1/rules?account=${encodeURIComponent(a.name)}`, 2);
  const list = e.value || [];
  const many = new Set(list.map((r) => r.app)).size > 1;
  return [h("section", { key: "rules", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Rules"), h("span", { class: "muted" }, "the first that matches decides")),
    e.error && h("p", { class: "notice bad", role: "alert" }, e.error.message),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rules" }, h("table", { class: "roomy" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Rule"), h("th", { scope: "col" }, "Matches"), h("th", { scope: "col" }, "Does"),
        h("th", { scope: "col", class: "num" }, "Last minute"), h("th", { scope: "col", class: "num" }, "Matched"), h("th", { scope: "col", class: "num" }, "Folded"), h("th", { scope: "col", class: "num" }, "Refused"), h("th", { scope: "col" }, "In observe mode, would have"), h("th", { scope: "col" }, h("span", { class: "hidden-text" }, "Try")))),
      h("tbody", null, list.map((r, n) => h("tr", { key: r.app + n },
        h("th", { scope: "row" }, r.name, " ", r.mode === "observe" && h("span", { class: "tag note" }, "observe"), many && h("div", { class: "muted small" }, "app " + r.app)),
        h("td", null, match(r)),
        h("td", null, does(r)),
        h("td", { class: "num" }, count(r.matched_1m), r.refused_1m > 0 && h("div", { class: "held-text small" }, `${count(r.refused_1m)} refused`)),
        h("td", { class: "num" }, count(r.matched)),
        h("td", { class: "num" }, part(r, ["deduplicated", "conflated", "digested", "vacant"])),
        h("td", { class: "num" }, part(r, ["throttled", "contained", "over_budget", "braked"])),
        h("td", null, would(r)),
        h("td", null, r.name !== "default" && h("button", { class: "button quiet", onclick: () => change(app, a, r) }, "Change and try", h("span", { class: "hidden-text" }, " " + r.name)))))))),
    h("p", { class: "muted small" }, "Counted on this replica since it began. A rule with mode: observe decides and counts, and changes nothing; the publish is then judged by the next rule that matches.")),
  list.length > 0 && tryCard(app, a, list)];
}

const globs = (name, list) => list.length > 0 && h("div", null, h("span", { class: "muted" }, name + " "), list.map((g, i) => [i ? " or " : "", h("code", null, g)]));

const match = (r) => (r.match.event.length + r.match.channel.length + r.match.caller.length
  ? [globs("event", r.match.event), globs("channel", r.match.channel), globs("caller", r.match.caller)]
  : h("span", { class: "muted" }, r.name === "default" ? "what no rule matches" : "everything"));

const does = (r) => [
  h("div", null, h("span", { class: "tag prio-" + r.priority }, r.priority)),
  r.dedupe && h("div", null, "dedupe ", r.dedupe), r.conflate && h("div", null, "conflate ", r.conflate), r.vacant && h("div", null, "empty channels are skipped"),
  r.rates.map((x) => h("div", null, "rate ", x)), r.answer !== "default" && h("div", null, "answers ", r.answer)];

function part(r, names) {
  const n = names.reduce((sum, o) => sum + (r.outcomes[o] || 0), 0);
  if (!n) return h("span", { class: "muted" }, "0");
  return [count(n), h("div", { class: "muted small" }, percent(n / Math.max(1, r.matched), 0))];
}

function would(r) {
  const list = Object.entries(r.would);
  if (!list.length) return h("span", { class: "muted" }, "–");
  return list.map(([o, n]) => h("div", null, o.replace("_", " ") + " ", h("b", { class: "num" }, count(n))));
}
