// A worker's side of the tests' line protocol: one JSON object a line on stdin,
// {"id": 1, "op": "name", …}, and for each one line on stdout, {"id": 1, …}.
// Orders are carried out as they come, not one after the other.
"use strict"
const readline = require("readline")

exports.say = (message) => process.stdout.write(JSON.stringify(message) + "\n")

exports.serve = (ops) => {
  const lines = readline.createInterface({ input: process.stdin })
  lines.on("line", async (line) => {
    const order = JSON.parse(line)
    try {
      exports.say({ id: order.id, ...(await ops[order.op](order)) })
    } catch (e) {
      exports.say({ id: order.id, broken: String((e && e.stack) || e) })
    }
  })
  // The test ended, however it did: so does its worker.
  lines.on("close", () => process.exit(0))
  exports.say({ ready: true })
}
