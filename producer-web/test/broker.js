// A real broker, a proxy before it that sees every request and may misbehave, and pages of another origin in Chromium.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'

/** This build's program. */
export const PROGRAM = process.env.EDDYLINE_BIN ?? fileURLToPath(new URL('../../target/debug/eddyline', import.meta.url))
/** A broker takes every variable `EDDYLINE_…` for a setting. */
const others = Object.entries(process.env).filter(([name]) => !name.startsWith('EDDYLINE_'))
export const ENVIRONMENT = Object.fromEntries(others)
const EXAMPLE = new URL('../example/index.html', import.meta.url)
const ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']
/** Short, so that a test waits for nothing but what it is about. */
const TIMES = { gatherMs: 50, retryMs: 20, retryMaxMs: 100, adoptMs: 50 }
/** Nothing that works takes this long. */
const PATIENCE_MS = 30_000

/** Waits until something holds. */
export async function eventually(what, holds) {
  const deadline = Date.now() + PATIENCE_MS
  for (;;) {
    const told = await holds()
    if (told === true) return
    assert.ok(Date.now() < deadline, `never: ${what}: ${JSON.stringify(told)}`)
    await sleep(20)
  }
}

/** Listens on a free port. */
async function listen(handler) {
  const server = http.createServer(handler)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, url: `http://127.0.0.1:${server.address().port}` }
}

/**
 * Starts a broker with a group `clicks`, which may have a configuration. With `guarded` it wants tokens, which only pages
 * of their own origins may use.
 */
async function startBroker({ guarded = false, group = '' }) {
  const directory = await mkdtemp(join(tmpdir(), 'eddyline-web-'))
  const configuration = join(directory, 'eddyline.toml')
  const settings = { listen: '127.0.0.1:0', cores: 1, 'journal.file_bytes': '1MiB', 'journal.files': 4,
    'storage.reserve': '1MiB', 'log.format': 'json', 'http.cors': guarded ? [] : ['localhost'], 'auth.enabled': guarded, auto_create: true }
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`)
  await writeFile(configuration, lines.join(''))
  const place = ['--data', join(directory, 'data'), '--config', configuration]
  const admin = guarded && execFileSync(PROGRAM, ['token', 'create', '--admin', ...place], { env: ENVIRONMENT, stdio: 'pipe' }).toString().trim()
  const child = spawn(PROGRAM, ['serve', ...place], { env: ENVIRONMENT, stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (piece) => (said += piece))
  const announced = () => /"listening":"(http:[^",]*)/.exec(said)?.[1]
  await eventually('a broker', () => {
    assert.equal(child.exitCode, null, said)
    return announced() !== undefined || said
  })
  const url = announced()
  const ask = async (path, options) => {
    const answer = await fetch(url + path, { ...options, headers: admin ? { Authorization: `Bearer ${admin}` } : {} })
    const text = await answer.text()
    assert.ok(answer.ok, `${path}: ${answer.status} ${text}`)
    return text && JSON.parse(text)
  }
  await ask('/v1/groups/clicks', { method: 'PUT', body: group })
  const events = async () => {
    const { events } = await ask('/v1/groups/clicks/events?limit=10000&max_bytes=16MiB')
    return events.map(({ data }) => data)
  }
  /** A key that pages of one origin may produce with, and its id. */
  const key = async (origin, settings) => {
    const body = JSON.stringify({ scopes: ['produce'], groups: ['clicks'], origins: [origin], ...settings })
    return ask('/v1/tokens', { method: 'POST', body })
  }
  const revoke = (id) => ask(`/v1/tokens/${id}`, { method: 'DELETE' })
  const stop = async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill()
    await ended
    await rm(directory, { recursive: true })
  }
  return { url, events, key, revoke, stop }
}

/**
 * Passes requests on. `seen` are their methods, targets and bodies; `fault`, asked before each, may answer a status with
 * a body or a text, 'down' (nothing is passed on), or 'mute' (it is passed on, and its answer is lost).
 */
async function startProxy(to) {
  const proxy = { seen: [], fault: () => undefined }
  const { server, url } = await listen(async (request, response) => {
    let body = ''
    for await (const piece of request) body += piece
    const seen = { method: request.method, target: request.url, body }
    proxy.seen.push(seen)
    const fault = request.url.startsWith('/v1/') ? await proxy.fault(seen) : undefined
    if (fault === 'down') return void request.socket.destroy()
    if (fault && fault !== 'mute') {
      const cors = { 'Access-Control-Allow-Origin': '*', 'Content-Type': 'application/problem+json' }
      response.writeHead(fault.status, cors)
      return void response.end(fault.text ?? JSON.stringify(fault.body ?? {}))
    }
    const { method, headers } = request
    const onward = http.request(new URL(request.url, to), { method, headers, agent: false }, (answer) => {
      if (fault === 'mute') return void (answer.resume(), request.socket.destroy())
      response.writeHead(answer.statusCode, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    onward.end(body)
  })
  return Object.assign(proxy, { server, url })
}

/** All of it; `page` opens a page with a producer `p` of the options. */
export async function startStage({ bfcache = false, ...settings } = {}) {
  const broker = await startBroker(settings)
  const proxy = await startProxy(broker.url)
  const site = await listen(async (request, response) => {
    // Keeps the quota of the page that asks.
    if (request.url === '/held') return
    response.writeHead(200, { 'Content-Type': 'text/html' })
    if (request.url.startsWith('/example?')) return void response.end(await readFile(EXAMPLE))
    const options = JSON.parse(new URL(request.url, 'http://site').searchParams.get('options') ?? 'null')
    const script = `import { producer } from '${proxy.url}/producer.js'
      globalThis.drops = []
      globalThis.p = producer('clicks', { ...${JSON.stringify({ ...TIMES, ...options })}, onDrop: (drop) => drops.push(drop) })`
    response.end(`<!doctype html><title>page</title>${options ? `<script type="module">${script}</script>` : ''}`)
  })
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ARGUMENTS,
    ignoreDefaultArgs: bfcache ? ['--disable-back-forward-cache'] : [],
  })
  const context = await browser.newContext()
  const page = async (options = {}) => {
    const page = await context.newPage()
    await page.goto(`${site.url}/?options=${encodeURIComponent(JSON.stringify(options))}`)
    await page.waitForFunction('globalThis.p')
    return page
  }
  /** The log holds these and nothing else, each once, in this order; and no browser asked for leave. */
  const holds = async (expected) => {
    await eventually('all events', async () => (await broker.events()).length >= expected.length || broker.events())
    assert.deepEqual(await broker.events(), expected)
    assert.deepEqual(proxy.seen.filter(({ method }) => method === 'OPTIONS'), [])
  }
  const stop = async () => {
    await browser.close()
    for (const { server } of [proxy, site]) server.closeAllConnections(), server.close()
    await broker.stop()
  }
  return { broker, proxy, site, context, page, holds, stop }
}

/** A test with a stage of its own. */
export const staged = (name, options, story) => test(name, async () => {
  const stage = await startStage(options)
  try {
    await story(stage)
  } finally {
    await stage.stop()
  }
})

/** Sends the events in a page. */
export const send = (page, events) => page.evaluate((events) => events.forEach((event) => p.send(event)), events)
export const queued = (page) => page.evaluate(() => p.stats().queued)
export const posts = ({ proxy }) => proxy.seen.filter(({ method }) => method === 'POST')

/** The numbers from `from` up to `to`, without it, as events. */
export const numbers = (from, to) => Array.from({ length: to - from }, (_, at) => ({ n: from + at }))
