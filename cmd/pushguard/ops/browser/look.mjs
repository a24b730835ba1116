// Pictures of a guard that runs, to be looked at:
//   node look.mjs http://127.0.0.1:8081 TOKEN FOLDER
import { chromium } from "playwright-core";

const [base, token, folder = "shots"] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
for (const [name, width, height, scheme] of [["wide-light", 1920, 1080, "light"], ["wide-dark", 1920, 1080, "dark"], ["narrow-light", 390, 844, "light"], ["narrow-dark", 390, 844, "dark"]]) {
  const page = await (await browser.newContext({ viewport: { width, height }, colorScheme: scheme, deviceScaleFactor: width < 500 ? 2 : 1, timezoneId: "Europe/Berlin" })).newPage();
  page.on("console", (m) => { if (["error", "warning"].includes(m.type())) console.log(name, m.text()); });
  page.on("pageerror", (e) => console.log(name, e.stack));
  await page.goto(base + "/");
  await page.evaluate((token) => fetch("/api/v1/session", { method: "POST", body: JSON.stringify({ token, name: "looker" }) }), token);
  for (const screen of (process.env.SCREENS || "overview callers incidents top rules replicas savings audit").split(" ")) {
    await page.goto(base + "/#/" + screen);
    await page.waitForSelector(".screen." + screen.split("/")[0]);
    await page.waitForTimeout(screen === "overview" ? 1500 : 700);
    await page.screenshot({ path: `${folder}/${name}-${screen.replace("/", "-")}.png`, fullPage: true });
  }
}
await browser.close();
