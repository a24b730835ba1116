// Who subscribes: what a publish is counted as, and why.
import { h } from "./view.js";
import { clockZone, count, percent, plural, span } from "./format.js";

const looked = new Map(); // by account: the app and the channel that was looked up
const origin = {
  default: "as the config says; nothing was learned",
  poll: "from the list of occupied channels",
  info: "from Pusher’s answer to a publish or a question",
  webhook: "from a webhook",
};

export function fanoutCard(app, a) {
  const ids = a.apps.map((x) => x.id);
  if (!ids.length) return null;
  if (!looked.has(a.name)) looked.set(a.name, { app: ids[0], typed: "", channel: "" });
  const l = looked.get(a.name);
  if (!ids.includes(l.app)) l.app = ids[0];
  const path = `/api/v1/apps/${encodeURIComponent(l.app)}/fanout`;
  const all = app.ask(path, 5), one = l.channel ? app.ask(`${path}?channel=${encodeURIComponent(l.channel)}`, 2) : {};
  return h("section", { key: "fanout", class: "card", "aria-labelledby": "fanout-title" },
    h("div", { class: "head" }, h("h2", { id: "fanout-title" }, "Who subscribes"),
      ids.length > 1 && h("label", null, h("span", { class: "hidden-text" }, "App"), h("select", { value: l.app, onchange: (e) => { l.app = e.target.value; app.render(); } }, ids.map((x) => h("option", { key: x, value: x, selected: x === l.app }, x))))),
    h("p", { class: "muted small" }, "Each subscriber of a channel is a message of the plan, for every publish."),
    all.value ? facts(app, all.value) : h("p", { class: "muted" }, all.error ? all.error.message : "Looking …"),
    h("form", { class: "look", onsubmit: (e) => { e.preventDefault(); l.channel = l.typed.trim(); app.render(); } },
      h("label", { class: "field" }, "Channel", h("input", { name: "channel", value: l.typed, spellcheck: "false", autocapitalize: "off", autocomplete: "off", placeholder: "private-user-17", oninput: (e) => { l.typed = e.target.value; } })),
      h("button", { class: "button" }, "Look up")),
    h("p", { class: "found", role: "status" }, one.error ? one.error.message : one.value && found(app, one.value.channel)));
}

function facts(app, x) {
  const asking = x.asking;
  return h("dl", { class: "facts" },
    h("dt", null, "Learned"), h("dd", null, plural(x.learned, "channel")),
    h("dt", null, "Occupied"), h("dd", null, x.occupied === null ? h("span", { class: "muted" }, "Pusher was not asked") : `${plural(x.occupied, "channel")}, as of ${clockZone(x.polled_at, true)}`),
    h("dt", null, "Asked by pushguard"), h("dd", null, !asking || !asking.on
      ? h("span", { class: "muted" }, "nothing; ", h("code", null, "learn"), " in the config turns it on")
      : [`${count(asking.spent)} of ${plural(asking.budget, "message")} today`, asking.why && h("span", { class: "warn-text" }, `; waits: ${asking.why}`)]),
    asking?.last_error && [h("dt", { key: "err" }, "Last failure"), h("dd", { key: "why", class: "warn-text" }, `${asking.last_error}, ${clockZone(asking.last_error_at, true)}`)],
    asking?.off && Object.keys(asking.off).length > 0 && [h("dt", { key: "off" }, "Estimates were off by"), h("dd", { key: "by" }, Object.entries(asking.off).map(([k, v]) => `${percent(v)} (${k})`).join(", "))]);
}

function found(app, c) {
  if (c.empty) return [h("b", null, h("code", null, c.name), " is empty"), ` since ${clockZone(c.empty.since, true)}, as of ${clockZone(c.empty.as_of, true)}, ${origin[c.empty.source] ?? c.empty.source}.`];
  return [h("b", null, h("code", null, c.name), " ", plural(c.subscribers, "subscriber")), `, ${origin[c.source] ?? c.source}${c.source === "default" ? "" : `, ${span(c.age_s)} ago`}.`];
}
