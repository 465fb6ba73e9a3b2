// What the reader is given: events, and batches of them, with what may be done about them.

import { inspect } from 'node:util'
import { keyOf } from './parse.js'

/**
 * An event as the broker shows it. `data` is the value for `json`, a string for `text`, and bytes for `base64`.
 * @typedef {{ offset: number, id: string, received: string, length: number, content_type?: string, key?: string,
 *   headers?: Record<string, string>, encoding: 'json' | 'text' | 'base64', data: any }} WireEvent
 */

/**
 * What came of an ack. `acked`: the broker holds it, durably. `held`: noted, and sent once everything before is done.
 * `dropped`: the session or the position is another one by now, and the event is delivered again to whoever reads.
 * @typedef {'acked' | 'held' | 'dropped'} AckResult
 */

/** @typedef {{ delay?: number, reason?: string }} NackOptions */
/** @typedef {{ offset: number, attempts: number, poison: boolean }} NackAnswer */

/** Events that came together. */
export class Batch {
  /**
   * @param {import('./consumer.js').Consumer} consumer
   * @param {import('./session.js').Tenure} tenure
   * @param {ConsumedEvent[]} events
   * @param {{ attempt: number, replay: boolean, tail: number }} delivery
   */
  constructor(consumer, tenure, events, { attempt, replay, tail }) {
    this.events = events
    /** How often what begins at the position is being tried. */
    this.attempt = attempt
    this.replay = replay
    /** Offset behind the last event that is there. */
    this.tail = tail
    this.consumer = consumer
    this.tenure = tenure
    this.pass = tenure.pass
    for (const event of events) event.batch = this
  }

  /** Aborted when what is in this batch cannot be acked any more. @returns {AbortSignal} */
  get signal() {
    return this.tenure.signal
  }

  /** Whether it will be delivered again anyway. */
  get stale() {
    return this.tenure.over || this.pass !== this.tenure.pass
  }

  /**
   * Says that all of it, and everything delivered before, is processed.
   * @returns {Promise<AckResult>}
   */
  ack() {
    const last = this.events[this.events.length - 1]
    return this.consumer.acks.through(this.tenure, last.offset)
  }

  /**
   * Says that its first event could not be processed; it must be the first that is not acked.
   * @param {NackOptions} [options]
   * @returns {Promise<NackAnswer | undefined>} nothing if the batch cannot be acked any more
   */
  nack(options) {
    return this.consumer.acks.nack(this.tenure, this.events[0].offset, options)
  }
}

/**
 * One event in the reader's hands. Most are a place in the bytes of the answer that they came in, and what is not touched
 * is not parsed.
 */
export class ConsumedEvent {
  /**
   * @param {number} offset
   * @param {number} length
   * @param {Buffer | WireEvent} source the bytes it stands in, or the event itself
   * @param {number} idAt
   * @param {number} dataAt
   */
  constructor(offset, length, source, idAt, dataAt) {
    this.offset = offset
    /** Of its data, in bytes. */
    this.length = length
    /** @private */
    this.source = source
    /** @private */
    this.idAt = idAt
    /** @private */
    this.dataAt = dataAt
    /** @private @type {any} */
    this.value = undefined
    /** What it came in; the batch itself says so. */
    this.batch = /** @type {Batch} */ (/** @type {unknown} */ (undefined))
  }

  /** Behind its bytes. @package */
  get end() {
    return this.dataAt + this.length + 1
  }

  /** @returns {string} */
  get id() {
    const { source, idAt } = this
    return Buffer.isBuffer(source) ? source.toString('latin1', idAt, idAt + 36) : source.id
  }

  /** @returns {string} */
  get received() {
    const { source, idAt } = this
    return Buffer.isBuffer(source) ? source.toString('latin1', idAt + 50, idAt + 77) : source.received
  }

  /** @returns {string | undefined} */
  get key() {
    const { source } = this
    return Buffer.isBuffer(source) ? keyOf(source, this.idAt, this.dataAt) : source.key
  }

  /** @returns {string | undefined} */
  get content_type() {
    return Buffer.isBuffer(this.source) ? undefined : this.source.content_type
  }

  /** @returns {Record<string, string> | undefined} */
  get headers() {
    return Buffer.isBuffer(this.source) ? undefined : this.source.headers
  }

  /** @returns {WireEvent['encoding']} */
  get encoding() {
    return Buffer.isBuffer(this.source) ? 'json' : this.source.encoding
  }

  /** The value if it is JSON, a string if it is text, else bytes. @returns {any} */
  get data() {
    this.value ??= this.parse()
    return this.value
  }

  /** @private */
  parse() {
    const { source, dataAt } = this
    if (Buffer.isBuffer(source)) return JSON.parse(source.toString('utf8', dataAt, dataAt + this.length))
    return source.encoding === 'base64' ? Buffer.from(source.data, 'base64') : source.data
  }

  /** The event as the broker shows it. @returns {WireEvent} */
  toJSON() {
    const { offset, id, received, length, content_type, key, headers, encoding } = this
    const data = Buffer.isBuffer(this.source) ? this.data : this.source.data
    return { offset, id, received, length, content_type, key, headers, encoding, data }
  }

  [inspect.custom]() {
    return this.toJSON()
  }

  /** How often it is being tried, if it is the first that is not acked. */
  get attempt() {
    return this.batch.events[0].offset === this.offset ? this.batch.attempt : 1
  }

  get replay() {
    return this.batch.replay
  }

  /** Aborted when it cannot be acked any more. @returns {AbortSignal} */
  get signal() {
    return this.batch.signal
  }

  /**
   * Says that this event is processed. The broker hears of it once everything before it is, too.
   * @returns {Promise<AckResult>}
   */
  ack() {
    return this.batch.consumer.acks.one(this.batch.tenure, this.offset)
  }

  /**
   * Says that it could not be processed; it must be the first that is not acked.
   * @param {NackOptions} [options]
   * @returns {Promise<NackAnswer | undefined>} nothing if the event cannot be acked any more
   */
  nack(options) {
    return this.batch.consumer.acks.nack(this.batch.tenure, this.offset, options)
  }
}
