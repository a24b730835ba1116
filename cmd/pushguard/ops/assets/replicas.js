import { h } from "./view.js";
import { clockZone, count, percent, plural, span } from "./format.js";
import { mark } from "./verdict.js";

export function replicas(app, a, f) {
  const l = a.ledger;
  return [h("div", { key: "cols", class: "cols even" },
    h("section", { key: "this", class: "card" },
      h("div", { class: "head" }, h("h2", null, "This replica"), h("span", { class: "tag " + (f.ready.ready ? "good" : "bad") }, f.ready.ready ? "ready" : "not ready")),
      h("dl", { class: "facts" },
        h("dt", null, "Name"), h("dd", null, f.status.replica), h("dt", null, "Version"), h("dd", null, f.status.version),
        h("dt", null, "Up"), h("dd", null, span(f.status.uptime_s)),
        h("dt", null, "Config"), h("dd", null, f.reload_ok ? "the last one given is in force" : h("b", { class: "warn-text" }, "the last one given has mistakes; the one before is in force"))),
      h("h3", null, "Conditions of readiness"),
      h("ul", { class: "events" }, f.ready.checks.map((c) => h("li", { key: c.name }, mark(c.ok ? "good" : "bad"), h("div", null, h("b", null, c.name), " ", h("span", { class: "muted" }, c.detail)))))),
    h("section", { key: "store", class: "card" },
      h("div", { class: "head" }, h("h2", null, "Store"), h("span", { class: "tag " + (l.store_up ? "good" : "bad") }, l.store_up ? "up" : "lost")),
      !l.store_up && h("p", { class: "notice bad", role: "alert" }, mark("bad"), h("span", null, l.store_error)),
      l.healing && h("p", { class: "notice warn" }, mark("warn"), h("span", null, "The store lost data. Replicas tell it what they know; no lease is given before all have.")),
      h("dl", { class: "facts" },
        h("dt", null, "Kind"), h("dd", null, f.status.store.kind),
        h("dt", null, l.store_up ? "Answers since" : "Lost since"), h("dd", null, `${clockZone(l.store_since, true)}, for ${span((app.now - Date.parse(l.store_since)) / 1000)}`),
        h("dt", null, "Replicas alive"), h("dd", null, plural(l.replicas, "replica")),
        h("dt", null, "Losses of data seen"), h("dd", null, count(l.faults)),
        h("dt", null, "Epoch"), h("dd", null, h("code", null, l.epoch || "–")),
        h("dt", null, "When the store is lost"), h("dd", null, { lease: "spend the lease, then refuse", open: "spend the lease, then a bounded share", closed: "refuse at once" }[l.on_store_loss] || l.on_store_loss))),
    h("section", { key: "money", class: "card" },
      h("div", { class: "head" }, h("h2", null, "Leases of account " + a.name)),
      h("p", { class: "muted small" }, "A replica spends from its lease without asking the store. What is leased and not spent is still in the plan."),
      h("dl", { class: "facts" },
        h("dt", null, "Used today, all replicas"), h("dd", null, count(a.used)),
        h("dt", null, "Leased and not spent"), h("dd", null, count(a.leased)),
        h("dt", null, "of it by this replica"), h("dd", null, count(l.lease)),
        h("dt", null, "Sent beyond the lease"), h("dd", null, count(l.borrowed)),
        h("dt", null, "Left of the plan"), h("dd", null, count(a.remaining)))),
    h("section", { key: "up", class: "card" },
      h("div", { class: "head" }, h("h2", null, "Ways to Pusher")),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Ways to Pusher" }, h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "App"), h("th", { scope: "col" }, "Upstream"), h("th", { scope: "col" }, "Breaker"), h("th", { scope: "col", class: "num" }, "Errors"), h("th", { scope: "col" }, "Mode"))),
        h("tbody", null, a.apps.map((x) => h("tr", { key: x.id }, h("th", { scope: "row" }, x.id), h("td", null, h("code", null, x.upstream.url)), h("td", null, h("span", { class: "tag " + (x.upstream.state === "closed" ? "good" : "bad") }, x.upstream.state), x.upstream.silent && " ", x.upstream.silent && h("span", { class: "tag bad" }, "silent")), h("td", { class: "num" }, percent(x.upstream.error_rate)), h("td", null, x.mode))))))))];
}
