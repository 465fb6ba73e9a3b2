// Spawned nodes: standing by, taking over, killed and started again, given up, ended in order; and the examples in them.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
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
  await admin.approve('g', 'c', { lease: '300ms' })
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

test('what the broker refuses is told in a line, and what is over is not told any more', async (t) => {
  const { broker } = await started(t)
  /** @type {string[]} */
  const lines = []
  const refused = new Supervisor({ url: broker.url, group: 'none', name: 'c', crashes: 1 })
  t.after(() => refused.kill())
  refused.on('line', ({ line }) => lines.push(line))
  await assert.rejects(refused.run(), { code: 'crash_loop', message: /there is no group `none`/ })
  assert.deepEqual(lines, ['there is no group `none`: PUT /v1/groups/none makes it'])

  await broker.produce('g', numbered(1))
  const supervisor = new Supervisor({ url: broker.url, group: 'g', name: 'c' })
  t.after(() => supervisor.kill())
  const done = supervisor.run()
  const is = (/** @type {string} */ state) => eventually(`it is ${state}`, () => supervisor.status()[0].state === state)
  await is('active')
  await broker.kill()
  await is('reconnecting')
  assert.match(String(supervisor.status()[0].error), /lost|reached/)
  await broker.up()
  await broker.produce('g', numbered(1))
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

test('on a terminal there is a table of the nodes, drawn over itself, and nothing else', async (t) => {
  const { broker } = await started(t)
  await broker.produce('g', numbered(3))
  const terminal = 'data:text/javascript,process.stderr.isTTY = true'
  const args = ['--import', terminal, cli, '--group', 'g', '--name', 'c', '--nodes', '2', '--print', '--url', broker.url]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  t.after(() => void child.kill('SIGKILL'))
  let drawn = ''
  child.stderr.on('data', (chunk) => (drawn += chunk))
  await eventually('one reads and one stands by', () => /\x1b\[3A\x1b\[J.*\n(?=[^]*g +\d+ +active +2 +3 +0)(?=[^]*g +\d+ +standby)/.test(drawn))
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
  for (const line of drawn.trim().split('\n')) assert.match(line, /^(\x1b\[3A\x1b\[J)?(NODE +GROUP +PID +STATE|\d +g +)/)
  assert.match(drawn.trim().split('\n').slice(-2).join(), /ended.*ended/)
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
