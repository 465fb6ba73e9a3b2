// The package as others get it: installed from its tarball in an empty project, with types, and the README's first lines.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Broker } from './broker.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const execute = promisify(execFile)

test('the tarball works in an empty project, and the README begins with lines that run', async (t) => {
  const broker = await Broker.start(t)
  const project = await mkdtemp(path.join(tmpdir(), 'eddyline-project-'))
  t.after(() => rm(project, { recursive: true, force: true }))
  const env = { ...process.env, EDDYLINE_URL: broker.url }
  const run = (/** @type {string} */ file, /** @type {string[]} */ ...args) => execute(file, args, { cwd: project, env })

  const packed = await execute('npm', ['pack', '--json', '--pack-destination', project], { cwd: root })
  const [{ filename }] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf('[')))
  await writeFile(path.join(project, 'package.json'), '{"private":true,"type":"module"}')
  await run('npm', 'install', '--offline', '--no-audit', '--no-fund', '--ignore-scripts', path.join(project, filename))

  const readme = await readFile(path.join(root, 'README.md'), 'utf8')
  const first = /```js\n([^]*?)```/.exec(readme)?.[1] ?? ''
  assert.ok(first.trim().split('\n').length <= 12)
  await writeFile(path.join(project, 'first.js'), first)
  assert.equal((await run(process.execPath, 'first.js')).stdout, 'durable at 0\n0 ada { total: 99.5 }\n')

  await writeFile(path.join(project, 'typed.ts'), `
    import { Admin, Consumer, Producer, Supervisor, EddylineError, type ConsumedEvent } from '@eddyline/consumer'
    import type { AckResult, ConsumerOptions, ConsumerStatus, Handler, ProducerOptions, Receipt, RunOptions, SupervisorOptions, Token } from '@eddyline/consumer'
    const token: Token = async () => 'edl_1'
    const options: ConsumerOptions = { group: 'g', name: 'c', mode: 'stream', token }
    const consumer = new Consumer(options)
    export const print: Handler = (event, { signal, attempt }) => console.log(event.key, signal.aborted, attempt)
    export const rest: [AckResult, ConsumerStatus['state'], RunOptions, SupervisorOptions] = ['held', 'live', { retries: 1 }, { group: 'g', name: 'c' }]
    export const receipt = async (to: ProducerOptions): Promise<Receipt> => new Producer(to).send({ a: 1 }, { key: 'k' })
    export const acked: Promise<'acked' | 'held' | 'dropped'> = consumer.ack(1)
    export const handler = async (event: ConsumedEvent) => { const offset: number = event.offset; await event.ack(); return offset }
    export const sent: Promise<{ offset: number | undefined; duplicate: boolean }> = new Producer({ group: 'g' }).send(1)
    export const error = new EddylineError('a', 'b').retryable satisfies boolean
    void consumer.run(handler, { orderBy: 'key' }); void new Admin(); void new Supervisor({ group: 'g', name: 'c' })
    consumer.on('gap', ({ from, to }) => { const lost: number = to - from; return lost })
    consumer.on('reconnecting', ({ error, delayMs }) => { const told: string = error.code; return [told, delayMs.toFixed()] })
    // @ts-expect-error there is no such event
    consumer.on('gab', () => {})
    // @ts-expect-error there is no such mode
    new Consumer({ group: 'g', name: 'c', mode: 'x' })
  `)
  const tsc = path.join(root, 'node_modules/.bin/tsc')
  const types = ['--typeRoots', path.join(root, 'node_modules/@types'), '--types', 'node']
  await run(tsc, '--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', ...types, 'typed.ts').catch((error) => {
    throw new Error(error.stdout)
  })

  const help = await run(path.join(project, 'node_modules/.bin/consumer-node'), '--help')
  assert.match(help.stdout, /^Usage: consumer-node/)
})
