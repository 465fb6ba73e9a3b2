// Spawned nodes: standing by, taking over, killed and started again, given up, ended in order; and the examples in them.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Admin, Supervisor } from '../src/index.js'
import { table } from '../src/table.js'
import { Broker, eventually, numbered } from './broker.js'

const cli = fileURLToPath(new URL('../bin/consumer-node.js', import.meta.url))
const example = (/** @type {string} */ name) => fileURLToPath(new URL(`../examples/${name}.mjs`, import.meta.url))

test('four nodes, one killed again and again: every effect once, in order, none left out', async (t) => {
  const { broker, admin, directory } = await started(t)
  const total = 1500
  await broker.produce('g', numbered(total), '/user')
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '300ms' })
  process.env.COUNTS = directory
  const supervisor = new Supervisor({
    url: broker.url, group: 'g', name: 'c', nodes: 4, handler: example('aggregate'), crashes: 1000,
    consumer: { max: 50, waitMs: 500 },
  })
  t.after(() => supervisor.kill())
  const done = supervisor.run()
  let kills = 0
  let acked = -1
  const position = async () => (await admin.consumer('g', 'c')).cursor.acked_offset ?? -1
  for (let killedAt = -1; acked < total - 1; await sleep(20)) {
    const now = await position()
    assert.ok(now >= acked, `the position went back from ${acked} to ${now}`)
    acked = now
    // The one that reads is killed while it does, wherever it has got to; now and then one that stands by.
    if (acked > killedAt + 150 && kills < 6) {
      killedAt = acked
      const nodes = supervisor.status().filter((node) => node.pid !== undefined)
      const victim = nodes.find((node) => (kills % 3 === 2) !== (node.state === 'active')) ?? nodes[0]
      if (victim?.pid !== undefined) process.kill(victim.pid, 'SIGKILL')
      kills++
    }
  }
  assert.ok(kills >= 4, `${kills}`)
  await supervisor.stop()
  await done
  const [file] = (await readdir(directory)).filter((name) => name.endsWith('.json')).sort().reverse()
  const state = JSON.parse(await readFile(path.join(directory, file), 'utf8'))
  const expected = Object.fromEntries([0, 1, 2, 3, 4, 5, 6].map((user) => [user, numbered(total).filter((each) => each.user === user).length]))
  assert.deepEqual(state, { next: total, counts: expected })
})

test('a node that stands still is taken over from, and when it goes on it is fenced and changes nothing', async (t) => {
  const { broker, admin, directory } = await started(t)
  const total = 600
  await broker.produce('g', numbered(total), '/user')
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '1s' })
  process.env.COUNTS = directory
  const supervisor = new Supervisor({
    url: broker.url, group: 'g', name: 'c', nodes: 2, handler: example('aggregate'), consumer: { max: 20, waitMs: 500 },
  })
  t.after(() => supervisor.kill())
  const done = supervisor.run()
  const position = async () => (await admin.consumer('g', 'c')).cursor.acked_offset ?? -1
  const active = () => supervisor.status().find((node) => node.state === 'active')
  await eventually('it is under way', async () => (await position()) > 50 && active() !== undefined)
  const { node, pid } = /** @type {{ node: number, pid: number }} */ (active())
  process.kill(pid, 'SIGSTOP')
  const stoppedAt = await position()
  await eventually('the other one has taken over', async () => (await position()) > stoppedAt + 50)
  const opened = (await admin.consumer('g', 'c')).redelivered
  process.kill(pid, 'SIGCONT')
  await eventually('it stands by', () => supervisor.status()[node].state === 'standby')
  await eventually('all of it is acked', async () => (await position()) === total - 1)
  await supervisor.stop()
  await done
  const [file] = (await readdir(directory)).filter((name) => name.endsWith('.json')).sort().reverse()
  const state = JSON.parse(await readFile(path.join(directory, file), 'utf8'))
  assert.equal(state.next, total)
  assert.equal(Object.values(state.counts).reduce((sum, count) => sum + count, 0), total, 'every effect once')
  assert.equal((await admin.consumer('g', 'c')).redelivered, opened, 'whoever was fenced took nothing from the other')
  assert.ok(supervisor.status().every(({ restarts }) => restarts === 0))
})

test('a node that keeps ending is given up, and says why', async (t) => {
  const { broker, directory } = await started(t)
  const handler = path.join(directory, 'broken.mjs')
  await writeFile(handler, 'export default function () { throw new Error("not today") }')
  await broker.produce('g', numbered(1))
  const supervisor = new Supervisor({ url: broker.url, group: 'g', name: 'c', handler, crashes: 3 })
  t.after(() => supervisor.kill())
  let restarts = 0
  supervisor.on('restart', () => restarts++)
  await assert.rejects(supervisor.run(), { code: 'crash_loop', message: /3 times .*not today/ })
  assert.equal(restarts, 2)
  assert.match(table(supervisor.status()), /NODE +GROUP[^]*given up[^]*not today/)
})

