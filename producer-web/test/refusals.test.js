// What the broker, or what stands in its place, does not take: tried again, made to fit, or dropped and told.

import assert from 'node:assert/strict'
import { eventually, numbers, posts, queued, send, staged } from './broker.js'

const sequence = ({ target }) => Number(new URL(target, 'http://b').searchParams.get('seq'))

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

staged('a key that can only produce stands in the URL, for pages of its own origin', { guarded: true }, async (stage) => {
  const page = await stage.page({ token: (await stage.broker.key(stage.site.url)).token })
  await send(page, numbers(0, 3))
  await page.evaluate(() => p.flush())
  await stage.holds(numbers(0, 3))
})

staged('a key that does not allow it is told at once, and not tried again', { guarded: true }, async (stage) => {
  const { token } = await stage.broker.key(stage.site.url, { groups: ['orders'] })
  const page = await stage.page({ token })
  assert.equal(await page.evaluate(() => p.send.confirmed({ n: 0 }).catch(({ code }) => code)), 'not_allowed')
  await send(page, numbers(1, 3))
  await page.evaluate(() => p.flush())
  assert.deepEqual(await page.evaluate(() => drops.map(({ code, status, events }) => [code, status, events])), [
    ['not_allowed', 403, ['{"n":0}']],
    ['not_allowed', 403, ['{"n":1}', '{"n":2}']],
  ])
  assert.equal(posts(stage).length, 2)
  await stage.holds([])
})

staged('a key that has expired is told, and what it was to carry is handed back', { guarded: true }, async (stage) => {
  const expires = new Date(Date.now() + 5000)
  const { token } = await stage.broker.key(stage.site.url, { expires: expires.toISOString() })
  const page = await stage.page({ token })
  await page.evaluate(() => p.send.confirmed({ n: 0 }))
  await eventually('it expires', () => Date.now() > expires || Date.now())
  const error = await page.evaluate(() => p.send.confirmed({ n: 1 }).catch(({ name, code, message }) => ({ name, code, message })))
  assert.deepEqual(error, { name: 'ProducerError', code: 'bad_token', message: 'this token has expired' })
  assert.deepEqual(await page.evaluate(() => drops.map(({ code, status, events }) => [code, status, events])), [
    ['bad_token', 401, ['{"n":1}']],
  ])
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 1, dropped: 1, queued: 0 })
  await stage.holds(numbers(0, 1))
})

staged('behind a key that pages of the origin may use no more, events wait for another', { guarded: true }, async (stage) => {
  const { id, token } = await stage.broker.key(stage.site.url)
  const page = await stage.page({ token })
  await stage.broker.revoke(id)
  await send(page, numbers(0, 3))
  await eventually('attempts', () => posts(stage).length >= 2)
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 0, dropped: 0, queued: 3 })
  // Before the page is left: a page that goes would otherwise take the quota of the next.
  const next = (await stage.broker.key(stage.site.url)).token
  await page.close()
  await stage.page({ token: next })
  await stage.holds(numbers(0, 3))
})

staged('what answers 2xx in the place of the broker has taken nothing', {}, async (stage) => {
  const page = await stage.page()
  const texts = ['<!doctype html>', 'null', '5', '{"ok":true}', '']
  stage.proxy.fault = () => texts.length > 0 ? { status: 200, text: texts.shift() } : undefined
  assert.deepEqual(await page.evaluate(() => p.send.confirmed({ n: 0 })), { offset: 0, duplicate: false })
  await stage.holds(numbers(0, 1))
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 1, dropped: 0, queued: 0 })
})

staged('a conflict that is not of the broker is told, and not tried for ever', {}, async (stage) => {
  const page = await stage.page()
  stage.proxy.fault = () => ({ status: 409, text: 'Conflict' })
  assert.equal(await page.evaluate(() => p.send.confirmed({ n: 0 }).catch(({ code }) => code)), 'refused')
  assert.equal(posts(stage).length, 1)
})

staged('where nobody answers events wait, up to the cap; what is no address is refused at once', {}, async (stage) => {
  const page = await stage.page({ url: 'http://127.0.0.1:9', queueBytes: 100 })
  await send(page, numbers(0, 13))
  assert.deepEqual(await page.evaluate(() => p.stats()), { sent: 0, dropped: 1, queued: 12 })
  assert.deepEqual(await page.evaluate(() => drops.map(({ code }) => code)), ['queue_full'])
  const make = (url) => page.evaluate(async ([module, url]) => {
    const { producer } = await import(module)
    try {
      producer('clicks', { url })
    } catch ({ name }) {
      return name
    }
  }, [`${stage.proxy.url}/producer.js`, url])
  for (const url of ['localhost:4437', '127.0.0.1:4437', '']) assert.equal(await make(url), 'TypeError', url)
})

staged('the address may have a path, as behind a proxy', {}, async (stage) => {
  const page = await stage.page({ url: `${stage.proxy.url}/events` })
  await send(page, numbers(0, 1))
  await eventually('a request', () => posts(stage).length > 0)
  assert.match(posts(stage)[0].target, /^\/events\/v1\/groups\/clicks\/batch\?/)
})

staged('a page that says nothing of drops finds them on its console', {}, async (stage) => {
  const page = await stage.page()
  const said = []
  page.on('console', (message) => said.push([message.type(), message.text()]))
  stage.proxy.fault = () => ({ status: 400, body: { code: 'bad_line' } })
  await page.evaluate(async (module) => {
    const { producer } = await import(module)
    const own = producer('clicks')
    own.send({ n: 0 })
    await own.flush()
  }, `${stage.proxy.url}/producer.js`)
  await eventually('a warning', () => said.some(([type, text]) => type === 'warning' && text.includes('bad_line')) || said)
})

staged('a clock that is put back delays nothing', {}, async (stage) => {
  const page = await stage.page()
  stage.proxy.fault = () => 'down'
  await send(page, numbers(0, 3))
  await eventually('an attempt', () => posts(stage).length > 0)
  await page.evaluate(() => {
    const { now } = Date
    Date.now = () => now() - 3_600_000
  })
  stage.proxy.fault = () => undefined
  await stage.holds(numbers(0, 3))
})
