// The producer for services: gathers events into batches while others are under way, sends them one behind the other on
// one connection, and numbers them, so that the broker drops repeats. After a failure everything that has no answer is
// sent again, the same bytes under the same numbers.

import { EventEmitter } from 'node:events'
import { randomUUID } from 'node:crypto'
import { backoff, pause } from './backoff.js'
import { EddylineError, closedError, fromAnswer, fromNetwork } from './errors.js'
import { Http, pathOf } from './http.js'
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
/** @typedef {{ resolve: (receipt: Receipt) => void, reject: (error: Error) => void }} Waiter */

/** Events that go together. */
class Parcel {
  /** @param {number} room bytes */
  constructor(room) {
    this.buffer = Buffer.allocUnsafe(room)
    this.length = 0
    /** @type {Waiter[]} */
    this.waiters = []
    this.sealed = false
  }

  /** @param {number} bytes */
  reserve(bytes) {
    if (this.length + bytes <= this.buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.length + bytes))
    this.buffer.copy(larger, 0, 0, this.length)
    this.buffer = larger
  }

  /**
   * Adds an event as the broker's binary batches have it.
   * @param {string | Uint8Array} data
   * @param {string | undefined} key
   */
  add(data, key) {
    // Three bytes are the most that a UTF-16 unit takes.
    this.reserve(7 + data.length * 3 + (key?.length ?? 0) * 3)
    const start = this.length
    let at = start + 5
    this.buffer[start + 4] = key === undefined ? 0 : 1
    if (key !== undefined) {
      const bytes = this.buffer.write(key, at + 2)
      this.buffer.writeUInt16LE(bytes, at)
      at += 2 + bytes
    }
    let bytes = data.length
    if (typeof data === 'string') bytes = this.buffer.write(data, at)
    else this.buffer.set(data, at)
    this.buffer.writeUInt32LE(bytes, start)
    this.length = at + bytes
    return this.length - start
  }
}

/** @extends {EventEmitter<Record<string, any[]>>} */
export class Producer extends EventEmitter {
  /** @param {ProducerOptions} options */
  constructor(options) {
    super()
    if (!options.group) throw new EddylineError('bad_options', 'a producer needs `group`')
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
    this.scheduled = false
    this.closed = false
    /** @type {EddylineError | undefined} */
    this.failure = undefined
    /** @type {(() => void)[]} */
    this.roomWaiters = []
    /** @type {(() => void)[]} */
    this.flushWaiters = []
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
    const data = value instanceof Uint8Array ? value : JSON.stringify(value)
    if (data === undefined) return Promise.reject(new EddylineError('bad_value', 'this value has no form in JSON'))
    let parcel = this.parcels[this.parcels.length - 1]
    if (parcel === undefined || parcel.sealed || parcel.waiters.length >= this.bounds.maxEvents || parcel.length >= this.bounds.maxBytes) {
      if (parcel !== undefined) parcel.sealed = true
      parcel = new Parcel(Math.min(this.bounds.maxBytes, 64 << 10))
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
    while (this.parcels.length > 0) await new Promise((resolve) => this.flushWaiters.push(() => resolve(undefined)))
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

  /** @param {string} [refused] a token that was refused */
  async connect(refused) {
    this.connecting = true
    try {
      await this.http.authorization(refused)
    } catch (error) {
      this.fail(new EddylineError('no_token', 'the token function failed', { cause: error }))
      return
    }
    /** @type {Pipe} */
    const pipe = new Pipe(this.http.url, {
      timeout: this.http.requestTimeout,
      answer: (answer) => pipe === this.pipe && this.answered(answer),
      end: (error) => pipe === this.pipe && this.broken(fromNetwork(error)),
    })
    this.pipe = pipe
    this.connecting = false
    this.pump()
  }

  /** @param {import('./wire.js').WireAnswer} answer to the oldest parcel */
  answered({ status, headers, body }) {
    const parcel = this.parcels[0]
    if (status === 204 || status === 200) {
      if (this.attempt > 0) this.emit('recovered', { failures: this.attempt })
      this.attempt = 0
      const first = headers.get('eddyline-offset')
      const duplicate = headers.get('eddyline-duplicate') === 'true'
      const offset = first === undefined ? undefined : Number(first)
      parcel.waiters.forEach(({ resolve }, at) => resolve({ offset: offset === undefined ? undefined : offset + at, duplicate }))
      this.seq++
      this.drop()
      this.pump()
      return
    }
    const error = fromAnswer(status, body)
    if (error.code === 'producer_unknown') {
      // Quiet for so long that it was forgotten: as a new one it begins again.
      this.epoch++
      this.seq = 0
      this.broken(new EddylineError(error.code, error.message, { retryable: true }))
    } else if (status === 401 && typeof this.http.token === 'function' && this.attempt === 0) {
      this.broken(new EddylineError(error.code, error.message, { retryable: true }))
    } else if (error.retryable) {
      this.broken(error)
    } else if (status === 403 || status === 401 || status === 404 || status === 409) {
      this.fail(error)
    } else {
      // Of this parcel nothing is stored, so its number is still free; those behind it were refused for the hole.
      for (const { reject } of parcel.waiters) reject(error)
      this.drop()
      this.restart()
      this.pump()
    }
  }

  drop() {
    const parcel = /** @type {Parcel} */ (this.parcels.shift())
    this.sent--
    this.buffered -= parcel.length
    if (this.buffered < this.bounds.maxBuffered / 2) this.roomWaiters.splice(0).forEach((wake) => wake())
    if (this.parcels.length === 0) this.flushWaiters.splice(0).forEach((wake) => wake())
  }

  /** Forgets the connection: whatever has no answer is sent again on the next one. */
  restart() {
    const { pipe } = this
    this.pipe = undefined
    this.sent = 0
    pipe?.close()
  }

  /** @param {EddylineError} error that passes */
  async broken(error) {
    this.restart()
    if (this.parcels.length === 0) return
    this.connecting = true
    this.attempt++
    const delayMs = backoff(this.attempt, error.retryAfterMs)
    this.emit('reconnecting', { attempt: this.attempt, delayMs, error })
    await pause(delayMs, this.ended.signal)
    if (this.failure === undefined) await this.connect(error.code === 'bad_token' ? this.http.bearer : undefined)
  }

  /** @param {EddylineError} error for good */
  fail(error) {
    this.failure ??= error
    this.restart()
    this.ended.abort()
    for (const { waiters } of this.parcels) for (const { reject } of waiters) reject(error)
    this.parcels = []
    this.buffered = 0
    for (const wake of [...this.roomWaiters.splice(0), ...this.flushWaiters.splice(0)]) wake()
  }
}
