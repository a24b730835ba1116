// What all screens share, and the ways to change it.
import { api } from "./api.js";

/** app is all that the screens share. */
export const app = {
  frame: null, // the newest
  heard: 0, // when it came, by performance.now()
  skew: 0, // the guard's clock minus this machine's, in ms
  lost: false,
  account: null,
  route: ["overview"],
  session: { can_write: false, sign_in: true, who: "" },
  fetched: new Map(),
  get now() { return Date.now() + app.skew; },
  render,
  ask,
  refreshSession,
};

let draw = () => {}, pending = false;

/** drawnBy says who draws the page when something has changed. */
export function drawnBy(f) { draw = f; }

/** render has the page drawn, once a frame of the screen at most. */
export function render() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

/**
 * ask gives what path answers: at once what is known, and anew when it is older
 * than every seconds. While a screen asks, it stays fresh.
 */
function ask(path, every = 5) {
  let e = app.fetched.get(path);
  if (!e) {
    e = { at: -1e9 };
    app.fetched.set(path, e);
    if (app.fetched.size > 40) app.fetched.delete(app.fetched.keys().next().value);
  }
  if (!e.busy && performance.now() - e.at > every * 1000 && !app.lost) {
    e.busy = true;
    api(path).then((v) => { e.value = v; e.error = null; }, (err) => { e.error = err; })
      .finally(() => { e.busy = false; e.at = performance.now(); render(); });
  }
  return e;
}

export async function refreshSession() {
  try { app.session = await api("/api/v1/session"); } catch (err) { if (err.status === 401) location.reload(); }
  render();
}

/** link is the address of a screen, of the account that is looked at. */
export function link(...path) {
  return "#/" + path.map(encodeURIComponent).join("/") + (app.frame?.status.accounts.length > 1 ? "?account=" + encodeURIComponent(app.account) : "");
}
