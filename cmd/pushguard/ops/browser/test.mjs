// What an operator does, in headless Chromium, against a live admin port.
// Started by browser_test.go; prints one line of JSON a part.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { BASE, CONTROL, TOKEN, CHROMIUM } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const only = process.env.ONLY && new RegExp(process.env.ONLY);
mkdirSync("shots", { recursive: true });

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--host-resolver-rules=MAP guard.example 127.0.0.1"],
});
const sizes = { wide: { width: 1920, height: 1080 }, narrow: { width: 390, height: 844 } };
let failed = 0;

async function once(name, run, { size, scheme, signedIn }) {
  const context = await browser.newContext({ viewport: sizes[size], colorScheme: scheme, timezoneId: "Europe/Berlin", deviceScaleFactor: size === "narrow" ? 2 : 1 });
  const page = await context.newPage();
  const trouble = [];
  page.on("pageerror", (e) => trouble.push("script: " + e.stack));
  page.on("console", (m) => { if (m.type() === "error" && !/Failed to load resource|ERR_/.test(m.text())) trouble.push("console: " + m.text()); });
  page.on("request", (r) => { if (!r.url().startsWith(BASE) && !r.url().startsWith("http://guard.example") && !r.url().startsWith("blob:")) trouble.push("went outside: " + r.url()); });
  let error = "";
  try {
    if (signedIn) await context.request.post(BASE + "/api/v1/session", { data: { token: TOKEN, name: "anna" } });
    await run(page, context);
    if (trouble.length) throw new Error(trouble.join("\n"));
  } catch (e) {
    error = e.stack || String(e);
    await page.screenshot({ path: `shots/FAILED-${name.replace(/\W+/g, "-")}.png` }).catch(() => {});
  }
  await context.close();
  return error;
}

async function part(name, run, { size = "wide", scheme = "light", signedIn = false } = {}) {
  if (only && !only.test(name)) return;
  const began = Date.now();
  let error = "";
  // On a machine that is busy with other packages' tests a page can miss its
  // time. What fails twice is a failure; what fails once is said.
  for (let attempt = 1; attempt <= 2; attempt++) {
    error = await once(name, run, { size, scheme, signedIn });
    if (!error) break;
    if (attempt === 1) console.error(`${name}: tried again after: ${error}`);
  }
  if (error) failed++;
  console.log(JSON.stringify({ Name: name, Error: error, Ms: Date.now() - began }));
}

const must = (ok, text) => { if (!ok) throw new Error(text); };
const go = async (page, screen) => {
  await page.goto(BASE + "/#/" + screen);
  await page.waitForSelector(".screen." + screen.split("/")[0]);
};
// A page draws when a frame comes, once a second, and later on a busy machine:
// what is to be seen after one is waited for by the clock in the bar.
async function frames(page, n = 1) {
  for (let i = 0; i < n; i++) {
    const before = await page.textContent(".clock");
    await page.waitForFunction((before) => document.querySelector(".clock").textContent !== before, before);
  }
}
const shot = (page, name) => page.screenshot({ path: `shots/${name}.png`, fullPage: true });
const control = (path) => fetch(CONTROL + path, { method: "POST" }).then(async (r) => { must(r.ok, `${path}: ${r.status} ${r.ok || await r.text()}`); return r; });

async function accessible(page, what) {
  // Trusted types forbid script from text on this page, also to a tester; the
  // tester's own world is not bound by it.
  const found = await page.evaluate(`${axe}; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })`);
  const list = found.violations.map((v) => `${v.id}: ${v.help}\n    ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " :: " + (n.any[0]?.message || n.all[0]?.message || "")).join("\n    ")}`);
  must(list.length === 0, `${what} is not accessible:\n  ${list.join("\n  ")}`);
}

const screens = {
  overview: "Messages left today", callers: "refresher", incidents: "refresher · notification.refresh", "incidents/care-20260511-1": "Who makes the excess",
  top: "Top talkers", rules: "private-user-*", replicas: "Conditions of readiness", savings: "How this is counted", audit: "usage set",
};

