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
  closed: "all pass", shed_bulk: "refusing bulk", shed_normal: "refusing bulk and normal",
  critical_only: "only critical pass", open: "nothing passes", half_open: "trying again",
};

/** What became of the last minute's publishes; the one source of these numbers. */
export const held = (a) => a.minute.limited + a.minute.shed + a.minute.failed;
export const asked = (a) => a.minute.asked;

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

/** aboveUsual is how far a caller is above its usual rate now, in a word, "" if it is not. It is the quotient of the two
 * numbers that stand beside it; that an incident names the caller is said apart. */
export const aboveUsual = (c) => (!loud(c) ? "" : c.usual_per_s < 0.1 ? "was silent" : times(factor(c)));

export const times = (f) => "× " + (f < 10 ? f.toFixed(1) : count(f));

export function culprit(i) {
  const c = i.culprits[0];
  if (!c) return "everybody";
  return [c.caller, c.event, c.channel].filter((w) => w && w !== "*").join(" · ") || "everybody";
}

export { rate };
