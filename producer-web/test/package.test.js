// What people get: a small module from the broker, a package that works from its tarball, a line and a page to try.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { ENVIRONMENT, PROGRAM, eventually, startStage } from './broker.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

test('the module is at most 5 KB gzipped', () => {
  const bytes = gzipSync(readFileSync(join(ROOT, 'src/producer.js')), { level: 9 }).length
  assert.ok(bytes <= 5 * 1024, `${bytes} bytes`)
})

test('the tarball works in an empty project, with its types', () => {
  const project = mkdtempSync(join(tmpdir(), 'eddyline-pack-'))
  try {
    const run = (program, ...args) => execFileSync(program, args, { cwd: project, encoding: 'utf8' })
    const [{ filename, files }] = JSON.parse(run('npm', 'pack', ROOT, '--json', '--loglevel=error').replace(/^[^[]*/, ''))
    const paths = files.map(({ path }) => path)
    for (const path of ['src/producer.js', 'types/producer.d.ts', 'types/shapes.d.ts', 'README.md']) assert.ok(paths.includes(path), path)
    assert.ok(paths.every((path) => !path.startsWith('test')), `${paths}`)
    writeFileSync(join(project, 'package.json'), '{"type":"module"}')
    run('npm', 'install', `./${filename}`, '--offline', '--no-audit', '--no-fund', '--loglevel=error')
    const use = `import { producer, ProducerError, type Drop, type Options } from '@eddyline/producer'
      const options: Options = { url: 'http://localhost', onDrop: ({ code }: Drop) => console.log(code) }
      export const error: Error = new ProducerError('a')
      export async function use(): Promise<number | undefined> {
        const clicks = producer('clicks', options)
        clicks.send({ a: 1 })
        const dropped: number = clicks.stats().dropped
        return dropped + ((await clicks.send.confirmed({ a: 1 })).offset ?? 0)
      }`
    writeFileSync(join(project, 'use.ts'), use)
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
    const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,dom']
    run(process.execPath, tsc, ...options, 'use.ts')
    assert.equal(run(process.execPath, '-e', "import('@eddyline/producer').then((it) => console.log(typeof it.producer))"), 'function\n')
  } finally {
    rmSync(project, { recursive: true })
  }
})

test('the line that `eddyline dev` prints sends an event', async () => {
  const stage = await startStage()
  const dev = spawn(PROGRAM, ['dev', '--listen', '127.0.0.1:0', '--cores', '1'], { env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'ignore'] })
  try {
    let said = ''
    dev.stdout.on('data', (piece) => (said += piece))
    await eventually('a line for a page', () => said.includes('</script>') || said)
    const line = said.split('\n').find((line) => line.startsWith('<script'))
    const [broker] = /http:[^/]*\/\/[^/]*/.exec(line)
    const page = await stage.context.newPage()
    await page.goto(stage.site.url)
    await page.setContent(line)
    const data = async () => {
      const { events } = await (await fetch(`${broker}/v1/groups/demo/events`)).json()
      return events?.map(({ data }) => data)
    }
    await eventually('the event', async () => JSON.stringify(await data()) === '[{"hello":"page"}]')
  } finally {
    const ended = new Promise((resolve) => dev.once('exit', resolve))
    dev.kill()
    await ended
    await stage.stop()
  }
})

test('a click on the example page shows up in its log', async () => {
  const stage = await startStage()
  try {
    const page = await stage.context.newPage()
    await page.goto(`${stage.site.url}/example?broker=${stage.proxy.url}`)
    const says = (id, text) => page.waitForFunction(([id, text]) => document.getElementById(id).textContent.includes(text), [id, text])
    await page.click('#click')
    await says('log', '{"clicked":"once"')
    await says('stats', 'durable at offset 0')
    await page.click('#many')
    await says('stats', '101 sent, 0 waiting, 0 dropped')
    await says('log', '"n":100}')
    await page.reload()
    await says('log', '"n":100}')
    await page.goto(`${stage.site.url}/example?broker=http://127.0.0.1:9`)
    await says('stats', 'No broker at http://127.0.0.1:9')
  } finally {
    await stage.stop()
  }
})
