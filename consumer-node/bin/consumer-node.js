#!/usr/bin/env node
// The command: starts nodes, shows how they do, and ends them in order.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { EddylineError } from '../src/errors.js'
import { Supervisor } from '../src/supervisor.js'
import { table } from '../src/table.js'

const HELP = `Usage: consumer-node --group GROUP --name NAME [OPTIONS] [HANDLER]

Reads events of GROUP for the consumer NAME and gives them to HANDLER, a module that exports a function.
Of the nodes of one consumer one is active, and the others stand by.

  --group GROUP       the group to read
  --groups GROUP,…    or several, by nodes of their own
  --name NAME         the consumer, in each of them
  --nodes N           processes for each group (1)
  --print             print events as JSON lines instead of calling a handler
  --concurrency N     handlers at once in a node (1)
  --order-by key      events of one key one after the other
  --retries N         tries after the first failure (0)
  --dead-letter       what failed every time goes to the dead letters
  --start POSITION    where a new consumer begins (earliest)
  --mode next|stream  how events are fetched (next)
  --url URL           of the broker; EDDYLINE_URL (http://127.0.0.1:4437)
  --token-file FILE   token; EDDYLINE_TOKEN

SIGTERM and SIGINT let every node finish, ack and end; a second one ends them at once.
Exit codes: 0 ok · 1 failed · 2 usage · 130 ended by a second signal.
`

/** @param {string} message @returns {never} */
function usage(message) {
  process.stderr.write(`error: ${message}\n\nFor more, try --help.\n`)
  process.exit(2)
}

function options() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        group: { type: 'string' }, groups: { type: 'string' }, name: { type: 'string' }, nodes: { type: 'string' }, print: { type: 'boolean' },
        concurrency: { type: 'string' }, 'order-by': { type: 'string' }, retries: { type: 'string' },
        'dead-letter': { type: 'boolean' }, start: { type: 'string' }, mode: { type: 'string' }, url: { type: 'string' },
        'token-file': { type: 'string' }, help: { type: 'boolean', short: 'h' },
      },
    })
  } catch (error) {
    return usage(/** @type {Error} */ (error).message)
  }
}

/**
 * @param {string} name
 * @param {string | undefined} text
 * @param {number} least
 */
function number(name, text, least) {
  if (text !== undefined && !(/^\d{1,6}$/.test(text) && Number(text) >= least)) usage(`--${name} is a number from ${least} on`)
  return text === undefined ? undefined : Number(text)
}

const { values, positionals } = options()
if (values.help) {
  process.stdout.write(HELP)
  process.exit(0)
}
const groups = values.groups?.split(',') ?? [values.group ?? '']
if (groups.includes('') || !values.name) usage('--group (or --groups) and --name are needed')
if (values.group !== undefined && values.groups !== undefined) usage('either --group or --groups')
if (values.group?.includes(',')) usage('several groups are given as --groups')
if (positionals.length > 1) usage('one handler at most')
if ((positionals.length === 0) !== (values.print === true)) usage('either a handler or --print')
if (values.mode !== undefined && values.mode !== 'next' && values.mode !== 'stream') usage('--mode is next or stream')
if (values['order-by'] !== undefined && values['order-by'] !== 'key') usage('--order-by is key')

/** @returns {string | undefined} */
function token() {
  const file = values['token-file']
  if (file === undefined) return process.env.EDDYLINE_TOKEN
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    return usage(`--token-file: ${/** @type {Error} */ (error).message}`)
  }
}

const supervisor = new Supervisor({
  url: values.url,
  group: groups,
  name: values.name,
  handler: positionals[0],
  nodes: number('nodes', values.nodes, 1),
  token: token(),
  run: {
    concurrency: number('concurrency', values.concurrency, 1),
    orderBy: values['order-by'],
    retries: number('retries', values.retries, 0),
    onExhausted: values['dead-letter'] ? 'dead-letter' : 'stop',
  },
  consumer: { start: values.start, mode: values.mode },
})

const terminal = process.stderr.isTTY === true
/** @param {string} event @param {object} detail */
const log = (event, detail) => {
  if (!terminal) process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), event, ...detail })}\n`)
}
// What handlers print is data; what they complain of, and what becomes of nodes, is talk.
supervisor.on('line', ({ stream, line, ...from }) => {
  if (stream === 'stdout') process.stdout.write(`${line}\n`)
  else log('said', { ...from, line })
})
let shown = ''
supervisor.on('status', (/** @type {import('../src/supervisor.js').NodeStatus} */ status) => {
  const { node, group, pid, state, error } = status
  const now = JSON.stringify({ node, group, pid, state, error })
  if (now !== shown) log('node', status)
  shown = now
})
supervisor.on('restart', (detail) => log('restart', detail))
supervisor.on('crash-loop', (error) => log('crash-loop', { message: error.message }))

let lines = 0
const draw = () => {
  const text = table(supervisor.status())
  process.stderr.write(`${lines > 0 ? `\x1b[${lines}A\x1b[J` : ''}${text}\n`)
  lines = text.split('\n').length
}
const drawing = terminal ? setInterval(draw, 500) : undefined

let signals = 0
for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT'])) {
  process.on(signal, () => {
    if (++signals > 1) {
      supervisor.kill()
      process.exitCode = 130
    } else {
      log('stopping', { signal })
      void supervisor.stop()
    }
  })
}

const over = () => {
  clearInterval(drawing)
  if (terminal) draw()
}
supervisor.run().then(
  over,
  (error) => {
    over()
    process.stderr.write(`error: ${error instanceof EddylineError ? error.message : error.stack}\n`)
    process.exitCode = 1
  },
)
