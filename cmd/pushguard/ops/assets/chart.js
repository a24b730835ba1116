// The two charts, drawn by uPlot, and the small ones, drawn as SVG.
/* global uPlot */
import { h } from "./view.js";
import { clock, count, percent, rate, span, zone } from "./format.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

export const flows = [
  ["passed", "passed", "sent to Pusher"],
  ["folded", "duplicate", "accepted; the same was delivered already"],
  ["undelivered", "not delivered", "accepted (200) and not delivered: a refresh event or a newer value goes instead, or nobody is subscribed"],
  ["limited", "limited", "refused by a rate or by containment"],
  ["shed", "shed", "refused to save the plan, or by the brake"],
  ["failed", "failed", "Pusher unreachable or refusing"],
];

const family = "-apple-system, BlinkMacSystemFont, 'Segoe UI', Inter, Roboto, 'Noto Sans', 'Liberation Sans', sans-serif";
const font = "12px " + family;

// tidy is a number of a scale: 1 M, not 1.00 M; 50 k beside 100 k.
const tidy = (n) => (n >= 1e6 ? n / 1e6 + " M" : n >= 1e4 ? n / 1e3 + " k" : count(n));

function axes(yValues, ySize = 56) {
  const common = { stroke: color("muted"), font, grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
  return [
    { ...common, grid: { show: false }, size: 28, space: 70, values: (_, at) => {
      const seconds = at.length > 1 && at[1] - at[0] < 60;
      return at.map((t) => clock(t * 1000, seconds));
    } },
    { ...common, size: ySize, space: 36, values: yValues },
  ];
}

// A chart is made anew when what it is made of changes (zone, theme, window),
// and only given data else.
function host(make) {
  return (el, first) => {
    let plot, shape, props = first;
    const size = () => ({ width: Math.max(200, Math.floor(el.clientWidth)), height: Math.floor(el.clientHeight) || 240 });
    const draw = (p) => {
      props = p;
      if (!el.isConnected) return;
      const now = [zone.name, document.documentElement.dataset.theme, matchMedia("(prefers-color-scheme: dark)").matches, p.data.shape].join();
      if (!plot || now !== shape) {
        shape = now;
        plot?.destroy();
        plot = make(el, size(), () => props.data);
      }
      plot.$feed(p.data);
    };
    el.$draw = draw;
    draw(first);
    const watch = new ResizeObserver(() => { if (plot) plot.setSize(size()); });
    watch.observe(el);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const again = () => draw(props);
    scheme.addEventListener("change", again);
    return () => { watch.disconnect(); scheme.removeEventListener("change", again); plot?.destroy(); };
  };
}

const ts = (u) => (zone.utc ? uPlot.tzDate(new Date(u * 1e3), "Etc/UTC") : new Date(u * 1e3));
const cursor = { y: false, points: { show: false }, drag: { setScale: false, x: false, y: false } };

/** Publishes a second, stacked by what became of them. */
const makeFlow = host((el, size, data) => {
  const plot = new uPlot({
    ...size, cursor: { ...cursor }, legend: { show: false }, tzDate: ts, padding: [8, 20, 0, 0],
    scales: { x: { time: true, range: () => [data().from, data().to] }, y: { range: (_, __, max) => [0, Math.max(1, max * 1.08)] } },
    axes: axes((_, at) => at.map((v) => (Number.isInteger(v) ? tidy(v) : rate(v))), 48),
    series: [{}, ...flows.map(([name], i) => ({ stroke: "transparent", fill: i ? undefined : color("flow-" + name), width: 0, points: { show: false } }))],
    bands: flows.slice(1).map((_, i) => ({ series: [i + 2, i + 1], fill: color("flow-" + flows[i + 1][0]) })),
    hooks: { setCursor: [(u) => data().onCursor(u.cursor.idx)] },
  }, [[], ...flows.map(() => [])], el);
  plot.$feed = (d) => {
    const sum = d.t.map(() => 0);
    plot.setData([d.t, ...flows.map(([name]) => d.groups[name].map((n, i) => (n === null ? null : (sum[i] += n / d.step))))]);
  };
  return plot;
});

/** The plan as it is used up: messages left, and where that leads. */
const makeBurn = host((el, size, data) => {
  const plot = new uPlot({
    ...size, cursor: { ...cursor }, legend: { show: false }, tzDate: ts, padding: [10, 20, 0, 0],
    scales: { x: { time: true, range: () => [data().from, data().to] }, y: { range: () => [0, data().top] } },
    axes: axes((_, at) => at.map(tidy)),
    series: [{}, { stroke: color("flow-passed"), width: 2, points: { show: false } }],
    hooks: { drawAxes: [(u) => drawPlan(u, data())], draw: [(u) => drawForecast(u, data())] },
  }, [[], []], el);
  plot.$feed = (d) => plot.setData([d.t, d.left]);
  return plot;
});

function drawPlan(u, d) {
  const { ctx } = u, { left, top, width, height } = u.bbox, px = devicePixelRatio;
  const y = (v) => u.valToPos(v, "y", true), x = (t) => u.valToPos(t, "x", true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.font = `${11 * px}px ${family}`;
  ctx.textBaseline = "bottom";
  let bottom = 0;
  for (const f of d.floors) {
    if (!f.part) continue;
    ctx.fillStyle = color("floor-" + f.name);
    ctx.fillRect(left, y((bottom + f.part) * d.plan), width, y(bottom * d.plan) - y((bottom + f.part) * d.plan));
    bottom += f.part;
  }
  // Nothing is known of the time before this replica began to watch.
  if (d.since > d.from) {
    ctx.fillStyle = color("unknown");
    ctx.fillRect(left, top, Math.min(x(d.since), left + width) - left, height);
  }
  let last = Infinity;
  for (const l of d.lines) {
    const at = y(l.left);
    if (at < top - 1 || at > top + height + 1) continue;
    ctx.strokeStyle = color("warn");
    ctx.globalAlpha = 0.75;
    ctx.setLineDash([2 * px, 4 * px]);
    ctx.lineWidth = px;
    ctx.beginPath();
    ctx.moveTo(left, at);
    ctx.lineTo(left + width, at);
    ctx.stroke();
    ctx.globalAlpha = 1;
    if (Math.abs(at - last) > 14 * px) {
      ctx.fillStyle = color("muted");
      ctx.textAlign = "right";
      ctx.fillText(l.text, left + width - 4 * px, at - 2 * px);
      last = at;
    }
  }
  ctx.restore();
}

function drawForecast(u, d) {
  const n = d.t.length;
  if (!n || !d.forecast) return;
  const { ctx } = u, { left, top, width, height } = u.bbox, px = devicePixelRatio;
  const x = (t) => u.valToPos(t, "x", true), y = (v) => u.valToPos(v, "y", true);
  const t0 = d.t[n - 1], v0 = d.left[n - 1], end = Math.min(d.reset, d.to);
  const reach = (perSecond) => {
    const t = perSecond > 0 ? Math.min(end, t0 + v0 / perSecond) : end;
    return [t, Math.max(0, v0 - perSecond * (t - t0))];
  };
  const [ta, va] = reach(d.forecast.high), [tb, vb] = reach(d.forecast.low), [tm, vm] = reach(d.forecast.now);
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.clip();
  ctx.fillStyle = color("cone");
  ctx.beginPath();
  ctx.moveTo(x(t0), y(v0));
  ctx.lineTo(x(ta), y(va));
  if (va < 1) ctx.lineTo(x(vb < 1 ? tb : end), y(0));
  ctx.lineTo(x(tb), y(vb));
  ctx.closePath();
  ctx.fill();
  ctx.strokeStyle = color("flow-passed");
  ctx.lineWidth = 1.5 * px;
  ctx.setLineDash([5 * px, 4 * px]);
  ctx.beginPath();
  ctx.moveTo(x(t0), y(v0));
  ctx.lineTo(x(tm), y(vm));
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.fillStyle = color("flow-passed");
  ctx.beginPath();
  ctx.arc(x(t0), y(v0), 3.5 * px, 0, 7);
  ctx.fill();
  if (vm < 1 && tm < end) {
    ctx.fillStyle = color("bad");
    ctx.beginPath();
    ctx.arc(x(tm), y(0), 4.5 * px, 0, 7);
    ctx.fill();
    ctx.font = `600 ${12 * px}px ${family}`;
    ctx.textBaseline = "bottom";
    const near = x(tm) > left + width - 110 * px;
    ctx.textAlign = near ? "right" : "left";
    ctx.fillText("used up " + clock(tm * 1000, tm - t0 < 600), x(tm) + (near ? -8 : 8) * px, y(0) - 8 * px);
  }
  ctx.restore();
}

/** burn is the burn-down of one account. d: see overview.js. */
export const burn = (d, label) => h("div", { key: "burn", class: "chart tall", role: "img", "aria-label": label, data: d, mount: makeBurn });

/** flow is what became of publishes. */
export const flow = (d, label) => h("div", { key: "flow", class: "chart", role: "img", "aria-label": label, data: d, mount: makeFlow });

/** legend says what the colours mean, with the numbers under the cursor or the newest. */
export function legend(d, index) {
  const i = index ?? d.t.length - 1;
  const at = d.t[i];
  return h("ul", { class: "legend" },
    h("li", { class: "when" }, at ? clock(at * 1000, true) : "–"),
    flows.map(([name, word, what]) => h("li", { title: what },
      h("span", { class: "swatch " + name }), word, " ", h("b", null, at ? rate((d.groups[name][i] || 0) / d.step) : "–"))));
}

/** whole cuts off the step that began before anybody looked, and the one under way. */
export function whole(history, list) {
  const last = history.t.length && (history.t.at(-1) + 1) % history.step_s ? -1 : undefined;
  return list.slice(history.t.length > 3 ? 1 : 0, last);
}

/** spark is one caller's last minutes: asked for, and of that held back. */
export function spark(asked, held, top) {
  const w = 120, high = 26, n = asked.length;
  const most = Math.max(top || 0, 1, ...asked);
  const base = high - 1.5;
  const at = (v, i) => `${((i / Math.max(1, n - 1)) * w).toFixed(1)},${(base - (v / most) * (high - 3)).toFixed(1)}`;
  const line = (list) => "M" + list.map(at).join("L");
  if (!n) return h("svg", { class: "spark", viewBox: `0 0 ${w} ${high}`, "aria-hidden": "true" });
  return h("svg", { class: "spark", viewBox: `0 0 ${w} ${high}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    h("path", { class: "held", d: line(held) + `L${w},${base}L0,${base}Z` }),
    h("path", { class: "asked", d: line(asked) }));
}

/** meter is the plan as a bar, with marks where the breaker begins to refuse. */
export function meter(used, marks, severity, label) {
  return h("div", { class: "meter " + severity, role: "img", "aria-label": label },
    h("div", { class: "fill", css: { width: Math.min(100, used * 100).toFixed(2) + "%" } }),
    marks.map((m) => h("i", { css: { left: m * 100 + "%" } })));
}

/** shareBar is a part of a whole, 0 to 1. */
export const shareBar = (f) => h("span", { class: "share" }, h("span", { class: "track" }, h("span", { class: "fill", css: { width: (Math.min(1, f) * 100).toFixed(1) + "%" } })), h("span", { class: "num" }, percent(f, f < 0.1 ? 1 : 0)));
