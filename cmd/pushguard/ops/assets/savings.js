import { h } from "./view.js";
import { count, short } from "./format.js";
import { openLever } from "./levers.js";
import { fanoutCard } from "./fanout.js";

const usd = (n) => "$" + (n >= 100 ? count(n) : n.toFixed(n >= 1 ? 2 : 3));

// What was answered 200 and waits in the store, on all replicas.
function held(x) {
  const n = x.waiting + x.sending;
  return n > 0 && h("section", { key: "held", class: "card" }, h("div", { class: "head" }, h("h2", null, "Held for later"), h("button", { key: "held", class: "button", onclick: () => openLever("held") }, "Send what is held …")),
    h("p", null, h("b", { class: "num" }, count(n)), ` publish${n === 1 ? "" : "es"} of conflated bursts and refresh events wait${n === 1 ? "s" : ""} for the end of a window`,
      x.overdue > 0 ? h("span", { class: "held-text" }, `; ${count(x.overdue)} of them should have gone out already: the brake, the breaker, the budget or Pusher keeps them.`) : "."));
}

export function savings(app, a) {
  const e = app.ask(`/api/v1/savings?account=${encodeURIComponent(a.name)}`, 5), s = e.value;
  if (!s) return [h("section", { key: "wait", class: "card" }, h("p", { class: "muted" }, e.error ? e.error.message : "Looking …"))];
  const sum = (kind) => s.rows.filter((r) => r.kind === kind).reduce((x, r) => ({ publishes: x.publishes + r.publishes, messages: x.messages + r.messages }), { publishes: 0, messages: 0 });
  const saved = sum("saved"), withheld = sum("withheld");
  const money = (n) => (s.usd_per_million === null ? null : usd((n / 1e6) * s.usd_per_million));
  const tile = (key, label, x, text) => h("section", { key, class: "card tile" }, h("h3", null, label), h("p", { class: "value num" }, short(x.messages)),
    h("p", null, `messages, of ${count(x.publishes)} publishes`), h("p", { class: "muted" }, text + (money(x.messages) !== null ? ` Worth ${money(x.messages)} at the plan’s list price.` : "")));
  return [
    h("h2", { key: "h", class: "hidden-text" }, "Today"),
    h("div", { key: "tiles", class: "tiles three" },
      tile("saved", "Saved today", saved, "The caller was answered 200, and the same information cost fewer messages."),
      tile("withheld", "Withheld today", withheld, "Refused, so not spent: by rates, containment, the breaker or the brake."),
      h("section", { key: "spent", class: "card tile" }, h("h3", null, "Spent today"), h("p", { class: "value num" }, short(s.messages)), h("p", null, `messages, for ${count(s.sent)} publishes that were sent`), h("p", { class: "muted" }, "On this replica since 00:00 UTC, or since it began."))),
    held(a.held),
    h("section", { key: "by", class: "card" }, h("div", { class: "head" }, h("h2", null, "By what was done")),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "By what was done" }, h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Outcome"), h("th", { scope: "col" }, "Kind"), h("th", { scope: "col", class: "num" }, "Publishes"), h("th", { scope: "col", class: "num" }, "Messages, estimated"), h("th", { scope: "col", class: "num" }, "Worth"))),
        h("tbody", null, s.rows.filter((r) => r.publishes || r.messages).map((r) => h("tr", { key: r.name }, h("th", { scope: "row" }, r.name.replace("_", " ")), h("td", { class: "muted" }, r.kind), h("td", { class: "num" }, count(r.publishes)), h("td", { class: "num" }, count(r.messages)), h("td", { class: "num" }, money(r.messages) ?? "–"))))))),
    s.callers.length > 0 && h("section", { key: "callers", class: "card" }, h("div", { class: "head" }, h("h2", null, "By caller")),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "By caller" }, h("table", null, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Caller"), h("th", { scope: "col", class: "num" }, "Publishes not sent"), h("th", { scope: "col", class: "num" }, "Messages, estimated"))),
        h("tbody", null, s.callers.filter((r) => r.publishes || r.messages).sort((x, y) => y.messages - x.messages).slice(0, 50).map((r) => h("tr", { key: r.name }, h("th", { scope: "row" }, r.name), h("td", { class: "num" }, count(r.publishes)), h("td", { class: "num" }, count(r.messages)))))))),
    fanoutCard(app, a),
    h("section", { key: "how", class: "card" }, h("div", { class: "head" }, h("h2", null, "How this is counted")),
      h("p", { class: "muted" }, "A publish that was not sent is priced at the average of those of the same caller that were sent today. What is held counts as saved until it is sent after all.",
        s.unpriced > 0 && ` ${count(s.unpriced)} publishes of callers that sent nothing have no price and are left out.`,
        s.usd_per_million !== null ? ` A million messages of this plan cost ${usd(s.usd_per_million)} at its list price of ${usd(s.plan_usd_month)} a month, if all of it is used.` : " The price of this plan is not known, so no money is shown.")),
  ];
}
