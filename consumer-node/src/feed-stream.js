// Reading by `stream`: everything from the position on, on one connection. The broker sends no more than may be in
// flight, so what waits here is bounded by the consumer's `max_in_flight`.

import { EddylineError } from './errors.js'
import { query } from './http.js'
import { parseList } from './parse.js'

/** @typedef {import('./feed-next.js').Delivery} Delivery */

/** What the end of a stream means, as the code that `next` would have given. */
const ENDS = new Map([
  ['fenced', 'fenced'],
  ['suspended', 'consumer_suspended'],
  ['revoked', 'consumer_revoked'],
  ['expired', 'consumer_expired'],
  ['unsubscribed', 'no_consumer'],
  ['deleted', 'no_group'],
])

/**
 * Deliveries from the position on, until the tenure is over; throws what ends it.
 * @param {import('./http.js').Http} http
 * @param {string} path
 * @param {import('./session.js').Tenure} tenure
 * @param {{ max: number, quietMs: number }} bounds
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Delivery>}
 */
export async function* feedStream(http, path, tenure, { max, quietMs }, signal) {
  const parameters = query({ session: tenure.session })
  const options = { signal, accept: 'application/x-ndjson', waitMs: quietMs }
  const response = await http.open('GET', `${path}/stream${parameters}`, options)
  const pieces = new Pieces(response, (error) => http.failed(error))
  // What was sent before a failure that we report comes again behind `retry`.
  const state = { epoch: tenure.epoch, retries: tenure.pass, tail: tenure.next, attempt: 1, replay: false, max }
  for (;;) {
    const lines = await pieces.next()
    if (lines === undefined) throw new EddylineError('connection_lost', 'the stream was cut off', { retryable: true })
    yield* deliveries(lines, tenure, state)
  }
}

/**
 * @param {any[]} lines events and control frames
 * @param {import('./session.js').Tenure} tenure
 * @param {{ epoch: number, retries: number, tail: number, attempt: number, replay: boolean, max: number }} state
 * @returns {AsyncGenerator<Delivery>}
 */
async function* deliveries(lines, tenure, state) {
  /** @type {any[]} */
  let events = []
  const { max } = state
  const delivery = (/** @type {Partial<Delivery>} */ more = {}) => {
    const taken = events
    events = []
    state.tail = Math.max(state.tail, (taken.at(-1)?.offset ?? -1) + 1)
    return { events: taken, tail: state.tail, attempt: state.attempt, replay: state.replay, ...more }
  }
  const current = () => state.epoch === tenure.epoch && state.retries >= tenure.pass
  for (const line of lines) {
    // What a failure that is being reported changes is known when it is answered.
    if (tenure.nacking !== undefined) await tenure.nacking
    if (line.frame === undefined) {
      if (current()) events.push(line)
      if (events.length >= max) yield delivery()
      continue
    }
    if (events.length > 0) yield delivery()
    const told = take(line, state)
    if (told !== undefined && current()) yield delivery(told)
  }
  if (events.length > 0 && current()) yield delivery()
}

/**
 * What a control frame changes, and what is to be told of it.
 * @param {any} frame
 * @param {{ epoch: number, retries: number, tail: number, attempt: number, replay: boolean }} state
 * @returns {Partial<Delivery> | undefined}
 */
function take(frame, state) {
  state.tail = frame.tail ?? state.tail
  switch (frame.frame) {
    case 'session':
      state.epoch = frame.epoch
      state.attempt = Math.max(1, frame.attempt)
      return undefined
    case 'rewound':
      throw new EddylineError('rewound', `the position was moved to ${frame.to}`, {
        status: 409,
        problem: { session: frame.session, epoch: frame.epoch, next: frame.to },
      })
    case 'retry':
      state.retries++
      state.attempt++
      return undefined
    case 'replay':
      state.replay = frame.done !== true
      return {}
    case 'gap':
      return { gap: { from: frame.from, to: frame.to } }
    case 'blocked':
      return { blocked: frame.reason }
    case 'goaway': {
      const code = ENDS.get(frame.reason)
      throw new EddylineError(code ?? frame.reason, `the stream ended: ${frame.reason}`, { retryable: code === undefined })
    }
    default:
      return {}
  }
}

/** A stream of lines, parsed in pieces as large as they come. */
class Pieces {
  /**
   * @param {import('node:http').IncomingMessage} response
   * @param {(error: Error) => Error} failed
   */
  constructor(response, failed) {
    /** @type {Buffer[]} */
    this.chunks = []
    this.ended = false
    /** @type {Error | undefined} */
    this.error = undefined
    this.wake = () => {}
    response.on('data', (chunk) => {
      this.chunks.push(chunk)
      this.wake()
    })
    const end = (/** @type {Error | undefined} */ error) => {
      this.ended = true
      this.error ??= error
      this.wake()
    }
    response.on('end', () => end(undefined))
    response.on('error', (error) => end(failed(error)))
    response.on('close', () => end(undefined))
  }

  /**
   * Whole lines, parsed; undefined at the end.
   * @returns {Promise<any[] | undefined>}
   */
  async next() {
    for (;;) {
      const last = this.chunks.findLastIndex((chunk) => chunk.includes(10))
      if (last >= 0) return this.take(last)
      if (this.ended) {
        if (this.error !== undefined) throw this.error
        return undefined
      }
      await new Promise((resolve) => (this.wake = () => resolve(undefined)))
    }
  }

  /** @param {number} last the last chunk in which a line ends */
  take(last) {
    const chunk = this.chunks[last]
    const end = chunk.lastIndexOf(10)
    const whole = [...this.chunks.slice(0, last), chunk.subarray(0, end)]
    this.chunks = [chunk.subarray(end + 1), ...this.chunks.slice(last + 1)].filter((rest) => rest.length > 0)
    return parseList(whole.filter((piece) => piece.length > 0), '\n')
  }
}
