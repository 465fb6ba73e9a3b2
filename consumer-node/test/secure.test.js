// Tokens that a broker looks at, and TLS in front of it.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer as createPlain } from 'node:net'
import { test } from 'node:test'
import { createServer } from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Admin, Consumer, Producer } from '../src/index.js'
import { Broker, eventually, numbered } from './broker.js'

test('who may what: a producer, a consumer by its own token, and nobody without', async (t) => {
  const { broker, url, admin, secret } = await guarded(t)
  await admin.createGroup('g')
  const { token: key } = await admin.http.json('POST', '/tokens', { json: { scopes: ['produce'], groups: ['g'] } })
  const producer = new Producer({ url, group: 'g', token: key })
  assert.equal((await producer.send({ n: 0 })).offset, 0)
  await producer.close()

  await assert.rejects(read(new Consumer({ url, group: 'g', name: 'c' })), { code: 'no_token', retryable: false })
  await assert.rejects(read(new Consumer({ url, group: 'g', name: 'c', token: 'edl_no_such' })), { code: 'bad_token' })
  await assert.rejects(read(new Consumer({ url, group: 'g', name: 'c', token: key })), { code: 'not_allowed' })

  await admin.subscribe('g', 'c', 'earliest')
  const { token } = /** @type {{ token?: string }} */ (await admin.approve('g', 'c'))
  assert.match(String(token), /^edl_/)
  for (const mode of /** @type {const} */ (['next', 'stream'])) {
    assert.equal(await read(new Consumer({ url, group: 'g', name: 'c', mode, token })), 'acked')
    await admin.http.json('POST', '/groups/g/consumers/c/rewind', { json: { to: 0 } })
  }
  await assert.rejects(read(new Consumer({ url, group: 'g', name: 'other', token })), { code: 'not_allowed' })
  await assert.rejects(new Producer({ url, group: 'g', token }).send(1), { code: 'not_allowed' })
  assert.ok(secret !== token && broker.child !== undefined)
})

test('a token that is revoked while it is used is followed by the next one, and no event is skipped or repeated', async (t) => {
  const { url, admin } = await guarded(t)
  await admin.createGroup('g')
  const producer = new Producer({ url, group: 'g', token: admin.http.bearer })
  await Promise.all(numbered(400).map((value) => producer.send(value)))
  await producer.close()
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '3s' })
  const issue = async () => admin.http.json('POST', '/tokens', { json: { scopes: ['consume'], groups: ['g'] } })
  for (const mode of /** @type {const} */ (['next', 'stream'])) {
    const issued = /** @type {{ id: string, token: string }[]} */ ([])
    const token = async () => {
      issued.push(await issue())
      return issued[issued.length - 1].token
    }
    const consumer = new Consumer({ url, group: 'g', name: 'c', mode, max: 20, token })
    t.after(() => consumer.close({ timeout: 0 }))
    const offsets = []
    for await (const event of consumer) {
      offsets.push(event.offset)
      if (event.offset % 100 === 50) await admin.http.json('DELETE', `/tokens/${issued[issued.length - 1].id}`)
      assert.equal(await event.ack(), 'acked')
      if (event.offset === 399) break
    }
    assert.deepEqual(offsets, numbered(400).map(({ n }) => n))
    assert.equal(issued.length, 5, 'asked at first, and once for each that was revoked')
    await consumer.close()
    await admin.http.json('POST', '/groups/g/consumers/c/rewind', { json: { to: 0 } })
  }
})

test('a producer asks for the next token when one is refused, also one that was refused while the broker was away', async (t) => {
  const { broker, url, admin } = await guarded(t)
  await admin.createGroup('g')
  const issued = /** @type {{ id: string, token: string }[]} */ ([])
  const token = async () => {
    issued.push(await admin.http.json('POST', '/tokens', { json: { scopes: ['produce'], groups: ['g'] } }))
    return issued[issued.length - 1].token
  }
  const revoke = () => admin.http.json('DELETE', `/tokens/${issued[issued.length - 1].id}`)
  const producer = new Producer({ url, group: 'g', token, maxEvents: 10 })
  /** @type {string[]} */
  const told = []
  producer.on('reconnecting', ({ error }) => told.push(error.code))
  const send = (/** @type {number} */ from) => Promise.all(numbered(50, from).map((value) => producer.send(value)))
  await send(0)
  await revoke()
  const second = (await send(50)).map(({ offset }) => offset)
  assert.deepEqual([second, told, issued.length], [numbered(50, 50).map(({ n }) => n), ['bad_token'], 2])
  await revoke()
  await broker.kill()
  const third = send(100)
  await eventually('the broker is missed', () => told.length >= 3)
  await broker.up()
  await third
  assert.deepEqual([told.at(-1), issued.length], ['bad_token', 3])
  const { events } = await admin.http.json('GET', '/groups/g/events')
  assert.deepEqual(events.map((/** @type {any} */ event) => event.data.n), numbered(150).map(({ n }) => n))
  await producer.close()

  const stubborn = new Producer({ url, group: 'g', token: () => issued[0].token })
  await assert.rejects(stubborn.send(1), { code: 'bad_token', retryable: false })
  const broken = new Producer({ url, group: 'g', token: () => Promise.reject(new Error('no such secret')) })
  await assert.rejects(broken.send(1), { code: 'token_failed', message: /no such secret/ })
  for (const each of [stubborn, broken]) await each.close()
})

