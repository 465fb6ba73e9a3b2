// The consumer: reads what its session is given, hands it out, and says what was processed.
//
// ```text
// session ─▶ feed (next | stream) ─▶ tracker: what is in hand ─▶ batches, events, run
//    ▲                                        │
//    └──── fenced, rewound: another tenure    └─▶ acks: the unbroken beginning of what is done
// ```
//
// Whoever reads gets events, or an error with a code, or the end because it was closed. What passes is tried again for
// ever, and told: `reconnecting`, `recovered`, `standby`, `fenced`, `rewound`, `gap`, `stalled`, `lag`.

import { EventEmitter } from 'node:events'
import { Acks } from './acks.js'
import { backoff, pause } from './backoff.js'
import { EddylineError, closedError, fromNetwork } from './errors.js'
import { Batch } from './events.js'
import { feedNext } from './feed-next.js'
import { feedStream } from './feed-stream.js'
import { Http, pathOf } from './http.js'
import { run } from './run.js'
import { Session } from './session.js'

/** @typedef {import('./session.js').Tenure} Tenure */
/** @typedef {number | string} Position an offset, or an expression such as `earliest`, `latest`, `ago:1h` */

/**
 * @typedef {object} ConsumerOptions
 * @property {string | URL} [url] of the broker; `EDDYLINE_URL`, or http://127.0.0.1:4437
 * @property {string} group
 * @property {string} name
 * @property {import('./http.js').Token} [token] a token, or a function that gives one
 * @property {Position | false} [start] where it begins if it has to subscribe first (`earliest`); false: it never does
 * @property {'next' | 'stream'} [mode] one batch a request (the default), or one connection for everything
 * @property {number} [max] events of a batch at most (500)
 * @property {number} [maxBytes] bytes of a batch at most, mode `next` (8 MiB)
 * @property {number} [waitMs] how long a request waits for events (20 s)
 * @property {boolean} [takeover] take the session from whoever has it, instead of standing by
 * @property {number} [stalledAfter] ms without an ack after which `stalled` is told (60 s)
 * @property {number} [requestTimeout] ms of silence after which a connection is given up (30 s)
 * @property {AbortSignal} [signal] ends reading, and closes the consumer when the loop that reads has ended
 */

/**
 * What a consumer tells.
 * @typedef {object} ConsumerEvents
 * @property {[{ session: string, epoch: number }]} active it reads
 * @property {[{ retryAfterMs: number | undefined }]} standby another session reads
 * @property {[{ session: string }]} fenced the session was taken over
 * @property {[{ to: number, epoch: number }]} rewound somebody moved the position
 * @property {[{ attempt: number, delayMs: number, error: EddylineError }]} reconnecting
 * @property {[{ failures: number }]} recovered
 * @property {[{ from: number, to: number }]} gap events are lost
 * @property {[{ events: number, tail: number }]} lag
 * @property {[{ reason: 'no_ack' | 'poison', inHand: number, offset?: number, forMs?: number }]} stalled
 * @property {[{ event: import('./events.js').ConsumedEvent, error: unknown, attempt: number }]} retry of `run`
 */

/** @extends {EventEmitter<ConsumerEvents>} */
export class Consumer extends EventEmitter {
  /** @param {ConsumerOptions} options */
  constructor(options) {
    super()
    for (const name of /** @type {const} */ (['group', 'name'])) {
      if (!options[name]) throw new EddylineError('bad_options', `a consumer needs \`${name}\``)
    }
    this.options = options
    this.http = new Http(options)
    this.path = pathOf(options.group, options.name)
    this.acks = new Acks(this)
    /** @type {import('./session.js').Tell} */
    const tell = (name, detail) => void this.emit(name, /** @type {any} */ (detail))
    this.session = new Session(this.http, this.path, tell, { takeover: options.takeover, standbyMs: options.waitMs })
    /** Aborted when no more is to be read. */
    this.reads = new AbortController()
    /** Aborted when nothing is to be waited for any more. */
    this.ends = new AbortController()
    /** The loop that reads. @type {Promise<void> | undefined} */
    this.loop = undefined
    /** What was read and not handed out when a loop was left. @type {Batch | undefined} */
    this.unread = undefined
    /** Why nothing can be acked any more. @type {unknown} */
    this.failure = undefined
    /** Whether a loop ended with it. */
    this.told = false
    /** @type {Promise<void> | undefined} */
    this.closing = undefined
    /** Handlers of `run` that are under way. @type {Promise<unknown>} */
    this.work = Promise.resolve()
    this.subscribed = options.start === false
    this.aborted = () => {
      this.reads.abort()
      // What a loop has in hand may still be acked. A failure is told by whoever awaits `close`.
      void Promise.resolve(this.loop).then(() => this.close()).catch(() => {})
    }
    options.signal?.addEventListener('abort', this.aborted, { once: true })
    if (options.signal?.aborted) this.aborted()
  }

