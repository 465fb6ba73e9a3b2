// What the pages about browsers show is run as it stands there, against this build.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ENVIRONMENT, eventually, startStage } from './broker.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const BROKER = 'http://127.0.0.1:4437'

/** The first block of a language behind a heading. */
function block(page, heading, language) {
  const text = readFileSync(join(ROOT, page), 'utf8')
  const from = text.indexOf(heading)
  assert.ok(from >= 0, `${page}: ${heading}`)
  const open = text.indexOf(`\`\`\`${language}\n`, from) + language.length + 4
  return text.slice(open, text.indexOf('```', open))
}

test('the README of this package begins with ten lines that run', async () => {
  const stage = await startStage()
  try {
    const html = block('producer-web/README.md', '# @eddyline/producer', 'html')
    assert.ok(html.trim().split('\n').length <= 10)
    const page = await stage.context.newPage()
    const said = []
    page.on('console', async (message) => said.push(await Promise.all(message.args().map((arg) => arg.jsonValue()))))
    await page.goto(stage.site.url)
    await page.setContent(html.replace(BROKER, stage.proxy.url))
    await eventually('it is durable', () => said.length > 0)
    assert.deepEqual(said, [['durable at', 1, { sent: 2, dropped: 0, queued: 0 }]])
    await stage.holds([{ page: '/' }, { paid: 12 }])
  } finally {
    await stage.stop()
  }
})

test('browser to broker to Node, as the main README shows it', async () => {
  const stage = await startStage()
  const project = mkdtempSync(join(tmpdir(), 'eddyline-readme-'))
  let node
  try {
    const [html, script] = ['html', 'js'].map((language) => block('README.md', '## Browser to broker to Node', language))
    mkdirSync(join(project, 'node_modules/@eddyline'), { recursive: true })
    symlinkSync(join(ROOT, 'consumer-node'), join(project, 'node_modules/@eddyline/consumer'))
    writeFileSync(join(project, 'read.mjs'), script.replace(BROKER, stage.broker.url))
    node = spawn(process.execPath, ['read.mjs'], { cwd: project, env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    node.stdout.on('data', (piece) => (said += piece))
    const page = await stage.context.newPage()
    await page.goto(stage.site.url)
    await page.setContent(html.replace(BROKER, stage.proxy.url))
    await eventually('Node has the event', () => said.includes('\n') || said)
    const [, promised] = /console\.log.* \/\/ (.*)/.exec(script)
    assert.equal(said, `${promised}\n`)
  } finally {
    node?.kill('SIGKILL')
    await stage.stop()
    rmSync(project, { recursive: true })
  }
})
