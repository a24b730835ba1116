// Are we all right? One sentence, the worst thing first.
import { h } from "./view.js";
import { clockZone, count, percent, rate, span } from "./format.js";

const shapes = {
  good: "M2.5 8.5 6.2 12 13.5 4.2",
  note: "M8 7.5V12M8 4v.01",
  warn: "M8 2.5 14.5 13.5H1.5ZM8 6.5v3.5M8 12v.01",
  bad: "M5.5 1.5h5L14.5 5.5v5l-4 4h-5l-4-4v-5ZM8 4.5v4M8 11v.01",
};

const words = { good: "All right", note: "Note", warn: "Warning", bad: "Problem" };

/** mark is a severity as a shape, so that it is not told by colour alone. */
export const mark = (severity) => h("svg", { class: "mark " + severity, viewBox: "0 0 16 16", role: "img", "aria-label": words[severity] }, h("path", { d: shapes[severity] }));

export const levelWords = {
  closed: "closed", shed_bulk: "refusing bulk", shed_normal: "refusing bulk and normal",
  critical_only: "critical only", open: "open", half_open: "half open",
};

/** held is publishes a minute that are refused now, of this replica. */
export const held = (a) => a.priorities.reduce((n, p) => n + p.refused_1m, 0);
export const asked = (a) => a.priorities.reduce((n, p) => n + p.publishes_1m, 0);

/** loudest is the caller that is most above its usual rate, or else the busiest. */
export function loudest(a) {
  let best = null, worst = null;
  for (const c of a.callers) {
    if (!best || c.rate_10s > best.rate_10s) best = c;
    if (loud(c) && (!worst || c.rate_10s > worst.rate_10s)) worst = c;
  }
  return worst || best;
}

export const factor = (c) => (c.usual_per_s === null ? 0 : c.rate_10s / Math.max(c.usual_per_s, 0.1));

/** loud is three times its usual rate and more, and not just a publish now and then. */
export const loud = (c) => factor(c) >= 3 && c.rate_10s >= 1;

/** incidentOf is the open incident that names a caller. */
export const incidentOf = (f, a, c) => f.incidents.find((i) => i.account === a.name && i.state !== "resolved" && i.culprits.some((x) => x.caller === c.name));

/** aboveUsual is how far, in a word, "" if it is not. The incident that names a caller knows better than the last
 * hour, which the incident itself is a part of; so every place tells the same figure. */
export const aboveUsual = (c, incident) => (incident ? times(incident.factor) : !loud(c) ? "" : c.usual_per_s < 0.1 ? "was silent" : times(factor(c)));

