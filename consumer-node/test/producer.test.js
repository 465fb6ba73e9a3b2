// Producing: durable, in order, once, whatever happens to connections and to the broker.

import assert from 'node:assert/strict'
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
