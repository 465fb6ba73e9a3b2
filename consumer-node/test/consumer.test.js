// Reading, acking and leaving, in both modes, against the real broker.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Admin, Consumer } from '../src/index.js'
import { Broker, eventually, numbered } from './broker.js'

/** @type {('next' | 'stream')[]} */
const MODES = ['next', 'stream']

for (const mode of MODES) {
  test(`history and what comes are read once each, and what is acked stays acked (${mode})`, async (t) => {
    const { url, produce } = await started(t)
    await produce(1000)
    const seen = []
    {
      const consumer = consume(t, { url, group: 'g', name: 'c', mode, max: 64 })
      for await (const event of consumer) {
        seen.push(event.data.n)
        assert.equal(event.data.n, event.offset)
        assert.equal(await event.ack(), 'acked')
        if (seen.length === 500) await produce(500)
        if (seen.length === 1400) break
      }
      await consumer.close()
    }
    {
      const consumer = consume(t, { url, group: 'g', name: 'c', mode })
      for await (const batch of consumer.batches()) {
        seen.push(...batch.events.map((event) => event.data.n))
        assert.equal(await batch.ack(), 'acked')
        if (seen.length >= 1500) break
      }
      assert.equal((await consumer.status()).cursor.acked_offset, 1499)
    }
    assert.deepEqual(seen, numbered(1500).map(({ n }) => n))
  })

  test(`a loop that was left goes on where it was left (${mode})`, async (t) => {
    const { url, produce } = await started(t)
    await produce(100)
    const consumer = consume(t, { url, group: 'g', name: 'c', mode, max: 30 })
    const seen = []
    for (const most of [3, 20, 90]) {
      for await (const event of consumer) {
        seen.push(event.offset)
        if (seen.length % 2 === 0) void event.ack()
        if (seen.length >= most) break
      }
    }
    assert.deepEqual(seen, numbered(90).map(({ n }) => n))
  })

  test(`a rewind reaches a reader, and acks of before do not count (${mode})`, async (t) => {
    const { url, produce } = await started(t)
    await produce(10)
    const consumer = consume(t, { url, group: 'g', name: 'c', mode })
    /** @type {any[]} */
    const told = []
    consumer.on('rewound', (rewound) => told.push(rewound.to))
    const seen = []
    for await (const event of consumer) {
      seen.push(event.offset)
      if (seen.length === 6) {
        assert.equal(await consumer.rewind({ to: 2 }).then((moved) => moved.to), 2)
        await eventually('the reader heard of it', () => event.signal.aborted || (void event.ack(), false))
        assert.equal(await event.ack(), 'dropped')
        continue
      }
      await event.ack()
      if (event.offset === 9) break
    }
    assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7, 8, 9])
    assert.deepEqual(told, [2])
  })

  test(`a bounded replay is marked, and reading goes on behind it (${mode})`, async (t) => {
    const { url, produce } = await started(t)
    await produce(8)
    const consumer = consume(t, { url, group: 'g', name: 'c', mode, waitMs: 200 })
    const seen = []
    for await (const event of consumer) {
      seen.push(`${event.offset}${event.replay ? 'r' : ''}`)
      await event.ack()
      if (seen.length === 8) {
        await consumer.rewind({ to: 5, until: 7 })
        await consumer.rewind({ to: 1, until: 3 })
      }
      if (seen.length === 12) await produce(1)
      if (seen.length === 13) break
    }
    assert.deepEqual(seen.slice(8), ['5r', '6r', '1r', '2r', '8'])
  })

  test(`what failed comes again, alone with what was not done (${mode})`, async (t) => {
    const { url, produce } = await started(t)
    await produce(6)
    const consumer = consume(t, { url, group: 'g', name: 'c', mode })
    const seen = []
    for await (const event of consumer) {
      seen.push(event.offset)
      if (event.offset === 2 && event.attempt === 1) {
        await assert.rejects(consumer.nack(3), { code: 'not_next' })
        assert.deepEqual(await event.nack({ reason: 'not now' }), { offset: 2, attempts: 1, poison: false })
        continue
      }
      assert.equal(await event.ack(), 'acked')
      if (event.offset === 5) break
    }
    assert.deepEqual(seen, [0, 1, 2, 2, 3, 4, 5])
  })
}

