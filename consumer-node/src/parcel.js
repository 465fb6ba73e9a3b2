// Events that are sent together, as the broker's binary batches have them, and who waits for each. Knows no socket.

import { EddylineError } from './errors.js'

/** @typedef {{ resolve: (receipt: import('./producer.js').Receipt) => void, reject: (error: Error) => void }} Waiter */

/** The bytes of a key are counted in so many. */
const KEY_BYTES_MAX = 0xffff

/** Events that go together. */
export class Parcel {
  /**
   * @param {Buffer} buffer
   * @param {Waiter[]} [waiters] of the events that are in it
   */
  constructor(buffer, waiters = []) {
    this.buffer = buffer
    this.length = waiters.length > 0 ? buffer.length : 0
    this.waiters = waiters
    this.sealed = waiters.length > 0
    /** Called when all of it has its answer. @type {(() => void)[]} */
    this.over = []
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

  /** Its events as two parcels. @returns {[Parcel, Parcel]} */
  halves() {
    const half = this.waiters.length >> 1
    let at = 0
    for (let event = 0; event < half; event++) {
      const key = this.buffer[at + 4] === 1 ? 2 + this.buffer.readUInt16LE(at + 5) : 0
      at += 5 + key + this.buffer.readUInt32LE(at)
    }
    const [first, second] = [
      new Parcel(this.buffer.subarray(0, at), this.waiters.slice(0, half)),
      new Parcel(this.buffer.subarray(at, this.length), this.waiters.slice(half)),
    ]
    second.over = this.over
    return [first, second]
  }
}

/**
 * Refuses what cannot be a key.
 * @param {unknown} key
 */
export function checkKey(key) {
  if (typeof key !== 'string') throw new EddylineError('bad_value', 'a key is a string')
  if (key.length * 3 <= KEY_BYTES_MAX || Buffer.byteLength(key) <= KEY_BYTES_MAX) return
  throw new EddylineError('key_too_long', `the key has more than ${KEY_BYTES_MAX} bytes`)
}
