// Producing: durable, in order, once, whatever happens to connections and to the broker.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { Admin, Producer } from '../src/index.js'
import { Answers } from '../src/wire.js'
import { Broker, eventually } from './broker.js'
import { Proxy } from './proxy.js'

test('answers are taken apart, however they are cut', () => {
  const text = 'HTTP/1.1 204 No Content\r\nEddyline-Offset: 7\r\n\r\nHTTP/1.1 409 Conflict\r\ncontent-length: 5\r\n\r\n{"a"}HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'
  const shown = (/** @type {import('../src/wire.js').WireAnswer[]} */ answers) => answers.map(({ status, headers, body }) => [status, headers.get('eddyline-offset'), body])
  const expected = [[204, '7', ''], [409, undefined, '{"a"}'], [200, undefined, '']]
  for (let cut = 0; cut <= text.length; cut++) {
    const answers = new Answers()
    const taken = [text.slice(0, cut), text.slice(cut)].flatMap((part) => answers.feed(Buffer.from(part)))
    assert.deepEqual(shown(taken), expected, `cut at ${cut}`)
  }
  assert.throws(() => new Answers().feed(Buffer.from('SSH-2.0\r\n\r\n')), { code: 'bad_answer' })
})

test('values and bytes come back as they were sent, with keys and offsets', async (t) => {
  const broker = await Broker.start(t)
  const producer = new Producer({ url: broker.url, group: 'g' })
  const receipts = await Promise.all([
    producer.send({ a: 1 }), producer.send('words ä', { key: 'k' }), producer.send(Buffer.from([0, 255])), producer.send(null),
  ])
  assert.deepEqual(receipts.map(({ offset, duplicate }) => [offset, duplicate]), [[0, false], [1, false], [2, false], [3, false]])
  await assert.rejects(producer.send(undefined), { code: 'bad_value' })
  await producer.close()
  await assert.rejects(producer.send(1), { code: 'closed' })
  const events = await eventsOf(broker)
  assert.deepEqual(events.map((event) => [event.data, event.key]), [[{ a: 1 }, undefined], ['words ä', 'k'], ['AP8=', undefined], [null, undefined]])
})

