// The producer for services: gathers events into batches while others are under way, sends them one behind the other on
// one connection, and numbers them, so that the broker drops repeats. After a failure everything that has no answer is
// sent again, the same bytes under the same numbers.

import { EventEmitter } from 'node:events'
import { randomUUID } from 'node:crypto'
import { backoff, pause } from './backoff.js'
import { EddylineError, closedError, fromAnswer } from './errors.js'
import { Http, pathOf } from './http.js'
import { Parcel, checkKey } from './parcel.js'
import { Pipe } from './wire.js'

/**
 * @typedef {object} ProducerOptions
 * @property {string | URL} [url] of the broker; `EDDYLINE_URL`, or http://127.0.0.1:4437
 * @property {string} group
 * @property {import('./http.js').Token} [token]
 * @property {string} [id] name that repeats are known by; random unless it is given
 * @property {number} [epoch] a newer one shuts out older ones of the same id; the time of the start unless it is given
 * @property {number} [maxEvents] events of a batch at most (1 000)
 * @property {number} [maxBytes] bytes of a batch at most, one event aside (1 MiB)
 * @property {number} [maxInFlight] batches under way at most (8)
 * @property {number} [maxBuffered] bytes that wait at most; beyond it sending is refused (64 MiB)
 * @property {number} [requestTimeout] ms of silence after which a connection is given up (30 s)
 */

/** @typedef {{ offset: number | undefined, duplicate: boolean }} Receipt `offset` is missing for a repeat of long ago */
/**
 * What a producer tells.
 * @typedef {{ reconnecting: [{ attempt: number, delayMs: number, error: EddylineError }], recovered: [{ failures: number }] }} ProducerEvents
 */

/** @extends {EventEmitter<ProducerEvents>} */
export class Producer extends EventEmitter {
  /** @param {ProducerOptions} options */
  constructor(options) {
    super()
    if (!options.group) throw new EddylineError('bad_options', 'a producer needs `group`')
    if (!/^[\x21-\x7e]*$/.test(options.id ?? '')) throw new EddylineError('bad_options', 'an `id` is printable ASCII, without spaces')
    const { maxEvents = 1000, maxBytes = 1 << 20, maxInFlight = 8, maxBuffered = 64 << 20 } = options
    this.bounds = { maxEvents, maxBytes, maxInFlight, maxBuffered }
    this.http = new Http(options)
    this.target = `${this.http.base}/v1${pathOf(options.group)}/batch`
    this.id = options.id ?? randomUUID()
    this.epoch = options.epoch ?? Date.now()
    this.seq = 0
    /** Parcels without an answer, oldest first; the last may still be open. @type {Parcel[]} */
    this.parcels = []
    /** How many of them are under way. */
    this.sent = 0
    this.buffered = 0
    this.attempt = 0
    /** @type {Pipe | undefined} */
    this.pipe = undefined
    this.connecting = false
    /** The token that was refused, until another is taken. @type {string | undefined} */
    this.refused = undefined
    this.scheduled = false
    this.closed = false
    /** @type {EddylineError | undefined} */
    this.failure = undefined
    /** @type {(() => void)[]} */
    this.roomWaiters = []
    this.ended = new AbortController()
  }

  /**
   * Sends an event: any JSON value, or bytes as they are.
   * @param {unknown} value
   * @param {{ key?: string }} [options]
   * @returns {Promise<Receipt>} once it is durable
   */
  send(value, { key } = {}) {
    const refused = this.refusal()
    if (refused !== undefined) return Promise.reject(refused)
    /** @type {Uint8Array | string | undefined} */
    let data
    try {
      data = value instanceof Uint8Array ? value : JSON.stringify(value)
      if (data === undefined) throw new EddylineError('bad_value', 'this value has no form in JSON')
      if (key !== undefined) checkKey(key)
    } catch (cause) {
      const { message } = /** @type {Error} */ (cause)
      return Promise.reject(cause instanceof EddylineError ? cause : new EddylineError('bad_value', message, { cause }))
    }
    let parcel = this.parcels[this.parcels.length - 1]
    if (parcel === undefined || parcel.sealed || parcel.waiters.length >= this.bounds.maxEvents || parcel.length >= this.bounds.maxBytes) {
      if (parcel !== undefined) parcel.sealed = true
      parcel = new Parcel(Buffer.allocUnsafe(Math.min(this.bounds.maxBytes, 64 << 10, this.bounds.maxEvents * 1024)))
      this.parcels.push(parcel)
    }
    this.buffered += parcel.add(data, key)
    const { waiters } = parcel
    const receipt = new Promise((resolve, reject) => waiters.push({ resolve, reject }))
    if (!this.scheduled) {
      // Events of the same turn of the event loop go together.
      this.scheduled = true
      setImmediate(() => this.pump())
    }
    return /** @type {Promise<Receipt>} */ (receipt)
  }

  /** @returns {EddylineError | undefined} */
  refusal() {
    if (this.failure !== undefined) return this.failure
    if (this.closed) return closedError()
    if (this.buffered < this.bounds.maxBuffered) return undefined
    return new EddylineError('buffer_full', `${this.buffered} bytes wait: await ready() first`, { retryable: true })
  }

  /** Waits until there is room for more. */
  async ready() {
    while (this.buffered >= this.bounds.maxBuffered / 2 && this.failure === undefined) {
      await new Promise((resolve) => this.roomWaiters.push(() => resolve(undefined)))
    }
  }