export function verdict(f, a, now) {
  const out = (severity, short, title, text) => ({ severity, short, title, text });
  const used = a.used / Math.max(1, a.plan.messages_per_day);
  const open = f.incidents.filter((i) => i.account === a.name);
  const plan = `${percent(used)} of today's plan is used`;
  const incident = open.length ? " Open incident: " + culprit(open[0]) + "." : "";
  if (a.brake) {
    return out("bad", "Brake on", a.brake.priority === "critical" ? "The brake is on: only critical publishes pass" : "The brake is on: nothing passes",
      `“${a.brake.reason}”, by ${a.brake.by || "somebody"}, ${a.brake.until ? "until " + clockZone(a.brake.until) : "until it is lifted"}.` + incident);
  }
  if (a.exhausted) return out("bad", "Over quota", "Pusher refuses: the account is over its quota", a.exhausted.reason + ". One publish is tried now and then." + incident);
  if (a.breaker.state === "open") return out("bad", "Plan used up", "Stopped: the plan is used up", upper(a.breaker.reason) + ". The plan is whole again at 00:00 UTC." + incident);
  const down = a.apps.filter((x) => x.upstream.state !== "closed");
  if (down.length) return out("bad", "Pusher failing", `Pusher fails for app ${down.map((x) => x.id).join(", ")}`, `${percent(down[0].upstream.error_rate, 0)} of recent calls failed; the upstream breaker is ${down[0].upstream.state}.` + incident);
  const mute = a.apps.filter((x) => x.upstream.silent);
  if (mute.length) return out("bad", "Pusher silent", `Pusher answers nothing for app ${mute.map((x) => x.id).join(", ")}`, "One publish is tried each 100 ms, critical ones first; who waits in vain is refused at no cost. The first answer ends it." + incident);
  const l = a.ledger;
  if (!l.store_up && (l.on_store_loss === "closed" || l.lease_spent)) {
    return out("bad", "Store lost", "Nothing passes: the store is out of reach", `${l.store_error}, since ${clockZone(l.store_since)}. ${l.lease_spent ? "The lease is spent" : "Nothing is sent without it"} (on_store_loss: ${l.on_store_loss}). When the store is back everything goes on by itself.` + incident);
  }
  if (!f.ready.ready) {
    const bad = f.ready.checks.filter((c) => !c.ok);
    return out("bad", "Not ready", "This replica is not ready: " + bad.map((c) => c.name).join(", "), bad.map((c) => c.detail).join("; ") + incident);
  }
  if (open.length) {
    const i = open[0];
    return out("warn", "Incident", `Runaway: ${culprit(i)}`,
      `${times(i.factor)} its usual rate since ${clockZone(i.started_at)}; ${doing[i.action] || i.action}. ${plan}.`);
  }
  if (!a.ledger.store_up) return out("warn", "Store lost", "The store is out of reach", `${a.ledger.store_error}. This replica goes on with ${count(a.ledger.lease)} leased messages (on_store_loss: ${a.ledger.on_store_loss}).`);
  if (a.ledger.healing) return out("warn", "Store heals", "The store lost data and is being healed", "Replicas tell it what they know; nobody's count is forgotten.");
  if (a.breaker.state !== "closed") return out("warn", "Saving", `Saving the plan: ${levelWords[a.breaker.state]}`, upper(a.breaker.reason) + ". " + blame(a));
  const end = a.forecast.exhausted_at;
  if (end) return out("warn", "Plan short", `At this rate the plan is used up at ${clockZone(end)}`, `That is in ${span((Date.parse(end) - now) / 1000)}, ${span((Date.parse(a.resets_at) - Date.parse(end)) / 1000)} before the reset. ${plan}. ${blame(a)}${guard(a)}`);
  if (!f.reload_ok) return out("warn", "Old config", "The config was not reloaded", "The last one given has mistakes; the one before is in force. See the log, or pushguard check.");
  const refused = held(a), who = a.callers.reduce((x, c) => (c.held_1m > (x?.held_1m || 0) ? c : x), null);
  if (who && refused >= 60 && refused > asked(a) / 10) {
    return out("note", "Holding back", `All right: ${who.name} is held back, nobody else notices`,
      `${count(refused)} of ${count(asked(a))} publishes were refused in the last minute. ${plan}.`);
  }
  return out("good", "All right", "All right", `${plan}; at this rate it will be ${percent(a.forecast.used_at_reset / Math.max(1, a.plan.messages_per_day))} at the reset. ` +
    (refused ? `${count(refused)} of ${count(asked(a))} publishes were refused in the last minute.` : "Everything passes."));
}

// blame names the caller that is far above its usual rate, if one is.
function blame(a) {
  const c = loudest(a);
  if (!c || !loud(c)) return "";
  const all = a.callers.reduce((n, x) => n + x.rate_10s, 0);
  return `${c.name} makes ${percent(c.rate_10s / Math.max(all, 1e-9), 0)} of all publishes. `;
}

// guard says what happens before the plan is gone.
const guard = (a) => (a.breaker.state === "closed" ? `Bulk will be refused from ${percent(a.thresholds.shed_bulk, 0)} on, normal from ${percent(a.thresholds.shed_normal, 0)}.` : "");

const doing = {
  contained: "it is held to its baseline, everybody else is served as before",
  suggested: "containing it waits for you", released: "it was released", none: "nothing is done about it",
};

export const times = (f) => "× " + (f < 10 ? f.toFixed(1) : count(f));

export function culprit(i) {
  const c = i.culprits[0];
  if (!c) return "everybody";
  return [c.caller, c.event, c.channel].filter((w) => w && w !== "*").join(" · ") || "everybody";
}

const upper = (s) => s.charAt(0).toUpperCase() + s.slice(1);

export { rate };