test('what another start cannot change is told in a line, and ends all nodes at once', async (t) => {
  const { broker, directory } = await started(t)
  await broker.produce('g', numbered(1))
  const missing = path.join(directory, 'missing.mjs')
  const garbled = path.join(directory, 'garbled.mjs')
  await writeFile(garbled, 'export default function {')
  for (const [options, code, status, told] of /** @type {[Partial<import('../src/supervisor.js').SupervisorOptions>, string, number | undefined, RegExp][]} */ ([
    [{ group: ['g', 'none'] }, 'no_group', 404, /^there is no group `none`: PUT \/v1\/groups\/none makes it$/],
    [{ consumer: { start: 'when?' } }, 'bad_position', 400, /when\?/],
    [{ run: { onExhausted: 'dead-letter' } }, 'no_dead_letters', undefined, /approve it with/],
    [{ handler: missing }, 'bad_handler', undefined, /missing\.mjs cannot be loaded/],
    [{ handler: garbled }, 'bad_handler', undefined, /garbled\.mjs cannot be loaded: Unexpected token/],
  ])) {
    const supervisor = new Supervisor({ url: broker.url, group: 'g', name: `c-${code}`, ...options })
    t.after(() => supervisor.kill())
    /** @type {string[]} */
    const lines = []
    supervisor.on('line', ({ stream, line }) => stream === 'stderr' && lines.push(line))
    const events = /** @type {string[]} */ ([])
    for (const name of /** @type {const} */ (['restart', 'failed'])) supervisor.on(name, () => events.push(name))
    await assert.rejects(supervisor.run(), { code, status })
    assert.deepEqual(events, ['failed'])
    assert.match(lines[0], told)
  }
  assert.throws(() => new Supervisor({ url: 'nonsense', group: 'g', name: 'c' }), { code: 'bad_url' })
})

test('nodes wait for approval, and while they are suspended; a consumer that is revoked ends them', async (t) => {
  const broker = await Broker.start(t, { AUTH_ENABLED: 'true' })
  const admin = new Admin({ url: broker.url, token: broker.secret })
  t.after(() => admin.close())
  await admin.createGroup('g')
  const { token } = await admin.http.json('POST', '/tokens', { json: { scopes: ['consume', 'produce'], groups: ['g'] } })
  const supervisor = new Supervisor({ url: broker.url, group: 'g', name: 'c', token, nodes: 2 })
  t.after(() => supervisor.kill())
  const ended = assert.rejects(supervisor.run(), { code: 'consumer_revoked', status: 403, message: /^node \d of g: / })
  const are = (/** @type {string[]} */ ...states) =>
    eventually(`they are ${states}`, () => supervisor.status().map(({ state }) => state).sort().join() === states.join())
  await are('pending', 'pending')
  assert.match(String(supervisor.status()[0].error), /approv/)
  await admin.approve('g', 'c')
  await are('active', 'standby')
  assert.deepEqual(supervisor.status().map(({ error }) => error), [undefined, undefined])
  await admin.suspend('g', 'c')
  await are('suspended', 'suspended')
  await admin.resume('g', 'c')
  await are('active', 'standby')
  await admin.revoke('g', 'c')
  await ended
  assert.deepEqual(supervisor.status().map(({ restarts }) => restarts), [0, 0])
})

test('what a handler left open keeps no node: neither one that is to end, nor one that failed', async (t) => {
  const { broker, directory } = await started(t)
  const handler = path.join(directory, 'open.mjs')
  await writeFile(handler, `
    import { existsSync, writeFileSync } from 'node:fs'
    setInterval(() => {}, 1000)
    export default function ({ offset }) {
      const file = new URL('./failed', import.meta.url)
      if (existsSync(file)) return
      writeFileSync(file, '')
      throw new Error('once')
    }`)
  await broker.produce('g', numbered(1))
  const supervisor = new Supervisor({ url: broker.url, group: 'g', name: 'c', handler })
  t.after(() => supervisor.kill())
  /** @type {string[]} */
  const lines = []
  supervisor.on('line', ({ line }) => lines.push(line))
  const done = supervisor.run()
  await eventually('it is started again, and acks', () => supervisor.status()[0].acked === 0)
  assert.match(lines.join('\n'), /^the handler failed at offset 0: once\nError: once\n +at .*open\.mjs:8/)
  await supervisor.stop()
  await done
})