for (const size of ["wide", "narrow"]) {
  for (const scheme of ["light", "dark"]) {
    for (const [screen, text] of Object.entries(screens)) {
      await part(`screen ${screen} ${size} ${scheme}`, async (page) => {
        await go(page, screen);
        await page.getByText(text).first().waitFor();
        if (screen === "overview") await page.waitForSelector(".chart.tall canvas");
        // Contrast differs by scheme, the rest by size: two of the four are enough.
        if ((size === "wide") === (scheme === "light")) await accessible(page, screen);
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        must(over <= 0, `the page is ${over} px wider than the window`);
        await shot(page, `${size}-${scheme}-${screen.replace("/", "-")}`);
      }, { size, scheme, signedIn: true });
    }
  }
}

await part("an incident is named everywhere, and no forecast that is not known", async (page) => {
  await go(page, "overview");
  // A row's factor is the quotient of the two rates beside it; the incident, which compares messages, has its own page.
  await page.locator("tr", { hasText: "refresher" }).locator(".tag", { hasText: /^incident$/ }).waitFor();
  await go(page, "callers");
  await page.locator("tr", { hasText: "refresher" }).locator(".tag", { hasText: /^incident$/ }).waitFor();
  await go(page, "incidents/care-20260510-2");
  await page.getByText("not known yet").waitFor();
  await go(page, "incidents/care-20260511-1");
  await page.getByText(/plan used up \d/).waitFor();
}, { signedIn: true });

await part("first paint is small, and nothing comes from elsewhere", async (page, context) => {
  const cdp = await context.newCDPSession(page);
  await cdp.send("Network.enable");
  let bytes = 0;
  const streams = new Set();
  cdp.on("Network.responseReceived", (e) => { if (e.response.mimeType === "text/event-stream") streams.add(e.requestId); });
  cdp.on("Network.loadingFinished", (e) => { if (!streams.has(e.requestId)) bytes += e.encodedDataLength; });
  await go(page, "overview");
  await page.waitForSelector(".chart canvas");
  await frames(page, 2); // whatever the first paint asked for has come by then
  must(bytes > 20000 && bytes < 100 * 1024, `the first paint took ${bytes} bytes`);
  console.log(`first paint: ${bytes} bytes over the wire, history included`);
});

await part("the verdict names who, and says it to a screen reader once", async (page) => {
  await go(page, "overview");
  await page.getByRole("heading", { name: "Runaway: refresher · notification.refresh" }).waitFor();
  must((await page.textContent("#say")).includes("Runaway: refresher"), "the live region is silent");
  const changes = await page.evaluate(() => new Promise((done) => {
    let n = 0;
    new MutationObserver(() => n++).observe(document.getElementById("say"), { childList: true, characterData: true, subtree: true });
    setTimeout(() => done(n), 4000);
  }));
  must(changes === 0, `the live region spoke ${changes} times in 4 s without news`);
  must((await page.title()).startsWith("Incident"), "the title does not tell");
});

await part("the callers of the overview fit into a small laptop", async (page) => {
  await page.setViewportSize({ width: 1280, height: 900 });
  await go(page, "overview");
  await page.locator("td .spark").first().waitFor();
  const over = await page.locator(".overview .scroll").first().evaluate((e) => e.scrollWidth - e.clientWidth);
  must(over <= 0, `the table is ${over} px wider than its card`);
});

await part("numbers move every second", async (page) => {
  await go(page, "overview");
  const before = await page.textContent(".tile .value >> nth=3");
  const used = () => page.evaluate(() => document.querySelector('.chart.tall').getAttribute("aria-label"));
  const first = await used();
  await page.waitForFunction((first) => document.querySelector(".chart.tall").getAttribute("aria-label") !== first, first);
  must(before !== null, "no tile");
});

await part("account switcher", async (page) => {
  await go(page, "callers");
  await page.getByText("refresher").first().waitFor();
  await page.getByLabel("Account").selectOption("shop");
  await page.getByText("checkout").first().waitFor();
  must(await page.getByText("refresher").count() === 0, "callers of the other account are still there");
  must(page.url().includes("account=shop"), "the address does not say which account");
  await page.reload();
  await page.getByText("checkout").first().waitFor();
});

await part("times in UTC and in local time", async (page) => {
  await go(page, "overview");
  must((await page.textContent(".clock")).endsWith("UTC"), "it begins in UTC");
  must(/00:00 UTC \(0[12]:00 (CET|CEST|GMT\+[12])\)/.test(await page.textContent(".tiles")), "the reset is not told in both");
  await page.getByRole("button", { name: "UTC", exact: true }).click();
  await page.waitForFunction(() => !document.querySelector(".clock").textContent.endsWith("UTC"));
  await page.reload();
  await page.waitForFunction(() => document.querySelector(".clock") && !document.querySelector(".clock").textContent.endsWith("UTC"));
});

