// The Node SDK, at the tests' order. What the SDK gives back or throws is told
// as it is, except for the URL in its errors: that holds a signature.
"use strict"
const Pusher = require("pusher")
const { serve } = require("./lines")

const sdks = new Map()

function sdk(order) {
  const name = JSON.stringify(order.client)
  if (!sdks.has(name)) {
    const [host, port] = order.client.addr.split(":")
    const options = {
      appId: order.client.app,
      key: order.client.key,
      secret: order.client.secret,
      host,
      port: Number(port),
      useTLS: false,
      timeout: 10000,
    }
    if (order.client.master) options.encryptionMasterKeyBase64 = order.client.master
    sdks.set(name, new Pusher(options))
  }
  return sdks.get(name)
}

async function attempt(call) {
  let response
  try {
    response = await call()
  } catch (e) {
    const cause = e.error ? `${e.error.name}${e.error.code ? " " + e.error.code : ""}` : ""
    return { error: { name: e.name, message: e.message, status: e.status || 0, body: e.body || "", cause } }
  }
  return { status: response.status, body: await response.text() }
}

serve({
  trigger: (o) => attempt(() => sdk(o).trigger(o.channels, o.event, o.data, o.params || {})),
  batch: (o) => attempt(() => sdk(o).triggerBatch(o.batch)),
  user: (o) => attempt(() => sdk(o).sendToUser(o.user, o.event, o.data)),
  terminate: (o) => attempt(() => sdk(o).terminateUserConnections(o.user)),
  get: (o) => attempt(() => sdk(o).get({ path: o.path, params: o.params || {} })),
})
