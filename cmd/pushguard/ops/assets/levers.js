// The levers. Each says what it would do now before it does it.
import { h } from "./view.js";
import { api } from "./api.js";
import { clockZone, count } from "./format.js";
import { levelWords, mark } from "./verdict.js";
import { app } from "./state.js";

let open = null; // { kind, incident, fields, effect, error, busy, done }
let timer = 0, asked = 0;

const spans = [["15m", "15 minutes"], ["30m", "30 minutes"], ["1h", "1 hour"], ["2h", "2 hours"], ["6h", "6 hours"], ["", "no end: until it is lifted"]];
const seconds = { "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "6h": 21600 };

/**
 * Each lever: its title, what it asks for, the call it makes (null while what
 * was typed makes no sense yet), what the button says.
 */
const levers = {
  "brake-on": {
    title: "Pull the brake", button: "Pull the brake", danger: true,
    fields: () => ({ allow: "critical", for: "30m", reason: "" }), reason: true,
    form: (a, f) => [
      choice("allow", "What still passes", [["critical", "Only critical publishes"], ["none", "Nothing at all"]]),
      h("label", { class: "field" }, "It ends by itself after", h("select", { value: f.for, onchange: type("for") }, spans.map(([v, t]) => h("option", { value: v, selected: v === f.for }, t))),
        h("span", { class: "muted small" }, f.for ? `at ${clockZone(app.now + seconds[f.for] * 1000)}` : "Somebody has to remember to lift it."))],
    call: (a, f) => ["POST", `/api/v1/accounts/${encodeURIComponent(a.name)}/brake`, { allow: f.allow, for: f.for, reason: f.reason }],
  },
  "brake-off": {
    title: "Lift the brake", button: "Lift the brake", fields: () => ({ reason: "" }), form: () => [],
    call: (a, f) => ["DELETE", `/api/v1/accounts/${encodeURIComponent(a.name)}/brake?reason=${encodeURIComponent(f.reason)}`],
  },
  "aim-on": {
    title: "Brake a part of the account", button: "Pull this brake", danger: true, reason: true,
    fields: () => ({ to: "", for: "30m", reason: "" }),
    form: (a, f) => [
      h("p", null, "It stops publishes of ", h("b", null, [open.incident.caller, open.incident.event, open.incident.channel].filter(Boolean).join(" · ")), ", or holds them to a rate. Nobody else is touched."),
      h("label", { class: "field" }, "Hold it to", h("input", { value: f.to, placeholder: "5/s", autocomplete: "off", oninput: type("to") }), h("span", { class: "muted small" }, "Empty: it is stopped. The rate is of all replicas together.")),
      h("label", { class: "field" }, "It ends by itself after", h("select", { value: f.for, onchange: type("for") }, spans.map(([v, t]) => h("option", { value: v, selected: v === f.for }, t))))],
    call: (a, f) => ["POST", `/api/v1/accounts/${encodeURIComponent(a.name)}/brake`, { ...open.incident, to: f.to.trim(), for: f.for, reason: f.reason }],
  },
  "aim-off": {
    title: "Lift this brake", button: "Lift the brake", fields: () => ({ reason: "" }), form: () => [h("p", null, open.incident.what)],
    call: (a, f) => ["DELETE", `/api/v1/accounts/${encodeURIComponent(a.name)}/brake?id=${encodeURIComponent(open.incident.id)}&reason=${encodeURIComponent(f.reason)}`],
  },
  plan: {
    title: "Change the plan", button: "Change the plan", fields: (a) => ({ n: String(a.plan.messages_per_day), reason: "" }),
    form: (a) => [number("n", "Messages a day", "As Pusher sells it. Raise the plan at Pusher first: pushguard only counts to it.", `Now ${count(a.plan.messages_per_day)}`)],
    call: (a, f) => digits(f.n) > 0 && ["PUT", `/api/v1/accounts/${encodeURIComponent(a.name)}/plan`, { messages_per_day: digits(f.n), reason: f.reason }],
  },
  usage: {
    title: "Correct the usage", button: "Correct the usage", fields: (a) => ({ n: String(a.used), reason: "" }),
    form: (a) => [number("n", "Messages used today", "What Pusher’s own dashboard shows for today (UTC). What goes out from now on is added.", `Counted here: ${count(a.used)}`)],
    call: (a, f) => digits(f.n) >= 0 && ["PUT", `/api/v1/accounts/${encodeURIComponent(a.name)}/usage`, { used: digits(f.n), reason: f.reason }],
  },
  held: {
    title: "Send what is held", button: "Send it now", fields: () => ({ reason: "" }), form: () => [],
    call: (a, f) => ["POST", `/api/v1/accounts/${encodeURIComponent(a.name)}/held/release`, { reason: f.reason }],
  },
  contain: { title: "Contain the culprits", button: "Contain", danger: true, reason: true, ...onIncident("contain") },
  release: { title: "Release the culprits", button: "Release", reason: true, ...onIncident("release") },
  accept: { title: "Accept as usual from now on", button: "Accept as usual", reason: true, ...onIncident("accept") },
  ack: { title: "Acknowledge the incident", button: "Acknowledge", ...onIncident("ack") },
};

function onIncident(action) {
  return { fields: () => ({ reason: "" }), form: () => [], call: (a, f) => ["POST", `/api/v1/incidents/${encodeURIComponent(open.incident.id)}/${action}`, { reason: f.reason }] };
}

const digits = (s) => (/^[\d\s.,_]+$/.test(s.trim()) ? Number(s.replace(/\D/g, "")) : -1);

const type = (name) => (e) => { open.fields[name] = e.target.value; foresee(); app.render(); };

const choice = (name, label, list) => h("fieldset", { class: "field" }, h("legend", null, label), list.map(([v, t]) =>
  h("label", { class: "radio" }, h("input", { type: "radio", name, value: v, checked: open.fields[name] === v, onchange: type(name) }), t)));

const number = (name, label, help, now) => h("label", { class: "field" }, label, h("input", { inputmode: "numeric", autocomplete: "off", value: open.fields[name], oninput: type(name) }), h("span", { class: "muted small" }, `${now}. ${help}`));

/** openLever shows a lever; whoever may not move it is asked to sign in first. */
export function openLever(kind, incident) {
  if (!app.session.can_write) {
    signIn(() => openLever(kind, incident));
    return;
  }
  const a = app.frame.status.accounts.find((x) => x.name === app.account);
  open = { kind, incident, fields: levers[kind].fields(a) };
  foresee(0);
  app.render();
}

export function signIn(then) {
  open = { kind: "sign-in", fields: { token: "", name: "" }, then };
  app.render();
}

// What it would do is asked anew as one types, and while one thinks.
function foresee(wait = 250) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const it = open, no = ++asked;
    if (!it || it.done || it.kind === "sign-in") return;
    const a = app.frame.status.accounts.find((x) => x.name === app.account);
    const call = levers[it.kind].call(a, it.fields);
    if (!call) {
      it.effect = null;
    } else {
      const [method, path, body] = call;
      try {
        const effect = await api(path + (path.includes("?") ? "&" : "?") + "dry_run=1", { method, body });
        if (no === asked) { it.effect = effect; it.foreseeError = null; }
      } catch (err) {
        if (no === asked) { it.effect = null; it.foreseeError = err.message; }
      }
    }
    app.render();
    if (open === it && no === asked) foresee(3000);
  }, wait);
}

