import { h } from "./view.js";
import { count } from "./format.js";
import { shareBar } from "./chart.js";

const kinds = [["caller", "Callers"], ["event", "Events"], ["channel", "Channels"], ["payload", "Payloads"]];
const windows = [["10s", "10 s"], ["1m", "1 min"], ["10m", "10 min"], ["1h", "1 hour"]];
let by = "caller", window = "1m";

export function top(app, a, f) {
  const e = app.ask(`/api/v1/top?by=${by}&account=${encodeURIComponent(a.name)}&window=${window}&limit=50`, 2);
  const rows = e.value || [];
  const most = Math.max(1, ...rows.map((r) => r.count));
  const pick = (list, value, choose, label) => h("div", { class: "picks", role: "group", "aria-label": label }, list.map(([v, title]) =>
    h("button", { key: v, class: "button quiet", "aria-pressed": String(v === value), onclick: () => { choose(v); app.render(); } }, title)));
  return [h("section", { key: "top", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Top talkers"), pick(kinds, by, (v) => { by = v; }, "By"), pick(windows, window, (v) => { window = v; }, "Window")),
    e.error && h("p", { class: "notice bad", role: "alert" }, e.error.message),
    rows.length
      ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Top talkers" }, h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col", class: "num" }, "#"), h("th", { scope: "col" }, kinds.find(([k]) => k === by)[1].replace(/s$/, "")), h("th", { scope: "col", class: "num" }, "Publishes"), h("th", { scope: "col" }, "Range"), h("th", { scope: "col", class: "wide-only" }, "Share"))),
        h("tbody", null, rows.map((r, n) => h("tr", { key: n + " " + r.key },
          h("td", { class: "num muted" }, n + 1),
          h("th", { scope: "row" }, by === "caller" ? r.key : h("code", null, r.key)),
          h("td", { class: "num" }, count(r.count)),
          h("td", null, range(r, most)),
          h("td", { class: "wide-only" }, shareBar(r.share)))))))
      : h("p", { class: "muted" }, !f.detector && by !== "caller" ? "The detector is not running, so only callers are counted." : e.value ? "Nothing was published in this window." : "Looking …"),
    h("p", { class: "muted small" }, "Counts are exact while keys are few. Beyond, they can be too high by the error that is drawn as the pale end of the bar, never too low. This account, on this replica."))];
}

function range(r, most) {
  const low = Math.max(0, r.count - r.error);
  return h("span", { class: "range", title: r.error ? `between ${count(low)} and ${count(r.count)}` : "exact" },
    h("span", { class: "track" }, h("span", { class: "fill", css: { width: (low / most) * 100 + "%" } }), h("span", { class: "error", css: { width: (r.error / most) * 100 + "%" } })),
    h("span", { class: "muted small" }, r.error ? "− " + count(r.error) : "exact"));
}