test('events may be acked in any order; only the unbroken beginning is sent', async (t) => {
  const { url, produce } = await started(t)
  await produce(5)
  const consumer = consume(t, { url, group: 'g', name: 'c' })
  const events = []
  for await (const event of consumer) if (events.push(event) === 5) break
  const acked = async () => (await consumer.status()).cursor.acked_offset
  assert.equal(await events[2].ack(), 'held')
  assert.equal(await events[1].ack(), 'held')
  assert.equal(await acked(), null)
  assert.equal(await events[0].ack(), 'acked')
  assert.equal(await acked(), 2)
  assert.equal(await consumer.ack(4), 'acked')
  assert.equal(await acked(), 4)
})

test('what is delivered again was not acked, in whatever order it was done, and what was never delivered cannot be', async (t) => {
  const { url, produce } = await started(t)
  await produce(6)
  const consumer = consume(t, { url, group: 'g', name: 'c' })
  const take = async (/** @type {number} */ count) => {
    const events = []
    for await (const event of consumer) if (events.push(event) === count) break
    return events
  }
  const first = await take(4)
  assert.equal(await consumer.ack(17), 'dropped')
  await first[0].nack()
  assert.equal(await first[2].ack(), 'dropped', 'its failure had it delivered again')
  const second = await take(4)
  assert.deepEqual(second.map(({ offset }) => offset), [0, 1, 2, 3])
  assert.equal(await second[0].ack(), 'acked')
  assert.equal(await first[0].ack(), 'acked', 'as it is')
  await consumer.rewind({ to: 0 })
  assert.equal(await second[1].ack(), 'dropped', 'the position was moved')
  assert.equal(await second[3].ack(), 'dropped', 'also for what waited for others')
  const third = await take(3)
  assert.deepEqual(third.map(({ offset }) => offset), [0, 1, 2])
  assert.equal(await second[2].ack(), 'dropped', 'and for good')
  assert.equal((await consumer.status()).cursor.acked_offset, null)
})

test('a loop that is left has nothing under way', async (t) => {
  const { url, produce } = await started(t)
  for (const mode of MODES) {
    await produce(1)
    const consumer = consume(t, { url, group: 'g', name: mode, mode, waitMs: 60_000 })
    for await (const event of consumer) if ((await event.ack()) === 'acked') break
    const left = Date.now()
    await eventually('the next batch is not waited for', () => Object.keys(consumer.http.agent.sockets).length === 0)
    assert.ok(Date.now() - left < 50_000, 'not for as long as the broker would have')
  }
})

test('a handler that blocks the event loop keeps its lease', async (t) => {
  const { url, admin, produce } = await started(t)
  await produce(2)
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '1s' })
  const consumer = consume(t, { url, group: 'g', name: 'c', max: 1 })
  for await (const event of consumer) {
    if (event.offset === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000)
    assert.equal(await event.ack(), 'acked', 'the lease is still held')
    if (event.offset === 1) break
  }
})

test('one reads, one stands by and goes on when the first leaves or is silent', async (t) => {
  const { url, admin, produce } = await started(t)
  await produce(3)
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '1s' })
  const first = new Consumer({ url, group: 'g', name: 'c' })
  const read = first[Symbol.asyncIterator]()
  assert.equal((await read.next()).value?.offset, 0)
  const second = consume(t, { url, group: 'g', name: 'c', waitMs: 100 })
  /** @type {string[]} */
  const told = []
  for (const name of /** @type {const} */ (['standby', 'active'])) second.on(name, () => told.push(name))
  const next = second[Symbol.asyncIterator]().next()
  await eventually('it stands by', () => told.length > 0)
  await first.ack(0)
  // As if its process hung: nothing renews the lease, nothing is asked for.
  await first.session.renewal?.terminate()
  first.reads.abort()
  assert.equal((await next).value?.offset, 1)
  assert.deepEqual(told, ['standby', 'active'])
  assert.equal(await first.ack(1), 'dropped')
  await first.close()
})

