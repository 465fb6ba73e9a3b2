// One node: a process that reads for one consumer. It is told what to do by its supervisor, tells how it goes, and ends
// after its last ack when it is asked to, or when the supervisor is gone.

import { once } from 'node:events'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { backoff, pause } from './backoff.js'
import { Consumer } from './consumer.js'
import { EddylineError } from './errors.js'

/** @typedef {import('./supervisor.js').NodeOrder} NodeOrder */

/** A second between two reports is often enough for people. */
const REPORT_MS = 1000

/** What somebody else has to decide, and how a node that waits for it shows. */
const WAITS = new Map(/** @type {const} */ ([['consumer_pending', 'pending'], ['consumer_suspended', 'suspended']]))

/**
 * @param {{ report: import('./supervisor.js').NodeReport } | { failure: import('./supervisor.js').NodeFailure }} told
 * @returns {Promise<unknown>} once it is on its way
 */
function tell(told) {
  return new Promise((resolve) => (process.connected ? process.send?.(told, undefined, undefined, resolve) : resolve(undefined)))
}

/**
 * The function that a module exports: as default, as `handler`, or the only one.
 * @param {string} file
 * @returns {Promise<import('./run.js').Handler>}
 */
async function load(file) {
  const module = await import(pathToFileURL(path.resolve(file)).href).catch((cause) => {
    // What it does while it is loaded may fail for a moment; what it is, stays.
    const retryable = !(cause instanceof SyntaxError || cause?.code === 'ERR_MODULE_NOT_FOUND')
    throw new EddylineError('bad_handler', `${file} cannot be loaded: ${cause?.message ?? cause}`, { retryable, cause })
  })
  const functions = Object.values(module).filter((exported) => typeof exported === 'function')
  const handler = [module.default, module.handler, functions.length === 1 ? functions[0] : undefined]
  const found = handler.find((each) => typeof each === 'function')
  if (found === undefined) throw new EddylineError('bad_handler', `${file} exports no function: export one as default`)
  return found
}

/** @type {import('./run.js').Handler} */
const print = ({ offset, id, received, key, headers, data }) => {
  const line = `${JSON.stringify({ offset, id, received, key, headers, data })}\n`
  // Acked is what was taken from us.
  return new Promise((resolve) => process.stdout.write(line, resolve))
}

async function main() {
  const stop = new AbortController()
  process.on('SIGTERM', () => stop.abort())
  // A terminal's interrupt reaches the whole process group: the supervisor passes on what it means.
  process.on('SIGINT', () => {})
  process.on('disconnect', () => stop.abort())
  const [order] = /** @type {[NodeOrder]} */ (await once(process, 'message'))
  const handler = order.handler === undefined ? print : await load(order.handler)
  for (let attempt = 1; !stop.signal.aborted; attempt++) {
    try {
      await work(order, handler, stop.signal)
    } catch (error) {
      const state = WAITS.get(/** @type {any} */ (error).code)
      if (state === undefined) throw error
      void tell({ report: { state, error: /** @type {Error} */ (error).message } })
      await pause(backoff(attempt), stop.signal)
    }
  }
}

/**
 * Reads until it is stopped, or cannot go on.
 * @param {NodeOrder} order
 * @param {import('./run.js').Handler} handler
 * @param {AbortSignal} stop
 */
async function work(order, handler, stop) {
  const consumer = new Consumer({ ...order.consumer, signal: stop })
  let events = 0
  /** @type {import('./supervisor.js').NodeReport} */
  const status = {}
  /** @type {import('./session.js').Tenure | undefined} */
  let tenure
  const report = () => {
    tenure = consumer.session.tenure ?? tenure
    const acked = tenure !== undefined && tenure.ackedSteps > 0 ? tenure.tracker.ackable : undefined
    void tell({ report: { ...status, events, acked } })
  }
  const become = (/** @type {import('./supervisor.js').NodeState} */ state, /** @type {string | undefined} */ error = undefined) => {
    Object.assign(status, { state, error })
    report()
  }
  consumer.on('active', () => become('active'))
  consumer.on('standby', () => become('standby'))
  consumer.on('reconnecting', ({ error }) => become('reconnecting', error.message))
  consumer.on('recovered', () => become('active'))
  consumer.on('lag', (at) => (status.lag = at.events))
  const stopping = () => become('stopping')
  stop.addEventListener('abort', stopping)
  const reports = setInterval(report, REPORT_MS)
  try {
    await consumer.run((event, context) => {
      events++
      return handler(event, context)
    }, order.run)
  } finally {
    clearInterval(reports)
    stop.removeEventListener('abort', stopping)
    // What could not be acked, `run` has said.
    await consumer.close().catch(() => {})
    report()
  }
}

/**
 * Tells why it ends. Where a handler failed is of use; where we were when the broker refused is not.
 * @param {any} error
 */
async function fail(error) {
  const { code = 'failed', message = String(error), status, cause } = error ?? {}
  const handled = code === 'handler_failed' || code === 'bad_handler'
  process.stderr.write(`${message}${handled && cause?.stack ? `\n${cause.stack}` : ''}\n`)
  const final = error instanceof EddylineError && !error.retryable && code !== 'handler_failed'
  await tell({ failure: { code, message, status, final } })
}

// What a handler left open does not keep the process: its last ack is in.
main().then(() => 0, (error) => fail(error).then(() => 1)).then(process.exit)
