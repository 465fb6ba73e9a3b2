// Reading by `next`: one batch an answer. While a batch is parsed and worked on, the next one is on its way.

import { EddylineError } from './errors.js'
import { query } from './http.js'
import { parseList } from './parse.js'

/** @typedef {import('./events.js').WireEvent} WireEvent */
/**
 * What a feed gives: events of one tenure, in order.
 * @typedef {{ events: WireEvent[], tail: number, attempt: number, replay: boolean, gap?: { from: number, to: number },
 *   blocked?: string }} Delivery
 */

const CLOSING = Buffer.from('],"next":')

/**
 * Batches from the position on, until the tenure is over; throws what ends it.
 * @param {import('./http.js').Http} http
 * @param {string} path
 * @param {import('./session.js').Tenure} tenure
 * @param {{ max: number, maxBytes: number, waitMs: number }} bounds
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Delivery>}
 */
export async function* feedNext(http, path, tenure, bounds, signal) {
  /** @param {number | undefined} after */
  const ask = (after) => {
    const { max, maxBytes, waitMs } = bounds
    const parameters = query({ session: tenure.session, after, max, max_bytes: maxBytes, wait: `${waitMs}ms` })
    const answer = http.request('GET', `${path}/next${parameters}`, { signal, waitMs })
    // Whoever awaits it is told; until then a failure is not news.
    answer.catch(() => {})
    return answer
  }
  /** @type {number | undefined} */
  let after
  let { pass } = tenure
  let asked = ask(undefined)
  while (!tenure.over) {
    const body = await asked.then(
      (answer) => answer.body,
      (error) => {
        const beyond = error instanceof EddylineError && error.code === 'beyond_delivered'
        if (!beyond || after === undefined) throw error
      },
    )
    await tenure.nacking
    // A replay has ended, or a failure was reported: on from the position; what is in hand is known.
    if (body === undefined || pass !== tenure.pass) {
      ;({ pass } = tenure)
      after = undefined
      asked = ask(undefined)
      continue
    }
    const { closing, meta } = closingOf(body)
    const empty = closing <= 11
    if (!empty) after = meta.next - 1
    asked = ask(after)
    // The request leaves with the next turn of the event loop, and the broker works while this is parsed.
    await new Promise((resolve) => setImmediate(resolve))
    const events = empty ? [] : parseList(body.subarray(11, closing), ',')
    yield { ...meta, events, replay: meta.replay ?? false, attempt: meta.attempt ?? 1 }
  }
}

/**
 * Where the list of events closes, and what stands behind it.
 * @param {Buffer} body
 * @returns {{ closing: number, meta: any }}
 */
function closingOf(body) {
  const closing = body.lastIndexOf(CLOSING)
  if (closing < 0) throw new EddylineError('bad_answer', 'the answer is no list of events', { retryable: true })
  return { closing, meta: JSON.parse(`{${body.toString('utf8', closing + 2)}`) }
}
