// Nodes: child processes that read for consumers. Of the nodes of one consumer one is active, and the others stand by and
// take over; over several groups they spread. A node that ends is started again; one that keeps ending is given up, and
// so is one that ends for a reason that another start cannot change.

import { fork } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { backoff } from './backoff.js'
import { EddylineError } from './errors.js'
import { Http } from './http.js'

/**
 * @typedef {object} SupervisorOptions
 * @property {string} [url] of the broker; `EDDYLINE_URL`, or http://127.0.0.1:4437
 * @property {string | string[]} group one group, or several
 * @property {string} name of the consumer in each of them
 * @property {string} [handler] module that exports a function; without one, events are printed
 * @property {number} [nodes] child processes for each group (1)
 * @property {string} [token]
 * @property {Omit<import('./run.js').RunOptions, 'orderBy' | 'onExhausted'> & { orderBy?: 'key', onExhausted?: 'stop' |
 *   'dead-letter' }} [run] how the handler is called
 * @property {Partial<Pick<import('./consumer.js').ConsumerOptions, 'start' | 'mode' | 'max' | 'maxBytes' | 'waitMs'>>} [consumer]
 * @property {number} [crashes] ends within `crashWindow` without an ack in between after which a node is given up (5)
 * @property {number} [crashWindow] ms (60 000)
 */

/**
 * What a node is told at its start.
 * @typedef {{ consumer: import('./consumer.js').ConsumerOptions, handler?: string, run: import('./run.js').RunOptions }} NodeOrder
 */

/**
 * `pending` and `suspended`: it waits for whoever manages the group.
 * @typedef {'starting' | 'standby' | 'active' | 'reconnecting' | 'pending' | 'suspended' | 'stopping' | 'restarting' |
 *   'given up' | 'ended'} NodeState
 * @typedef {{ node: number, group: string, pid: number | undefined, state: NodeState, acked: number, events: number,
 *   lag: number | undefined, restarts: number, error: string | undefined }} NodeStatus
 */

/**
 * What a node tells: how it goes, or why it ends; `final`: another start cannot change it.
 * @typedef {Partial<Pick<NodeStatus, 'state' | 'acked' | 'events' | 'lag' | 'error'>>} NodeReport
 * @typedef {{ code: string, message: string, status?: number, final: boolean }} NodeFailure
 */

/**
 * What a supervisor tells. `line`: what a node printed. `failed`: a node was given up, so all of them end.
 * @typedef {object} SupervisorEvents
 * @property {[NodeStatus]} status
 * @property {[NodeStatus & { delayMs: number }]} restart
 * @property {[{ node: number, group: string, stream: 'stdout' | 'stderr', line: string }]} line
 * @property {[EddylineError]} failed
 */

const PROGRAM = fileURLToPath(new URL('./node.js', import.meta.url))

/** @extends {EventEmitter<SupervisorEvents>} */
export class Supervisor extends EventEmitter {
  /** @param {SupervisorOptions} options */
  constructor(options) {
    super()
    this.options = options
    this.stopping = false
    /** Whether what nodes print waits in them. */
    this.paused = false
    /** @type {EddylineError | undefined} */
    this.failure = undefined
    const groups = [options.group].flat()
    if (groups.length === 0 || groups.some((group) => !group) || !options.name) {
      throw new EddylineError('bad_options', 'a supervisor needs `group` and `name`')
    }
    // What is wrong with them is better told before there are nodes.
    new Http({ url: options.url, token: options.token }).close()
    /** @type {Node[]} */
    this.nodes = []
    for (const group of groups) {
      for (let node = 0; node < (options.nodes ?? 1); node++) this.nodes.push(new Node(this, this.nodes.length, group))
    }
  }

  /**
   * Starts the nodes, and waits until they have ended.
   * @returns {Promise<void>} rejected when a node was given up, with `crash_loop` or the code of what cannot pass
   */
  async run() {
    await Promise.all(this.nodes.map((node) => node.live()))
    if (this.failure !== undefined) throw this.failure
  }

  /** @returns {NodeStatus[]} */
  status() {
    return this.nodes.map((node) => ({ ...node.status }))
  }

  /** Has every node finish what it does, ack it and end; waits for as long as that takes. */
  async stop() {
    this.stopping = true
    const active = this.nodes.filter(({ status }) => status.state === 'active')
    // Who stands by ends first: else it would be given the session that is just being left.
    await Promise.all(this.nodes.filter((node) => !active.includes(node)).map((node) => node.stop('SIGTERM')))
    await Promise.all(active.map((node) => node.stop('SIGTERM')))
  }

