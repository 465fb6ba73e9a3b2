// Events of a page into a group: gathered, kept in IndexedDB, sent in order, one request at a time; after a failure again
// with the same bytes and number, so the broker drops repeats.

/** @import { Batch, Drop, Options, Outcome, Receipt, Waiter } from './shapes.js' */

/** An event that was not taken; `code` says why. */
export class ProducerError extends Error {
  name = 'ProducerError'
  /** @param {string} code */
  constructor(code, detail = code) {
    super(detail)
    this.code = code
  }
}

/** A page that goes away may have 64 KiB under way, all its producers together. */
const KEEPALIVE_BYTES = 60_000
let leaving = 0
/** @param {string} text */
const size = (text) => new TextEncoder().encode(text).length + 1
/** @param {number[]} list */
const sum = (list) => list.reduce((a, b) => a + b, 0)
/** @param {string[]} lines */
const bytesOf = (lines) => sum(lines.map(size))

/** @type {Promise<IDBDatabase> | undefined} */
let database
const open = () => (database ??= new Promise((resolve, reject) => {
  // Without locks nobody knows whose batches those are.
  if (!navigator.locks) throw new Error('no locks')
  const request = indexedDB.open('eddyline-producer', 1)
  request.onupgradeneeded = () => request.result.createObjectStore('batches')
  request.onerror = () => reject(request.error)
  request.onsuccess = () => {
    const opened = request.result
    // Others may delete it.
    opened.onversionchange = opened.onclose = () => (opened.close(), (database = undefined))
    resolve(opened)
  }
}))
/** Completes when it is stored. @template T @param {(store: IDBObjectStore) => T} work @returns {Promise<T>} */
const stored = async (work) => {
  const transaction = (await open()).transaction('batches', 'readwrite')
  return new Promise((resolve, reject) => {
    const requests = work(transaction.objectStore('batches'))
    transaction.oncomplete = () => resolve(requests)
    transaction.onabort = () => reject(transaction.error)
    // The page may not live to hear of it.
    transaction.commit()
  })
}
/** @param {string[]} place @returns {Promise<[any, string[]][]>} batches, with their keys */
const all = async (...place) => {
  const range = IDBKeyRange.bound(place, [...place, []])
  const [keys, values] = await stored((store) => [store.getAllKeys(range), store.getAll(range)])
  return values.result.map((lines, at) => [keys.result[at], lines])
}

/** One page's batches, sent by who holds the lock of its id. */
class Lane {
  /** @type {Batch[]} */ queue = []
  /** @type {Batch | undefined} the last of the queue, while it grows */ growing
  /** @type {((value?: any) => void) | undefined} */ release
  epoch = 0
  seq = 0
  writing = Promise.resolve()

  /** @param {string[]} place its target and id */
  constructor(...place) {
    this.place = place
  }

  /** @param {Batch} batch */
  key = (batch) => [...this.place, batch.epoch, batch.seq]

  /** @param {boolean} ifAvailable @returns {Promise<boolean>} */
  lock(ifAvailable) {
    return new Promise((resolve, reject) => {
      navigator.locks.request(`eddyline:${this.place}`, { ifAvailable }, (lock) => {
        resolve(!!lock)
        return lock && new Promise((release) => (this.release = release))
      }).catch(reject)
    })
  }

  /** @param {string} line @param {Waiter | undefined} waiter @param {Producer['options']} options */
  add(line, waiter, { batchBytes, batchEvents }) {
    const bytes = size(line)
    if (this.growing && this.growing.bytes + bytes > batchBytes) this.growing = undefined
    if (!this.growing) {
      this.growing = { epoch: this.epoch, seq: this.seq++, lines: [], bytes: 0, waiters: [] }
      this.queue.push(this.growing)
    }
    const batch = this.growing
    batch.waiters.push(waiter)
    batch.bytes += bytes
    if (batch.lines.push(line) >= batchEvents) this.growing = undefined
    this.write([batch])
  }

