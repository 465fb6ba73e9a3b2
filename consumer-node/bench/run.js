// How fast one Node process reads and produces, beside a bare loop of `node:http` that asks for the same batches and only
// counts their bytes. Sides alternate, medians are shown, each side is a process of its own.
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
  /** @type {Record<string, number[]>} */
  const rates = { produce: [], bare: [], next: [], stream: [] }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of Object.keys(rates)) {
      const group = `bench-${round}`
      if (name !== 'produce') {
        await admin.subscribe(group, name, 'earliest')
        await admin.approve(group, name, { max_in_flight: { events: 100_000 } })
      }
      const args = ['-c', values['client-core'], process.execPath, side, name, url, group, String(events)]
      const { stdout } = await promisify(execFile)('taskset', args)
      const rate = Number(stdout)
      rates[name].push(rate)
      process.stderr.write(`round ${round + 1}: ${name.padEnd(8)} ${Math.round(rate).toLocaleString('en')} events/s\n`)
    }
  }
  admin.close()
  const median = (/** @type {number[]} */ list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]
  const medians = Object.fromEntries(Object.entries(rates).map(([name, list]) => [name, Math.round(median(list))]))
  const ofBare = (/** @type {string} */ name) => Number((medians[name] / medians.bare).toFixed(2))
  const cpu = await promisify(execFile)('sh', ['-c', "grep -m1 'model name' /proc/cpuinfo"]).then((got) => got.stdout.split(':')[1]?.trim())
  const shown = { node: process.version, cpu, events, rounds: rates, medians, ratio: { next: ofBare('next'), stream: ofBare('stream') } }
  process.stdout.write(`${JSON.stringify(shown, undefined, 2)}\n`)
} finally {
  broker.kill('SIGTERM')
  await once(broker, 'exit')
  await rm(data, { recursive: true, force: true })
}
