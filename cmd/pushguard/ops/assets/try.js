// A rule, tried on the last ten minutes before anybody saves it.
import { h } from "./view.js";
import { api } from "./api.js";
import { clock, count, percent, span, zoneName } from "./format.js";
import { mark } from "./verdict.js";

const example = `match: { event: "notification.*", channel: "private-user-*" }
priority: bulk
dedupe: 2s
rate: 5/s per channel
`;

const trials = new Map(); // by account

const trialOf = (account) => {
  if (!trials.has(account)) trials.set(account, { text: example, place: "first", app: null, answer: null, error: null, busy: false });
  return trials.get(account);
};

/** change puts a rule that is in force into the form, to be changed and tried. */
export function change(app, a, rule) {
  const t = trialOf(a.name);
  Object.assign(t, { text: yaml(rule), place: rule.name === "default" ? "last" : "instead of " + rule.name, app: rule.app, answer: null, error: null });
  app.render();
  const box = document.getElementById("try-rule");
  box?.focus();
  box?.scrollIntoView({ block: "center" });
}

const quoted = (list) => (list.length === 1 ? JSON.stringify(list[0]) : "[" + list.map((x) => JSON.stringify(x)).join(", ") + "]");

/** yaml writes a rule as the config file has it. */
function yaml(r) {
  const match = ["event", "channel", "caller"].filter((k) => r.match[k].length).map((k) => `${k}: ${quoted(r.match[k])}`);
  const lines = [match.length ? `match: { ${match.join(", ")} }` : "match: {}", "priority: " + r.priority];
  const [window, , , scope] = r.dedupe.split(" ");
  if (r.dedupe) lines.push(scope === "cluster" ? `dedupe: { window: ${window}, scope: cluster }` : "dedupe: " + window);
  const [conflateFor, by] = r.conflate.split(" by ");
  if (r.conflate) lines.push(by ? `conflate: { window: ${conflateFor}, key: ${JSON.stringify(by)} }` : "conflate: " + conflateFor);
  if (r.no_digest) lines.push("digest: false");
  if (r.vacant) lines.push("vacant: " + r.vacant);
  if (r.rates.length === 1) lines.push("rate: " + r.rates[0], "burst: " + r.bursts[0]);
  if (r.rates.length > 1) lines.push(`rate: [${r.rates.map((x, i) => `{ rate: ${x}, burst: ${r.bursts[i]} }`).join(", ")}]`);
  if (r.answer !== "default") lines.push("answer: " + r.answer);
  return lines.join("\n") + "\n";
}

async function run(app, a, t) {
  if (t.busy) return;
  Object.assign(t, { busy: true, error: null });
  app.render();
  const [, how, name] = t.place.match(/^(before|instead of) (.*)$/) || [null, t.place, ""];
  const order = { account: a.name, app: t.app, rule: t.text };
  if (how === "before") order.before = name;
  if (how === "instead of") order.instead_of = name;
  if (how === "last") order.last = true;
  try {
    t.answer = await api("/api/v1/rules/try", { method: "POST", body: order });
  } catch (err) {
    t.answer = null;
    t.error = err.message;
  }
  t.busy = false;
  app.render();
}

export function tryCard(app, a, list) {
  const t = trialOf(a.name), apps = [...new Set(list.map((r) => r.app))];
  if (!apps.includes(t.app)) t.app = apps[0] ?? null;
  const own = list.filter((r) => r.app === t.app && r.name !== "default").map((r) => r.name);
  const places = ["first", ...own.slice(1).map((n) => "before " + n), ...(own.length ? ["last"] : []), ...own.map((n) => "instead of " + n)];
  if (!places.includes(t.place)) t.place = "first";
  return h("section", { key: "try", class: "card", "aria-labelledby": "try-title" },
    h("div", { class: "head" }, h("h2", { id: "try-title" }, "Try a rule on the last ten minutes"), h("span", { class: "muted" }, "changes nothing")),
    h("div", { class: "try" },
      h("form", { onsubmit: (e) => { e.preventDefault(); run(app, a, t); } },
        h("label", { class: "field" }, "The rule, as it will stand in the config",
          h("textarea", { id: "try-rule", rows: 7, spellcheck: "false", autocapitalize: "off", value: t.text, oninput: (e) => { t.text = e.target.value; } })),
        apps.length > 1 && h("label", { key: "app", class: "field" }, "App", h("select", { value: t.app, onchange: (e) => { t.app = e.target.value; app.render(); } },
          apps.map((x) => h("option", { key: x, value: x, selected: x === t.app }, x)))),
        h("label", { key: "place", class: "field" }, "Its place", h("select", { value: t.place, onchange: (e) => { t.place = e.target.value; } },
          places.map((p) => h("option", { key: p, value: p, selected: p === t.place }, p)))),
        h("button", { key: "go", class: "button primary", disabled: t.busy || !t.app }, t.busy ? "Trying …" : "Try it")),
      h("div", { class: "effect", role: "status" },
        t.error ? h("p", { key: "error", class: "notice bad" }, mark("bad"), h("span", { class: "lines" }, t.error))
          : t.answer ? answer(t.answer)
            : h("p", { key: "none", class: "muted" }, "What it would have refused, folded and spared appears here. The publishes of the last ten minutes are taken through the rules in force, and through them with this one."))));
}

