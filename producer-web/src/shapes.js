// What editors and tsc see of the package: producer.js, and the shapes that it takes and gives. No page loads this file.

/**
 * Events (as JSON) that are given up, and why: the broker's code, or `queue_full`.
 * @typedef {{code: string, status?: number, detail?: string, events: string[]}} Drop
 */

/**
 * Where an event is; no offset if the broker does not remember it.
 * @typedef {{offset?: number, duplicate: boolean}} Receipt
 */

/**
 * @typedef {object} Options
 * @property {string} [url] the broker; without it, where this module came from
 * @property {string} [token] a key that can do nothing but produce: it stands in URLs
 * @property {number} [gatherMs] how long a batch waits for more: 1 000
 * @property {number} [batchEvents] 50
 * @property {number} [batchBytes] 40 000; at most 60 000, so that it can be sent while the page goes away
 * @property {number} [queueBytes] what may wait to be sent, in all tabs of a browser: 1 MiB; events beyond it are dropped
 * @property {number} [retryMs] wait after the first failure, which doubles: 500
 * @property {number} [retryMaxMs] 60 000
 * @property {number} [timeoutMs] a request without an answer has failed: 30 000
 * @property {number} [adoptMs] how often to look for what other tabs have waiting, or have left: 10 000
 * @property {(drop: Drop) => void} [onDrop] a warning on the console
 */

/** @typedef {{resolve(receipt: Receipt): void, reject(error: Error): void}} Waiter */

/**
 * What became of a request: the broker's answer with its status; 0 without one.
 * @typedef {{[name: string]: any, status: number}} Outcome
 */

/**
 * The events of one request.
 * @typedef {object} Batch
 * @property {number} epoch
 * @property {number} seq
 * @property {string[]} lines
 * @property {number} bytes
 * @property {(Waiter | undefined)[]} waiters of each line
 * @property {number} [kept] how many lines are in IndexedDB
 * @property {boolean} [due] to be sent now, even if it could grow
 * @property {boolean} [left] sent as the page went away
 * @property {Promise<Outcome>} [attempt] under way
 */

export * from './producer.js'
