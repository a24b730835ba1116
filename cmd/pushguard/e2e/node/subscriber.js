// pusher-js clients, at the tests' order. What a client receives is told as it
// comes, as lines without an id: {"client", "channel", "event", "data"}.
"use strict"
const Pusher = require("pusher-js")
const Server = require("pusher")
const { say, serve } = require("./lines")

const clients = new Map()
const left = new Map() // client → promise that it was disconnected

const settled = (target, good, bad) =>
  new Promise((resolve, reject) => {
    target.bind(good, resolve)
    for (const name of bad) target.bind(name, (e) => reject(new Error(name + ": " + JSON.stringify(e))))
  })

serve({
  // Connects a client; signed in as `user` if that is given.
  connect: async (o) => {
    const options = { appId: o.app, key: o.key, secret: o.secret, cluster: "none" }
    if (o.master) options.encryptionMasterKeyBase64 = o.master
    const server = new Server(options)
    const [host, port] = o.addr.split(":")
    const client = new Pusher(o.key, {
      cluster: "none",
      wsHost: host,
      wsPort: Number(port),
      forceTLS: false,
      disableStats: true,
      enabledTransports: ["ws"],
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, done) => {
          const member = channelName.startsWith("presence-") ? { user_id: o.client, user_info: {} } : undefined
          done(null, server.authorizeChannel(socketId, channelName, member))
        },
      },
      userAuthentication: {
        customHandler: ({ socketId }, done) => done(null, server.authenticateUser(socketId, { id: o.user })),
      },
    })
    clients.set(o.client, client)
    await settled(client.connection, "connected", ["failed", "error"])
    left.set(o.client, new Promise((resolve) => client.connection.bind("state_change", resolve)))
    if (o.user) {
      const signedIn = new Promise((resolve) => {
        client.bind_global((event) => event === "pusher:signin_success" && resolve())
      })
      client.signin()
      client.user.bind_global((event, data) => say({ client: o.client, channel: "user", event, data }))
      await signedIn
    }
    return { socket_id: client.connection.socket_id }
  },
  subscribe: async (o) => {
    const channel = clients.get(o.client).subscribe(o.channel)
    channel.bind_global((event, data) => {
      if (!event.startsWith("pusher:")) say({ client: o.client, channel: o.channel, event, data })
    })
    await settled(channel, "pusher:subscription_succeeded", ["pusher:subscription_error"])
    return {}
  },
  // Resolves once the server has closed the client's connection.
  gone: (o) => left.get(o.client),
  disconnect: async (o) => {
    clients.get(o.client).disconnect()
    return {}
  },
})