const about = (e) => [count(Math.abs(e.count)), e.error > 0 && h("span", { class: "muted" }, " ± " + count(e.error))];

function answer(x) {
  const outcomes = [...new Set([...Object.keys(x.before), ...Object.keys(x.after)])].sort((p, q) => (x.after[q] || 0) - (x.after[p] || 0));
  const minutes = (Date.parse(x.until) - Date.parse(x.from)) / 1000;
  const nothing = x.touched.length === 0;
  return [
    h("p", { key: "sum", class: "sum" },
      x.matched.count === 0 ? h("b", null, "It would have matched nothing. ") : [h("b", null, "It would have matched ", about(x.matched)), ` of ${count(x.publishes.count)} publishes. `],
      x.matched.count > 0 && nothing && "Nothing would have come out otherwise than it did. ",
      x.refused.count !== 0 && [h("b", { class: x.refused.count > 0 ? "held-text" : "" }, about(x.refused), x.refused.count > 0 ? " more refused" : " fewer refused"), "; "],
      !nothing && (x.spared.count === 0 ? "no message spared." : [h("b", null, about(x.spared), x.spared.count > 0 ? " messages spared" : " messages more"), x.spent > 0 && ` (${percent(Math.abs(x.spared.count) / x.spent)} of what was spent)`, "."])),
    h("div", { key: "scroll", class: "scroll", tabindex: "0", role: "region", "aria-label": "Outcomes, as the rules are and with this one" }, h("table", { class: "tight" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Outcome"), h("th", { scope: "col", class: "num" }, "as it is"), h("th", { scope: "col", class: "num" }, "with the rule"), h("th", { scope: "col", class: "num wide-only" }, "difference"))),
      h("tbody", null, outcomes.map((o) => {
        const d = (x.after[o] || 0) - (x.before[o] || 0);
        return h("tr", { key: o }, h("th", { scope: "row" }, o.replace("_", " ")), h("td", { class: "num" }, count(x.before[o] || 0)), h("td", { class: "num" }, count(x.after[o] || 0)), h("td", { class: "num wide-only" + (d ? "" : " muted") }, (d > 0 ? "+" : d < 0 ? "−" : "") + count(Math.abs(d))));
      })))),
    !nothing && h("div", { key: "who", class: "scroll", tabindex: "0", role: "region", "aria-label": "Whom it would touch" }, h("table", { class: "tight" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Whom it would touch"), h("th", { scope: "col" }, "event"), h("th", { scope: "col" }, "was, would be"), h("th", { scope: "col", class: "num" }, "publishes"))),
      h("tbody", null, x.touched.map((y) => h("tr", { key: y.caller + y.event + y.was + y.is }, h("th", { scope: "row" }, y.caller), h("td", null, h("code", null, y.event)), h("td", null, `${y.was} → ${y.is}`), h("td", { class: "num" }, count(y.count))))))),
    h("p", { key: "when", class: "muted small" }, `From ${clock(x.from, true)} to ${clock(x.until, true)} ${zoneName()}, ${span(minutes)}. `, x.notes.join(" ")),
    h("p", { key: "save", class: "small" }, "To keep it: put the text into the config under ", h("code", null, "rules:"), " at that place; the file is reloaded by itself."),
  ];
}