test('what is no broker, or one that is not trusted, is told at the first connection', async (t) => {
  const broker = await Broker.start(t)
  const other = createPlain((socket) => socket.on('error', () => {}).end('SSH-2.0-OpenSSH_9\r\n\r\n'))
  other.listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.after(() => other.close())
  const { port } = /** @type {import('node:net').AddressInfo} */ (other.address())
  for (const [url, code, told] of /** @type {const} */ ([
    [`https://localhost:${await secured(t, broker)}`, 'tls_failed', /not trusted.*NODE_EXTRA_CA_CERTS.*self.signed/],
    [broker.url.replace('http', 'https'), 'tls_failed', /TLS failed/],
    [`http://127.0.0.1:${port}`, 'bad_answer', /no broker|no answer of HTTP/],
  ])) {
    for (const mode of /** @type {const} */ (['next', 'stream'])) {
      await assert.rejects(read(new Consumer({ url, group: 'g', name: 'c', mode })), { code, retryable: false, message: told })
    }
    const producer = new Producer({ url, group: 'g' })
    await assert.rejects(producer.send(1), { code, message: told })
    await producer.close()
  }
})

test('the lease of a consumer that only waits is renewed with the token that followed', async (t) => {
  const { url, admin } = await guarded(t)
  await admin.createGroup('g')
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '3s' })
  const issued = /** @type {{ id: string, token: string }[]} */ ([])
  const token = async () => {
    issued.push(await admin.http.json('POST', '/tokens', { json: { scopes: ['consume'], groups: ['g'] } }))
    return issued[issued.length - 1].token
  }
  const consumer = new Consumer({ url, group: 'g', name: 'c', token })
  t.after(() => consumer.close({ timeout: 0 }))
  let fenced = 0
  consumer.on('fenced', () => fenced++)
  const reading = read(consumer)
  const session = async () => (await admin.consumer('g', 'c')).session
  await eventually('it has a session', session)
  const epoch = (await session())?.epoch
  await admin.http.json('DELETE', `/tokens/${issued[0].id}`)
  await eventually('it has the next token', () => issued.length > 1)
  const producer = new Producer({ url, group: 'g', token: admin.http.bearer })
  await producer.send(1)
  await producer.close()
  assert.equal(await reading, 'acked')
  assert.deepEqual([fenced, epoch], [0, 1])
})

test('through TLS: reading, renewing and producing, with a certificate that the process trusts', async (t) => {
  const broker = await Broker.start(t)
  const port = await secured(t, broker)
  await new Admin({ url: broker.url }).createGroup('g')
  const admin = new Admin({ url: broker.url })
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '1s' })
  /** @type {string[]} */
  const held = []
  const story = `
    import { readFileSync } from 'node:fs'
    import { Consumer, Producer } from ${JSON.stringify(new URL('../src/index.js', import.meta.url).href)}
    const url = 'https://localhost:${port}'
    // A request that waits would hold the lease by itself.
    const consumer = new Consumer({ url, group: 'g', name: 'c', mode: process.argv[1], waitMs: 50 })
    consumer.on('reconnecting', ({ error }) => (console.error(error.message), process.exit(1)))
    const producer = new Producer({ url, group: 'g' })
    await producer.send({ a: 'ä' })
    await producer.close()
    for await (const event of consumer) {
      // The event loop stands still until it is told to go on.
      console.log('blocked')
      readFileSync(0)
      console.log(event.offset, event.data, await event.ack())
      break
    }
    await consumer.close()`
  const run = (/** @type {string} */ mode) => {
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: file('certificate') }
    const running = promisify(execFile)(process.execPath, ['--input-type=module', '-e', story, mode], { env })
    const { stdin, stdout } = running.child
    stdout?.once('data', async () => {
      // Longer than the lease: it is held because it is renewed.
      await sleep(2500)
      const taken = await admin.http.json('POST', '/groups/g/consumers/c/session').catch(({ code }) => code)
      stdin?.end()
      held.push(taken)
    })
    return running
  }
  assert.equal((await run('next')).stdout, "blocked\n0 { a: 'ä' } acked\n")
  assert.equal((await run('stream')).stdout, "blocked\n1 { a: 'ä' } acked\n")
  assert.deepEqual(held, ['session_active', 'session_active'])
  admin.close()
})

/** @param {string} name */
function file(name) {
  return fileURLToPath(new URL(`./tls/${name}.pem`, import.meta.url))
}

/**
 * TLS in front of a broker.
 * @param {import('node:test').TestContext} t
 * @param {Broker} broker
 * @returns {Promise<number>} its port
 */
async function secured(t, broker) {
  const pair = { key: readFileSync(file('key')), cert: readFileSync(file('certificate')) }
  const server = createServer(pair, (near) => {
    const far = connect(broker.port, '127.0.0.1')
    for (const socket of [near, far]) socket.on('error', () => {}).on('close', () => (near.destroy(), far.destroy()))
    near.pipe(far).pipe(near)
  })
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  return /** @type {import('node:net').AddressInfo} */ (server.address()).port
}

/**
 * Acks the first event there is.
 * @param {Consumer} consumer
 */
async function read(consumer) {
  try {
    for await (const event of consumer) return await event.ack()
  } finally {
    await consumer.close()
  }
}

/**
 * A broker that wants tokens, and who may do everything there.
 * @param {import('node:test').TestContext} t
 */
async function guarded(t) {
  const broker = await Broker.start(t, { AUTH_ENABLED: 'true' })
  const admin = new Admin({ url: broker.url, token: broker.secret })
  t.after(() => admin.close())
  return { broker, url: broker.url, admin, secret: broker.secret }
}
