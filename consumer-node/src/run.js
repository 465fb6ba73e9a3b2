// Handlers: as many at once as asked for, in order by key, tried again, and what cannot be processed goes where it was
// said to go.

import { backoff, pause } from './backoff.js'
import { EddylineError } from './errors.js'

/** @typedef {import('./consumer.js').Consumer} Consumer */
/** @typedef {import('./events.js').ConsumedEvent} ConsumedEvent */
/** @typedef {(event: ConsumedEvent, context: { signal: AbortSignal, attempt: number }) => unknown} Handler */

/**
 * @typedef {object} RunOptions
 * @property {number} [concurrency] handlers at once (1)
 * @property {'key' | ((event: ConsumedEvent) => string | undefined)} [orderBy] events of one key are handled one after
 *   the other, in order; those without a key in any
 * @property {number} [retries] tries after the first failure (0)
 * @property {'stop' | 'dead-letter' | ((event: ConsumedEvent, error: unknown) => unknown)} [onExhausted] what becomes of
 *   an event whose every try failed: `run` fails (the default); the broker is told, delivers it again, and copies it to
 *   the dead letters after as many rounds as its approval says (`max_attempts`); or the function takes care of it, and it
 *   is acked
 */

/**
 * @param {Consumer} consumer
 * @param {Handler} handler
 * @param {RunOptions} [options]
 * @returns {Promise<void>}
 */
export async function run(consumer, handler, options = {}) {
  if (options.onExhausted === 'dead-letter') await needsDeadLetters(consumer)
  const runner = new Runner(consumer, handler, options)
  /** @type {(value?: unknown) => void} */
  let done = () => {}
  consumer.work = new Promise((resolve) => (done = resolve))
  try {
    for await (const batch of consumer.batches()) {
      const taken = await runner.take(batch)
      if (!taken) break
    }
  } finally {
    await runner.idle()
    done()
  }
  if (runner.failure !== undefined) {
    // Of an ack that could not be sent any more there is less to say.
    await consumer.close().catch(() => {})
    throw runner.failure
  }
  await consumer.closing
}

/** @param {Consumer} consumer */
async function needsDeadLetters(consumer) {
  await consumer.subscribe(consumer.reads.signal)
  const { limits } = await consumer.status()
  if (limits.on_poison === 'dead_letter') return
  throw new EddylineError(
    'no_dead_letters',
    'the consumer was not approved with dead letters: approve it with max_attempts and on_poison "dead_letter"',
  )
}

/** What is under way. */
class Runner {
  /**
   * @param {Consumer} consumer
   * @param {Handler} handler
   * @param {RunOptions} options
   */
  constructor(consumer, handler, { concurrency = 1, orderBy, retries = 0, onExhausted = 'stop' }) {
    this.consumer = consumer
    this.handler = handler
    this.concurrency = concurrency
    this.retries = retries
    this.onExhausted = onExhausted
    this.keyOf = typeof orderBy === 'function' ? orderBy : (/** @type {ConsumedEvent} */ event) => orderBy && event.key
    this.running = 0
    /** Events that wait for the one of their key before them. @type {Map<string, ConsumedEvent[]>} */
    this.lanes = new Map()
    /** Events that may be handled as soon as there is a hand. @type {ConsumedEvent[]} */
    this.ready = []
    this.waiting = 0
    /** Events that the broker is to be told of as failed, and why. @type {{ event: ConsumedEvent, reason: string }[]} */
    this.exhausted = []
    this.reporting = false
    /** @type {unknown} */
    this.failure = undefined
    this.wake = () => {}
  }

  get stopped() {
    return this.failure !== undefined || this.consumer.reads.signal.aborted
  }

  /**
   * Takes a batch, as fast as its events are handled; false when nothing more is to come.
   * @param {import('./events.js').Batch} batch
   * @returns {Promise<boolean>}
   */
  async take(batch) {
    for (const event of batch.events) {
      // A few wait for a hand, so that one key that is slow does not hold up the others.
      while (!this.stopped && !batch.stale && (this.waiting >= this.concurrency * 4 || this.exhausted.length > 0)) {
        await this.change()
      }
      if (this.stopped) return false
      if (batch.stale) return true
      this.add(event)
    }
    return true
  }

