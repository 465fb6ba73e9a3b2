// A TCP proxy that resets connections, or has them fall silent, when told to.

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

export class Proxy {
  /**
   * @param {import('node:test').TestContext} context
   * @param {number} port where the broker listens
   */
  static async start(context, port) {
    const proxy = new Proxy(port)
    proxy.server.listen(0, '127.0.0.1')
    await once(proxy.server, 'listening')
    context.after(() => {
      proxy.reset()
      proxy.server.close()
    })
    const { port: own } = /** @type {import('node:net').AddressInfo} */ (proxy.server.address())
    proxy.url = `http://127.0.0.1:${own}`
    return proxy
  }

  /** @param {number} port */
  constructor(port) {
    this.url = ''
    /** @type {Set<import('node:net').Socket>} */
    this.sockets = new Set()
    this.resets = 0
    this.server = createServer((near) => {
      const far = connect(port, '127.0.0.1')
      for (const socket of [near, far]) {
        this.sockets.add(socket)
        socket.on('error', () => {})
        socket.on('close', () => {
          this.sockets.delete(socket)
          near.destroy()
          far.destroy()
        })
      }
      near.pipe(far)
      far.pipe(near)
    })
  }

  /** Has every connection fall silent, as if a cable were cut. */
  silence() {
    for (const socket of this.sockets) socket.unpipe().pause()
  }

  /** Resets every connection. */
  reset() {
    for (const socket of this.sockets) {
      this.resets++
      socket.resetAndDestroy()
    }
  }
}
