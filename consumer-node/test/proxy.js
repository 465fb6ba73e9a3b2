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
    /** @type {Map<import('node:net').Socket, 'near' | 'far'>} */
    this.sockets = new Map()
    this.resets = 0
    this.server = createServer((near) => {
      const far = connect(port, '127.0.0.1')
      for (const [socket, side] of /** @type {const} */ ([[near, 'near'], [far, 'far']])) {
        this.sockets.set(socket, side)
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

  /**
   * Has every connection fall silent, as if a cable were cut.
   * @param {'both' | 'answers'} [ways]
   */
  silence(ways = 'both') {
    for (const [socket, side] of this.sockets) if (ways === 'both' || side === 'far') socket.unpipe().pause()
  }

  /** Resets every connection. */
  reset() {
    for (const socket of this.sockets.keys()) {
      this.resets++
      socket.resetAndDestroy()
    }
  }
}
