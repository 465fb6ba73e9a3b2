// What may be acked, and what is handed out again.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backoff } from '../src/backoff.js'
import { Tracker } from '../src/tracker.js'

test('only the unbroken beginning of what is done may be acked', () => {
  const tracker = new Tracker()
  tracker.admit(10, 15)
  tracker.admit(20, 22)
  const steps = [
    [11, -1], [10, 11], [21, 11], [13, 11], [12, 13], [14, 14], [20, 21],
  ]
  for (const [offset, ackable] of steps) {
    assert.equal(tracker.finish(offset), true)
    assert.equal(tracker.ackable, ackable, `behind ${offset}`)
  }
  assert.equal(tracker.inHand, 0)
  assert.equal(tracker.finish(20), false)
})

test('any order of finishing ends at the last offset', () => {
  for (let seed = 1; seed < 200; seed++) {
    let state = seed
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647
    const tracker = new Tracker()
    const offsets = []
    for (let from = 0, run = 0; run < 4; run++) {
      const length = 1 + Math.floor(random() * 6)
      tracker.admit(from, from + length)
      for (let at = 0; at < length; at++) offsets.push(from++)
    }
    const done = new Set()
    for (const offset of offsets.toSorted(() => random() - 0.5)) {
      tracker.finish(offset)
      done.add(offset)
      let expected = -1
      while (done.has(expected + 1)) expected++
      assert.equal(tracker.ackable, expected, `seed ${seed}`)
      assert.equal(tracker.waits(offset), offset > expected, `seed ${seed}`)
    }
    assert.equal(tracker.inHand, 0)
  }
})

test('what is in hand or done is not handed out again', () => {
  const tracker = new Tracker()
  tracker.admit(0, 6)
  tracker.finish(0)
  tracker.finish(3)
  const again = tracker.admit(1, 8)
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7].filter((offset) => again?.(offset)), [6, 7])
  tracker.finish(7)
  tracker.restart()
  const anew = tracker.admit(1, 8)
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7].filter((offset) => anew?.(offset)), [1, 2, 4, 5, 6])
  assert.equal(tracker.finishThrough(6), true)
  assert.equal(tracker.ackable, 7)
})

test('what is done stays done when something before it fails, wherever it was delivered', () => {
  const tracker = new Tracker()
  for (const [first, next] of [[0, 3], [3, 6], [6, 7]]) tracker.admit(first, next)
  for (const offset of [0, 3, 4, 6]) tracker.finish(offset)
  tracker.restart()
  const again = tracker.admit(1, 7)
  assert.deepEqual([1, 2, 3, 4, 5, 6].filter((offset) => again?.(offset)), [1, 2, 5])
})

test('a replay may move back what is acked', () => {
  const tracker = new Tracker()
  tracker.admit(50, 51)
  tracker.finish(50)
  const { steps } = tracker
  tracker.admit(5, 6)
  tracker.finish(5)
  assert.equal(tracker.ackable, 5)
  assert.equal(tracker.steps, steps + 1)
})

test('backoff doubles up to ten seconds, with full jitter, and waits as long as the broker asks', () => {
  assert.deepEqual([1, 2, 3, 7, 60].map((attempt) => backoff(attempt, 0, () => 0.999_999)), [199, 399, 799, 9999, 9999])
  assert.equal(backoff(5, 0, () => 0), 0)
  assert.equal(backoff(1, 5000, () => 0.5), 5000)
})