test('a broker that is away is told for as long as it is, and not any more when it is back', async (t) => {
  const { broker } = await started(t)
  await broker.produce('g', numbered(1))
  const supervisor = new Supervisor({ url: broker.url, group: 'g', name: 'c' })
  t.after(() => supervisor.kill())
  const done = supervisor.run()
  const is = (/** @type {string} */ state) => eventually(`it is ${state}`, () => supervisor.status()[0].state === state)
  await is('active')
  await broker.kill()
  await is('reconnecting')
  // For some of its reports, which come every second.
  for (const until = Date.now() + 2500; Date.now() < until; await once(supervisor, 'status')) {
    assert.equal(supervisor.status()[0].state, 'reconnecting')
    assert.match(String(supervisor.status()[0].error), /lost|reached/)
  }
  await broker.up()
  // Nothing comes that would tell it.
  await is('active')
  assert.equal(supervisor.status()[0].error, undefined)
  await supervisor.stop()
  await done
})

test('a handler may be any module that exports a function; one without is told', async (t) => {
  const { broker, directory } = await started(t)
  await broker.produce('g', numbered(2))
  const texts = ['export const handler = (event) => console.log(event.offset)', 'module.exports = (event) => console.log(event.offset)', 'export const a = 1']
  for (const [at, text] of texts.entries()) {
    const handler = path.join(directory, `handler-${at}.${text.startsWith('module') ? 'cjs' : 'mjs'}`)
    await writeFile(handler, text)
    const supervisor = new Supervisor({ url: broker.url, group: 'g', name: `c${at}`, handler, crashes: 1 })
    t.after(() => supervisor.kill())
    /** @type {string[]} */
    const lines = []
    supervisor.on('line', ({ stream, line }) => stream === 'stdout' && lines.push(line))
    const running = supervisor.run()
    if (at === 2) {
      await assert.rejects(running, /exports no function/)
      continue
    }
    await eventually('both were handled', () => lines.length === 2)
    await supervisor.stop()
    await running
    assert.deepEqual(lines, ['0', '1'])
  }
})

test('the command prints events of several groups, and SIGTERM ends it behind the last ack', async (t) => {
  const { broker, admin } = await started(t)
  for (const group of ['a', 'b']) await broker.produce(group, numbered(10))
  const args = ['--groups', 'a,b', '--name', 'c', '--nodes', '2', '--print', '--url', broker.url]
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.after(() => void child.kill('SIGKILL'))
  let out = ''
  let talk = ''
  child.stdout.on('data', (chunk) => (out += chunk))
  child.stderr.on('data', (chunk) => (talk += chunk))
  await eventually('everything was printed', () => out.split('\n').length === 21)
  const states = () => talk.split('\n').filter((line) => line.includes('"node"'))
  await eventually('two stand by', () => states().filter((line) => line.includes('standby')).length === 2)
  const logged = states().length
  // Reports come every second, and are no news.
  await sleep(2500)
  assert.equal(states().length, logged, talk)
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null], talk)
  const lines = out.trim().split('\n').map((line) => JSON.parse(line))
  assert.deepEqual(lines.map((line) => line.data.n).toSorted((a, b) => a - b), numbered(10).flatMap(({ n }) => [n, n]))
  for (const line of talk.trim().split('\n')) assert.equal(typeof JSON.parse(line).event, 'string', line)
  for (const group of ['a', 'b']) {
    const status = await admin.consumer(group, 'c')
    assert.deepEqual([status.cursor.acked_offset, status.session], [9, null])
  }
})

test('nodes whose supervisor is killed finish, leave and end', async (t) => {
  const { broker, admin, directory } = await started(t)
  await admin.createGroup('g')
  await admin.subscribe('g', 'c', 'earliest')
  await admin.approve('g', 'c', { lease: '1h' })
  const handler = path.join(directory, 'slow.mjs')
  await writeFile(handler, `
    import { existsSync, writeFileSync } from 'node:fs'
    const file = (name) => new URL(name, import.meta.url)
    export default async () => {
      writeFileSync(file('pid'), String(process.pid))
      while (!existsSync(file('go'))) await new Promise((resolve) => setTimeout(resolve, 10))
    }`)
  await broker.produce('g', numbered(3))
  const child = spawn(process.execPath, [cli, '--group', 'g', '--name', 'c', '--nodes', '2', '--url', broker.url, handler], { stdio: 'ignore' })
  t.after(() => void child.kill('SIGKILL'))
  const pid = () => readFile(path.join(directory, 'pid'), 'utf8').catch(() => '')
  await eventually('a handler is under way', pid)
  child.kill('SIGKILL')
  await writeFile(path.join(directory, 'go'), '')
  const left = async () => (await admin.consumer('g', 'c')).session === null
  // Whoever stands by might still be given the session, and leaves it, too.
  await eventually('the node has ended', async () => !alive(Number(await pid())) && (await left()))
  assert.notEqual((await admin.consumer('g', 'c')).cursor.acked_offset, null, 'what was under way was finished')
})

