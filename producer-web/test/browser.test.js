// What a page sends is in the log once, whatever happens to the network, the broker and the store.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually, numbers, posts, queued, send, staged } from './broker.js'

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

staged('without IndexedDB, or where pages may not use it, events are sent all the same', {}, async (stage) => {
  await stage.context.addInitScript(() => Object.defineProperty(navigator, 'locks', { value: undefined }))
  const page = await stage.page()
  await send(page, numbers(0, 3))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 3))
})

staged('a store that fails holds nothing up', {}, async (stage) => {
  await stage.context.addInitScript(() => {
    const { put } = IDBObjectStore.prototype
    IDBObjectStore.prototype.put = function (...given) {
      const request = put.apply(this, given)
      this.transaction.abort()
      return request
    }
  })
  const page = await stage.page()
  await send(page, numbers(0, 60))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 60))
})

staged('a page may delete the database: nothing waits for that, and what comes then is stored again', {}, async (stage) => {
  const page = await stage.page()
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 3))
  await eventually('an attempt', () => posts(stage).length > 0)
  const deleted = await page.evaluate(() => new Promise((resolve) => {
    const request = indexedDB.deleteDatabase('eddyline-producer')
    for (const name of ['success', 'error', 'blocked']) request.addEventListener(name, () => resolve(name))
  }))
  assert.equal(deleted, 'success')
  stage.proxy.fault = () => undefined
  await page.evaluate(() => p.flush())
  stage.proxy.fault = () => 'down'
  const before = posts(stage).length
  await send(page, numbers(3, 5))
  await eventually('an attempt', () => posts(stage).length > before)
  await page.close()
  stage.proxy.fault = () => undefined
  await stage.page()
  await stage.holds(numbers(0, 5))
})

staged('what many closed tabs have left is sent one request at a time', {}, async (stage) => {
  stage.proxy.fault = () => 'down'
  for (let tab = 0; tab < 6; tab++) {
    const page = await stage.page({ adoptMs: 60_000 })
    const before = posts(stage).length
    await send(page, numbers(tab, tab + 1))
    await eventually('an attempt', () => posts(stage).length > before)
    await page.close()
  }
  stage.proxy.fault = () => undefined
  await stage.context.addInitScript(() => {
    const { fetch } = globalThis
    let underWay = 0
    globalThis.most = 0
    globalThis.fetch = (...given) => {
      globalThis.most = Math.max(most, ++underWay)
      return fetch(...given).finally(() => underWay--)
    }
  })
  const page = await stage.page()
  await eventually('all events', async () => (await stage.broker.events()).length === 6)
  assert.deepEqual((await stage.broker.events()).map(({ n }) => n).sort(), [0, 1, 2, 3, 4, 5])
  assert.equal(await page.evaluate(() => most), 1)
})
