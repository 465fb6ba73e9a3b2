// Events of a page into a group: gathered, kept in IndexedDB, sent in order, one request at a time. What failed is sent
// again with the same bytes and number, so the broker drops repeats.

/** @import { Batch, Drop, Options, Outcome, Receipt, Waiter } from './shapes.js' */

/** An event that was not taken; `code` says why. */
export class ProducerError extends Error {
  /** @param {string} code @param {string} [detail] */
  constructor(code, detail) {
    super(detail ?? code)
    this.name = 'ProducerError'
    this.code = code
  }
}

/** A page that goes away may have 64 KiB under way. */
const KEEPALIVE_BYTES = 60_000
/** @param {string} text */
const size = (text) => new TextEncoder().encode(text).length + 1
/** @param {number[]} list */
const sum = (list) => list.reduce((a, b) => a + b, 0)
/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

/** @type {Promise<IDBDatabase> | undefined} */
let database
/** Without locks nobody knows whose batches those are. */
const open = () => {
  if (!navigator.locks) return Promise.reject(new Error('no locks'))
  return (database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open('eddyline-producer', 1)
    request.onupgradeneeded = () => request.result.createObjectStore('batches')
    done(request).then(resolve, reject)
  }))
}
/** @template T @param {(store: IDBObjectStore) => IDBRequest<T>} work */
const stored = async (work) => done(work((await open()).transaction('batches', 'readwrite').objectStore('batches')))
/** @param {string[]} place */
const within = (...place) => IDBKeyRange.bound(place, [...place, []])
/** @param {IDBKeyRange} range @returns {Promise<[any, string[]][]>} batches, with their keys */
const all = async (range) => {
  /** @type {any} */ let keys
  const values = await stored((store) => ((keys = store.getAllKeys(range)), store.getAll(range)))
  return values.map((lines, at) => [keys.result[at], lines])
}

/** One page's batches, sent by who holds the lock of its id. */
class Lane {
  /** @type {Batch[]} */ queue = []
  /** @type {Batch | undefined} the last of the queue, while it grows */ growing
  /** @type {(() => void) | undefined} */ release
  epoch = 0
  seq = 0
  failures = 0
  /** @type {number | undefined} */ timer
  retryAt = 0
  sending = false
  writing = Promise.resolve()

  /** @param {Producer} owner @param {string} id */
  constructor(owner, id) {
    this.owner = owner
    this.id = id
  }

  /** @param {Batch} batch */
  key = (batch) => [this.owner.target, this.id, batch.epoch, batch.seq]
  range = () => within(this.owner.target, this.id)
  lockName = () => `eddyline:${this.owner.target}:${this.id}`

  /** @param {boolean} ifAvailable @returns {Promise<boolean>} */
  lock(ifAvailable) {
    return new Promise((resolve, reject) => {
      const hold = (/** @type {Lock | null} */ lock) => {
        resolve(!!lock)
        return lock ? new Promise((resolve) => (this.release = () => resolve(undefined))) : undefined
      }
      navigator.locks.request(this.lockName(), { ifAvailable }, hold).catch(reject)
    })
  }

  /** @param {string} line @param {Waiter} [waiter] */
  add(line, waiter) {
    const { batchBytes, batchEvents } = this.owner.options
    const bytes = size(line)
    if (this.growing && this.growing.bytes + bytes > batchBytes) this.growing = undefined
    if (!this.growing) {
      this.growing = { epoch: this.epoch, seq: this.seq++, lines: [], bytes: 0, waiters: new Map() }
      this.queue.push(this.growing)
    }
    const batch = this.growing
    if (waiter) batch.waiters.set(batch.lines.length, waiter)
    batch.lines.push(line)
    batch.bytes += bytes
    if (batch.lines.length >= batchEvents) this.growing = undefined
    this.keep(batch)
  }

  /** @param {Batch} batch */
  keep(batch) {
    this.writing = this.writing.then(async () => {
      if (!this.queue.includes(batch) || batch.kept === batch.lines.length) return
      const kept = batch.lines.length
      await stored((store) => store.put(batch.lines.slice(), this.key(batch)))
      batch.kept = kept
    }).catch(() => {})
  }

  /** Takes over what is stored of the lane. */
  async load() {
    this.queue = (await all(this.range())).map(([[, , epoch, seq], lines]) => {
      const bytes = sum(lines.map(size))
      this.epoch = epoch
      return { epoch, seq, lines, bytes, waiters: new Map(), kept: lines.length }
    })
  }

  /** Sends what there is, in order. */
  async pump() {
    if (this.sending) return
    this.sending = true
    for (;;) {
      const batch = this.queue[0]
      const wait = this.retryAt - Date.now()
      if (!batch || (batch === this.growing && !batch.due) || this.owner.away) break
      if (wait > 0) {
        this.timer ??= setTimeout(() => ((this.timer = undefined), this.pump()), wait)
        break
      }
      if (batch === this.growing) this.growing = undefined
      await this.writing
      const outcome = await (batch.attempt ??= this.post(batch, false, false))
      batch.attempt = batch.left = undefined
      if (this.queue[0] === batch) await this.settle(batch, outcome)
    }
    this.sending = false
    this.owner.rested(this)
  }

