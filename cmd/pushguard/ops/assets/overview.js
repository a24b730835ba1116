import { h } from "./view.js";
import { api } from "./api.js";
import { burn, flow, flows, legend, meter, shareBar, spark, whole } from "./chart.js";
import { both, clock, clockZone, count, percent, plural, rate, short, span, store, stored, when, zoneName } from "./format.js";
import { aboveUsual, asked, culprit, factor, held, incidentOf, levelWords, loud, loudest, mark, times } from "./verdict.js";
import { link } from "./state.js";
import { openLever } from "./levers.js";

const windows = { "10m": 600, "1h": 3600, "24h": 86400 };
let picked = stored("window", "");
let cursor = null;

const live = new Map(); // by account: the last ten minutes by the second, kept up by the frames

/** recent is the ten minutes of an account: asked for once, then grown. */
export function recent(app, a, f) {
  let l = live.get(a.name);
  if (!l || l.started !== f.started) {
    l = { started: f.started, step: 1, t: [], used: [], plan: [], groups: empty(), events: [], ready: false };
    live.set(a.name, l);
    api(`/api/v1/history?account=${encodeURIComponent(a.name)}&window=10m`).then((x) => {
      const later = l.t.findIndex((t) => t > (x.t.at(-1) || 0));
      const keep = (list) => (later < 0 ? [] : list.slice(later));
      l.t = x.t.concat(keep(l.t));
      l.used = x.used.concat(keep(l.used));
      l.plan = x.plan.concat(keep(l.plan));
      for (const [g] of flows) l.groups[g] = x.groups[g].concat(keep(l.groups[g]));
      l.since = x.since;
      l.ready = true;
      app.render();
    }, () => { live.delete(a.name); });
  }
  const tick = f.ticks[a.name], last = l.t.at(-1) || 0;
  if (tick.t > last) {
    // Seconds that were missed (the page slept) are a gap, not a line.
    if (last && tick.t - last > 5) push(l, { t: tick.t - 1, used: null, plan: tick.plan, groups: Object.fromEntries(flows.map(([g]) => [g, null])) });
    push(l, tick);
    l.since ??= tick.t;
  }
  while (l.t.length > 600) for (const list of [l.t, l.used, l.plan, ...Object.values(l.groups)]) list.shift();
  return l;
}

const empty = () => Object.fromEntries(flows.map(([g]) => [g, []]));

function push(l, p) {
  l.t.push(p.t);
  l.used.push(p.used);
  l.plan.push(p.plan);
  for (const [g] of flows) l.groups[g].push(p.groups[g]);
}

function series(app, a, f, window) {
  const fine = recent(app, a, f);
  if (window === "10m") return fine;
  const e = app.ask(`/api/v1/history?account=${encodeURIComponent(a.name)}&window=${window}&points=${window === "1h" ? 120 : 480}`, window === "1h" ? 10 : 30);
  if (!e.value) return { ...fine, t: [], groups: empty(), used: [], plan: [] };
  return { step: e.value.step_s, ...e.value };
}

export function overview(app, a, f, v) {
  const known = f.status.uptime_s;
  const window = picked in windows ? picked : known < 1500 ? "10m" : known < 3 * 3600 ? "1h" : "24h";
  const s = series(app, a, f, window);
  const open = f.incidents.filter((i) => i.account === a.name);
  return [
    h("section", { key: "verdict", class: "verdict " + v.severity, "aria-label": "Are we all right?" },
      mark(v.severity), h("div", null, h("h2", null, v.title), h("p", null, v.text),
        v.try && h("p", { class: "small" }, "In a terminal: ", h("code", null, v.try))),
      v.severity !== "good" && h("div", { class: "levers" },
        open.length > 0 && h("a", { key: "incident", class: "button primary", href: link("incidents", open[0].id) }, "See the incident"),
        a.brake ? h("button", { key: "off", class: "button", onclick: () => openLever("brake-off") }, "Lift the brake …")
          : a.remaining === 0 ? h("button", { key: "plan", class: "button", onclick: () => openLever("plan") }, "Change the plan …")
            : v.severity !== "note" && h("button", { key: "on", class: "button danger", onclick: () => openLever("brake-on") }, "Pull the brake …"))),
    h("section", { key: "tiles", class: "tiles", "aria-label": "In numbers" }, tiles(app, a, f)),
    testing(app, a) && h("p", { key: "load-test", class: "notice" }, mark("note"), h("span", null, h("b", null, "A load test runs: "),
      `${count(a.swallowed.events)} of its publishes were not sent; they would have cost ${count(a.swallowed.messages)} messages, ${percent(a.swallowed.messages / Math.max(1, a.plan.messages_per_day))} of the plan.`)),
    h("div", { key: "cols", class: "cols" },
      h("div", { key: "left", class: "col" },
        burnCard(app, a, s, window),
        flowCard(app, a, f, s, window),
        callersCard(app, f, a)),
      h("div", { key: "right", class: "col side" },
        leversCard(app, a),
        breakerCard(a),
        eventsCard(app, f, a))),
  ];
}