  /**
   * Batches, for as long as the consumer is open.
   * @returns {AsyncGenerator<Batch, void, void>}
   */
  async *batches() {
    if (this.loop !== undefined) throw new EddylineError('already_reading', 'this consumer is being read from already')
    /** @type {() => void} */
    let ended = () => {}
    this.loop = new Promise((resolve) => (ended = resolve))
    const after = this.options.stalledAfter ?? 60_000
    const watch = setInterval(() => this.look(after), Math.max(10, after / 4)).unref()
    try {
      const { unread } = this
      this.unread = undefined
      if (unread !== undefined && !unread.stale) yield unread
      yield* this.read()
    } finally {
      clearInterval(watch)
      this.loop = undefined
      ended()
    }
    if (this.failure === undefined) return
    this.told = true
    throw this.failure
  }

  /**
   * Events, for as long as the consumer is open.
   * @returns {AsyncGenerator<import('./events.js').ConsumedEvent, void, void>}
   */
  async *[Symbol.asyncIterator]() {
    for await (const batch of this.batches()) {
      const { events } = batch
      let at = 0
      try {
        while (at < events.length && !batch.stale && !this.reads.signal.aborted) yield events[at++]
      } finally {
        const { stale, tenure, replay, tail } = batch
        if (at < events.length && !stale) this.unread = new Batch(this, tenure, events.slice(at), { attempt: 1, replay, tail })
      }
    }
  }

  /**
   * Gives every event to `handler`, acks what it has processed, and tries again what failed.
   * @param {import('./run.js').Handler} handler
   * @param {import('./run.js').RunOptions} [options]
   * @returns {Promise<void>} when the consumer was closed
   */
  run(handler, options) {
    return run(this, handler, options)
  }

  /**
   * Says that everything up to and including `offset` is processed.
   * @param {number} offset
   * @returns {Promise<import('./events.js').AckResult>}
   */
  async ack(offset) {
    const { tenure } = this.session
    return tenure === undefined ? 'dropped' : this.acks.through(tenure, offset)
  }

  /**
   * Says that the first event that is not acked could not be processed.
   * @param {number} offset
   * @param {import('./events.js').NackOptions} [options]
   * @returns {Promise<import('./events.js').NackAnswer | undefined>}
   */
  async nack(offset, options) {
    const { tenure } = this.session
    return tenure === undefined ? undefined : this.acks.nack(tenure, offset, options)
  }

  /**
   * Moves the position; whoever reads goes on from there.
   * @param {{ to: Position, until?: Position, dryRun?: boolean, skip?: boolean }} move
   * @returns {Promise<{ from: number, to: number, events: number, bytes: number, dry_run: boolean }>}
   */
  rewind({ to, until, dryRun, skip }) {
    return this.http.json('POST', `${this.path}/rewind`, { json: { to, until, dry_run: dryRun, skip } })
  }

  /**
   * The consumer as the broker sees it.
   * @returns {Promise<import('./admin.js').ConsumerStatus>}
   */
  status() {
    return this.http.json('GET', this.path)
  }