  /** @param {Batch} batch @param {boolean} keepalive @param {boolean} early before those in front of it were answered */
  async post(batch, keepalive, early) {
    const { options, target } = this.owner
    const url = new URL(target)
    const { epoch, seq } = batch
    const query = { producer: this.id, epoch, seq, ...(options.token && { token: options.token }) }
    url.search = `${new URLSearchParams(/** @type {any} */ (query))}`
    // text/plain and no header of ours: no preflight.
    const body = batch.lines.join('\n')
    const beacon = () => navigator.sendBeacon(url, new Blob([body], { type: 'text/plain;charset=UTF-8' }))
    if (keepalive) this.owner.leaving += batch.bytes
    try {
      if (keepalive && !('keepalive' in Request.prototype)) return beacon(), { status: 0, early, body: {} }
      const signal = AbortSignal.timeout(options.timeoutMs)
      const answer = await fetch(url, { method: 'POST', body, keepalive, credentials: 'omit', signal })
      return { status: answer.status, early, body: await answer.json().catch(() => ({})) }
    } catch {
      if (keepalive && this.owner.away) beacon()
      return { status: 0, early, body: {} }
    } finally {
      if (keepalive) this.owner.leaving -= batch.bytes
    }
  }

  /** @param {Batch} batch @param {Outcome} outcome */
  async settle(batch, { status, early, body }) {
    const { options, counts } = this.owner
    if (status >= 200 && status < 300) {
      this.failures = 0
      counts.sent += batch.lines.length
      const { first_offset, duplicate } = body
      const offset = (/** @type {number} */ at) => (first_offset === undefined ? undefined : first_offset + at)
      batch.waiters.forEach((waiter, at) => waiter.resolve({ offset: offset(at), duplicate }))
      return this.forget(batch)
    }
    if (status === 409 && early) return
    if (!status || [408, 425, 429].includes(status) || status >= 500) {
      const backoff = Math.min(options.retryMaxMs, options.retryMs * 2 ** this.failures++)
      this.retryAt = Date.now() + (body.retry_after_ms ?? backoff * (0.5 + Math.random() / 2))
      return
    }
    let rest = this.queue.slice(1)
    if (status === 413 && batch.lines.length > 1) rest = [...halves(batch), ...rest]
    else if (body.code === 'producer_fenced' || status === 409) rest = this.queue
    else this.owner.drop({ code: body.code ?? 'refused', status, detail: body.detail, events: batch.lines }, batch.waiters)
    await this.renumber(rest, body.epoch ?? 0)
  }

  /** Begins a new epoch. @param {Batch[]} batches @param {number} epoch that of the broker */
  async renumber(batches, epoch) {
    this.epoch = Math.max(this.epoch, epoch) + 1
    this.seq = 0
    for (const batch of batches) Object.assign(batch, { epoch: this.epoch, seq: this.seq++, attempt: undefined, left: undefined })
    this.queue = batches
    this.growing = undefined
    this.writing = this.writing.then(() => stored((store) => {
      store.delete(this.range())
      for (const batch of batches) store.put(batch.lines, this.key(batch))
      return store.count()
    })).then(() => {}, () => {})
    await this.writing
  }

  /** @param {Batch} batch */
  async forget(batch) {
    this.queue.shift()
    await stored((store) => store.delete(this.key(batch))).catch(() => {})
  }

  /** Sends what fits; what was under way, too, for it may be cut off. */
  leave() {
    this.growing = undefined
    for (const [at, batch] of this.queue.entries()) {
      if (batch.left) continue
      if (this.owner.leaving + batch.bytes > KEEPALIVE_BYTES) break
      batch.left = true
      const attempt = this.post(batch, true, at > 0)
      batch.attempt ??= attempt
    }
  }
}

/** @param {Batch} batch @returns {Batch[]} */
function halves(batch) {
  const middle = batch.lines.length >> 1
  return [[0, middle], [middle, batch.lines.length]].map(([from, to]) => {
    const lines = batch.lines.slice(from, to)
    const waiters = new Map([...batch.waiters].filter(([at]) => at >= from && at < to).map(([at, w]) => [at - from, w]))
    return { ...batch, lines, waiters, bytes: sum(lines.map(size)) }
  })
}

class Producer {
  counts = { sent: 0, dropped: 0 }
  /** @type {number | undefined} */ timer
  /** @type {(() => void)[]} */ waiting = []
  away = false
  /** Bytes under way that outlive the page. */
  leaving = 0
  /** Bytes that wait in other tabs. */
  elsewhere = 0