test('nodes wait for whoever reads what they print, and a second signal ends them all the same', async (t) => {
  const { broker, admin } = await started(t)
  const total = 30_000
  for (let from = 0; from < total; from += 5000) await broker.produce('g', numbered(5000, from))
  const args = ['--group', 'g', '--name', 'c', '--print', '--url', broker.url]
  const start = () => {
    const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
    t.after(() => void child.kill('SIGKILL'))
    return child
  }
  const position = async () => (await admin.consumer('g', 'c').catch(() => undefined))?.cursor.acked_offset ?? -1
  const stands = async () => {
    await eventually('it begins', async () => (await position()) >= 0)
    for (let acked = -1; acked !== (await position()); await sleep(1000)) acked = await position()
    return position()
  }
  const slow = start()
  assert.ok((await stands()) < total / 2)
  const killed = once(slow, 'exit')
  const signals = setInterval(() => slow.kill('SIGTERM'), 200)
  assert.deepEqual(await killed, [130, null])
  clearInterval(signals)

  await admin.http.json('POST', '/groups/g/consumers/c/rewind', { json: { to: 0 } })
  const child = start()
  assert.ok((await stands()) < total / 2)
  let out = ''
  child.stdout.on('data', (chunk) => (out += chunk))
  await eventually('all is printed', () => out.endsWith('\n') && out.split('\n').length === total + 1)
  assert.deepEqual(out.trim().split('\n').map((line) => JSON.parse(line).offset), numbered(total).map(({ n }) => n))
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
})

