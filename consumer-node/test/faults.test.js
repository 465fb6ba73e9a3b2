// What passes is survived, and told: a broker that is killed, sockets that are reset, handlers that fail.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Admin, Consumer } from '../src/index.js'
import { Broker, eventually, numbered } from './broker.js'
import { Proxy } from './proxy.js'

for (const mode of /** @type {const} */ (['next', 'stream'])) {
  test(`a broker killed again and again while it is read and acked: no event is skipped (${mode})`, async (t) => {
    const broker = await Broker.start(t)
    const total = 6000
    await broker.produce('g', numbered(total))
    await approveFew(broker)
    const consumer = new Consumer({ url: broker.url, group: 'g', name: 'c', mode, max: 50 })
    t.after(() => consumer.close({ timeout: 0 }))
    const told = { reconnecting: 0, recovered: 0 }
    consumer.on('reconnecting', () => told.reconnecting++)
    consumer.on('recovered', () => told.recovered++)
    let reading = true
    let highest = -1
    let acked = -1
    const killer = (async () => {
      for (let kills = 0; kills < 3 && reading; kills++) {
        await eventually('it is under way', () => (highest > (kills + 1) * 1000))
        await broker.kill()
        await broker.up()
      }
    })()
    // Else nothing would come any more, and nobody would hear why.
    killer.catch(() => consumer.close({ timeout: 0 }))
    /** @type {Map<number, number>} */
    const times = new Map()
    for await (const batch of consumer.batches()) {
      for (const { offset } of batch.events) {
        // At most once more, and never past a hole.
        assert.ok(offset <= highest + 1, `${offset} came behind ${highest}`)
        highest = Math.max(highest, offset)
        times.set(offset, (times.get(offset) ?? 0) + 1)
      }
      const last = batch.events[batch.events.length - 1].offset
      if ((await batch.ack()) === 'acked') {
        assert.ok(last > acked, 'acks never go back')
        acked = last
      }
      if (acked === total - 1) break
    }
    reading = false
    await killer
    assert.equal(times.size, total)
    assert.equal((await consumer.status()).cursor.acked_offset, total - 1)
    assert.ok(told.reconnecting > 0 && told.recovered > 0, JSON.stringify(told))
    await consumer.close()
  })

  test(`connections that are reset cost nothing but time (${mode})`, async (t) => {
    const broker = await Broker.start(t)
    const proxy = await Proxy.start(t, broker.port)
    const total = 1500
    await broker.produce('g', numbered(total))
    await approveFew(broker)
    const consumer = new Consumer({ url: proxy.url, group: 'g', name: 'c', mode, max: 20 })
    t.after(() => consumer.close({ timeout: 0 }))
    const resets = setInterval(() => proxy.reset(), 60)
    t.after(() => clearInterval(resets))
    const offsets = []
    for await (const batch of consumer.batches()) {
      offsets.push(...batch.events.map((event) => event.offset))
      assert.notEqual(await batch.ack(), 'dropped')
      if (offsets.length >= total) break
      await sleep(1)
    }
    clearInterval(resets)
    assert.deepEqual(offsets, numbered(total).map(({ n }) => n), 'one session, so nothing comes twice')
    assert.ok(proxy.resets > 0)
    await consumer.close()
  })
}

