// What a page sends is in the log once, whatever happens to the page, the network and the broker.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually, numbers, startStage } from './broker.js'

const staged = (name, options, story) => test(name, async () => {
  const stage = await startStage(options)
  try {
    await story(stage)
  } finally {
    await stage.stop()
  }
})

/** Sends the events in a page. */
const send = (page, events) => page.evaluate((events) => events.forEach((event) => p.send(event)), events)
const queued = (page) => page.evaluate(() => p.stats().queued)
const posts = ({ proxy }) => proxy.seen.filter(({ method }) => method === 'POST')
const sequence = ({ target }) => Number(new URL(target, 'http://b').searchParams.get('seq'))

staged('events are gathered into batches, sent in order, and the counts tell', {}, async (stage) => {
  const page = await stage.page()
  await send(page, numbers(0, 120))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 120))
  assert.equal(posts(stage).length, 3)
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 120, dropped: 0, queued: 0 })
})

staged('a confirmed event has its offset, and those that wait together share a request', {}, async (stage) => {
  const page = await stage.page({ gatherMs: 60_000 })
  const receipts = await page.evaluate(() => Promise.all([0, 1, 2].map((n) => p.send.confirmed({ n }))))
  assert.deepEqual(receipts, [0, 1, 2].map((offset) => ({ offset, duplicate: false })))
  await stage.holds(numbers(0, 3))
  assert.equal(posts(stage).length, 1)
})

staged('a tab that is closed while it gathers loses nothing', {}, async (stage) => {
  const page = await stage.page({ gatherMs: 60_000 })
  await send(page, numbers(0, 7))
  await page.close({ runBeforeUnload: true })
  await stage.holds(numbers(0, 7))
})

staged('a page that is left with a request under way loses and repeats nothing', {}, async (stage) => {
  const page = await stage.page()
  let release
  const held = new Promise((resolve) => (release = resolve))
  let first = true
  stage.proxy.fault = () => first ? ((first = false), held) : undefined
  await send(page, numbers(0, 50))
  await eventually('a request under way', () => posts(stage).length === 1)
  await send(page, numbers(50, 60))
  await page.goto('about:blank')
  await eventually('it is sent once more', () => posts(stage).length >= 2)
  release()
  const other = await stage.page()
  await stage.holds(numbers(0, 60))
  await eventually('nothing is left', async () => (await queued(other)) === 0)
  await stage.holds(numbers(0, 60))
})

staged('offline, then a reload, then online: everything arrives once, in order', {}, async (stage) => {
  const page = await stage.page()
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 70))
  await eventually('an attempt', () => posts(stage).length >= 2)
  // The module must come; what is under /v1/ does not.
  await page.reload()
  await page.waitForFunction('globalThis.p')
  await eventually('the reloaded page has them', async () => (await queued(page)) === 70)
  stage.proxy.fault = () => undefined
  await stage.holds(numbers(0, 70))
  await send(page, numbers(70, 80))
  await stage.holds(numbers(0, 80))
})

staged('an answer that is lost on the way repeats nothing', {}, async (stage) => {
  const page = await stage.page()
  let lost = 2
  stage.proxy.fault = () => lost-- > 0 ? 'mute' : undefined
  await send(page, numbers(0, 10))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 10))
  const [one, two, three] = posts(stage)
  assert.deepEqual([two, three], [one, one], 'the same bytes under the same number')
})

staged('two tabs are two producers, and one sends what the other left', {}, async (stage) => {
  const [one, two] = [await stage.page(), await stage.page()]
  await Promise.all([send(one, numbers(0, 60)), send(two, numbers(100, 160))])
  await Promise.all([one, two].map((page) => page.evaluate(() => p.flush())))
  const tabs = await stage.broker.events()
  assert.deepEqual(tabs.filter(({ n }) => n < 100), numbers(0, 60))
  assert.deepEqual(tabs.filter(({ n }) => n >= 100), numbers(100, 160))
  assert.equal(tabs.length, 120)
  stage.proxy.fault = () => 'down'
  await send(one, numbers(60, 70))
  await eventually('the first tab tried', () => posts(stage).some(({ body }) => body.includes('{"n":60}')))
  for (let look = 0; look < 10; look++) {
    assert.equal(await queued(two), 0, 'the first tab is there and has them')
    await sleep(20)
  }
  await one.close()
  await eventually('the second has them', async () => (await queued(two)) === 10)
  stage.proxy.fault = () => undefined
  await stage.holds([...tabs, ...numbers(60, 70)])
})

