// Reading by `next`: one batch an answer. While a batch is parsed and worked on, the next one is on its way.

import { EddylineError } from './errors.js'
import { query } from './http.js'
import { parseList } from './parse.js'

/** @typedef {import('./events.js').ConsumedEvent} ConsumedEvent */
/**
 * What a feed gives: events of one tenure, in order.
 * @typedef {{ events: ConsumedEvent[], tail: number, attempt: number, replay: boolean, gap?: { from: number, to: number },
 *   blocked?: string }} Delivery
 */

const OPENING = '{"events":['.length
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
  /** @param {number | undefined} after @param {number} [waitMs] */
  const ask = (after, waitMs = bounds.waitMs) => {
    const { max, maxBytes } = bounds
    const parameters = query({ session: tenure.session, after, max, max_bytes: maxBytes, wait: `${waitMs}ms` })
    const answer = http.request('GET', `${path}/next${parameters}`, { signal, waitMs })
    // Whoever awaits it is told; until then a failure is not news.
    answer.catch(() => {})
    return answer
  }
  /** @type {number | undefined} */
  let after
  let { pass } = tenure
  // At first without waiting, so that it is known at once that the broker is there.
  let asked = ask(undefined, 0)
  while (!tenure.over) {
    const pieces = await asked.then(
      (answer) => answer.pieces,
      (error) => {
        const beyond = error instanceof EddylineError && error.code === 'beyond_delivered'
        if (!beyond || after === undefined) throw error
      },
    )
    await tenure.nacking
    // A replay has ended, or a failure was reported: on from the position; what is in hand is known.
    if (pieces === undefined || pass !== tenure.pass) {
      ;({ pass } = tenure)
      after = undefined
      asked = ask(undefined)
      continue
    }
    const { list, meta } = partsOf(pieces)
    if (list.length > 0) after = meta.next - 1
    asked = ask(after)
    // The request leaves with the next turn of the event loop, and the broker works while this is parsed.
    await new Promise((resolve) => setImmediate(resolve))
    yield { ...meta, events: parseList(list, ','), replay: meta.replay ?? false, attempt: meta.attempt ?? 1 }
  }
}

/**
 * The list of events, without its brackets, and what stands behind it.
 * @param {Buffer[]} pieces of an answer
 * @returns {{ list: Buffer[], meta: any }}
 */
function partsOf(pieces) {
  const list = [...pieces]
  for (;;) {
    const last = list.pop() ?? Buffer.alloc(0)
    const closing = last.lastIndexOf(CLOSING)
    if (closing >= 0) {
      const meta = JSON.parse(`{${last.toString('utf8', closing + 2)}`)
      list.push(last.subarray(0, closing))
      list[0] = list[0].subarray(OPENING)
      return { list: list.filter((piece) => piece.length > 0), meta }
    }
    // What closes the list may stand in two pieces.
    const before = list.pop()
    if (before === undefined) throw new EddylineError('bad_answer', 'the answer is no list of events', { retryable: true })
    list.push(Buffer.concat([before, last]))
  }
}