  /** Stores batches instead of others. @param {Batch[]} batches @param {IDBValidKey[]} [stale] */
  write(batches, stale = []) {
    this.writing = this.writing.then(async () => {
      const changed = batches.filter((batch) => this.queue.includes(batch) && batch.kept !== batch.lines.length)
      if (changed.length + stale.length === 0) return
      const counts = changed.map(({ lines }) => lines.length)
      await stored((store) => {
        for (const key of stale) store.delete(key)
        for (const batch of changed) store.put(batch.lines, this.key(batch))
      })
      changed.forEach((batch, at) => (batch.kept = counts[at]))
    }).catch(() => {})
    return this.writing
  }

  /** Takes over what is stored of the lane. */
  async load() {
    this.queue = (await all(...this.place)).map(([[, , epoch, seq], lines]) => {
      this.epoch = epoch
      return { epoch, seq, lines, bytes: bytesOf(lines), waiters: [], kept: lines.length }
    })
  }

  /** Begins a new epoch. @param {Batch[]} batches @param {number} [epoch] the broker's */
  renumber(batches, epoch = 0) {
    const stale = this.queue.map(this.key)
    this.epoch = Math.max(this.epoch, epoch) + 1
    this.seq = 0
    this.growing = undefined
    this.queue = batches
    for (const batch of batches) {
      Object.assign(batch, { epoch: this.epoch, seq: this.seq++, attempt: undefined, left: undefined, kept: 0 })
    }
    return this.write(batches, stale)
  }

  /** What other pages sent meanwhile is no longer stored; of a part, the broker will tell. */
  async reclaim() {
    await this.lock(false)
    const here = (await all(...this.place)).map(([key]) => `${key}`)
    this.queue = this.queue.filter((batch) => {
      if (batch.kept !== batch.lines.length || here.includes(`${this.key(batch)}`)) return true
      batch.waiters.forEach((waiter) => waiter?.reject(new ProducerError('unknown', 'sent by another tab')))
    })
  }

  /** @param {Batch} batch */
  async forget(batch) {
    this.queue.shift()
    await stored((store) => store.delete(this.key(batch))).catch(() => {})
  }
}

/** @param {Batch} batch @returns {Batch[]} */
function halves(batch) {
  const middle = batch.lines.length >> 1
  return [[0, middle], [middle]].map((place) => {
    const lines = batch.lines.slice(...place)
    return { ...batch, lines, waiters: batch.waiters.slice(...place), bytes: bytesOf(lines) }
  })
}

class Producer {
  counts = { sent: 0, dropped: 0 }
  failures = 0
  sending = false
  away = false
  /** @type {number | undefined} while a batch gathers */ gathering
  /** @type {number | undefined} while it waits to try again */ retry
  /** @type {(() => void)[]} */ waiting = []
  /** Bytes that wait in other tabs. */
  elsewhere = 0

  /** @param {string} group @param {Options} given */
  constructor(group, given) {
    this.options = {
      gatherMs: 1000, batchEvents: 50, batchBytes: 40_000, queueBytes: 1 << 20, retryMs: 500, retryMaxMs: 60_000,
      timeoutMs: 30_000, adoptMs: 10_000, onDrop: (/** @type {Drop} */ drop) => console.warn('dropped', drop), ...given,
    }
    this.options.batchBytes = Math.min(this.options.batchBytes, KEEPALIVE_BYTES)
    const base = given.url?.replace(/\/?$/, '/') ?? import.meta.url
    this.target = new URL(`v1/groups/${encodeURIComponent(group)}/batch`, base).href
    this.lane = new Lane(this.target, `web-${crypto.getRandomValues(new Uint32Array(4)).join('-')}`)
    this.lanes = new Set([this.lane])
    this.lane.writing = this.lane.lock(false).then(() => {}, () => {})
    addEventListener('visibilitychange', () => document.visibilityState === 'hidden' && this.leave())
    addEventListener('pagehide', () => this.hide())
    addEventListener('pageshow', (event) => event.persisted && this.back())
    addEventListener('online', () => this.again())
    setInterval(() => this.adopt(), this.options.adoptMs)
    this.adopt()
  }