staged('503 and then recovery: it waits as long as the broker says', {}, async (stage) => {
  const page = await stage.page({ retryMs: 60_000, retryMaxMs: 60_000 })
  let refusals = 3
  stage.proxy.fault = () => refusals-- > 0 ? { status: 503, body: { code: 'overloaded', retry_after_ms: 20 } } : undefined
  await send(page, numbers(0, 5))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 5))
  const [one, ...others] = posts(stage)
  assert.equal(others.length, 3)
  others.forEach((other) => assert.deepEqual(other, one))
})

staged('408, 425, 429 and 5xx are tried again, with the same bytes under the same number', {}, async (stage) => {
  const page = await stage.page()
  const statuses = [408, 425, 429, 500, 502, 507]
  stage.proxy.fault = () => statuses.length > 0 ? { status: statuses.shift() } : undefined
  await send(page, numbers(0, 5))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 5))
  const [one, ...others] = posts(stage)
  assert.equal(others.length, 6)
  others.forEach((other) => assert.deepEqual(other, one))
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 5, dropped: 0, queued: 0 })
})

staged('a request with a header of its own is preceded by one that asks for leave: `holds` would see it', {}, async (stage) => {
  const page = await stage.page()
  await send(page, numbers(0, 1))
  await stage.holds(numbers(0, 1))
  const ask = (headers) => page.evaluate(([url, headers]) => fetch(url, { method: 'POST', body: 'x', headers }).then(() => 1, () => 0), [
    `${stage.proxy.url}/v1/groups/clicks/batch`, headers,
  ])
  await ask({ 'Content-Type': 'application/json' })
  await assert.rejects(stage.holds(numbers(0, 1)), ({ actual }) => actual?.[0]?.method === 'OPTIONS')
})

for (const [what, script] of [
  ['without `keepalive`', () => delete Request.prototype.keepalive],
  ['where `fetch` fails as the page goes away', () => {
    const { fetch } = globalThis
    globalThis.fetch = (url, options) => (options.keepalive ? Promise.reject(new TypeError('quota')) : fetch(url, options))
  }],
]) {
  staged(`${what}, what waits leaves as a beacon`, {}, async (stage) => {
    await stage.context.addInitScript(script)
    const page = await stage.page({ gatherMs: 60_000 })
    await send(page, numbers(0, 7))
    await eventually('they are queued', async () => (await queued(page)) === 7)
    await page.goto('about:blank')
    // No other page of the origin is there that could have sent them.
    await stage.holds(numbers(0, 7))
    assert.equal(posts(stage).length, 1)
  })
}

staged('a batch that is too large is halved until it fits; what never fits is dropped alone', {
  group: '{"max_batch_bytes":"1KiB","max_event_bytes":"1KiB"}',
}, async (stage) => {
  const page = await stage.page()
  await send(page, [...numbers(0, 100), { big: 'x'.repeat(2000) }, ...numbers(100, 200)])
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 200))
  const drops = await page.evaluate(() => drops)
  assert.deepEqual(drops.map(({ status, events }) => [status, events.length]), [[413, 1]])
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 200, dropped: 1, queued: 0 })
})

staged('what the broker refuses is dropped, told, and holds nothing up', {}, async (stage) => {
  const page = await stage.page()
  let first = true
  stage.proxy.fault = () => first ? ((first = false), { status: 400, body: { code: 'bad_line' } }) : undefined
  const refused = await page.evaluate(() => p.send.confirmed({ n: -1 }).catch((error) => error.code))
  assert.equal(refused, 'bad_line')
  await send(page, numbers(0, 3))
  await stage.holds(numbers(0, 3))
  const drops = await page.evaluate(() => drops.map(({ code, status, events }) => ({ code, status, events })))
  assert.deepEqual(drops, [{ code: 'bad_line', status: 400, events: ['{"n":-1}'] }])
})