test('whoever is taken over is told, and stands by', async (t) => {
  const { url, produce } = await started(t)
  await produce(3)
  const first = new Consumer({ url, group: 'g', name: 'c', waitMs: 100 })
  const fenced = new Promise((resolve) => first.once('fenced', resolve))
  /** @type {number[]} */
  const seen = []
  const done = (async () => {
    for await (const event of first) seen.push(event.offset)
  })()
  await eventually('it read', () => seen.length === 3)
  const second = new Consumer({ url, group: 'g', name: 'c', takeover: true })
  for await (const event of second) {
    assert.equal(event.offset, 0)
    break
  }
  await fenced
  await second.ack(0)
  await second.close()
  await eventually('the first goes on', () => seen.length === 5)
  assert.deepEqual(seen, [0, 1, 2, 1, 2])
  await first.close()
  await done
})

test('what ends reading has a code', async (t) => {
  const { url, admin, produce } = await started(t)
  await produce(3)
  for (const mode of MODES) {
    await assert.rejects(read({ url, group: 'nothing-here', name: 'c', mode }), { code: 'no_group', retryable: false })
    await assert.rejects(read({ url, group: 'g', name: 'c', mode, start: 'when?' }), { code: 'bad_position' })
    for (const [end, code] of /** @type {const} */ ([
      [() => admin.suspend('g', mode), 'consumer_suspended'],
      [() => admin.revoke('g', `${mode}-2`), 'consumer_revoked'],
      [() => admin.unsubscribe('g', `${mode}-3`), 'no_consumer'],
    ])) {
      const name = `${mode}${code === 'consumer_suspended' ? '' : code === 'consumer_revoked' ? '-2' : '-3'}`
      const ended = read({ url, group: 'g', name, mode })
      ended.catch(() => {})
      await eventually('it reads', async () => (await admin.consumer('g', name).catch(() => undefined))?.cursor.delivered_offset === 2)
      await end()
      await assert.rejects(ended, { code, retryable: false, name: 'EddylineError' })
    }
  }
})

test('two loops at once are refused, options are looked at', async (t) => {
  const { url, produce } = await started(t)
  await produce(1)
  const consumer = consume(t, { url, group: 'g', name: 'c' })
  const first = consumer.batches()
  await first.next()
  await assert.rejects(consumer.batches().next(), { code: 'already_reading' })
  assert.throws(() => new Consumer({ url, group: '', name: 'c' }), { code: 'bad_options' })
  for (const wrong of ['ftp://x', 'nonsense', 'http://']) {
    assert.throws(() => new Consumer({ url: wrong, group: 'g', name: 'c' }), { code: 'bad_url', name: 'EddylineError' })
  }
  for (const token of ['', 'two words', 'ä']) assert.throws(() => new Consumer({ url, group: 'g', name: 'c', token }), { code: 'bad_options' })
})

test('an aborted signal ends the loop; close waits for handlers and the last ack', async (t) => {
  const { url, admin, produce } = await started(t)
  await produce(5)
  const stop = new AbortController()
  const consumer = new Consumer({ url, group: 'g', name: 'c', signal: stop.signal })
  let done = 0
  await consumer.run(async () => {
    if (done === 2) stop.abort()
    await sleep(20)
    done++
  })
  assert.equal(done, 3)
  const status = await admin.consumer('g', 'c')
  assert.equal(status.cursor.acked_offset, 2)
  assert.equal(status.session, null)
})