  /** @param {unknown} event @param {Waiter} [waiter] */
  send(event, waiter) {
    const line = JSON.stringify(event)
    if (!line) throw new TypeError('no JSON')
    if (this.elsewhere + this.bytes() + size(line) > this.options.queueBytes) {
      return this.drop({ code: 'queue_full', events: [line] }, [waiter])
    }
    this.add(line, waiter)
  }

  /** @param {string} line @param {Waiter} [waiter] */
  add(line, waiter) {
    this.lane.add(line, waiter, this.options)
    if (this.away) this.leave()
    else if (waiter) queueMicrotask(() => this.push())
    else if (this.lane.growing) this.gathering ??= setTimeout(() => this.push(), this.options.gatherMs)
    else this.pump()
  }

  /** Sends what has gathered. */
  push() {
    clearTimeout(this.gathering)
    this.gathering = undefined
    if (this.lane.growing) this.lane.growing.due = true
    this.pump()
  }

  /** Sends it without a wait. */
  again() {
    clearTimeout(this.retry)
    this.retry = undefined
    this.push()
  }

  /** Sends what there is, in order, the page's own first. */
  async pump() {
    if (this.sending) return
    this.sending = true
    for (;;) {
      for (const lane of this.lanes) {
        if (lane.queue.length > 0) continue
        if (lane === this.lane) this.waiting.splice(0).forEach((resolve) => resolve())
        else lane.release?.(), this.lanes.delete(lane)
      }
      const lane = [...this.lanes].find(({ queue: [batch], growing }) => batch && (batch !== growing || batch.due))
      if (!lane || this.retry || this.away) break
      const [batch] = lane.queue
      if (batch === lane.growing) lane.growing = undefined
      await lane.writing
      const outcome = await (batch.attempt ??= this.post(lane, batch, false))
      const { left } = batch
      batch.attempt = batch.left = undefined
      if (lane.queue[0] === batch) await this.settle(lane, batch, left, outcome)
    }
    this.sending = false
  }

  /** @param {Lane} lane @param {Batch} batch @param {boolean} keepalive @returns {Promise<Outcome>} */
  async post(lane, batch, keepalive) {
    const { token, timeoutMs } = this.options
    const key = token ? `&token=${encodeURIComponent(token)}` : ''
    const url = `${this.target}?producer=${lane.place[1]}&epoch=${batch.epoch}&seq=${batch.seq}${key}`
    // text/plain and no header of ours: no preflight.
    const body = batch.lines.join('\n')
    if (keepalive) leaving += batch.bytes
    try {
      if (keepalive && !('keepalive' in Request.prototype)) throw 0
      const signal = AbortSignal.timeout(timeoutMs)
      const answer = await fetch(url, { method: 'POST', body, keepalive, credentials: 'omit', signal })
      return { ...(await answer.json().catch(() => {})), status: answer.status }
    } catch {
      if (keepalive) navigator.sendBeacon(url, new Blob([body], { type: 'text/plain' }))
      return { status: 0 }
    } finally {
      if (keepalive) leaving -= batch.bytes
    }
  }

