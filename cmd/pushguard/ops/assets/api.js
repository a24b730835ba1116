// The admin API. Every failure is an Error whose message can be shown.

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

export async function api(path, { method = "GET", body, text = false } = {}) {
  let res;
  try {
    res = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    throw new Refused(0, "the guard does not answer");
  }
  const answer = await res.text();
  if (!res.ok) {
    let why = answer;
    try { why = JSON.parse(answer).error || answer; } catch { /* not JSON: shown as it is */ }
    throw new Refused(res.status, why);
  }
  return text ? answer : JSON.parse(answer);
}

/**
 * stream listens to the guard's frames and comes back by itself: EventSource
 * does after a lost connection, but not after a refusal.
 */
export function stream(onFrame, onLost) {
  let source, timer, wait = 1000;
  const open = () => {
    source = new EventSource("/api/v1/events");
    source.addEventListener("state", (e) => { wait = 1000; onFrame(JSON.parse(e.data)); });
    source.onerror = () => {
      onLost();
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(timer);
        timer = setTimeout(open, wait);
        wait = Math.min(wait * 2, 15000);
      }
    };
  };
  open();
  addEventListener("pagehide", () => { clearTimeout(timer); source.close(); });
  addEventListener("pageshow", (e) => { if (e.persisted) open(); });
  // A machine that slept, or a network that changed, leaves a connection that
  // looks open for minutes: whoever hears nothing for long starts anew.
  return () => { clearTimeout(timer); source.close(); open(); };
}