async function pull(a) {
  const it = open, call = levers[it.kind].call(a, it.fields);
  if (!call || it.busy) return;
  it.busy = true;
  it.error = null;
  app.render();
  try {
    const [method, path, body] = call;
    await api(path, { method, body });
    it.done = true;
    for (const path of app.fetched.keys()) if (path.includes("/audit") || path.includes("/incidents")) app.fetched.get(path).at = -1e9;
    it.trail = await api(`/api/v1/audit?account=${encodeURIComponent(a.name)}&limit=3`).catch(() => []);
  } catch (err) {
    it.error = err.message;
    if (err.status === 401) app.refreshSession();
  }
  it.busy = false;
  app.render();
}

function close() {
  clearTimeout(timer);
  open = null;
  app.render();
}

// A native dialog keeps the focus inside, gives it back, and closes on Escape.
function modal(key, title, ...kids) {
  return h("dialog", { key, "aria-labelledby": "dialog-title", onclose: () => { if (open) close(); }, onshow: null, tabindex: "-1", "data-modal": "" },
    h("h2", { id: "dialog-title" }, title), kids);
}

export function dialogs(_, a) {
  queueMicrotask(() => {
    const d = document.querySelector("dialog[data-modal]");
    if (d && !d.open) {
      d.showModal();
      (d.querySelector("[data-first], input:not([type=radio]), button.danger, button.primary") || d).focus();
    }
  });
  if (!open) return [];
  return [open.kind === "sign-in" ? signInDialog() : leverDialog(a)];
}