  /** @param {Lane} lane @param {Batch} batch @param {boolean | undefined} left @param {Outcome} answer */
  async settle(lane, batch, left, answer) {
    const { status, code, detail, duplicate, first_offset, count = batch.lines.length } = answer
    // Any other 2xx is not of the broker, or was cut off.
    if (duplicate !== undefined) {
      this.failures = 0
      await lane.forget(batch)
      batch.lines.forEach((line, at) => {
        const waiter = batch.waiters[at]
        // Another tab sent what was stored of it by then.
        if (at >= count) return this.add(line, waiter)
        this.counts.sent++
        waiter?.resolve({ offset: first_offset >= 0 ? first_offset + at : undefined, duplicate })
      })
      return
    }
    // It is of others now, or came before those in front.
    if (this.away || !this.lanes.has(lane) || (left && status === 409)) return
    if (status < 300 || [408, 425, 429].includes(status) || status >= 500) {
      const backoff = Math.min(this.options.retryMaxMs, this.options.retryMs * 2 ** this.failures++)
      this.retry = setTimeout(() => this.again(), (answer.retry_after_ms ?? backoff / 2) * (1 + Math.random()))
      return
    }
    let rest = lane.queue.slice(1)
    if (status === 413 && batch.lines.length > 1) rest = [...halves(batch), ...rest]
    else if (/^(producer|sequence)_/.test(code)) rest = lane.queue
    else this.drop({ code: code ?? 'refused', status, detail, events: batch.lines }, batch.waiters)
    await lane.renumber(rest, answer.epoch)
  }

  /** @returns {Promise<void>} */
  flush() {
    return new Promise((resolve) => (this.waiting.push(resolve), this.push()))
  }

  /** @param {(batch: Batch) => number} of */
  total = (of) => sum([...this.lanes].flatMap(({ queue }) => queue.map(of)))
  bytes = () => this.total((batch) => batch.bytes)

  /** @param {Drop} drop @param {Batch['waiters']} waiters */
  drop(drop, waiters) {
    this.counts.dropped += drop.events.length
    waiters.forEach((waiter) => waiter?.reject(new ProducerError(drop.code, drop.detail)))
    queueMicrotask(() => this.options.onDrop(drop))
  }

  /** Takes over what pages left that are no more. */
  async adopt() {
    const batches = await all(this.target).catch(() => [])
    for (const id of new Set(batches.map(([[, id]]) => id))) {
      const lane = new Lane(this.target, id)
      // An answer after it went away would keep the page from coming back.
      if ([...this.lanes].some((own) => own.place[1] === id) || !(await lane.lock(true))) continue
      await lane.load().catch(() => {})
      if (this.away) return lane.release?.()
      this.lanes.add(lane)
      this.pump()
    }
    this.elsewhere = Math.max(0, sum(batches.map(([, lines]) => bytesOf(lines))) - this.bytes())
  }

  /** Sends what fits, again what is under way: it may be cut off. */
  leave() {
    for (const lane of this.lanes) {
      lane.growing = undefined
      for (const batch of lane.queue) {
        if (batch.left) continue
        if (leaving + batch.bytes > KEEPALIVE_BYTES) break
        batch.left = true
        const attempt = this.post(lane, batch, true)
        batch.attempt ??= attempt
      }
    }
  }

  /** Others may send what is stored. */
  hide() {
    this.leave()
    this.away = true
    // A page with a lock cannot come back as it was.
    for (const lane of this.lanes) lane.release?.()
    this.lanes = new Set([this.lane])
  }

  /** The page is shown again as it was. */
  async back() {
    await this.lane.reclaim().catch(() => {})
    this.away = false
    this.again()
    this.adopt()
  }
}

/**
 * `send` never waits, and fails only for what is no JSON; `send.confirmed` completes when the event is durable; `flush`
 * when nothing waits.
 * @param {string} group @param {Options} [options]
 */
export function producer(group, options = {}) {
  const it = new Producer(group, options)
  const send = (/** @type {unknown} */ event) => it.send(event)
  /** @param {unknown} event @returns {Promise<Receipt>} */
  send.confirmed = (event) => new Promise((resolve, reject) => it.send(event, { resolve, reject }))
  const stats = () => ({ ...it.counts, queued: it.total(({ lines }) => lines.length) })
  return { send, flush: () => it.flush(), stats }
}
