// Waiting before another try: 200 ms, doubled up to 10 s, with full jitter, and never less than the broker asked for.

import { setTimeout as sleep } from 'node:timers/promises'

const FIRST_MS = 200
const LONGEST_MS = 10_000

/**
 * @param {number} attempt failures so far, from 1 on
 * @param {number} [atLeastMs] what the broker asked for
 * @param {() => number} [random] in [0, 1)
 * @returns {number} milliseconds to wait
 */
export function backoff(attempt, atLeastMs = 0, random = Math.random) {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** (attempt - 1))
  return Math.max(atLeastMs, Math.floor(random() * ceiling))
}

/**
 * Waits; an abort ends the wait early, and is not an error.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export async function pause(ms, signal) {
  await sleep(ms, undefined, { signal }).catch(() => {})
}