function leverDialog(a) {
  const lever = levers[open.kind], f = open.fields;
  if (open.done) {
    return modal("done-" + open.kind, lever.title,
      h("p", { class: "notice good", role: "status" }, mark("good"), h("span", null, h("b", null, "Done. "), "This replica obeys already, the others within a second.")),
      open.trail?.length > 0 && h("ul", { class: "events" }, open.trail.map((x, n) => h("li", { key: n }, mark("note"), h("div", null, h("span", { class: "num muted" }, clockZone(x.at, true)), ` ${x.who}: ${x.what}`, x.why && ` (“${x.why}”)`)))),
      h("div", { class: "actions" }, h("button", { key: "close", class: "button primary", "data-first": "", onclick: close }, "Close")));
  }
  const ready = lever.call(a, f) && (!lever.reason || f.reason.trim());
  return modal("lever-" + open.kind, lever.title,
    h("form", { onsubmit: (e) => { e.preventDefault(); if (ready) pull(a); } },
      h("p", { class: "muted" }, open.incident ? "Incident " + open.incident.id : "Account " + a.name),
      lever.form(a, f),
      h("label", { class: "field" }, lever.reason ? "Reason" : "Reason (it helps whoever comes next)",
        h("input", { value: f.reason, maxlength: 300, required: !!lever.reason, autocomplete: "off", oninput: type("reason") }),
        open.kind === "brake-on" && h("span", { class: "muted small" }, "Callers read it in the refusal, and your colleagues in the audit trail.")),
      effect(),
      open.error && h("p", { class: "notice bad", role: "alert" }, mark("bad"), h("span", null, open.error)),
      h("div", { class: "actions" },
        h("button", { type: "button", class: "button", onclick: close }, "Cancel"),
        h("button", { class: "button " + (lever.danger ? "danger" : "primary"), disabled: !ready || !!open.busy }, open.busy ? "…" : lever.button))));
}

function effect() {
  const e = open.effect;
  const box = (...kids) => h("section", { class: "effect", "aria-live": "polite" }, h("h3", null, "What it would do now"), kids);
  if (!e) return box(h("p", { class: "muted" }, open.foreseeError || "…"));
  return box(
    h("p", null, e.summary),
    e.priorities.length > 0 && h("table", { class: "tight" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "A minute"), h("th", { scope: "col", class: "num" }, "publishes"), h("th", { scope: "col", class: "num" }, "refused now"), h("th", { scope: "col", class: "num" }, "refused then"))),
      h("tbody", null, e.priorities.map((p) => h("tr", { key: p.priority }, h("th", { scope: "row" }, p.priority), h("td", { class: "num" }, count(p.publishes_1m)), h("td", { class: "num" }, count(p.refused_now_1m)), h("td", { class: "num" + (p.refused_then_1m > p.refused_now_1m ? " held-text" : "") }, p.refused_then_1m === null ? "not known" : count(p.refused_then_1m)))))),
    e.breaker && h("p", null, "Quota breaker: ", levelWords[e.breaker.from], " → ", h("b", null, levelWords[e.breaker.to])),
    e.callers.length > 0 && h("p", { class: "small" }, h("span", { class: "muted" }, "Busiest now: "), e.callers.map((c) => `${c.name} ${count(c.publishes_1m)}/min`).join(", ")),
    e.notes.map((n) => h("p", { key: n, class: "small muted" }, n)));
}

function signInDialog() {
  const it = open;
  const submit = async (ev) => {
    ev.preventDefault();
    it.busy = true;
    app.render();
    try {
      app.session = await api("/api/v1/session", { method: "POST", body: { token: it.fields.token, name: it.fields.name } });
      close();
      it.then?.();
    } catch (err) {
      it.error = err.message;
    }
    it.busy = false;
    app.render();
  };
  const keep = (name) => (e) => { it.fields[name] = e.target.value; };
  return modal("sign-in", "Sign in",
    app.session.sign_in
      ? h("form", { onsubmit: submit },
        h("p", { class: "muted" }, "Looking needs no sign-in from this machine; moving a lever does."),
        h("label", { class: "field" }, "Admin token", h("input", { type: "password", required: true, autocomplete: "current-password", oninput: keep("token") })),
        h("label", { class: "field" }, "Your name, for the audit trail", h("input", { autocomplete: "username", maxlength: 100, oninput: keep("name") })),
        it.error && h("p", { class: "notice bad", role: "alert" }, mark("bad"), h("span", null, it.error)),
        h("div", { class: "actions" }, h("button", { type: "button", class: "button", onclick: close }, "Cancel"), h("button", { class: "button primary", disabled: !!it.busy }, "Sign in")))
      : [h("p", null, app.session.why), h("div", { class: "actions" }, h("button", { class: "button primary", onclick: close }, "Close"))]);
}
