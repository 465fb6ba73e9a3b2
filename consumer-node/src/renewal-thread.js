// Keeps a session alive from a thread of its own, so that a handler that blocks the event loop loses no lease.

import { parentPort, workerData } from 'node:worker_threads'
import { EddylineError } from './errors.js'
import { Http } from './http.js'

/** @typedef {{ url: string, path: string, requestTimeout: number }} RenewalData */
/** @typedef {{ session?: string, everyMs: number, token?: string }} RenewalOrder */

const { url, path, requestTimeout } = /** @type {RenewalData} */ (workerData)
const http = new Http({ url, requestTimeout })
/** @type {RenewalOrder} */
let order = { everyMs: 1000 }
/** @type {NodeJS.Timeout | undefined} */
let timer

async function renew() {
  const { session, token } = order
  if (session === undefined) return
  try {
    await http.json('POST', `${path}/session?session=${session}`)
  } catch (error) {
    // Whoever reads finds out what it means; a broker that is away is asked again at the next turn.
    const { code, problem } = /** @type {EddylineError} */ (error)
    if (order.session === session) parentPort?.postMessage({ session, code, problem, token })
  }
}

parentPort?.on('message', (/** @type {RenewalOrder} */ next) => {
  order = next
  http.bearer = next.token
  clearInterval(timer)
  if (next.session !== undefined) timer = setInterval(renew, next.everyMs)
})