function tiles(app, a, f) {
  const plan = Math.max(1, a.plan.messages_per_day), used = a.used / plan;
  const end = a.forecast.exhausted_at, reset = (Date.parse(a.resets_at) - app.now) / 1000;
  const c = loudest(a), total = a.callers.reduce((n, x) => n + x.rate_10s, 0);
  const refused = held(a), all = asked(a);
  const top = a.callers.filter((x) => x.held_1m > 0).sort((x, y) => y.held_1m - x.held_1m);
  const full = used >= a.thresholds.shed_normal ? "bad" : used >= a.thresholds.shed_bulk || end ? "warn" : "good";
  return [
    tile("plan", "Plan left", percent(Math.max(0, 1 - used)), [
      meter(used, [a.thresholds.shed_bulk, a.thresholds.shed_normal, a.thresholds.critical_only], full, `${percent(used)} used`),
      h("p", null, h("b", null, short(a.remaining)), ` of ${short(plan)} messages` + (a.plan.name && a.plan.name !== "custom" ? `, ${a.plan.name}` : "")),
    ]),
    tile("lasts", "The plan lasts", a.remaining === 0 ? "used up" : end ? span((Date.parse(end) - app.now) / 1000) : "past the reset", [
      h("p", null, end && a.remaining > 0 ? h("b", { class: "warn-text" }, "Used up at " + clockZone(end, Date.parse(end) - app.now < 6e5)) : `${rate(a.forecast.per_s)} messages/s now; ${percent(a.forecast.used_at_reset / plan)} used at the reset`),
      h("p", { title: both(a.resets_at) }, `Reset in ${span(reset)}, at ${both(a.resets_at)}`),
    ], end ? "warn" : ""),
    tile("who", "Loudest caller", c && c.rate_10s > 0 ? c.name : "nobody", c && c.rate_10s > 0 ? [
      h("p", null, h("b", null, rate(c.rate_10s)), ` publishes/s, ${percent(c.rate_10s / Math.max(total, 1e-9), 0)} of all`),
      h("p", null, named(f, a, c) ? h("b", { class: "warn-text" }, named(f, a, c)) : c.usual_per_s === null ? "Its usual rate is not known yet" : loud(c) ? h("b", { class: "warn-text" }, c.usual_per_s < 0.1 ? "It is silent as a rule" : `${times(factor(c))} its usual ${rate(c.usual_per_s)}/s`) : `Usual: ${rate(c.usual_per_s)}/s`),
    ] : [h("p", null, "No publishes in the last ten seconds")], c && (loud(c) || named(f, a, c)) ? "warn" : ""),
    tile("doing", a.minute.undelivered ? "Refused · not delivered" : "Refused", a.minute.undelivered ? `${short(refused)} · ${short(a.minute.undelivered)}` : refused ? short(refused) : "nothing", [
      h("p", null, !all ? "Nothing was published in the last minute" : a.minute.undelivered ? `of ${count(all)} publishes in the last minute; the second were answered 200` : refused ? `${percent(refused / Math.max(1, all), 0)} of ${count(all)} publishes in the last minute` : a.minute.duplicates ? `All of ${count(all)} publishes in the last minute passed, ${count(a.minute.duplicates)} as duplicates` : `All of ${count(all)} publishes in the last minute were delivered`),
      h("p", null, top.length ? ["Refused: ", h("b", null, top.slice(0, 2).map((x) => x.name).join(", ")), top.length > 2 ? ` and ${top.length - 2} more` : ""] : "No caller is refused"),
    ]),
  ];
}