  /** Has what nodes print wait in them, and them for it, until `resume`: whoever takes the lines is slower. */
  pause() {
    this.paused = true
    for (const { output } of this.nodes) output?.pause()
  }

  resume() {
    this.paused = false
    for (const { output } of this.nodes) output?.resume()
  }

  /** Ends the nodes at once: what they had in hand is delivered again. */
  kill() {
    this.stopping = true
    this.resume()
    for (const node of this.nodes) void node.stop('SIGKILL')
  }

  /** @param {EddylineError} error */
  giveUp(error) {
    this.failure ??= error
    this.emit('failed', error)
    void this.stop()
  }
}

/** One child process, again and again. */
class Node {
  /**
   * @param {Supervisor} supervisor
   * @param {number} node
   * @param {string} group
   */
  constructor(supervisor, node, group) {
    this.supervisor = supervisor
    /** @type {NodeStatus} */
    this.status = {
      node, group, pid: undefined, state: 'starting', acked: -1, events: 0, lag: undefined, restarts: 0, error: undefined,
    }
    /** When it ended without having acked anything since. @type {number[]} */
    this.ends = []
    /** @type {import('node:child_process').ChildProcess | undefined} */
    this.child = undefined
    /** What it prints. @type {import('node:readline').Interface | undefined} */
    this.output = undefined
    this.interrupt = () => {}
  }

  async live() {
    const { supervisor, status } = this
    const { crashes = 5, crashWindow = 60_000 } = supervisor.options
    while (!supervisor.stopping) {
      status.state = 'starting'
      const { code, message, status: answer, final } = await this.once()
      if (supervisor.stopping) break
      status.error = message
      const now = Date.now()
      this.ends = [...this.ends.filter((at) => now - at < crashWindow), now]
      const who = `node ${status.node} of ${status.group}`
      if (final) return this.giveUp(new EddylineError(code, `${who}: ${message}`, { status: answer }))
      if (this.ends.length >= crashes) {
        return this.giveUp(new EddylineError('crash_loop', `${who} ended ${crashes} times within ${crashWindow} ms: ${message}`))
      }
      status.restarts++
      status.state = 'restarting'
      const delayMs = backoff(this.ends.length)
      supervisor.emit('restart', { ...status, delayMs })
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, delayMs)
        this.interrupt = () => (clearTimeout(timer), resolve(undefined))
      })
    }
    status.state = 'ended'
  }

  /** @param {EddylineError} error */
  giveUp(error) {
    this.status.state = 'given up'
    this.supervisor.giveUp(error)
  }

  /** Runs the process once. @returns {Promise<NodeFailure>} why it ended */
  async once() {
    const { supervisor, status } = this
    const { url, name, token, handler, run = {}, consumer = {} } = supervisor.options
    // What a node says on its standard output are lines of its own; what it is told comes by messages.
    const child = fork(PROGRAM, [], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] })
    this.child = child
    status.pid = child.pid
    /** @type {NodeOrder} */
    const order = { consumer: { ...consumer, url, token, group: status.group, name }, handler, run }
    child.send(order, () => {})
    for (const stream of /** @type {const} */ (['stdout', 'stderr'])) {
      const lines = createInterface({ input: /** @type {import('node:stream').Readable} */ (child[stream]) })
      lines.on('line', (line) => supervisor.emit('line', { node: status.node, group: status.group, stream, line }))
      if (stream === 'stdout') this.output = lines
    }
    if (supervisor.paused) this.output?.pause()
    /** @type {NodeFailure | undefined} */
    let failure
    child.on('message', (/** @type {{ report?: NodeReport, failure?: NodeFailure }} */ told) => {
      failure = told.failure
      if (told.report === undefined) return
      if (told.report.acked !== undefined && told.report.acked !== status.acked) this.ends = []
      Object.assign(status, { error: undefined }, told.report)
      supervisor.emit('status', { ...status })
    })
    const ended = Promise.race([once(child, 'close'), once(child, 'error')])
    const [code, signal] = await ended
    this.child = undefined
    status.pid = undefined
    return failure ?? { code: 'ended', message: signal ? `signal ${signal}` : `exit code ${code}`, final: false }
  }

  /** @param {'SIGTERM' | 'SIGKILL'} signal */
  async stop(signal) {
    this.interrupt()
    const { child } = this
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'close')
    child.kill(signal)
    await ended
  }
}