test('connections that are reset and a broker that is killed: every event once, in order', async (t) => {
  const broker = await Broker.start(t)
  const proxy = await Proxy.start(t, broker.port)
  const producer = new Producer({ url: proxy.url, group: 'g', maxEvents: 10 })
  t.after(() => producer.close({ timeout: 0 }))
  let reconnected = 0
  producer.on('reconnecting', () => reconnected++)
  let durable = 0
  let sent = 0
  const fill = async (/** @type {number} */ until) => {
    while (sent < until) {
      void producer.send({ n: sent++ }).then(() => durable++)
      if (sent % 20 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
  }
  for (let round = 1; round <= 6; round++) {
    await fill(round * 500)
    if (round === 3) {
      await broker.kill()
      await broker.up()
    } else {
      proxy.reset()
    }
    await fill(round * 500 + 100)
    await producer.flush()
  }
  assert.equal(durable, sent)
  assert.ok(reconnected > 0)
  const events = await eventsOf(broker)
  assert.deepEqual(events.map((event) => event.data.n), Array.from({ length: sent }, (_, n) => n))
  await producer.close()
})

test('a batch that is refused takes no other with it', async (t) => {
  const broker = await Broker.start(t)
  const admin = new Admin({ url: broker.url })
  t.after(() => admin.close())
  await admin.createGroup('g', { max_event_bytes: '1KiB' })
  const producer = new Producer({ url: broker.url, group: 'g', maxEvents: 1 })
  const results = await Promise.allSettled([1, 'x'.repeat(2000), 2, 3].map((value) => producer.send(value)))
  assert.deepEqual(results.map((result) => result.status), ['fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
  assert.equal(/** @type {PromiseRejectedResult} */ (results[1]).reason.code, 'event_too_large')
  assert.deepEqual((await eventsOf(broker)).map((event) => event.data), [1, 2, 3])
  await producer.close()
})

test('a connection that falls silent is given up, and what it took is sent again and stored once', async (t) => {
  const broker = await Broker.start(t)
  const proxy = await Proxy.start(t, broker.port)
  const producer = new Producer({ url: proxy.url, group: 'g', maxEvents: 1, requestTimeout: 500 })
  t.after(() => producer.close({ timeout: 0 }))
  /** @type {string[]} */
  const told = []
  producer.on('reconnecting', ({ error }) => told.push(error.message))
  await producer.send(0)
  // The broker stores them, and nobody hears of it.
  proxy.silence('answers')
  const sending = [1, 2, 3].map((value) => producer.send(value))
  await eventually('they are stored', async () => (await eventsOf(broker)).length === 4)
  assert.deepEqual((await Promise.all(sending)).map(({ offset }) => offset), [1, 2, 3])
  assert.ok(told.some((message) => /no answer for 500 ms/.test(message)), told.join())
  assert.deepEqual((await eventsOf(broker)).map(({ data }) => data), [0, 1, 2, 3])
  await producer.close()
})

test('of events that were sent together only the one that is refused is rejected', async (t) => {
  const broker = await Broker.start(t)
  const admin = new Admin({ url: broker.url })
  t.after(() => admin.close())
  await admin.createGroup('g', { max_event_bytes: '1KiB' })
  const producer = new Producer({ url: broker.url, group: 'g' })
  const values = Array.from({ length: 100 }, (_, n) => (n % 40 === 37 ? 'x'.repeat(2000) : `ä${n}`))
  const sending = values.map((value, n) => producer.send(value, n % 2 === 0 ? { key: `k${n}` } : {}))
  const flushed = producer.flush()
  const results = await Promise.allSettled(sending)
  await flushed
  for (const [n, result] of results.entries()) {
    if (n % 40 === 37) assert.equal(/** @type {PromiseRejectedResult} */ (result).reason.code, 'event_too_large')
    else assert.equal(result.status, 'fulfilled', `${n}`)
  }
  const events = await eventsOf(broker)
  const kept = values.flatMap((value, n) => (n % 40 === 37 ? [] : [[value, n % 2 === 0 ? `k${n}` : undefined]]))
  assert.deepEqual(events.map(({ data, key }) => [data, key]), kept)
  const offsets = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.offset] : []))
  assert.deepEqual(offsets, events.map(({ offset }) => offset))
  assert.equal(producer.buffered, 0)
  await producer.close()
})

test('what cannot be sent is refused, and nothing waits for it', async (t) => {
  const broker = await Broker.start(t)
  const producer = new Producer({ url: broker.url, group: 'g' })
  const circle = {}
  Object.assign(circle, { circle })
  for (const value of [1n, circle, () => {}]) await assert.rejects(producer.send(value), { code: 'bad_value' })
  await assert.rejects(producer.send(1, { key: /** @type {any} */ (7) }), { code: 'bad_value' })
  await assert.rejects(producer.send(1, { key: 'ä'.repeat(40_000) }), { code: 'key_too_long' })
  await producer.flush()
  assert.throws(() => new Producer({ url: broker.url, group: 'g', id: 'a\r\nb' }), { code: 'bad_options' })
  await producer.close()
})

test('flush waits for what was sent before, not for what is sent meanwhile', async (t) => {
  const broker = await Broker.start(t)
  const producer = new Producer({ url: broker.url, group: 'g', maxEvents: 1 })
  let acked = 0
  for (let n = 0; n < 100; n++) void producer.send(n).then(() => acked++)
  let flushed = false
  void producer.flush().then(() => (flushed = true))
  // More is sent than can be answered, so there is always something under way.
  await eventually('it is flushed', async () => {
    for (let turn = 0; turn < 20; turn++) {
      void producer.send(turn)
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.ok(producer.parcels.length > 0)
    return flushed
  })
  assert.ok(acked >= 100)
  await producer.close()
})

test('an answer that says nothing of what was done is asked for again', async (t) => {
  const answers = [500, 502, 204]
  /** @type {(string | undefined)[]} */
  const numbers = []
  const server = createServer((request, response) => {
    numbers.push(request.headers['producer-seq']?.toString())
    request.resume().on('end', () => response.writeHead(answers[numbers.length - 1], { 'Eddyline-Offset': '7', 'Content-Length': '0' }).end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const producer = new Producer({ url: `http://127.0.0.1:${port}`, group: 'g' })
  assert.deepEqual(await producer.send(1), { offset: 7, duplicate: false })
  assert.deepEqual(numbers, ['0', '0', '0'])
  await producer.close()
})

test('a newer one of the same id shuts out the older', async (t) => {
  const broker = await Broker.start(t)
  const older = new Producer({ url: broker.url, group: 'g', id: 'till-3', epoch: 1 })
  const newer = new Producer({ url: broker.url, group: 'g', id: 'till-3', epoch: 2 })
  await older.send(1)
  await newer.send(2)
  await assert.rejects(older.send(3), { code: 'producer_fenced', retryable: false })
  await assert.rejects(older.send(4), { code: 'producer_fenced' })
  await older.close()
  await newer.close()
})

test('what waits is bounded, and ready() waits for room', async (t) => {
  const broker = await Broker.start(t)
  await broker.kill()
  const producer = new Producer({ url: broker.url, group: 'g', maxBuffered: 2000 })
  t.after(() => producer.close({ timeout: 0 }))
  const sent = Array.from({ length: 2 }, () => producer.send('x'.repeat(1000)))
  await assert.rejects(producer.send(1), { code: 'buffer_full', retryable: true })
  await broker.up()
  await producer.ready()
  await producer.send(2)
  await Promise.all(sent)
  await eventually('all is there', async () => (await eventsOf(broker)).length === 3)
})

/**
 * @param {Broker} broker
 * @returns {Promise<any[]>}
 */
async function eventsOf(broker) {
  const answer = /** @type {any} */ (await fetch(`${broker.url}/v1/groups/g/events?limit=10000`).then((got) => got.json()))
  return answer.events
}
