// The real broker for tests, on a free port, with its own data; killed and started again as tests ask for it.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const built = fileURLToPath(new URL('../../target/debug/eddyline', import.meta.url))

/** The program under test: `EDDYLINE_BIN`, or what was built here. */
export const program = process.env.EDDYLINE_BIN ?? built

/**
 * A port below those that the system gives to clients: one of those might connect to itself while the broker is away.
 * @returns {Promise<number>}
 */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    const server = createServer()
    const free = await new Promise((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    await new Promise((resolve) => server.close(resolve))
    if (free) return port
  }
}

export class Broker {
  /**
   * @param {string} data
   * @param {number} port
   * @param {Record<string, string>} settings
   */
  constructor(data, port, settings) {
    this.data = data
    this.port = port
    this.settings = settings
    this.url = `http://127.0.0.1:${port}`
    /** @type {import('node:child_process').ChildProcess | undefined} */
    this.child = undefined
    /** A token for everything, with `AUTH_ENABLED`. @type {string | undefined} */
    this.secret = undefined
  }

  /**
   * A broker that runs.
   * @param {import('node:test').TestContext} context cleans up
   * @param {Record<string, string>} [settings] variables without `EDDYLINE_`
   * @returns {Promise<Broker>}
   */
  static async start(context, settings = {}) {
    if (!existsSync(program)) throw new Error(`${program} is not there: cargo build, or set EDDYLINE_BIN`)
    const data = await mkdtemp(path.join(tmpdir(), 'eddyline-node-'))
    const broker = new Broker(data, await freePort(), settings)
    context.after(() => broker.end())
    if (settings.AUTH_ENABLED === 'true') await broker.makeToken()
    await broker.up()
    return broker
  }

  async makeToken() {
    const env = this.environment()
    const { stdout } = await promisify(execFile)(program, ['token', 'create', '--admin', '--data', `${env.EDDYLINE_DATA}`], { env })
    this.secret = stdout.trim()
  }

  environment() {
    /** @type {NodeJS.ProcessEnv} */
    const env = {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('EDDYLINE_'))),
      EDDYLINE_LISTEN: `127.0.0.1:${this.port}`,
      EDDYLINE_DATA: path.join(this.data, 'broker'),
      EDDYLINE_AUTO_CREATE: 'true',
      EDDYLINE_JOURNAL_FILE_BYTES: '8MiB',
      EDDYLINE_JOURNAL_FILES: '4',
      EDDYLINE_STORAGE_RESERVE: '16MiB',
    }
    for (const [name, value] of Object.entries(this.settings)) env[`EDDYLINE_${name}`] = value
    return env
  }

  /** @returns {Promise<void>} */
  async up() {
    const child = spawn(program, ['serve'], { env: this.environment(), stdio: ['ignore', 'ignore', 'pipe'] })
    this.child = child
    let said = ''
    child.stderr.on('data', (chunk) => (said += chunk))
    while (!(await this.ready())) {
      await sleep(10)
      if (child.exitCode === null) continue
      // The kernel may hold the socket of one that was killed for a moment longer than its process.
      if (said.includes('address in use')) return this.up()
      throw new Error(`the broker ended: ${said}`)
    }
  }

  async ready() {
    return fetch(`${this.url}/readyz`).then((answer) => answer.ok, () => false)
  }

  async kill() {
    const { child } = this
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }

  async end() {
    await this.kill()
    await rm(this.data, { recursive: true, force: true })
  }

  /**
   * @param {string} group
   * @param {unknown[]} values
   * @param {string} [key] pointer to each event's key
   */
  async produce(group, values, key) {
    const query = key === undefined ? '' : `?key_path=${encodeURIComponent(key)}`
    const answer = await fetch(`${this.url}/v1/groups/${group}/batch${query}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/x-ndjson' },
      body: values.map((value) => `${JSON.stringify(value)}\n`).join(''),
    })
    if (!answer.ok) throw new Error(await answer.text())
    return answer.json()
  }
}

/**
 * Waits until `holds` does; the limit is for what never comes.
 * @param {string} what
 * @param {() => unknown} holds
 */
export async function eventually(what, holds) {
  for (const until = Date.now() + 60_000; !(await holds()); ) {
    if (Date.now() > until) throw new Error(`it did not come about that ${what}`)
    await sleep(5)
  }
}

/**
 * @param {number} count
 * @param {number} [from]
 * @returns {{ n: number, user: number }[]}
 */
export function numbered(count, from = 0) {
  return Array.from({ length: count }, (_, at) => ({ n: from + at, user: (from + at) % 7 }))
}
