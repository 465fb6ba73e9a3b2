// What a page sends is in the log once, whatever happens to the page.

import assert from 'node:assert/strict'
import { eventually, numbers, posts, queued, send, staged } from './broker.js'

/** A page whose store answers after it has gone away is not kept by the browser: here it looks at nothing of itself. */
const QUIET = { adoptMs: 60_000 }

/** Goes on to another page, for which the browser keeps this one. */
async function leave(page) {
  await page.evaluate(() => (globalThis.kept = true))
  await page.goto('data:text/html,other')
}

/** Goes back to the page that was left: the same one, not loaded again. */
async function comeBack(page) {
  await page.goBack({ waitUntil: 'commit' })
  await page.waitForFunction('globalThis.p')
  assert.equal(await page.evaluate(() => globalThis.kept), true, 'it is the same page')
}

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

staged('a page in the back/forward cache leaves nothing behind and goes on', { bfcache: true }, async (stage) => {
  const page = await stage.page({ ...QUIET, gatherMs: 60_000 })
  await send(page, numbers(0, 5))
  await leave(page)
  await stage.holds(numbers(0, 5))
  await comeBack(page)
  await send(page, numbers(5, 9))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 9))
})

staged('what a page in the back/forward cache has left is sent by another, and not again', { bfcache: true }, async (stage) => {
  const page = await stage.page(QUIET)
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 5))
  await eventually('an attempt', () => posts(stage).length > 0)
  await leave(page)
  const other = await stage.page()
  await eventually('the other page has them', async () => (await queued(other)) === 5)
  stage.proxy.fault = () => undefined
  await stage.holds(numbers(0, 5))
  await comeBack(page)
  await send(page, numbers(5, 9))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 9))
})

staged('a page in the back/forward cache sends what another could not have had', { bfcache: true }, async (stage) => {
  const page = await stage.page({ ...QUIET, gatherMs: 60_000 })
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 3))
  // The first three are stored when this comes behind them.
  await page.evaluate(async () => {
    await new Promise((resolve) => (indexedDB.open('eddyline-producer').onsuccess = ({ target }) => {
      const transaction = target.result.transaction('batches', 'readwrite')
      transaction.objectStore('batches').count()
      transaction.oncomplete = () => (target.result.close(), resolve())
    }))
    IDBObjectStore.prototype.put = () => { throw new Error('full') }
    p.send({ n: 3 })
    p.send({ n: 4 })
  })
  await leave(page)
  const other = await stage.page()
  await eventually('the other page has some', async () => (await queued(other)) === 3)
  stage.proxy.fault = () => undefined
  await stage.holds(numbers(0, 3))
  await comeBack(page)
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 5))
})

staged('a page in the back/forward cache goes on behind one that had to number its batches anew', {
  bfcache: true, group: '{"max_batch_bytes":"1KiB","max_event_bytes":"1KiB"}',
}, async (stage) => {
  const page = await stage.page(QUIET)
  stage.proxy.fault = () => 'down'
  const large = (from, to) => numbers(from, to).map(({ n }) => ({ n, text: 'x'.repeat(50) }))
  await send(page, large(0, 100))
  await eventually('an attempt', () => posts(stage).length > 0)
  await leave(page)
  const other = await stage.page()
  await eventually('the other page has them', async () => (await queued(other)) === 100)
  stage.proxy.fault = () => undefined
  await stage.holds(large(0, 100))
  await comeBack(page)
  await send(page, large(100, 103))
  await page.evaluate(() => p.flush())
  await stage.holds(large(0, 103))
})

staged('what the application says as the page goes away is sent, too', {}, async (stage) => {
  const page = await stage.page({ gatherMs: 60_000 })
  await page.evaluate(() => {
    // As if it was hidden already: nothing but `pagehide` tells.
    Object.defineProperty(document, 'visibilityState', { value: 'visible' })
    addEventListener('pagehide', () => p.send({ n: 1 }))
    p.send({ n: 0 })
  })
  await page.goto('about:blank')
  await stage.holds(numbers(0, 2))
})

/** Notes in a place that outlives the page what became of its requests as it went away. */
const note = () => {
  const add = (what) => (localStorage.left = `${localStorage.left ?? ''}${what} `)
  const { fetch } = globalThis
  globalThis.fetch = (url, options) => {
    const answer = fetch(url, options)
    if (options?.keepalive) add('keepalive'), answer.catch(() => add('refused'))
    return answer
  }
  const { sendBeacon } = Navigator.prototype
  Navigator.prototype.sendBeacon = function (...given) {
    const queued = sendBeacon.apply(this, given)
    add(`beacon:${queued}`)
    return queued
  }
}

staged('where others have used up what may outlive the page, its events are sent by the next one', {}, async (stage) => {
  await stage.context.addInitScript(note)
  const page = await stage.page({ gatherMs: 60_000 })
  await page.evaluate(() => {
    fetch('/held', { method: 'POST', keepalive: true, body: 'x'.repeat(64 * 1024 - 10) })
    localStorage.left = ''
  })
  await send(page, numbers(0, 7))
  await page.goto(stage.site.url)
  const left = await page.evaluate(() => localStorage.left)
  assert.ok(left.startsWith('keepalive refused ') && !left.includes('beacon:true'), left)
  assert.deepEqual(posts(stage), [])
  await stage.page()
  await stage.holds(numbers(0, 7))
})

staged('the producers of a page share what may outlive it: none of them asks for more', {}, async (stage) => {
  await stage.context.addInitScript(note)
  const page = await stage.page({ gatherMs: 60_000 })
  const events = [0, 1].map((n) => ({ n, text: 'x'.repeat(35_000) }))
  await page.evaluate(async ([module, events]) => {
    const { producer } = await import(module)
    producer('clicks', { gatherMs: 60_000 }).send(events[1])
    p.send(events[0])
  }, [`${stage.proxy.url}/producer.js`, events])
  await page.goto(stage.site.url)
  assert.equal((await page.evaluate(() => localStorage.left)).split('keepalive').length, 2, 'one of them asked')
  await stage.page()
  await eventually('both', async () => (await stage.broker.events()).length === 2)
  assert.deepEqual((await stage.broker.events()).map(({ n }) => n).sort(), [0, 1])
})
