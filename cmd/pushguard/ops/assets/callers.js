import { h } from "./view.js";
import { shareBar, spark, whole } from "./chart.js";
import { openLever } from "./levers.js";
import { count, plural, rate } from "./format.js";
import { aboveUsual, factor, incidentOf, loud, times } from "./verdict.js";

const outcomes = ["sent", "deduplicated", "conflated", "digested", "vacant", "throttled", "contained", "over_budget", "braked", "unavailable"];
const groupOf = { sent: "passed", deduplicated: "folded", conflated: "undelivered", digested: "undelivered", vacant: "undelivered", throttled: "limited", contained: "limited", over_budget: "shed", braked: "shed", unavailable: "failed" };

const columns = [
  ["name", "Caller", (c) => c.name, ""],
  ["rate", "Publishes/s", (c) => c.rate_10s, "num"],
  ["usual", "Usual", (c) => c.usual_per_s ?? -1, "num"],
  ["factor", "× usual", (c) => factor(c), "num"],
  ["held", "Refused/min", (c) => c.held_1m, "num"],
  ["today", "Messages today", (c) => c.messages_today, "num"],
  ["share", "Share of publishes", (c) => c.rate_10s, ""],
];
let sort = "rate", down = true, find = "";

export function callers(app, a, f) {
  // The stream carries the busiest fifty; the rest is asked for.
  const all = a.callers_total > a.callers.length ? app.ask("/api/v1/status", 5).value?.accounts.find((x) => x.name === a.name)?.callers : null;
  const e = app.ask(`/api/v1/history?account=${encodeURIComponent(a.name)}&window=10m&points=60&callers=1`, 10);
  const total = a.callers.reduce((n, c) => n + c.rate_10s, 0) || 1;
  const by = columns.find(([n]) => n === sort)[2];
  const list = [...(all || a.callers)].filter((c) => c.name.toLowerCase().includes(find.toLowerCase()))
    .sort((x, y) => (by(x) < by(y) ? -1 : by(x) > by(y) ? 1 : x.name < y.name ? -1 : 1) * (down ? -1 : 1));
  return [
    h("section", { key: "list", class: "card" },
      h("div", { class: "head" }, h("h2", null, "Callers"), h("span", { class: "muted" }, plural(list.length, "caller")),
        h("input", { type: "search", placeholder: "Find", "aria-label": "Find a caller", oninput: (ev) => { find = ev.target.value; app.render(); } })),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Callers" }, h("table", null,
        h("thead", null, h("tr", null, columns.map(([name, title,, kind]) =>
          h("th", { key: name, scope: "col", class: kind, "aria-sort": sort === name ? (down ? "descending" : "ascending") : "none" },
            h("button", { class: "sort", onclick: () => { if (sort === name) down = !down; else { sort = name; down = name !== "name"; } app.render(); } }, title, h("span", { "aria-hidden": "true" }, sort === name ? (down ? " ↓" : " ↑") : "")))),
          h("th", { scope: "col" }, "10 minutes"), h("th", { scope: "col" }, "What became of them"), h("th", { scope: "col" }, h("span", { class: "hidden-text" }, "Brake")))),
        h("tbody", null, list.map((c) => row(c, e.value, total, aboveUsual(c), incidentOf(f, a, c))))))),
    h("section", { key: "key", class: "card" },
      h("div", { class: "head" }, h("h2", null, "What the colours say")),
      h("ul", { class: "legend" }, outcomes.map((o) => h("li", null, h("span", { class: "swatch " + groupOf[o] }), o.replace("_", " ")))),
      h("p", { class: "muted small" }, "Rates are of the last ten seconds on this replica. Usual is the median minute of the last hour. What became of publishes is counted since this replica began.")),
    origins(a),
  ];
}

function row(c, history, total, above, incident) {
  const hist = history?.callers?.find((x) => x.name === c.name);
  const f = factor(c), all = Object.values(c.outcomes).reduce((n, x) => n + x, 0);
  const would = Object.entries(c.would || {});
  return h("tr", { key: c.name },
    h("th", { scope: "row" }, c.name, incident && h("span", { class: "tag note" }, incident.action === "contained" ? "contained" : "incident")),
    h("td", { class: "num" }, rate(c.rate_10s)),
    h("td", { class: "num muted" }, c.usual_per_s === null ? "–" : rate(c.usual_per_s)),
    h("td", { class: "num" }, above ? h("span", { class: "tag warn" }, above) : c.usual_per_s > 0 && c.rate_10s > 0 ? times(f) : "–"),
    h("td", { class: "num" + (c.held_1m ? " held-text" : " muted") }, count(c.held_1m)),
    h("td", { class: "num" }, count(c.messages_today)),
    h("td", null, shareBar(c.rate_10s / total)),
    h("td", null, hist ? spark(whole(history, hist.asked), whole(history, hist.held)) : ""),
    h("td", null, h("div", { class: "mix", role: "img", "aria-label": outcomes.filter((o) => c.outcomes[o]).map((o) => `${o.replace("_", " ")} ${count(c.outcomes[o])}`).join(", ") || "nothing yet" },
      outcomes.filter((o) => c.outcomes[o]).map((o) => h("i", { key: o, class: "swatch " + groupOf[o], css: { "flex-grow": c.outcomes[o] / Math.max(1, all) } }))),
      h("div", { class: "small muted wrap" }, outcomes.filter((o) => c.outcomes[o]).map((o) => `${o.replace("_", " ")} ${count(c.outcomes[o])}`).join(" · ") || "nothing yet"),
      c.rejected > 0 && h("div", { class: "small warn-text" }, `refused by Pusher ${count(c.rejected)}`),
      would.length > 0 && h("div", { class: "small" }, would.map(([o, n]) => `would have been ${o.replace("_", " ")}: ${count(n)}`).join(" · "))),
    h("td", null, h("button", { class: "button quiet", "aria-label": "Brake " + c.name, onclick: () => openLever("aim-on", { caller: c.name }) }, "Brake …")));
}

function origins(a) {
  const own = a.callers.find((c) => c.origins?.length);
  if (!own) return null;
  return h("section", { key: "origins", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Who shares the app’s own key")),
    h("p", { class: "muted small" }, "Told apart by SDK and address: a hint, not a proof. Give each caller a key of its own to be sure."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Origins" }, h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Origin"), h("th", { scope: "col", class: "num" }, "Publishes"))),
      h("tbody", null, own.origins.slice(0, 50).map((o) => h("tr", { key: o.name }, h("th", { scope: "row" }, o.name), h("td", { class: "num" }, count(o.publishes))))))));
}
