// How fast one Node process reads and produces, beside loops of `node:http` that ask for the same batches: one that only
// counts their bytes (`bare`), and one that parses them whole (`parsed`). `next` and `stream` look at the offset and the
// length of every event, in order, and ack every batch; `-data` at a member of its data, too. Sides alternate, medians are
// shown, each side is a process of its own on one core. On a machine that is not quiet, what to compare is events by
// second of the processor's time (`cpu`).
//
//   node bench/run.js [--events 1000000] [--rounds 5] [--server-core 0] [--client-core 1]
//
// Needs a release build: cargo build --release, or EDDYLINE_BIN.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { Admin } from '../src/index.js'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '1000000' },
    rounds: { type: 'string', default: '5' },
    'server-core': { type: 'string', default: '0' },
    'client-core': { type: 'string', default: '1' },
  },
})
const events = Number(values.events)
const program = process.env.EDDYLINE_BIN ?? fileURLToPath(new URL('../../target/release/eddyline', import.meta.url))
const side = fileURLToPath(new URL('./side.js', import.meta.url))
const url = 'http://127.0.0.1:24437'

const data = await mkdtemp(path.join(tmpdir(), 'eddyline-bench-'))
const settings = ['--listen', '127.0.0.1:24437', '--data', path.join(data, 'broker'), '--cores', '1', '--auto-create']
// A broker refuses variables that it does not know.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('EDDYLINE_')))
const broker = spawn('taskset', ['-c', values['server-core'], program, 'serve', ...settings], { stdio: 'ignore', env })
try {
  while (!(await fetch(`${url}/readyz`).then((answer) => answer.ok, () => false))) await sleep(20)
  const admin = new Admin({ url })
  /** @type {Record<string, { rate: number, cpu: number }[]>} */
  const rates = { produce: [], bare: [], next: [], stream: [], parsed: [], 'next-data': [], 'stream-data': [] }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of Object.keys(rates)) {
      const group = `bench-${round}`
      if (name !== 'produce') {
        await admin.subscribe(group, name, 'earliest')
        await admin.approve(group, name, { max_in_flight: { events: 100_000 } })
      }
      const args = ['-c', values['client-core'], process.execPath, side, name, url, group, String(events)]
      const { stdout } = await promisify(execFile)('taskset', args)
      const { rate, cpu } = JSON.parse(stdout)
      rates[name].push({ rate, cpu })
      const shown = (/** @type {number} */ value) => Math.round(value).toLocaleString('en').padStart(10)
      process.stderr.write(`round ${round + 1}: ${name.padEnd(11)} ${shown(rate)} events/s ${shown(cpu)} by second of cpu\n`)
    }
  }
  admin.close()
  const median = (/** @type {number[]} */ list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]
  const medians = (/** @type {'rate' | 'cpu'} */ which) =>
    Object.fromEntries(Object.entries(rates).map(([name, list]) => [name, Math.round(median(list.map((one) => one[which])))]))
  const [rate, perCpu] = [medians('rate'), medians('cpu')]
  const of = (/** @type {string} */ base, /** @type {string[]} */ names) =>
    Object.fromEntries(names.map((name) => [`${name}/${base}`, { rate: (rate[name] / rate[base]).toFixed(2), cpu: (perCpu[name] / perCpu[base]).toFixed(2) }]))
  const ratios = { ...of('bare', ['next', 'stream']), ...of('parsed', ['next-data', 'stream-data']) }
  const cpu = await promisify(execFile)('sh', ['-c', "grep -m1 'model name' /proc/cpuinfo"]).then((got) => got.stdout.split(':')[1]?.trim())
  const figures = { node: process.version, processor: cpu, events, medians: { rate, cpu: perCpu }, ratios, rounds: rates }
  process.stdout.write(`${JSON.stringify(figures, undefined, 2)}\n`)
} finally {
  broker.kill('SIGTERM')
  await once(broker, 'exit')
  await rm(data, { recursive: true, force: true })
}