  /** Waits until everything that was sent so far has its answer. Events that were refused have said so themselves. */
  async flush() {
    const last = this.parcels.at(-1)
    if (last !== undefined) await new Promise((resolve) => last.over.push(() => resolve(undefined)))
  }

  /**
   * Takes no more, and waits for what is under way.
   * @param {{ timeout?: number }} [options] ms to wait; without one, as long as it takes
   */
  async close({ timeout } = {}) {
    this.closed = true
    if (timeout !== undefined) setTimeout(() => this.fail(closedError()), timeout).unref()
    await this.flush()
    this.ended.abort()
    this.pipe?.close()
    this.http.close()
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  /** Sends as much as may be under way. */
  pump() {
    this.scheduled = false
    if (this.failure !== undefined || this.parcels.length === 0) return
    if (this.pipe === undefined) {
      if (!this.connecting) void this.connect()
      return
    }
    while (this.sent < Math.min(this.bounds.maxInFlight, this.parcels.length)) {
      const parcel = this.parcels[this.sent]
      parcel.sealed = true
      const head = [
        `POST ${this.target} HTTP/1.1`,
        `Host: ${this.http.url.host}`,
        ...(this.http.bearer === undefined ? [] : [`Authorization: Bearer ${this.http.bearer}`]),
        'Content-Type: application/vnd.eddyline.batch',
        'Prefer: return=minimal',
        `Producer-Id: ${this.id}`,
        `Producer-Epoch: ${this.epoch}`,
        `Producer-Seq: ${this.seq + this.sent}`,
        `Content-Length: ${parcel.length}`,
      ]
      this.pipe.send(`${head.join('\r\n')}\r\n\r\n`, parcel.buffer.subarray(0, parcel.length))
      this.sent++
    }
  }

  async connect() {
    this.connecting = true
    try {
      await this.http.authorization(this.refused)
    } catch (error) {
      return this.broken(/** @type {EddylineError} */ (error))
    }
    /** @type {Pipe} */
    const pipe = new Pipe(this.http.url, {
      timeout: this.http.requestTimeout,
      answer: (answer) => pipe === this.pipe && this.answered(answer),
      end: (error) => pipe === this.pipe && this.broken(this.http.failed(error)),
    })
    this.pipe = pipe
    this.connecting = false
    this.pump()
  }

  /** @param {import('./wire.js').WireAnswer} answer to the oldest parcel */
  answered({ status, headers, body }) {
    const parcel = this.parcels[0]
    this.http.answered = true
    if (status === 204 || status === 200) {
      if (this.attempt > 0) this.emit('recovered', { failures: this.attempt })
      this.attempt = 0
      this.refused = undefined
      const first = headers.get('eddyline-offset')
      const duplicate = headers.get('eddyline-duplicate') === 'true'
      const offset = first === undefined ? undefined : Number(first)
      parcel.waiters.forEach(({ resolve }, at) => resolve({ offset: offset === undefined ? undefined : offset + at, duplicate }))
      this.seq++
      this.sent--
      this.drop()
      this.pump()
      return
    }
    const error = fromAnswer(status, body)
    if (error.code === 'producer_unknown') {
      // Quiet for so long that it was forgotten: as a new one it begins again.
      this.epoch++
      this.seq = 0
      error.retryable = true
    } else if (status === 401 && typeof this.http.token === 'function' && this.refused === undefined) {
      this.refused = this.http.bearer
      error.retryable = true
    } else if (status >= 500) {
      // Whatever it has done: it knows by the number what comes again.
      error.retryable = true
    }
    if (error.retryable) void this.broken(error)
    else if ([401, 403, 404, 409].includes(status)) this.fail(error)
    else this.refuse(parcel, error)
  }

  /**
   * Of this parcel nothing is stored, so its number is still free; those behind it were refused for the hole.
   * @param {Parcel} parcel
   * @param {EddylineError} error
   */
  refuse(parcel, error) {
    this.restart()
    if (parcel.waiters.length > 1) {
      // Halves of it find out which event is meant.
      this.parcels.splice(0, 1, ...parcel.halves())
    } else {
      parcel.waiters[0].reject(error)
      this.drop()
    }
    this.pump()
  }

  drop() {
    const parcel = /** @type {Parcel} */ (this.parcels.shift())
    this.buffered -= parcel.length
    if (this.buffered < this.bounds.maxBuffered / 2) this.roomWaiters.splice(0).forEach((wake) => wake())
    for (const wake of parcel.over) wake()
  }

  /** Forgets the connection: whatever has no answer is sent again on the next one. */
  restart() {
    const { pipe } = this
    this.pipe = undefined
    this.sent = 0
    pipe?.close()
  }

  /** @param {EddylineError} error of the connection */
  async broken(error) {
    if (!error.retryable) return this.fail(error)
    this.restart()
    if (this.parcels.length === 0) return
    this.connecting = true
    this.attempt++
    const delayMs = backoff(this.attempt, error.retryAfterMs)
    this.emit('reconnecting', { attempt: this.attempt, delayMs, error })
    await pause(delayMs, this.ended.signal)
    if (this.failure === undefined) await this.connect()
  }

  /** @param {EddylineError} error for good */
  fail(error) {
    this.failure ??= error
    this.restart()
    this.ended.abort()
    const { parcels } = this
    this.parcels = []
    this.buffered = 0
    for (const { waiters } of parcels) for (const { reject } of waiters) reject(error)
    for (const wake of [...this.roomWaiters.splice(0), ...parcels.flatMap(({ over }) => over)]) wake()
  }
}