await part("theme: auto, light, dark", async (page) => {
  await go(page, "overview");
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  await page.getByRole("button", { name: "Theme" }).click();
  await page.waitForFunction((dark) => getComputedStyle(document.body).backgroundColor !== dark, dark);
  await page.reload();
  await page.waitForSelector(".tiles");
  must(await background() !== dark, "the choice is forgotten");
}, { scheme: "dark" });

await part("keyboard alone: skip link, screens, sorting, levers", async (page) => {
  await go(page, "overview");
  await page.keyboard.press("Tab");
  must(await page.evaluate(() => document.activeElement.className) === "skip", "the first stop is not the skip link");
  await page.getByRole("link", { name: "Callers", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector(".screen.callers");
  must(await page.evaluate(() => document.activeElement.id) === "main", "the focus did not follow to the screen");
  const head = page.getByRole("columnheader", { name: "Caller" });
  await head.getByRole("button").focus();
  await page.keyboard.press("Enter");
  // The page draws on the next animation frame.
  await page.locator('th[aria-sort="ascending"]', { hasText: "Caller" }).waitFor();
  await frames(page, 2);
  must(await page.evaluate(() => document.activeElement.className) === "sort", "a new frame took the focus away");
  await page.goto(BASE + "/#/overview");
  const pull = page.getByRole("button", { name: "Pull the brake …" }).last();
  await pull.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  must(await page.evaluate(() => document.activeElement.textContent).then((x) => x.includes("Pull the brake")), "the focus did not come back");
}, { signedIn: true });

await part("sign-in: asked for by a lever, refused, then let on to it", async (page) => {
  await go(page, "overview");
  await page.getByRole("button", { name: "Change the plan …" }).click();
  await page.getByRole("dialog").getByLabel("Admin token").fill("wrong");
  await page.getByRole("dialog").getByRole("button", { name: "Sign in" }).click();
  await page.getByText("that is not the admin token").waitFor();
  await accessible(page, "sign-in");
  await shot(page, "wide-light-lever-sign-in");
  await page.getByRole("dialog").getByLabel("Admin token").fill(TOKEN);
  await page.getByRole("dialog").getByLabel("Your name").fill("ben");
  await page.getByRole("dialog").getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("dialog", { name: "Change the plan" }).waitFor();
  const cookies = await page.context().cookies();
  must(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Strict", "the cookie is not as it should be: " + JSON.stringify(cookies));
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Sign out ben" }).click();
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
});

await part("lever: the brake, foreseen, pulled, seen, lifted", async (page) => {
  await go(page, "overview");
  await page.getByRole("button", { name: "Pull the brake …" }).last().click();
  const d = page.getByRole("dialog");
  await d.getByText(/Refuses every publish that is not critical .* publishes a minute/).waitFor();
  must(await d.getByRole("button", { name: "Pull the brake" }).isDisabled(), "it can be pulled without a reason");
  const critical = await d.locator("tbody tr", { hasText: "critical" }).innerText();
  must(/critical\s+\d+\s+0\s+0/.test(critical), "critical would not pass: " + critical);
  await d.getByLabel("Nothing at all").check();
  await d.getByText(/Refuses every publish with 403/).waitFor();
  await d.getByLabel("Only critical publishes").check();
  await d.getByLabel("It ends by itself after").selectOption("1h");
  await d.getByRole("textbox", { name: /Reason/ }).fill("refresh storm, ticket 4711");
  await d.getByText(/that is not critical/).waitFor();
  await accessible(page, "the brake's dialog");
  await shot(page, "wide-light-lever-brake");
  await d.getByRole("button", { name: "Pull the brake" }).click();
  await d.getByText("Done.").waitFor();
  await d.getByText(/anna: brake on/).waitFor();
  await d.getByRole("button", { name: "Close" }).click();
  await page.getByRole("heading", { name: "The brake is on: only critical publishes pass" }).waitFor();
  await page.getByText("refresh storm, ticket 4711").first().waitFor();
  await frames(page, 2);
  await accessible(page, "the overview with the brake on");
  await shot(page, "wide-light-overview-braked");
  await go(page, "audit");
  await page.getByRole("row", { name: /anna brake on refresh storm/ }).first().waitFor();
  await go(page, "overview");
  await page.getByRole("button", { name: "Lift the brake …" }).first().click();
  await d.getByText(/publishes a minute that are refused now are judged by the other rules again/).waitFor();
  await shot(page, "wide-light-lever-lift");
  await d.getByRole("button", { name: "Lift the brake" }).click();
  await d.getByText("Done.").waitFor();
  await d.getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "Pull the brake …" }).first().waitFor();
}, { signedIn: true });

await part("lever: the plan", async (page) => {
  await go(page, "overview");
  await page.getByRole("button", { name: "Change the plan …" }).click();
  const d = page.getByRole("dialog");
  await d.getByLabel("Messages a day").fill("100");
  await d.getByText("The quota breaker is open then").waitFor();
  await d.getByLabel("Messages a day").fill("4 000 000");
  await d.getByText(/of 4,000,000 messages used/).waitFor();
  await d.getByRole("textbox", { name: /Reason/ }).fill("raised to Pro");
  await shot(page, "narrow-dark-lever-plan");
  await accessible(page, "the plan's dialog");
  await d.getByRole("button", { name: "Change the plan" }).click();
  await d.getByText("Done.").waitFor();
  await d.getByRole("button", { name: "Close" }).click();
  await page.getByText(/of 4\.00? M messages, pro/).waitFor();
}, { signedIn: true, size: "narrow", scheme: "dark" });

await part("lever: the usage", async (page) => {
  await go(page, "overview");
  await page.getByRole("button", { name: "Correct the usage …" }).click();
  const d = page.getByRole("dialog");
  await d.getByLabel("Messages used today").fill("nonsense");
  await d.locator("button:disabled", { hasText: "Correct the usage" }).waitFor(); // nonsense is not taken
  await d.getByLabel("Messages used today").fill("3,300,000");
  await d.getByText(/The quota breaker is shed_bulk then/).waitFor();
  await d.getByRole("button", { name: "Correct the usage" }).click();
  await d.getByText("Done.").waitFor();
  await d.getByRole("button", { name: "Close" }).click();
  await page.locator(".ladder .on", { hasText: "Bulk is refused" }).waitFor();
  await frames(page, 2);
  await shot(page, "wide-dark-overview-shedding");
  await accessible(page, "the overview while shedding");
  await page.getByRole("button", { name: "Correct the usage …" }).click();
  await d.getByLabel("Messages used today").fill("400000");
  await d.getByText(/is closed then/).waitFor();
  await d.getByRole("button", { name: "Correct the usage" }).click();
  await d.getByText("Done.").waitFor();
}, { signedIn: true, scheme: "dark" });

await part("levers of an incident: acknowledge, contain, release, draft", async (page) => {
  await go(page, "incidents/care-20260511-1");
  const d = page.getByRole("dialog");
  const move = async (open, button) => {
    await page.getByRole("button", { name: open }).click();
    await d.getByRole("textbox", { name: /Reason/ }).fill("known, the deploy of 14:00");
    await d.locator(".effect p").first().waitFor();
    await page.waitForFunction(() => document.querySelector(".effect p").textContent.length > 20);
    const text = await d.locator(".effect").innerText();
    await d.getByRole("button", { name: button, exact: true }).click();
    await d.getByText("Done.").waitFor();
    await d.getByRole("button", { name: "Close" }).click();
    return text;
  };
  must((await move("Acknowledge …", "Acknowledge")).includes("Changes nothing"), "ack's effect");
  await page.getByText("Acknowledged by anna").waitFor();
  must(/About 5,[0-9]{3} of the 6,000 (publishes|messages) a minute/.test(await move("Contain the culprits …", "Contain")), "contain's effect");
  await page.getByText("Its culprits are held to their allowance.").waitFor();
  await move("Release the culprits …", "Release");
  await page.getByText("Its culprits were released").waitFor();
  const acts = await (await control("/acts")).json();
  must(acts.join("|") === "ack care-20260511-1 by anna|contain care-20260511-1 by anna|release care-20260511-1 by anna", "the detector was told " + acts);
  const waiting = page.waitForEvent("download");
  await page.getByRole("link", { name: "Post-mortem draft" }).click();
  const file = readFileSync(await (await waiting).path(), "utf8");
  must(file.startsWith("# Incident care-20260511-1: refresher") && file.includes("## Timeline (UTC)") && file.includes("## Why it began"), "the draft is odd:\n" + file);
}, { signedIn: true });

await part("top talkers: by and window, with the error drawn", async (page) => {
  await go(page, "top");
  await page.getByRole("button", { name: "Channels" }).click();
  await page.getByText("private-user-17").waitFor();
  await page.getByText("− 38").first().waitFor();
  await page.getByRole("button", { name: "Payloads" }).click();
  await page.getByText("9c1f04ab22e07d11").waitFor();
});

for (const [size, scheme] of [["wide", "light"], ["narrow", "dark"]]) {
  await part(`a rule is tried before it is saved ${size}`, async (page) => {
    await go(page, "rules");
    await page.getByRole("button", { name: "Change and try refresh" }).click();
    await page.waitForFunction(() => document.getElementById("try-rule").value.includes("20/s"));
    const text = await page.locator("#try-rule").inputValue();
    must(/match: \{ event: "notification\.\*", channel: "private-user-\*" \}\npriority: bulk\ndedupe: 2s\nrate: 20\/s per caller\nburst: 40/.test(text), "the rule is written " + text);
    must(await page.getByLabel("Its place").inputValue() === "instead of refresh", "its place is another");
    await page.locator("#try-rule").fill('match: { event: "notification.*" }\nrate: 1/s per channl');
    await page.getByRole("button", { name: "Try it" }).click();
    await page.getByText(/rule:2:7: rate "1\/s per channl"/).waitFor();
    await accessible(page, "a rule with a mistake");
    await page.locator("#try-rule").fill('match: { event: "notification.*" }\nrate: 1/h per channel');
    await page.getByLabel("Its place").selectOption("first");
    await page.getByRole("button", { name: "Try it" }).click();
    await page.getByText(/It would have matched [\d,]+ of [\d,]+ publishes/).waitFor();
    await page.getByText(/more refused/).waitFor();
    await page.getByRole("cell", { name: "sent → throttled" }).first().waitFor();
    await frames(page);
    must((await page.locator("#try-rule").inputValue()).includes("1/h per channel"), "a frame took away what was typed");
    await accessible(page, "a rule that was tried");
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    must(over <= 0, `the page is ${over} px wider than the window`);
    await shot(page, `${size}-${scheme}-rule-tried`);
  }, { size, scheme });
}

await part("what a publish to a channel counts as, and why", async (page) => {
  await go(page, "savings");
  const card = page.locator("section", { has: page.getByRole("heading", { name: "Who subscribes" }) });
  await card.getByText("2 channels", { exact: true }).waitFor();
  await card.getByText("40 of 100 messages today").waitFor();
  await card.getByText("25.0 % (poll)").waitFor();
  const find = async (channel, text) => {
    await card.getByLabel("Channel").fill(channel);
    await card.getByRole("button", { name: "Look up" }).click();
    await card.getByRole("status").filter({ hasText: text }).waitFor();
  };
  await find("private-user-17", /private-user-17 3 subscribers, from a webhook, .+ ago/);
  await find("room/none", /room\/none is empty since .* from a webhook/);
  await find("room <b>&1", /room <b>&1 1 subscriber, as the config says/);
  await frames(page);
  must(await card.getByLabel("Channel").inputValue() === "room <b>&1", "a frame took away what was typed");
  await accessible(page, "who subscribes");
  await shot(page, "wide-light-who-subscribes");
}, { signedIn: true });

await part("a day of history is there in under a second", async (page) => {
  await go(page, "overview");
  await page.waitForSelector(".chart.tall canvas");
  await frames(page);
  // The best of three: what the guard and the page need, not what else the
  // machine does.
  let took = Infinity;
  for (let n = 0; n < 3; n++) {
    took = Math.min(took, await page.evaluate(() => new Promise((done) => {
      const began = performance.now();
      const button = [...document.querySelectorAll(".picks button")].find((b) => b.textContent === "Day");
      const seen = new PerformanceObserver((l) => { if (l.getEntries().some((e) => e.name.includes("window=24h"))) { seen.disconnect(); requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))); } });
      seen.observe({ type: "resource" });
      button.click();
    })));
    if (took < 1000) break;
    await page.reload();
    await page.waitForSelector(".chart.tall canvas");
    await page.getByRole("button", { name: "10 min" }).click();
  }
  must(took < 1000, `it took ${took} ms`);
  console.log(`24 h of history drawn in ${Math.round(took)} ms`);
  await frames(page);
  await shot(page, "wide-light-overview-day");
});

