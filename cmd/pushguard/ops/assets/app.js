// The page: one stream of frames in, one tree of nodes out.
import { api, stream } from "./api.js";
import { h, patch } from "./view.js";
import { clockZone, count, span, store, stored, zone } from "./format.js";
import { mark } from "./verdict.js";
import { overview } from "./overview.js";
import { callers } from "./callers.js";
import { incidents } from "./incidents.js";
import { top } from "./top.js";
import { rules } from "./rules.js";
import { replicas } from "./replicas.js";
import { savings } from "./savings.js";
import { audit } from "./audit.js";
import { dialogs, signIn } from "./levers.js";
import { app, drawnBy, link, refreshSession, render } from "./state.js";

const screens = [
  ["overview", "Overview", overview],
  ["callers", "Callers", callers],
  ["incidents", "Incidents", incidents],
  ["top", "Top talkers", top],
  ["rules", "Rules", rules],
  ["replicas", "Replicas & store", replicas],
  ["savings", "Savings", savings],
  ["audit", "Audit", audit],
];

function readRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const route = path.split("/").filter(Boolean).map(decodeURIComponent);
  app.route = screens.some(([name]) => name === route[0]) ? route : ["overview"];
  const account = new URLSearchParams(query).get("account");
  if (account) app.account = account;
}

/** age is how old the newest frame is, in seconds. */
const age = () => (performance.now() - app.heard) / 1000;

function draw() {
  const f = app.frame;
  if (!f) return;
  const names = f.status.accounts.map((a) => a.name);
  if (!names.includes(app.account)) app.account = names[0];
  const a = f.status.accounts.find((x) => x.name === app.account);
  if (!a) {
    patch(document.getElementById("app"), [h("p", { class: "boot" }, "This guard serves no account.")]);
    return;
  }
  const v = a.verdict;
  const stale = age() > 3.5;
  const [name, title, screen] = screens.find(([n]) => n === app.route[0]);
  document.title = `${v.short} · ${a.name} · pushguard`;
  say(stale ? `The data is old: nothing was heard for ${span(age())}.` : v.title);
  patch(document.getElementById("app"), [
    header(f, a, stale),
    nav(name, f, a),
    h("main", { key: "main", id: "main", tabindex: "-1", class: stale ? "stale" : "" },
      stale && h("p", { key: "stale", class: "notice bad", role: "alert" }, mark("bad"),
        h("span", null, h("b", null, `This data is ${span(age())} old. `), "The guard is not heard; this page tries again by itself. What you see below is the last that was known.")),
      a.sink && h("p", { key: "sink", class: "notice warn" }, mark("warn"), h("span", null, h("b", null, "Sink: nothing is sent to Pusher. "), `${count(a.swallowed?.events ?? 0)} publishes would have cost ${count(a.swallowed?.messages ?? 0)} messages. `, "The plan below is of this process alone.")),
      f.assets !== bootAssets && h("p", { key: "new", class: "notice" }, mark("note"), h("span", null, "The guard runs another version now. ", h("a", { href: "", onclick: (e) => { e.preventDefault(); location.reload(); } }, "Load its page"), ".")),
      h("h1", { key: "h1", class: "hidden-text" }, title + ", account " + a.name),
      h("div", { key: "screen-" + name, class: "screen " + name }, screen(app, a, f, v))),
    footer(f),
  ]);
  patch(document.getElementById("dialogs"), dialogs(app, a, f));
}

