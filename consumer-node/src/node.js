// One node: a process that reads for one consumer. It is told what to do by its supervisor, tells how it goes, and ends
// after its last ack when it is asked to, or when the supervisor is gone.

import { once } from 'node:events'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { Consumer } from './consumer.js'
import { EddylineError } from './errors.js'

/** @typedef {import('./supervisor.js').NodeOrder} NodeOrder */

/** A second between two reports is often enough for people. */
const REPORT_MS = 1000

/** @param {Record<string, unknown>} told */
function tell(told) {
  if (process.connected) process.send?.(told, undefined, undefined, () => {})
}

/**
 * The function that a module exports: as default, as `handler`, or the only one.
 * @param {string} file
 * @returns {Promise<import('./run.js').Handler>}
 */
async function load(file) {
  const module = await import(pathToFileURL(path.resolve(file)).href)
  const functions = Object.values(module).filter((exported) => typeof exported === 'function')
  const handler = [module.default, module.handler, functions.length === 1 ? functions[0] : undefined]
  const found = handler.find((each) => typeof each === 'function')
  if (found === undefined) throw new Error(`${file} exports no function: export one as default`)
  return found
}

/** @type {import('./run.js').Handler} */
const print = ({ offset, id, received, key, headers, data }) => {
  const line = `${JSON.stringify({ offset, id, received, key, headers, data })}\n`
  // Acked is what was taken from us.
  return new Promise((resolve) => process.stdout.write(line, resolve))
}

async function main() {
  let stopping = false
  /** @type {Consumer | undefined} */
  let consumer
  const stop = () => {
    stopping = true
    void consumer?.close().catch(() => {})
  }
  process.on('SIGTERM', stop)
  // A terminal's interrupt reaches the whole process group: the supervisor passes on what it means.
  process.on('SIGINT', () => {})
  process.on('disconnect', stop)
  const [order] = /** @type {[NodeOrder]} */ (await once(process, 'message'))
  const handler = order.handler === undefined ? print : await load(order.handler)
  const reader = new Consumer(order.consumer)
  consumer = reader
  if (stopping) return
  let events = 0
  /** @type {number | undefined} */
  let lag
  reader.on('standby', () => tell({ state: 'standby' }))
  reader.on('fenced', () => tell({ state: 'standby' }))
  reader.on('reconnecting', ({ error }) => tell({ state: 'reconnecting', error: error.message }))
  reader.on('recovered', () => tell({ state: 'active' }))
  reader.on('lag', (at) => (lag = at.events))
  const report = () => {
    const { tenure } = reader.session
    const acked = tenure !== undefined && tenure.ackedSteps > 0 ? tenure.tracker.ackable : undefined
    tell({ events, lag, ...(tenure === undefined || tenure.over ? {} : { state: 'active' }), ...(acked === undefined ? {} : { acked }) })
  }
  const reports = setInterval(report, REPORT_MS)
  try {
    await reader.run((event, context) => {
      events++
      if (events === 1) report()
      return handler(event, context)
    }, order.run)
  } finally {
    clearInterval(reports)
    report()
  }
}

main().then(
  () => process.disconnect?.(),
  (error) => {
    tell({ error: error?.message ?? String(error) })
    // Where a handler failed is of use; where we were when the broker refused is not.
    const refused = error instanceof EddylineError && error.status !== undefined
    process.stderr.write(`${refused ? error.message : (error?.stack ?? error)}\n`)
    process.exitCode = 1
    process.disconnect?.()
  },
)