for (const [size, scheme] of [["wide", "light"], ["narrow", "dark"]]) {
  await part(`a Pusher that falls silent is the verdict, until it speaks ${size} ${scheme}`, async (page) => {
    await go(page, "overview");
    await page.getByLabel("Account").selectOption("shop");
    const said = page.getByRole("heading", { name: "Pusher answers nothing for app shop-1" });
    await page.getByRole("heading", { name: /All right/ }).waitFor();
    await control("/mute");
    await said.waitFor();
    await page.getByText("are refused, unsent and at no cost").waitFor();
    await page.waitForFunction(() => document.title.startsWith("Pusher silent"));
    must((await page.textContent("#say")).includes("Pusher answers nothing"), "a screen reader does not hear it");
    await accessible(page, "a silent Pusher");
    await shot(page, `${size}-${scheme}-overview-silent`);
    await page.getByLabel("Account").selectOption("care");
    await page.getByRole("heading", { name: /Runaway/ }).waitFor(); // it is not that one's
    await page.getByLabel("Account").selectOption("shop");
    await page.goto(page.url().replace("#/overview", "#/replicas"));
    await page.locator("tr", { hasText: "shop-1" }).locator(".tag.bad", { hasText: "silent" }).waitFor();
    await accessible(page, "a silent way to Pusher");
    await shot(page, `${size}-${scheme}-replicas-silent`);
    await control("/speak");
    await page.locator("tr", { hasText: "shop-1" }).locator(".tag.bad").waitFor({ state: "detached" });
    await page.goto(page.url().replace("#/replicas", "#/overview"));
    await page.getByRole("heading", { name: /All right/ }).waitFor();
  }, { size, scheme, signedIn: true });
}

