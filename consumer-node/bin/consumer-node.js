#!/usr/bin/env node
// The command: starts nodes, shows how they do, and ends them in order.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { EddylineError } from '../src/errors.js'
import { Screen } from '../src/screen.js'
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
A consumer that is not approved, or suspended, is waited for.
Exit codes: 0 ok · 1 failed · 2 usage · 3 broker not trusted · 4 refused by the broker · 130 ended by a second signal.
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
  if (file === undefined) return process.env.EDDYLINE_TOKEN || undefined
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    return usage(`--token-file: ${/** @type {Error} */ (error).message}`)
  }
}

/** @type {Supervisor} */
let supervisor
try {
  supervisor = new Supervisor({
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
} catch (error) {
  usage(/** @type {Error} */ (error).message)
}

const screen = process.stderr.isTTY ? new Screen(process.stderr, () => table(supervisor.status())) : undefined
const drawing = screen && setInterval(() => screen.draw(), 500)

/** @param {string} event @param {object} detail */
const log = (event, detail) => {
  if (screen === undefined) process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), event, ...detail })}\n`)
}
/** @param {string} line */
const print = (line) => {
  if (process.stdout.write(`${line}\n`) || supervisor.paused) return
  // Nodes do not go on before somebody has taken what they print.
  supervisor.pause()
  process.stdout.once('drain', () => supervisor.resume())
}
// What handlers print is data; what they complain of, and what becomes of nodes, is talk.
supervisor.on('line', ({ stream, line, ...from }) => {
  const printed = stream === 'stdout'
  if (screen !== undefined && (!printed || process.stdout.isTTY)) screen.above(line, process[stream])
  else if (printed) print(line)
  else log('said', { ...from, line })
})
/** What was logged of each node, acks and lag aside. @type {Map<number, string>} */
const logged = new Map()
supervisor.on('status', (status) => {
  const { node, pid, state, error } = status
  const now = JSON.stringify({ pid, state, error })
  if (now !== logged.get(node)) log('node', status)
  logged.set(node, now)
})
supervisor.on('restart', (detail) => log('restart', detail))
supervisor.on('failed', ({ code, message }) => log('failed', { code, message }))

let signals = 0
for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT'])) {
  process.on(signal, () => {
    if (++signals > 1) {
      supervisor.kill()
      process.exit(130)
    } else {
      log('stopping', { signal })
      void supervisor.stop()
    }
  })
}
// Whoever read what is printed has left.
process.stdout.on('error', () => supervisor.kill())

const over = () => {
  clearInterval(drawing)
  screen?.draw()
}
supervisor.run().then(
  over,
  (error) => {
    over()
    const told = error instanceof EddylineError
    process.stderr.write(`error: ${told ? error.message : error.stack}\n`)
    process.exitCode = told && error.code === 'tls_failed' ? 3 : told && error.status !== undefined ? 4 : 1
  },
)