for (const mode of /** @type {const} */ (['next', 'stream'])) {
  test(`a connection that falls silent is given up, and reading goes on by another (${mode})`, async (t) => {
    const broker = await Broker.start(t, { HTTP_HEARTBEAT: '100ms' })
    const proxy = await Proxy.start(t, broker.port)
    await broker.produce('g', numbered(3))
    const consumer = new Consumer({ url: proxy.url, group: 'g', name: 'c', mode, waitMs: 1000, requestTimeout: 1000 })
    t.after(() => consumer.close({ timeout: 0 }))
    /** @type {string[]} */
    const told = []
    consumer.on('reconnecting', ({ error }) => told.push(error.code))
    consumer.on('recovered', () => told.push('recovered'))
    const offsets = []
    for await (const event of consumer) {
      offsets.push(event.offset)
      assert.equal(await event.ack(), 'acked')
      if (event.offset === 2) proxy.silence()
      if (event.offset === 2) await broker.produce('g', numbered(1, 3))
      if (event.offset === 3) break
    }
    assert.deepEqual(offsets, [0, 1, 2, 3])
    assert.ok(told.includes('timeout') && told.at(-1) === 'recovered', told.join())
    await consumer.close()
  })

  test(`events that retention took are told as one gap, and reading goes on behind it (${mode})`, async (t) => {
    const broker = await Broker.start(t, { STORAGE_RETENTION_EVERY: '20ms' })
    const admin = new Admin({ url: broker.url })
    t.after(() => admin.close())
    await admin.createGroup('g', { segment: { max_bytes: '64KiB' } })
    await admin.subscribe('g', 'c', 'earliest')
    const filler = 'x'.repeat(4000)
    for (let n = 0; n < 100; n++) await broker.produce('g', [{ n, filler }])
    await admin.configureGroup('g', { retention: { max_bytes: '150KiB' } })
    const earliest = async () => (await admin.group('g')).earliest
    await eventually('the first segments go', async () => (await earliest()) > 0)
    const consumer = new Consumer({ url: broker.url, group: 'g', name: 'c', mode, max: 5 })
    t.after(() => consumer.close({ timeout: 0 }))
    /** @type {{ from: number, to: number }[]} */
    const gaps = []
    consumer.on('gap', (gap) => gaps.push(gap))
    /** @type {number[]} */
    const offsets = []
    for await (const batch of consumer.batches()) {
      offsets.push(...batch.events.map((event) => event.offset))
      // The gap stands until something behind it is acked, and that is later than the next batches are read.
      if (offsets.length > 15) assert.equal(await batch.ack(), 'acked')
      if (offsets.at(-1) === 99) break
    }
    assert.equal(gaps.length, 1, JSON.stringify(gaps))
    const [{ from, to }] = gaps
    assert.deepEqual([from, offsets[0], to], [0, to, await earliest()])
    assert.deepEqual(offsets, numbered(100 - to, to).map(({ n }) => n))
    const status = await consumer.status()
    assert.deepEqual([status.cursor.acked_offset, status.gap], [99, null])
  })
}

test('an answer to an ack that was lost: the position is where it was said to be', async (t) => {
  const broker = await Broker.start(t)
  const proxy = await Proxy.start(t, broker.port)
  await broker.produce('g', numbered(200))
  const consumer = new Consumer({ url: proxy.url, group: 'g', name: 'c', max: 10 })
  let count = 0
  for await (const event of consumer) {
    const acked = event.ack()
    if (event.offset % 50 === 0) setImmediate(() => proxy.reset())
    assert.equal(await acked, 'acked')
    assert.ok(((await new Admin({ url: broker.url }).consumer('g', 'c')).cursor.acked_offset ?? -1) >= event.offset)
    if (++count === 200) break
  }
  await consumer.close()
})

test('handlers run side by side, and events of one key one after the other', async (t) => {
  const broker = await Broker.start(t)
  const total = 300
  await broker.produce('g', numbered(total), '/user')
  const consumer = new Consumer({ url: broker.url, group: 'g', name: 'c', max: 40 })
  /** @type {Map<string, number[]>} */
  const byKey = new Map()
  const busy = new Set()
  let widest = 0
  let done = 0
  await consumer.run(
    async (event) => {
      const key = String(event.key)
      assert.ok(!busy.has(key), `two of key ${key} at once`)
      busy.add(key)
      widest = Math.max(widest, busy.size)
      byKey.set(key, [...(byKey.get(key) ?? []), event.offset])
      await sleep(Math.random() * 3)
      busy.delete(key)
      if (++done === total) void consumer.close()
    },
    { concurrency: 5, orderBy: 'key' },
  )
  assert.equal(widest, 5)
  for (const offsets of byKey.values()) assert.deepEqual(offsets, offsets.toSorted((a, b) => a - b))
  assert.equal([...byKey.values()].flat().length, total)
  assert.equal((await new Admin({ url: broker.url }).consumer('g', 'c')).cursor.acked_offset, total - 1)
})