function header(f, a, stale) {
  const many = f.status.accounts.length > 1;
  const theme = document.documentElement.dataset.theme || "system";
  return h("header", { key: "header", class: "bar" },
    h("a", { class: "brand", href: link("overview") }, h("img", { src: "/assets/icon.svg", alt: "", width: 20, height: 20 }), h("span", null, "pushguard")),
    many
      ? h("label", { class: "pick" }, h("span", { class: "hidden-text" }, "Account"),
        h("select", { value: app.account, onchange: (e) => { app.account = e.target.value; location.hash = link(...app.route.slice(0, 1)); render(); } },
          f.status.accounts.map((x) => h("option", { key: x.name, value: x.name, selected: x.name === app.account }, x.name + (x.verdict.severity === "good" ? "" : ": " + x.verdict.short)))))
      : h("span", { class: "account" }, a.name),
    h("span", { class: "live " + (stale ? "bad" : "") }, h("i", { "aria-hidden": "true" }), stale ? `${span(age())} old` : "updating"),
    h("span", { class: "gap" }),
    h("time", { class: "clock num", datetime: new Date(app.now).toISOString() }, clockZone(app.now, true)),
    h("button", { class: "button quiet", title: "Show times in UTC or in local time", "aria-pressed": String(!zone.utc), onclick: () => { zone.name = zone.utc ? "local" : "utc"; store("zone", zone.name); render(); } }, zone.utc ? "UTC" : "Local"),
    h("button", { class: "button quiet", title: "Light, dark, or as the system has it", onclick: () => {
      const next = { system: "light", light: "dark", dark: "system" }[theme];
      if (next === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = next;
      store("theme", next);
      render();
    } }, h("span", { class: "hidden-text" }, "Theme: "), { system: "Auto", light: "Light", dark: "Dark" }[theme]),
    app.session.how === "session"
      ? h("button", { class: "button quiet", onclick: signOut }, "Sign out", app.session.who && h("span", { class: "wide-only" }, " " + app.session.who))
      : !app.session.can_write && app.session.sign_in && h("button", { class: "button quiet", onclick: () => signIn() }, "Sign in"));
}

async function signOut() {
  await api("/api/v1/session", { method: "DELETE" }).catch(() => {});
  await refreshSession();
}

function nav(current, f, a) {
  const open = f.incidents.filter((i) => i.account === a.name).length;
  return h("nav", { key: "nav", "aria-label": "Screens" },
    h("ul", null, screens.map(([name, title]) => h("li", { key: name },
      h("a", { href: link(name), "aria-current": name === current ? "page" : null },
        title, name === "incidents" && open ? h("span", { class: "badge" }, String(open), h("span", { class: "hidden-text" }, " open")) : null)))));
}

const footer = (f) => h("footer", { key: "footer" },
  `${f.status.version} · replica ${f.status.replica}, up ${span(f.status.uptime_s)} · store ${f.status.store.kind} ${f.status.store.state}`);

// The live region speaks when the sentence changes, not every second.
let said = "";
function say(text) {
  const key = text.replace(/\d[\d.,: ]*/g, "#");
  if (key === said) return;
  said = key;
  document.getElementById("say").textContent = text;
}

drawnBy(draw);
let bootAssets = null;
readRoute();
addEventListener("hashchange", () => {
  readRoute();
  draw();
  document.getElementById("main")?.focus({ preventScroll: true });
  scrollTo(0, 0);
});
const restart = stream((f) => {
  bootAssets ??= f.assets;
  if (app.frame && f.started !== app.frame.started) { app.fetched.clear(); refreshSession(); }
  const was = app.frame;
  app.frame = f;
  app.heard = performance.now();
  app.lost = false;
  const skew = Date.parse(f.now) - Date.now();
  if (Math.abs(skew - app.skew) > 1500) app.skew = skew;
  if (!was) draw(); else render();
}, () => { app.lost = true; render(); });
let silent = 0;
setInterval(() => {
  if (!app.frame) {
    if (app.lost) document.querySelector(".boot").textContent = "The guard is not heard; trying again …";
    return;
  }
  if (age() > 3.5) render();
  silent = age() > 12 && !app.lost ? silent + 1 : 0;
  if (silent === 1) restart();
}, 1000);
refreshSession();
document.documentElement.dataset.zone = stored("zone", "utc");
