import { h } from "./view.js";
import { both, clock, day, zoneName } from "./format.js";

export function audit(app, a) {
  const e = app.ask(`/api/v1/audit?account=${encodeURIComponent(a.name)}`, 3);
  const list = e.value || [];
  return [h("section", { key: "audit", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Audit"), h("span", { class: "muted" }, "who did what, and why; kept in the store, the same on every replica")),
    e.error && h("p", { class: "notice bad", role: "alert" }, e.error.message),
    list.length ? table(list) : (e.value || !e.error) && h("p", { class: "muted" }, e.value ? "No lever was moved yet." : "Looking …"))];
}

export const table = (list) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Audit trail" }, h("table", null,
  h("thead", null, h("tr", null, h("th", { scope: "col" }, "When, " + zoneName()), h("th", { scope: "col" }, "Who"), h("th", { scope: "col" }, "What"), h("th", { scope: "col" }, "Why"), h("th", { scope: "col" }, "Before → after"))),
  h("tbody", null, list.map((x, n) => h("tr", { key: x.at + x.what + n },
    h("td", { class: "num-left", title: both(x.at) }, day(x.at) + " " + clock(x.at, true)), h("td", null, x.who || "–"), h("th", { scope: "row" }, x.what), h("td", null, x.why || h("span", { class: "muted" }, "no reason given")),
    h("td", { class: "muted" }, x.before || x.after ? `${x.before || "–"} → ${x.after || "–"}` : "–"))))));