test('a handler that fails is tried again; in the end it stops, is taken care of, or goes to the dead letters', async (t) => {
  const broker = await Broker.start(t)
  const admin = new Admin({ url: broker.url })
  t.after(() => admin.close())
  await broker.produce('g', numbered(6))
  const failing = (/** @type {number[]} */ tries, /** @type {Consumer} */ consumer) => async (/** @type {any} */ event) => {
    tries.push(event.offset)
    if (event.offset === 5) setImmediate(() => void consumer.close())
    if (event.offset === 2) throw new Error('this one never')
  }
  /** @type {number[]} */
  let tries = []
  const stops = new Consumer({ url: broker.url, group: 'g', name: 'stops' })
  await assert.rejects(stops.run(failing(tries, stops), { retries: 1 }), { code: 'handler_failed' })
  assert.deepEqual(tries, [0, 1, 2, 2])
  assert.equal((await admin.consumer('g', 'stops')).cursor.acked_offset, 1)

  tries = []
  const cares = new Consumer({ url: broker.url, group: 'g', name: 'cares' })
  /** @type {number[]} */
  const cared = []
  await cares.run(failing(tries, cares), { onExhausted: (event) => cared.push(event.offset) })
  assert.deepEqual([tries, cared], [[0, 1, 2, 3, 4, 5], [2]])
  assert.equal((await admin.consumer('g', 'cares')).cursor.acked_offset, 5)

  const buries = new Consumer({ url: broker.url, group: 'g', name: 'buries' })
  await admin.subscribe('g', 'buries', 'earliest')
  await assert.rejects(buries.run(() => {}, { onExhausted: 'dead-letter' }), { code: 'no_dead_letters' })
  await admin.approve('g', 'buries', { max_attempts: 2, on_poison: 'dead_letter' })
  tries = []
  await buries.run(failing(tries, buries), { onExhausted: 'dead-letter', concurrency: 3 })
  assert.equal(tries.filter((offset) => offset === 2).length, 2)
  assert.deepEqual([...new Set(tries)].toSorted(), [0, 1, 2, 3, 4, 5])
  const status = await admin.consumer('g', 'buries')
  assert.deepEqual([status.cursor.acked_offset, status.dead_lettered], [5, 1])
  const letters = /** @type {any} */ (await fetch(`${broker.url}/v1/groups/g.dead/events`).then((answer) => answer.json()))
  assert.equal(letters.events[0].headers['dead-reason'], 'this one never')
})

test('close with a timeout does not wait for a handler that hangs', async (t) => {
  const broker = await Broker.start(t)
  await broker.produce('g', numbered(1))
  const consumer = new Consumer({ url: broker.url, group: 'g', name: 'c' })
  /** @type {AbortSignal | undefined} */
  let seen
  const running = consumer.run((_, { signal }) => {
    seen = signal
    return new Promise(() => {})
  })
  await eventually('the handler runs', () => seen)
  await consumer.close({ timeout: 30 })
  await running
  assert.ok(seen?.aborted)
})

test('a token function that fails is told at first, and asked again when it gave one before', async (t) => {
  const broker = await Broker.start(t)
  await broker.produce('g', numbered(1))
  const read = async (/** @type {() => any} */ token) => {
    const consumer = new Consumer({ url: broker.url, group: 'g', name: 'c', token })
    for await (const event of consumer) void event
  }
  const fails = async () => {
    throw new Error('no such secret')
  }
  await assert.rejects(read(fails), { code: 'token_failed', retryable: false, message: /no such secret/ })
  await assert.rejects(read(() => undefined), { code: 'token_failed', message: /a token is a string/ })
  let asked = 0
  const http = new Consumer({ url: broker.url, group: 'g', name: 'c', token: () => (++asked === 1 ? 'first\n' : fails()) }).http
  assert.equal(await http.authorization(), 'first')
  await assert.rejects(http.authorization('first'), { code: 'token_failed', retryable: true })
})

test('a token function is asked again when its token is refused', async (t) => {
  const broker = await Broker.start(t)
  await broker.produce('g', numbered(3))
  let asked = 0
  // Tokens are off here, so the proxy of this test is a token that no broker looks at; 401 is made by a server in front.
  const { createServer } = await import('node:http')
  const server = createServer(async (request, response) => {
    if (request.headers.authorization !== 'Bearer second') return response.writeHead(401).end('{"code":"bad_token"}')
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = chunks.length > 0 ? Buffer.concat(chunks) : undefined
    const answer = await fetch(broker.url + request.url, { method: request.method, body })
    response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(await answer.text())
  })
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  t.after(() => server.close())
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const token = async () => (asked++ === 0 ? 'first' : 'second')
  const consumer = new Consumer({ url: `http://127.0.0.1:${port}`, group: 'g', name: 'c', token })
  for await (const batch of consumer.batches()) {
    assert.equal(await batch.ack(), 'acked')
    break
  }
  assert.equal(asked, 2)
  await consumer.close()
})

/**
 * Approves a consumer to which little is sent ahead, so that it is still being sent to when something happens.
 * @param {Broker} broker
 */
async function approveFew(broker) {
  const admin = new Admin({ url: broker.url })
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { max_in_flight: { events: 100 } })
  admin.close()
}