  /** @param {ConsumedEvent} event */
  add(event) {
    this.waiting++
    const key = this.keyOf(event)
    const lane = key === undefined ? undefined : this.lanes.get(key)
    if (lane !== undefined) {
      lane.push(event)
    } else {
      if (key !== undefined) this.lanes.set(key, [])
      this.ready.push(event)
    }
    this.start()
  }

  start() {
    while (this.running < this.concurrency && this.ready.length > 0) {
      const event = /** @type {ConsumedEvent} */ (this.ready.shift())
      this.waiting--
      const skip = this.stopped || event.batch.stale || this.exhausted.some((failed) => failed.event.offset < event.offset)
      if (skip) {
        this.leave(event)
        continue
      }
      this.running++
      void this.handle(event).finally(() => {
        this.running--
        this.leave(event)
        this.start()
        if (this.running === 0) void this.settle()
        this.wake()
      })
    }
    this.wake()
  }

  /**
   * Whoever waits for this event's key is next.
   * @param {ConsumedEvent} event
   */
  leave(event) {
    const key = this.keyOf(event)
    const lane = key === undefined ? undefined : this.lanes.get(key)
    if (key === undefined || lane === undefined) return
    const next = lane.shift()
    if (next === undefined) this.lanes.delete(key)
    else this.ready.push(next)
  }

  /** @param {ConsumedEvent} event */
  async handle(event) {
    const signal = this.consumer.working(event.batch.tenure)
    for (let attempt = 1; ; attempt++) {
      try {
        await this.handler(event, { signal, attempt })
        void event.ack().catch(() => {})
        return
      } catch (error) {
        if (signal.aborted) return
        if (attempt <= this.retries && !this.stopped) {
          this.consumer.emit('retry', { event, error, attempt })
          await pause(backoff(attempt), this.consumer.reads.signal)
          if (this.stopped || signal.aborted) return
        } else {
          return this.exhaust(event, error)
        }
      }
    }
  }

  /**
   * @param {ConsumedEvent} event
   * @param {unknown} error
   */
  async exhaust(event, error) {
    const reason = error instanceof Error ? error.message : String(error)
    if (this.onExhausted === 'dead-letter') {
      this.exhausted.push({ event, reason })
      return
    }
    if (this.onExhausted !== 'stop') {
      try {
        await this.onExhausted(event, error)
        void event.ack().catch(() => {})
        return
      } catch (cause) {
        error = cause
      }
    }
    const message = `the handler failed at offset ${event.offset}: ${reason}`
    this.fail(new EddylineError('handler_failed', message, { cause: error }))
  }

  /** @param {unknown} error */
  fail(error) {
    this.failure ??= error
    // No more is read, and none of what waits is begun.
    this.consumer.reads.abort()
  }

  /** When no handler runs, the broker is told of the first exhausted event. It and what is behind it come again, or it is
   * copied to the dead letters. */
  async settle() {
    if (this.exhausted.length === 0 || this.reporting) return
    this.reporting = true
    try {
      this.exhausted.sort((a, b) => a.event.offset - b.event.offset)
      const { event, reason } = this.exhausted[0]
      if (!event.batch.stale) await event.nack({ reason })
      this.exhausted = []
    } catch (error) {
      this.fail(error)
    } finally {
      this.reporting = false
      this.wake()
    }
  }

  /** Waits until no handler runs. */
  async idle() {
    this.ready = []
    const { signal } = this.consumer.ends
    signal.addEventListener('abort', () => this.wake(), { once: true })
    while ((this.running > 0 || this.reporting) && !signal.aborted) await this.change()
  }

  /** Waits until something changed. */
  change() {
    return new Promise((resolve) => (this.wake = () => resolve(undefined)))
  }
}
