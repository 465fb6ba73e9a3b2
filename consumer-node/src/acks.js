// Sends acks and nacks: one request at a time, the newest ack wins, and what fails for a moment is tried again.

import { EddylineError } from './errors.js'

/** @typedef {import('./session.js').Tenure} Tenure */
/** @typedef {import('./events.js').AckResult} AckResult */
/** @typedef {import('./events.js').NackAnswer} NackAnswer */

export class Acks {
  /** @param {import('./consumer.js').Consumer} consumer */
  constructor(consumer) {
    this.consumer = consumer
    /** When something was last acked, or delivered while nothing was in hand. */
    this.progress = Date.now()
  }

  /**
   * @param {Tenure} tenure
   * @param {number} offset
   * @returns {Promise<AckResult>}
   */
  one(tenure, offset) {
    return this.result(tenure, offset, tenure.tracker.finish(offset))
  }

  /**
   * @param {Tenure} tenure
   * @param {number} offset
   * @returns {Promise<AckResult>}
   */
  through(tenure, offset) {
    return this.result(tenure, offset, tenure.tracker.finishThrough(offset))
  }

  /**
   * @param {Tenure} tenure
   * @param {number} offset
   * @param {boolean} inHand
   * @returns {Promise<AckResult>}
   */
  result(tenure, offset, inHand) {
    const result = this.outcome(tenure, offset, inHand)
    // Who does not wait for an ack is told by the reading, which fails with the same error.
    result.catch(() => {})
    return result
  }

  /**
   * @param {Tenure} tenure
   * @param {number} offset
   * @param {boolean} inHand
   * @returns {Promise<AckResult>}
   */
  async outcome(tenure, offset, inHand) {
    const { tracker } = tenure
    // It was delivered before a failure, and comes again; or it never was.
    if (!inHand && offset > tracker.ackable && offset >= tenure.next) return 'dropped'
    if (tracker.waits(offset)) return tenure.over ? 'dropped' : 'held'
    return this.flush(tenure)
  }

  /**
   * Waits until everything that may be acked now is acked, or cannot be any more.
   * @param {Tenure} tenure
   * @returns {Promise<AckResult>}
   */
  async flush(tenure) {
    const steps = tenure.tracker.steps
    while (tenure.ackedSteps < steps && !tenure.over) {
      tenure.acking ??= this.send(tenure).finally(() => (tenure.acking = undefined))
      await tenure.acking
    }
    return tenure.ackedSteps >= steps ? 'acked' : 'dropped'
  }

  /** @param {Tenure} tenure */
  async send(tenure) {
    // Acks of the same turn of the event loop go together.
    await new Promise((resolve) => setImmediate(resolve))
    await this.consumer.persist(tenure, async (signal) => {
      const { steps, ackable } = tenure.tracker
      const json = { offset: ackable, session: tenure.session }
      await this.consumer.http.json('POST', `${this.consumer.path}/ack`, { json, signal })
      tenure.ackedSteps = steps
      this.progress = Date.now()
    })
  }

  /**
   * @param {Tenure} tenure
   * @param {number} offset
   * @param {import('./events.js').NackOptions} [options]
   * @returns {Promise<NackAnswer | undefined>}
   */
  async nack(tenure, offset, { delay = 0, reason = '' } = {}) {
    await this.flush(tenure)
    await tenure.nacking
    if (tenure.over) return undefined
    const { head } = tenure.tracker
    if (head !== offset) {
      throw new EddylineError('not_next', `${head} is the first event that is not acked: ${offset} cannot fail before it is`)
    }
    const json = { offset, delay_ms: delay, reason: cut(reason), session: tenure.session }
    const nacking = this.consumer.persist(tenure, async (signal) => {
      const answer = await this.consumer.http.json('POST', `${this.consumer.path}/nack`, { json, signal }).catch((error) => {
        // The answer to the first try was lost: what failed is not in flight any more.
        if (error.code !== 'beyond_delivered') throw error
      })
      this.restart(tenure)
      return answer
    })
    tenure.nacking = nacking.catch(() => {}).finally(() => (tenure.nacking = undefined))
    return nacking
  }

  /** @param {Tenure} tenure */
  restart(tenure) {
    tenure.tracker.restart()
    tenure.pass++
    this.progress = Date.now()
  }
}

/**
 * A reason as the broker takes it: at most 1 KiB on one line.
 * @param {string} reason
 * @returns {string}
 */
function cut(reason) {
  return Buffer.from(reason.replace(/\s+/g, ' ')).subarray(0, 1024).toString().replace(/\uFFFD+$/, '')
}
