// What the reader is given: events as the broker shows them, and batches of them, with what may be done about them.

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

/**
 * Gives events that are no text their bytes.
 * @param {WireEvent[]} events
 * @returns {WireEvent[]}
 */
export function decode(events) {
  for (const event of events) {
    if (event.encoding === 'base64') event.data = Buffer.from(event.data, 'base64')
  }
  return events
}

/** Events that came together. */
export class Batch {
  /**
   * @param {import('./consumer.js').Consumer} consumer
   * @param {import('./session.js').Tenure} tenure
   * @param {WireEvent[]} events
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

/** One event in the reader's hands. */
export class ConsumedEvent {
  /**
   * @param {WireEvent} event
   * @param {Batch} batch
   */
  constructor(event, batch) {
    this.offset = event.offset
    this.id = event.id
    this.received = event.received
    this.length = event.length
    this.content_type = event.content_type
    this.key = event.key
    this.headers = event.headers
    this.encoding = event.encoding
    this.data = event.data
    this.batch = batch
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
    return this.batch.tenure.signal
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