  /**
   * Reads no more, waits for handlers of `run` and for the last ack, and leaves the session.
   * @param {{ timeout?: number }} [options] ms to wait; without one, as long as it takes
   * @returns {Promise<void>} rejected if what was to be acked could not be, and nobody was told yet
   */
  close({ timeout } = {}) {
    if (timeout !== undefined) setTimeout(() => this.ends.abort(), timeout).unref()
    this.closing ??= this.finish()
    return this.closing
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  async finish() {
    this.reads.abort()
    this.options.signal?.removeEventListener('abort', this.aborted)
    const ended = new Promise((resolve) => this.ends.signal.addEventListener('abort', resolve, { once: true }))
    try {
      await Promise.race([this.work.catch(() => {}), ended])
      const { tenure } = this.session
      if (tenure !== undefined && this.failure === undefined) await this.acks.flush(tenure)
    } finally {
      this.reads.abort()
      await this.session.leave(this.ends.signal)
      this.http.close()
    }
    if (this.failure !== undefined && !this.told) throw this.failure
  }

  async *read() {
    const { signal } = this.reads
    let failures = 0
    while (!signal.aborted) {
      /** @type {Tenure | undefined} */
      let tenure
      try {
        await this.subscribe(signal)
        tenure = await this.session.open(signal)
        for await (const delivery of this.feed(tenure, signal)) {
          if (failures > 0) this.emit('recovered', { failures })
          failures = 0
          const batch = this.take(tenure, delivery)
          if (batch !== undefined) yield batch
          if (signal.aborted) return
        }
      } catch (error) {
        if (signal.aborted) return
        if (tenure?.over) continue
        if (this.passes(error, tenure)) continue
        failures++
        await this.again(failures, /** @type {EddylineError} */ (error), signal)
      }
    }
  }

  /**
   * What the broker gives in a tenure; throws what ends it.
   * @param {Tenure} tenure
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<import('./feed-next.js').Delivery>}
   */
  async *feed(tenure, signal) {
    const { mode = 'next', max = 500, maxBytes = 8 << 20, waitMs = 20_000 } = this.options
    const left = new AbortController()
    const either = AbortSignal.any([signal, tenure.signal, left.signal])
    try {
      yield* mode === 'stream'
        ? feedStream(this.http, this.path, tenure, { max, quietMs: waitMs }, either)
        : feedNext(this.http, this.path, tenure, { max, maxBytes, waitMs }, either)
    } finally {
      // What was asked for ahead is not waited for.
      left.abort()
    }
  }

  /** @param {AbortSignal} signal */
  async subscribe(signal) {
    if (this.subscribed) return
    await this.http.json('PUT', this.path, { json: { start: this.options.start ?? 'earliest' }, signal })
    this.subscribed = true
  }

  /**
   * What of a delivery is to be handed out.
   * @param {Tenure} tenure
   * @param {import('./feed-next.js').Delivery} delivery
   * @returns {Batch | undefined}
   */
  take(tenure, delivery) {
    const { events, gap, blocked, tail } = delivery
    if (gap !== undefined) this.emit('gap', gap)
    if (blocked === 'poison') this.emit('stalled', { reason: 'poison', inHand: tenure.tracker.inHand })
    if (events.length === 0) return undefined
    const first = events[0].offset
    const next = events[events.length - 1].offset + 1
    this.emit('lag', { events: Math.max(0, tail - next), tail })
    if (tenure.tracker.runs.length === 0) this.acks.progress = Date.now()
    const admitted = tenure.tracker.admit(first, next)
    const wanted = admitted === undefined ? events : events.filter((event) => admitted(event.offset))
    // What was done before a failure is acked now.
    if (wanted.length === 0) this.acks.flush(tenure).catch(() => {})
    return wanted.length === 0 ? undefined : new Batch(this, tenure, wanted, delivery)
  }

  /**
   * Whether reading goes on at once, with another tenure.
   * @param {unknown} error
   * @param {Tenure | undefined} tenure
   * @returns {boolean}
   */
  passes(error, tenure) {
    if (!(error instanceof EddylineError)) throw error
    if (tenure !== undefined && this.session.lost(tenure, error.code, error.problem)) return true
    if (!error.retryable) throw error
    return false
  }

  /**
   * Tells of a failure that passes, and waits before the next try.
   * @param {number} attempt
   * @param {EddylineError} error
   * @param {AbortSignal} signal
   */
  async again(attempt, error, signal) {
    const delayMs = backoff(attempt, error.retryAfterMs)
    this.emit('reconnecting', { attempt, delayMs, error })
    await pause(delayMs, signal)
  }

  /**
   * One signal for a whole tenure: a new one for every ack would be remembered by those it follows.
   * @param {Tenure} tenure
   * @returns {AbortSignal} aborted with the tenure, or when nothing is to be waited for any more
   */
  working(tenure) {
    tenure.working ??= AbortSignal.any([tenure.signal, this.ends.signal])
    return tenure.working
  }

  /**
   * Does `work` until it is done, the tenure is over, or it fails for good; then reading fails, too.
   * @template T
   * @param {Tenure} tenure
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @returns {Promise<T | undefined>}
   */
  async persist(tenure, work) {
    const signal = this.working(tenure)
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        const done = await work(signal)
        if (attempt > 1) this.emit('recovered', { failures: attempt - 1 })
        return done
      } catch (error) {
        if (this.ends.signal.aborted) throw closedError()
        if (tenure.over) return undefined
        const told = fromNetwork(error)
        if (this.session.lost(tenure, told.code, told.problem)) return undefined
        // Delivered again, it can be acked.
        if (told.code === 'beyond_delivered') tenure.pass++
        else if (!told.retryable) throw this.fail(told)
        await this.again(attempt, told, signal)
      }
    }
    if (!tenure.over) throw closedError()
    return undefined
  }

  /**
   * @param {EddylineError} error
   * @returns {EddylineError}
   */
  fail(error) {
    this.failure ??= error
    this.reads.abort()
    return error
  }

  /** @param {number} after */
  look(after) {
    const { tenure } = this.session
    if (tenure === undefined || tenure.over || tenure.tracker.runs.length === 0) return
    const forMs = Date.now() - this.acks.progress
    const { head, inHand } = tenure.tracker
    if (forMs >= after) this.emit('stalled', { reason: 'no_ack', offset: head, inHand, forMs })
  }
}