staged('the queue is capped, and what it does not take is counted', {}, async (stage) => {
  const page = await stage.page({ queueBytes: 100 })
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 100))
  const { queued, dropped } = await page.evaluate(() => p.stats())
  assert.deepEqual([queued + dropped, queued], [100, 12])
  assert.equal(await page.evaluate(() => drops.every(({ code }) => code === 'queue_full')), true)
  stage.proxy.fault = () => undefined
  await stage.holds(numbers(0, 12))
})

staged('tabs share the cap of the queue', {}, async (stage) => {
  stage.proxy.fault = () => 'down'
  const one = await stage.page({ queueBytes: 100 })
  await send(one, numbers(0, 12))
  await eventually('they are stored', () => posts(stage).length > 0)
  // Counts the looks for what closed tabs left: behind the second, what others have is known.
  await stage.context.addInitScript(() => {
    globalThis.looks = 0
    const { request } = LockManager.prototype
    LockManager.prototype.request = function (name, options, hold) {
      return request.call(this, name, options, hold).finally(() => (globalThis.looks += options.ifAvailable ? 1 : 0))
    }
  })
  const two = await stage.page({ queueBytes: 100 })
  await two.waitForFunction('looks > 1')
  await send(two, numbers(100, 110))
  assert.deepEqual(await two.evaluate(() => p.stats()), { sent: 0, dropped: 10, queued: 0 })
  stage.proxy.fault = () => undefined
  await Promise.all([one, two].map((page) => page.evaluate(() => p.flush())))
  await eventually('there is room again', async () => {
    await send(two, numbers(1000, 1001))
    await two.evaluate(() => p.flush())
    return (await stage.broker.events()).some(({ n }) => n === 1000)
  })
})

staged('a producer that the broker forgot begins again', {}, async (stage) => {
  const page = await stage.page()
  await send(page, numbers(0, 1))
  await page.evaluate(() => p.flush())
  let first = true
  stage.proxy.fault = () => first ? ((first = false), { status: 409, body: { code: 'producer_unknown', expected_seq: 0 } }) : undefined
  await send(page, numbers(1, 3))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 3))
  const last = posts(stage).at(-1)
  assert.equal(sequence(last), 0)
})

staged('a page in the back/forward cache leaves nothing behind and goes on', { bfcache: true }, async (stage) => {
  const page = await stage.page({ gatherMs: 60_000 })
  await page.evaluate(() => (globalThis.kept = true))
  await send(page, numbers(0, 5))
  await page.goto('data:text/html,other')
  await stage.holds(numbers(0, 5))
  await page.goBack({ waitUntil: 'commit' })
  await page.waitForFunction('globalThis.p')
  assert.equal(await page.evaluate(() => globalThis.kept), true, 'it is the same page')
  await send(page, numbers(5, 9))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 9))
})

staged('what a page in the back/forward cache has left is sent by another, and not again', { bfcache: true }, async (stage) => {
  const page = await stage.page()
  await page.evaluate(() => (globalThis.kept = true))
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 5))
  await eventually('an attempt', () => posts(stage).length > 0)
  await page.goto('data:text/html,other')
  const other = await stage.page()
  await eventually('the other page has them', async () => (await queued(other)) === 5)
  stage.proxy.fault = () => undefined
  await stage.holds(numbers(0, 5))
  await page.goBack({ waitUntil: 'commit' })
  await page.waitForFunction('globalThis.p')
  assert.equal(await page.evaluate(() => globalThis.kept), true, 'it is the same page')
  await send(page, numbers(5, 9))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 9))
})

staged('a key that can only produce stands in the URL, for pages of its own origin', { guarded: true }, async (stage) => {
  const page = await stage.page({ token: await stage.broker.key(stage.site.url) })
  await send(page, numbers(0, 3))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 3))
})

staged('without IndexedDB, or where pages may not use it, events are sent all the same', {}, async (stage) => {
  await stage.context.addInitScript(() => Object.defineProperty(navigator, 'locks', { value: undefined }))
  const page = await stage.page()
  await send(page, numbers(0, 3))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 3))
})
