// Numbers and times as people read them.

export const zone = {
  get utc() { return zone.name === "utc"; },
  name: stored("zone", "utc"),
};

export function stored(name, otherwise) {
  try { return localStorage.getItem("pushguard." + name) || otherwise; } catch { return otherwise; }
}

export function store(name, value) {
  try { localStorage.setItem("pushguard." + name, value); } catch { /* storage is off: it holds until the page is closed */ }
}

const group = new Intl.NumberFormat("en-US");

export const count = (n) => group.format(Math.round(n));

/** short writes 1,234,567 as 1.23 M. */
export function short(n) {
  const a = Math.abs(n);
  if (a >= 9999500) return (n / 1e6).toFixed(a >= 99.95e6 ? 0 : 1) + " M";
  if (a >= 999500) return (n / 1e6).toFixed(2) + " M";
  if (a >= 99950) return (n / 1e3).toFixed(0) + " k";
  return count(n);
}

/** rate is something a second, with as many digits as say something. */
export function rate(n) {
  if (n === 0) return "0";
  if (n < 0.1) return n.toFixed(2);
  if (n < 99.95) return n.toFixed(1);
  return short(n);
}

export const percent = (f, digits = 1) => (f * 100).toFixed(f >= 0.9995 || f === 0 ? 0 : digits) + " %";

/** span is a duration in words of at most two units. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min" + (s < 600 && s % 60 ? " " + (s % 60) + " s" : "");
  if (s < 86400) return Math.floor(s / 3600) + " h " + (Math.floor(s / 60) % 60) + " min";
  return Math.floor(s / 86400) + " d " + (Math.floor(s / 3600) % 24) + " h";
}

const formats = new Map();
function format(utc, options) {
  const key = utc + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat("en-GB", { ...options, hourCycle: "h23", timeZone: utc ? "UTC" : undefined }));
  return formats.get(key);
}

const hm = { hour: "2-digit", minute: "2-digit" };
const hms = { ...hm, second: "2-digit" };

const localName = () => {
  const part = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(new Date()).find((p) => p.type === "timeZoneName");
  return part ? part.value : "local";
};
export const zoneName = (utc = zone.utc) => (utc ? "UTC" : localName());

export const clock = (t, seconds = false, utc = zone.utc) => format(utc, seconds ? hms : hm).format(new Date(t));
export const clockZone = (t, seconds = false, utc = zone.utc) => clock(t, seconds, utc) + " " + zoneName(utc);
export const day = (t, utc = zone.utc) => format(utc, { day: "numeric", month: "short" }).format(new Date(t));

/** when is a time of today as a clock, of another day with its date. */
export function when(t, now) {
  const at = new Date(t);
  return (day(at) === day(now) ? "" : day(at) + " ") + clock(at, true);
}

/** both says a time in UTC and where the reader is. */
export function both(t) {
  const u = clockZone(t, false, true), l = clockZone(t, false, false);
  return u.slice(0, 5) === l.slice(0, 5) ? u : u + " (" + l + ")";
}

export const plural = (n, one, many = one + "s") => count(n) + " " + (n === 1 ? one : many);