test('an aborted signal lets a loop finish what it has in hand, leaves the session, and is left alone', async (t) => {
  const { url, admin, produce } = await started(t)
  await produce(5)
  const stop = new AbortController()
  const consumer = consume(t, { url, group: 'g', name: 'c', signal: stop.signal })
  const seen = []
  for await (const event of consumer) {
    seen.push(event.offset)
    if (event.offset === 2) {
      stop.abort()
      await admin.status()
    }
    assert.equal(await event.ack(), 'acked')
  }
  assert.deepEqual(seen, [0, 1, 2])
  await eventually('the session is left', async () => (await admin.consumer('g', 'c')).session === null)
  assert.equal((await admin.consumer('g', 'c')).cursor.acked_offset, 2)

  const other = new AbortController()
  const closed = new Consumer({ url, group: 'g', name: 'c', signal: other.signal })
  assert.equal(getEventListeners(other.signal, 'abort').length, 1)
  await closed.close()
  assert.equal(getEventListeners(other.signal, 'abort').length, 0)
})

test('an ack that failed for good and that nobody waited for is told by close', async (t) => {
  const { url, admin, produce } = await started(t)
  await produce(2)
  const consumer = new Consumer({ url, group: 'g', name: 'c' })
  for await (const event of consumer) {
    await admin.revoke('g', 'c')
    void event.ack()
    break
  }
  await eventually('it is known', () => consumer.failure)
  await assert.rejects(consumer.close(), { code: 'consumer_revoked' })
})

test('what stands still is told', async (t) => {
  const { url, produce } = await started(t)
  await produce(3)
  const consumer = consume(t, { url, group: 'g', name: 'c', stalledAfter: 40 })
  const stalled = new Promise((resolve) => consumer.once('stalled', resolve))
  for await (const event of consumer) {
    if (event.offset === 2) {
      // Event 0 is never acked.
      assert.equal(await event.ack(), 'held')
      const { reason, offset, inHand } = /** @type {any} */ (await stalled)
      assert.deepEqual({ reason, offset, inHand }, { reason: 'no_ack', offset: 0, inHand: 3 })
      break
    }
  }
})

test('data comes back as it went in', async (t) => {
  const { url } = await started(t)
  for (const [body, type] of /** @type {const} */ ([
    ['{"a": 1}', 'application/json'], ['words', 'text/plain'], [Buffer.from([0, 255, 1]), 'image/x'],
  ])) {
    await fetch(`${url}/v1/groups/g/events`, { method: 'POST', body, headers: { 'Content-Type': type, 'Eddyline-Key': 'k', 'Eddyline-Meta-Trace': 't' } })
  }
  const consumer = consume(t, { url, group: 'g', name: 'c' })
  const events = []
  for await (const event of consumer) if (events.push(event) === 3) break
  assert.deepEqual(events.map((event) => event.data), [{ a: 1 }, 'words', Buffer.from([0, 255, 1])])
  assert.deepEqual([events[2].key, events[2].headers, events[2].content_type], ['k', { trace: 't' }, 'image/x'])
})

/**
 * @param {import('node:test').TestContext} t
 * @param {import('../src/consumer.js').ConsumerOptions} options
 */
function consume(t, options) {
  const consumer = new Consumer(options)
  t.after(() => consumer[Symbol.asyncDispose]())
  return consumer
}

/** @param {import('../src/consumer.js').ConsumerOptions} options */
async function read(options) {
  const consumer = new Consumer(options)
  try {
    for await (const batch of consumer.batches()) void batch
  } finally {
    await consumer.close()
  }
}

/** @param {import('node:test').TestContext} t */
async function started(t) {
  const broker = await Broker.start(t)
  const admin = new Admin({ url: broker.url })
  t.after(() => admin.close())
  let produced = 0
  const produce = async (/** @type {number} */ count) => {
    await broker.produce('g', numbered(count, produced), '/user')
    produced += count
  }
  return { broker, url: broker.url, admin, produce }
}