test('on a terminal there is a table of the nodes, drawn over itself, and nothing else', async (t) => {
  const { broker } = await started(t)
  await broker.produce('g', numbered(3))
  const terminal = 'data:text/javascript,process.stderr.isTTY = true'
  const args = ['--import', terminal, cli, '--group', 'g', '--name', 'c', '--nodes', '2', '--print', '--url', broker.url]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  t.after(() => void child.kill('SIGKILL'))
  let drawn = ''
  child.stderr.on('data', (chunk) => (drawn += chunk))
  await eventually('one reads and one stands by', () => /\x1b\[3F\x1b\[J.*\n(?=[^]*g +\d+ +active +2 +3 +0)(?=[^]*g +\d+ +standby)/.test(drawn))
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
  for (const line of drawn.trim().split('\n')) assert.match(line, /^(\x1b\[3F\x1b\[J)?(NODE +GROUP +PID +STATE|\d +g +)/)
  assert.match(drawn.trim().split('\n').slice(-2).join(), /ended.*ended/)
})

test('what is printed on a terminal scrolls by above the table', async (t) => {
  const { broker, directory } = await started(t)
  const handler = path.join(directory, 'chatty.mjs')
  await writeFile(handler, 'export default ({ offset }) => (offset % 2 ? console.error : console.log)(`event ${offset}`)')
  await broker.produce('g', numbered(40))
  const terminal = 'data:text/javascript,for (const stream of [process.stdout, process.stderr]) Object.assign(stream, { isTTY: true, columns: 60, rows: 5 })'
  const file = await open(path.join(directory, 'terminal'), 'a+')
  t.after(() => file.close())
  const args = ['--import', terminal, cli, '--group', 'g', '--name', 'c', '--nodes', '4', '--url', broker.url, handler]
  const child = spawn(process.execPath, args, { stdio: ['ignore', file.fd, file.fd] })
  t.after(() => void child.kill('SIGKILL'))
  const shown = async () => onTerminal(await readFile(path.join(directory, 'terminal'), 'utf8'))
  await eventually('all is printed', async () => (await shown()).filter((line) => line.startsWith('event')).length === 40)
  await broker.produce('g', numbered(1, 40))
  await eventually('what came is printed', async () => (await shown()).includes('event 40'))
  const ended = once(child, 'exit')
  child.kill('SIGINT')
  assert.deepEqual(await ended, [0, null])
  const lines = await shown()
  assert.deepEqual(lines.slice(0, 41).sort(), numbered(41).map(({ n }) => `event ${n}`).sort())
  assert.match(lines[41], /^NODE +GROUP/)
  assert.deepEqual([lines.length, lines[44]], [45, '… and 2 more'])
  assert.ok(lines.every((line) => line.length < 60))
})

test('the command ends with a code that says why', async (t) => {
  const { broker } = await started(t)
  for (const [args, code, told] of /** @type {[string[], number, RegExp][]} */ ([
    [['--group', 'none', '--print'], 4, /^error: node 0 of none: there is no group `none`/m],
    [['--group', 'none', 'missing.mjs'], 1, /^error: node 0 of none: missing.mjs cannot be loaded/m],
    [['--group', 'g', '--print', '--url', broker.url.replace('http', 'https')], 3, /^error: node 0 of g: TLS failed/m],
    [['--group', 'g', '--print', '--url', 'nonsense'], 2, /^error: nonsense: this is no URL of a broker/],
  ])) {
    const child = spawn(process.execPath, [cli, '--url', broker.url, '--name', 'c', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk) => (said += chunk))
    assert.deepEqual(await once(child, 'close'), [code, null], said)
    assert.match(said, told)
  }
})

test('the command says what is wrong with its arguments', async () => {
  for (const [args, code, told] of /** @type {[string[], number, RegExp][]} */ ([
    [['--help'], 0, /Usage: consumer-node/],
    [[], 2, /--group \(or --groups\) and --name are needed/],
    [['--groups', 'a,', '--name', 'c', '--print'], 2, /--group \(or --groups\) and --name are needed/],
    [['--group', 'a,b', '--name', 'c', '--print'], 2, /several groups are given as --groups/],
    [['--group', 'a', '--groups', 'b', '--name', 'c', '--print'], 2, /either --group or --groups/],
    [['--group', 'g', '--name', 'c'], 2, /either a handler or --print/],
    [['--group', 'g', '--name', 'c', '--print', '--nodes', '0'], 2, /--nodes is a number from 1 on/],
    [['--grup', 'g'], 2, /--grup/],
  ])) {
    const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk))
    assert.deepEqual(await once(child, 'close'), [code, null], said)
    assert.match(said, told)
  }
})

test('the webhook example forwards in order, and tries again what was not taken', async (t) => {
  const { broker } = await started(t)
  await broker.produce('g', numbered(20), '/user')
  /** @type {any[]} */
  const taken = []
  let refused = 0
  const hook = createServer(async (request, response) => {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    if (taken.length === 7 && refused < 2) return void (refused++, response.writeHead(503).end())
    taken.push(JSON.parse(Buffer.concat(chunks).toString()))
    response.end()
  })
  hook.listen(0, '127.0.0.1')
  await once(hook, 'listening')
  t.after(() => hook.close())
  process.env.WEBHOOK = `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (hook.address()).port}/`
  const supervisor = new Supervisor({ url: broker.url, group: 'g', name: 'c', handler: example('webhook'), run: { retries: 5 } })
  t.after(() => supervisor.kill())
  const running = supervisor.run()
  await eventually('all were forwarded', () => taken.length === 20)
  await supervisor.stop()
  await running
  assert.deepEqual(taken, numbered(20))
  assert.equal(refused, 2)
})

test('the tail example shows what is there and what comes', async (t) => {
  const { broker } = await started(t)
  await broker.produce('g', numbered(2))
  const child = spawn(process.execPath, [example('tail'), 'g'], { env: { ...process.env, EDDYLINE_URL: broker.url } })
  t.after(() => void child.kill('SIGKILL'))
  let out = ''
  child.stdout.on('data', (chunk) => (out += chunk))
  await eventually('history is shown', () => out.split('\n').length === 3)
  await broker.produce('g', numbered(1, 2))
  await eventually('what came is shown', () => /^2\t.*\{"n":2,"user":2\}$/m.test(out))
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
})

/** @param {number} pid */
function alive(pid) {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/**
 * What stands on a terminal behind `text`.
 * @param {string} text
 * @returns {string[]} its lines
 */
function onTerminal(text) {
  /** @type {string[]} */
  const lines = []
  for (const part of text.split('\n').slice(0, -1)) {
    const [, up, rest] = /** @type {RegExpExecArray} */ (/^(?:\x1b\[(\d+)F\x1b\[J)?(.*)$/.exec(part))
    if (up !== undefined) lines.splice(lines.length - Number(up))
    lines.push(rest)
  }
  return lines
}

/** @param {import('node:test').TestContext} t */
async function started(t) {
  const broker = await Broker.start(t)
  const admin = new Admin({ url: broker.url })
  const directory = await mkdtemp(path.join(tmpdir(), 'eddyline-nodes-'))
  t.after(async () => {
    admin.close()
    await rm(directory, { recursive: true, force: true })
  })
  return { broker, admin, directory }
}