  /** @param {string} group @param {Options} given */
  constructor(group, given) {
    this.options = {
      gatherMs: 1000, batchEvents: 50, batchBytes: 40_000, queueBytes: 1 << 20, retryMs: 500, retryMaxMs: 60_000,
      timeoutMs: 30_000, adoptMs: 10_000, ...given,
    }
    this.options.batchBytes = Math.min(this.options.batchBytes, KEEPALIVE_BYTES)
    this.target = new URL(`/v1/groups/${encodeURIComponent(group)}/batch`, given.url ?? import.meta.url).href
    this.lane = new Lane(this, fresh())
    this.lanes = new Set([this.lane])
    this.lane.writing = this.lane.lock(false).then(() => {}, () => {})
    addEventListener('visibilitychange', () => document.visibilityState === 'hidden' && this.leave())
    addEventListener('pagehide', () => this.hide())
    addEventListener('pageshow', (event) => event.persisted && this.back())
    addEventListener('online', () => this.push(true))
    setInterval(() => this.adopt(), this.options.adoptMs)
    this.adopt()
  }

  /** @param {unknown} event @param {Waiter} [waiter] */
  send(event, waiter) {
    const line = JSON.stringify(event)
    if (line === undefined) throw new TypeError('an event is something that JSON can say')
    if (this.elsewhere + this.queued().bytes + size(line) > this.options.queueBytes) {
      return this.drop({ code: 'queue_full', events: [line] }, waiter && new Map([[0, waiter]]))
    }
    this.lane.add(line, waiter)
    if (waiter) queueMicrotask(() => this.push())
    else if (this.lane.growing) this.timer ??= setTimeout(() => this.push(), this.options.gatherMs)
    else this.lane.pump()
  }

  /** Sends what has gathered. @param {boolean} [anew] without a wait */
  push(anew) {
    clearTimeout(this.timer)
    this.timer = undefined
    if (this.lane.growing) this.lane.growing.due = true
    for (const lane of this.lanes) {
      if (anew) lane.retryAt = 0
      lane.pump()
    }
  }

  /** @param {Lane} lane */
  rested(lane) {
    if (lane.queue.length > 0) return
    if (lane === this.lane) return this.waiting.splice(0).forEach((resolve) => resolve())
    lane.release?.()
    this.lanes.delete(lane)
  }

  /** @returns {Promise<void>} */
  flush() {
    if (this.lane.queue.length === 0) return Promise.resolve()
    const flushed = new Promise((/** @type {(value?: any) => void} */ resolve) => this.waiting.push(resolve))
    this.push()
    return flushed
  }

  queued() {
    const batches = [...this.lanes].flatMap((lane) => lane.queue)
    return { events: sum(batches.map(({ lines }) => lines.length)), bytes: sum(batches.map(({ bytes }) => bytes)) }
  }

  /** @param {Drop} drop @param {Map<number, Waiter>} [waiters] */
  drop(drop, waiters) {
    this.counts.dropped += drop.events.length
    waiters?.forEach((waiter) => waiter.reject(new ProducerError(drop.code, drop.detail)))
    queueMicrotask(() => this.options.onDrop?.(drop))
  }

  /** Takes over what pages left that are no more. */
  async adopt() {
    if (this.away) return
    const batches = await all(within(this.target)).catch(() => [])
    const own = new Set([...this.lanes].map(({ id }) => id))
    for (const id of new Set(batches.map(([[, id]]) => id))) {
      const lane = new Lane(this, id)
      if (own.has(id) || !(await lane.lock(true))) continue
      await lane.load().catch(() => {})
      this.lanes.add(lane)
      lane.pump()
    }
    this.elsewhere = Math.max(0, sum(batches.flatMap(([, lines]) => lines.map(size))) - this.queued().bytes)
  }

  leave() {
    for (const lane of this.lanes) lane.leave()
  }

  /** Others may send what is stored. */
  hide() {
    this.leave()
    this.away = true
    // At once: a page that holds a lock cannot come back as it was.
    for (const lane of this.lanes) lane.release?.()
  }

  /** The page is shown again as it was. */
  async back() {
    for (const lane of this.lanes) {
      lane.release?.()
      await lane.lock(false).catch(() => {})
      const keys = await stored((store) => store.getAllKeys(lane.range())).catch(() => undefined)
      const here = new Set(keys?.map((key) => `${key}`))
      const gone = (/** @type {Batch} */ batch) => keys && batch.kept && !here.has(`${lane.key(batch)}`)
      lane.queue.filter(gone).forEach(({ waiters }) => {
        waiters.forEach((waiter) => waiter.reject(new ProducerError('unknown', 'another tab has sent it')))
      })
      lane.queue = lane.queue.filter((batch) => !gone(batch))
    }
    this.away = false
    this.push(true)
    this.adopt()
  }
}

/** Pages without TLS have no `randomUUID`. */
const fresh = () => `web-${Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join('')}`

/**
 * A producer into a group. `send` never waits and never fails but for what is no JSON; `send.confirmed` completes when
 * the event is durable; `flush` when nothing waits.
 * @param {string} group @param {Options} [options]
 */
export function producer(group, options = {}) {
  const it = new Producer(group, options)
  const send = (/** @type {unknown} */ event) => it.send(event)
  /** @param {unknown} event @returns {Promise<Receipt>} */
  send.confirmed = (event) => new Promise((resolve, reject) => it.send(event, { resolve, reject }))
  /** How many events were sent, dropped, and wait. */
  const stats = () => ({ ...it.counts, queued: it.queued().events })
  return { send, flush: () => it.flush(), stats }
}