// testing says whether load-test callers published in the last minute that this
// page saw.
const tests = new Map();
function testing(app, a) {
  const n = a.swallowed?.events ?? 0, was = tests.get(a.name);
  if (!was || n !== was.n) tests.set(a.name, { n, at: was ? app.now : -Infinity });
  return !a.sink && app.now - tests.get(a.name).at < 60000;
}

/** named is what an open incident says of a caller. */
const named = (f, a, c) => {
  const i = incidentOf(f, a, c);
  const now = aboveUsual(c);
  return i && (now && c.usual_per_s >= 0.1 ? `${now} its usual ${rate(c.usual_per_s)}/s; ` : "") + (i.action === "contained" ? "incident, contained" : "incident");
};

const tile = (key, label, value, more, severity = "") => h("div", { key, class: "card tile " + severity },
  h("h3", null, label), h("p", { class: "value num" }, value), more);

const picker = (app, window) => h("div", { class: "picks", role: "group", "aria-label": "Window" },
  Object.keys(windows).map((w) => h("button", { key: w, class: "button quiet", "aria-pressed": String(w === window), onclick: () => { picked = w; store("window", w); cursor = null; app.render(); } },
    { "10m": "10 min", "1h": "1 hour", "24h": "Day" }[w])));

// begin leaves out the time before this replica watched, but shows two minutes.
const begin = (from, s, now) => Math.min(Math.max(from, s.since ?? from), now - 120);

