// Who reads: opens the consumer's session, stands by while another one is active, keeps it alive, and leaves it.
//
// A *tenure* is the time in which this session holds one position: it ends when the session is taken over or lapses,
// and when somebody moves the position. What was delivered in one tenure cannot be acked in another.

import { Worker } from 'node:worker_threads'
import { EddylineError } from './errors.js'
import { query } from './http.js'
import { Tracker } from './tracker.js'

/** @typedef {{ session: string, epoch: number, next: number, lease_ms?: number }} Opened */

/** @typedef {(name: 'active' | 'fenced' | 'rewound' | 'standby', detail: Record<string, unknown>) => void} Tell */

/** A session at one epoch, and what was delivered in it. */
export class Tenure {
  /** @param {Opened} opened */
  constructor({ session, epoch, next }) {
    this.session = session
    this.epoch = epoch
    this.next = next
    this.tracker = new Tracker()
    this.ending = new AbortController()
    /** As far as the broker said it is acked, in steps of the tracker. */
    this.ackedSteps = 0
    /** The ack that is under way. @type {Promise<void> | undefined} */
    this.acking = undefined
    /** The nack that is under way. @type {Promise<unknown> | undefined} */
    this.nacking = undefined
    /** Aborted with the tenure, or when its consumer waits for nothing any more. @type {AbortSignal | undefined} */
    this.working = undefined
    /** Counts failures: what was delivered before one is delivered again. */
    this.pass = 0
  }

  /** Aborted when what was delivered cannot be acked any more. @returns {AbortSignal} */
  get signal() {
    return this.ending.signal
  }

  get over() {
    return this.ending.signal.aborted
  }
}

/** One consumer's session, opened again as often as needed. */
export class Session {
  /**
   * @param {import('./http.js').Http} http
   * @param {string} path
   * @param {Tell} tell
   * @param {{ takeover?: boolean, standbyMs?: number }} options
   */
  constructor(http, path, tell, { takeover = false, standbyMs = 20_000 }) {
    this.http = http
    this.path = path
    this.tell = tell
    this.takeover = takeover
    this.standbyMs = standbyMs
    /** @type {Tenure | undefined} */
    this.tenure = undefined
    this.leaseMs = 30_000
    /** @type {Worker | undefined} */
    this.renewal = undefined
  }

  /**
   * The tenure, opened if there is none; stands by for as long as another session is active.
   * @param {AbortSignal} signal
   * @returns {Promise<Tenure>}
   */
  async open(signal) {
    // Asked at once first, so that whoever has to stand by is told before it does.
    let standing = false
    while (this.tenure === undefined || this.tenure.over) {
      const wait = standing ? `${this.standbyMs}ms` : undefined
      const parameters = query({ takeover: this.takeover ? 1 : undefined, wait })
      try {
        const options = { signal, waitMs: this.standbyMs }
        const opened = await this.http.json('POST', `${this.path}/session${parameters}`, options)
        // Once is meant: whoever takes over from us has taken over.
        this.takeover = false
        this.leaseMs = opened.lease_ms
        this.begin(opened)
        this.tell('active', { session: opened.session, epoch: opened.epoch })
      } catch (error) {
        if (!(error instanceof EddylineError) || error.code !== 'session_active') throw error
        if (!standing) this.tell('standby', { retryAfterMs: error.retryAfterMs })
        standing = true
      }
    }
    return this.tenure
  }

  /** @param {Opened} opened */
  begin(opened) {
    this.tenure = new Tenure(opened)
    this.keepAlive()
  }

  keepAlive() {
    if (this.renewal === undefined) {
      const workerData = { url: this.http.url.href, path: this.path, requestTimeout: this.http.requestTimeout }
      this.renewal = new Worker(new URL('./renewal-thread.js', import.meta.url), { workerData, execArgv: [] })
      this.renewal.unref()
      this.renewal.on('message', (refused) => this.refused(refused))
      // Without the thread the calls that read and ack renew the lease, and the next session starts another one.
      this.renewal.on('error', () => (this.renewal = undefined))
    }
    const everyMs = Math.max(5, Math.floor(this.leaseMs / 3))
    this.renewal.postMessage({ session: this.tenure?.session, everyMs, token: this.http.bearer })
  }

  /** @param {{ session: string, code: string, problem?: Record<string, any>, token?: string }} refused */
  refused({ session, code, problem, token }) {
    if (this.tenure?.session !== session || this.tenure.over) return
    if (code === 'bad_token') {
      void this.http.authorization(token).then(() => this.keepAlive(), () => {})
    } else {
      this.lost(this.tenure, code, problem)
    }
  }

  /**
   * Ends `tenure` if that is what the broker's refusal means.
   * @param {Tenure} tenure
   * @param {string} code
   * @param {Record<string, any>} [problem]
   * @returns {boolean} whether the tenure is over
   */
  lost(tenure, code, problem = {}) {
    if (tenure.over) return true
    if (code === 'rewound') {
      tenure.ending.abort()
      this.tell('rewound', { to: problem.next, epoch: problem.epoch })
      this.begin({ session: problem.session, epoch: problem.epoch, next: problem.next })
    } else if (code === 'fenced') {
      tenure.ending.abort()
      this.tell('fenced', { session: tenure.session })
      this.renewal?.postMessage({ everyMs: 1000 })
    }
    return tenure.over
  }

  /**
   * Leaves the session, so that whoever stands by may come at once.
   * @param {AbortSignal} signal ends the attempt
   */
  async leave(signal) {
    const { tenure } = this
    this.tenure = undefined
    if (tenure !== undefined && !tenure.over) {
      tenure.ending.abort()
      this.renewal?.postMessage({ everyMs: 1000 })
      const path = `${this.path}/session${query({ session: tenure.session })}`
      await this.http.request('DELETE', path, { signal }).catch((error) => {
        // A broker that is away, or a consumer that is gone: then the lease lapses.
        if (!error.retryable && error.status === undefined) throw error
      })
    }
    await this.renewal?.terminate()
    this.renewal = undefined
  }
}