await part("honest when stale: says how old, and recovers by itself", async (page) => {
  await go(page, "overview");
  await page.waitForSelector(".live:not(.bad)");
  await control("/freeze");
  await page.getByText(/This data is \d+ s old/).waitFor();
  must((await page.textContent(".live")).includes("old"), "the bar still says live");
  must(await page.evaluate(() => document.querySelector("main").classList.contains("stale")), "the old data is not dimmed");
  await accessible(page, "the stale page");
  await shot(page, "wide-light-overview-stale");
  await control("/down");
  await control("/up");
  await page.waitForSelector(".live:not(.bad)", { timeout: 60000 });
  must(await page.getByText(/This data is/).count() === 0, "the warning stayed");
});

await part("comes back by itself after a restart, with the history of the new process", async (page) => {
  await go(page, "overview");
  await page.waitForSelector(".live:not(.bad)");
  await page.evaluate(() => { globalThis.sameePage = true; });
  await control("/down");
  await page.getByText(/This data is \d+ s old/).waitFor();
  await control("/up");
  await page.waitForSelector(".live:not(.bad)", { timeout: 60000 });
  must(await page.evaluate(() => globalThis.sameePage), "the page was reloaded");
  await page.getByText("up 1 s").or(page.getByText(/up \d s/)).first().waitFor();
});

await part("from elsewhere: a page to sign in on, and no data before", async (page) => {
  const other = BASE.replace("127.0.0.1", "guard.example");
  const res = await page.goto(other + "/");
  must(res.status() === 401, "it answered " + res.status());
  must(!(await page.content()).includes("refresher"), "it tells too much");
  await accessible(page, "the sign-in page");
  await shot(page, "narrow-light-sign-in-page");
  await page.getByLabel("Admin token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("That is not the admin token of this guard.").waitFor();
  await page.getByLabel("Admin token").fill(TOKEN);
  await page.getByLabel("Your name").fill("cleo");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: /Runaway/ }).waitFor();
  await page.getByRole("button", { name: /Sign out/ }).waitFor();
}, { size: "narrow" });

await browser.close();
process.exit(failed ? 1 : 0);