function burnCard(app, a, s, window) {
  const plan = a.plan.messages_per_day, reset = Date.parse(a.resets_at) / 1000, midnight = reset - 86400;
  const now = s.t.at(-1) ?? app.now / 1000;
  const w = windows[window];
  const from = window === "24h" ? midnight : begin(now - w, s, now), to = window === "24h" ? reset : Math.min(now + Math.max(120, (now - from) * 0.6), reset + w * 0.1);
  const t = [], left = [];
  s.t.forEach((x, i) => { if (x >= Math.max(from, midnight)) { t.push(x); left.push(s.used[i] === null ? null : Math.max(0, s.plan[i] - s.used[i])); } });
  // The newest second is always there, whatever the step of the rest.
  if (t.length && app.now / 1000 - t.at(-1) > 2) { t.push(app.now / 1000); left.push(a.remaining); }
  const highest = Math.max(0, ...left), top = window === "24h" || highest > 0.5 * plan ? Math.max(plan, highest) * 1.02 : Math.max(highest * 1.15, plan * 0.2);
  const d = {
    t, left, from, to, top, plan, reset, since: window === "24h" ? Math.min(s.since ?? now, now) : from, onCursor: () => {},
    shape: a.name + window + plan,
    floors: [{ name: "critical", part: a.floors.critical }, { name: "normal", part: a.floors.normal }],
    lines: [
      { left: plan * (1 - a.thresholds.shed_bulk), text: `${percent(a.thresholds.shed_bulk, 0)} used: bulk is refused` },
      { left: plan * (1 - a.thresholds.shed_normal), text: `${percent(a.thresholds.shed_normal, 0)}: normal too` },
      { left: plan * (1 - a.thresholds.critical_only), text: `${percent(a.thresholds.critical_only, 0)}: only critical passes` },
    ],
    forecast: a.remaining > 0 && { now: a.forecast.per_s, low: a.forecast.low_per_s, high: a.forecast.high_per_s },
  };
  const label = `Messages left of the plan. Now ${count(a.remaining)} of ${count(plan)}. ` +
    (a.forecast.exhausted_at ? `At this rate used up at ${clockZone(a.forecast.exhausted_at)}.` : `At this rate ${count(Math.max(0, plan - a.forecast.used_at_reset))} will be left at the reset at 00:00 UTC.`);
  return h("section", { key: "burn", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Messages left today"), picker(app, window)),
    burn(d, label),
    h("ul", { class: "legend" },
      h("li", null, h("span", { class: "swatch passed line" }), "left"),
      h("li", null, h("span", { class: "swatch dashed" }), `at ${rate(a.forecast.per_s)} messages/s`),
      h("li", null, h("span", { class: "swatch cone" }), `between ${rate(a.forecast.low_per_s)} and ${rate(a.forecast.high_per_s)}/s`),
      a.floors.critical > 0 && h("li", null, h("span", { class: "swatch floor-critical" }), `kept for critical, ${percent(a.floors.critical, 0)}`),
      a.floors.normal > 0 && h("li", null, h("span", { class: "swatch floor-normal" }), `kept for normal and above, ${percent(a.floors.normal, 0)}`),
      d.since > from + 60 && h("li", null, h("span", { class: "swatch unknown" }), `not watched before ${clock(d.since * 1000)} ${zoneName()}`)));
}

function flowCard(app, a, f, s, window) {
  const now = s.t.at(-1) ?? app.now / 1000, at = s.t.length - 1;
  // The step under way is not whole: it would look like a fall.
  const done = s.step > 1 && at >= 0 && (s.t[at] + 1) % s.step ? at : at + 1;
  const fine = recent(app, a, f);
  const d = { t: s.t.slice(0, done), groups: Object.fromEntries(flows.map(([g]) => [g, s.groups[g].slice(0, done)])), step: s.step, from: window === "24h" ? now - windows[window] : begin(now - windows[window], s, now), to: now, shape: "flow" + window, onCursor: (i) => { if (i !== cursor) { cursor = i; app.render(); } } };
  const label = "Publishes a second by what became of them. " + flows.map(([g, word]) => `${word}: ${rate(fine.groups[g].at(-1) || 0)}`).join(", ") + ".";
  return h("section", { key: "flow", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Publishes per second"), cursor === null ? legend(fine, null) : legend(d, cursor)),
    flow(d, label));
}

function callersCard(app, f, a) {
  const e = app.ask(`/api/v1/history?account=${encodeURIComponent(a.name)}&window=10m&points=60&callers=1`, 10);
  const total = a.callers.reduce((n, c) => n + c.rate_10s, 0) || 1;
  const list = a.callers.filter((c) => c.rate_1m > 0 || c.messages_today > 0).sort((x, y) => y.rate_10s - x.rate_10s || y.messages_today - x.messages_today).slice(0, 8);
  return h("section", { key: "callers", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Callers"), h("a", { href: link("callers") }, `All ${a.callers_total}`)),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Callers" }, h("table", null,
      h("thead", null, h("tr", null,
        h("th", { scope: "col" }, "Caller"), h("th", { scope: "col", class: "num" }, "Publishes/s"), h("th", { scope: "col", class: "num wide-only" }, "Usual"),
        h("th", { scope: "col", class: "num" }, "Refused/min"), h("th", { scope: "col", class: "num wide-only" }, "Messages today"), h("th", { scope: "col", class: "wide-only" }, "Share"), h("th", { scope: "col" }, "10 minutes"))),
      h("tbody", null, list.map((c) => {
        const hist = e.value?.callers?.find((x) => x.name === c.name), above = aboveUsual(c), incident = incidentOf(f, a, c);
        return h("tr", { key: c.name },
          h("th", { scope: "row" }, c.name, above && h("span", { class: "tag warn" }, above), incident && h("span", { class: "tag note" }, incident.action === "contained" ? "contained" : "incident")),
          h("td", { class: "num" }, rate(c.rate_10s)),
          h("td", { class: "num wide-only muted" }, c.usual_per_s === null ? "–" : rate(c.usual_per_s)),
          h("td", { class: "num" + (c.held_1m ? " held-text" : " muted") }, count(c.held_1m)),
          h("td", { class: "num wide-only" }, count(c.messages_today)),
          h("td", { class: "wide-only" }, shareBar(c.rate_10s / total)),
          h("td", null, hist ? spark(whole(e.value, hist.asked), whole(e.value, hist.held)) : ""));
      })))),
    !list.length && h("p", { class: "muted" }, "Nobody has published today. Give your app's Pusher SDK the host and port of the data port."));
}

function leversCard(app, a) {
  return h("section", { key: "levers", class: "card" },
    h("div", { class: "head" }, h("h2", null, "What you can do")),
    a.brake && h("p", { class: "notice bad" }, mark("bad"), h("span", null, h("b", null, "Brake on. "), a.brake.until ? `It ends by itself in ${span((Date.parse(a.brake.until) - app.now) / 1000)}.` : "It stays until it is lifted.")),
    a.aimed?.length > 0 && h("ul", { class: "events" }, a.aimed.map((x) => h("li", { key: x.id }, mark("warn"), h("div", null, x.what, " ",
      h("button", { class: "button quiet", onclick: () => openLever("aim-off", x) }, "Lift …"))))),
    h("div", { class: "levers" },
      a.brake ? h("button", { key: "off", class: "button primary", onclick: () => openLever("brake-off") }, "Lift the brake …")
        : h("button", { key: "on", class: "button danger", onclick: () => openLever("brake-on") }, "Pull the brake …"),
      h("button", { key: "plan", class: "button", onclick: () => openLever("plan") }, "Change the plan …"),
      h("button", { key: "usage", class: "button", onclick: () => openLever("usage") }, "Correct the usage …")),
    h("p", { class: "muted small" }, "Each shows what it would do before it does it, holds on every replica, and is kept in the audit trail."));
}

const ladder = [["closed", "All pass"], ["shed_bulk", "Bulk is refused"], ["shed_normal", "Bulk and normal are refused"], ["critical_only", "Only critical passes"], ["open", "Nothing passes"]];

function breakerCard(a) {
  const at = { shed_bulk: a.thresholds.shed_bulk, shed_normal: a.thresholds.shed_normal, critical_only: a.thresholds.critical_only, open: 1 };
  const state = a.breaker.state === "half_open" ? "closed" : a.breaker.state;
  return h("section", { key: "breaker", class: "card" },
    h("div", { class: "head" }, h("h2", null, "Quota"), h("span", { class: "tag " + (a.breaker.state === "closed" ? "good" : state === "open" ? "bad" : "warn") }, levelWords[a.breaker.state])),
    h("ol", { class: "ladder" }, ladder.map(([name, what]) => h("li", { key: name, class: name === state ? "on" : "", "aria-current": name === state ? "step" : null },
      h("span", null, what), h("span", { class: "num muted" }, name === "closed" ? "" : name === state && a.used / Math.max(1, a.plan.messages_per_day) < at[name] ? "now: it burns too fast" : "from " + percent(at[name], 0) + " used")))),
    h("p", { class: "muted small" }, `Since ${clockZone(a.breaker.since, true)}: ${a.breaker.reason}`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Last minute by priority" }, h("table", { class: "tight" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Last minute"), h("th", { scope: "col", class: "num" }, "publishes"), h("th", { scope: "col", class: "num" }, "refused"))),
      h("tbody", null, a.priorities.map((p) => h("tr", { key: p.priority }, h("th", { scope: "row" }, p.priority), h("td", { class: "num" }, count(p.publishes_1m)), h("td", { class: "num" + (p.refused_1m ? " held-text" : " muted") }, count(p.refused_1m))))))),
    a.ledger.replicas > 1 && h("p", { class: "muted small" }, `Rates are of this replica, one of ${a.ledger.replicas}; the plan is counted over all.`));
}

function eventsCard(app, f, a) {
  const list = [...f.events[a.name]].reverse().slice(0, 8);
  return h("section", { key: "events", class: "card" },
    h("div", { class: "head" }, h("h2", null, "What happened"), h("a", { href: link("audit") }, "Audit")),
    h("ul", { class: "events" }, list.map((e) => h("li", { key: e.at + e.text }, mark(e.severity), h("div", null, h("time", { class: "num muted", datetime: e.at, title: both(e.at) }, when(e.at, app.now)), " ", e.text)))));
}

export { culprit, plural };
