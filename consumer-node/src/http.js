// The one file that makes requests: keep-alive connections, tokens, and every failure as one class of error.

import http from 'node:http'
import https from 'node:https'
import { EddylineError, fromAnswer, fromNetwork } from './errors.js'

/** @typedef {string | (() => string | Promise<string>)} Token */
/** @typedef {{ url?: string | URL, token?: Token, requestTimeout?: number }} HttpOptions */
/** @typedef {{ body?: string, accept?: string, signal?: AbortSignal, waitMs?: number }} RequestOptions */
/** @typedef {{ status: number, headers: http.IncomingHttpHeaders, pieces: Buffer[] }} Answer */

/** The address and the token that requests are made with. */
export class Http {
  /** @param {HttpOptions} options */
  constructor({ url = process.env.EDDYLINE_URL ?? 'http://127.0.0.1:4437', token, requestTimeout = 30_000 }) {
    if (!/^https?:/.test(String(url)) || !URL.canParse(String(url))) throw new EddylineError('bad_url', `${url}: this is no URL of a broker`)
    this.url = new URL(url)
    this.base = this.url.pathname.replace(/\/$/, '')
    this.secure = this.url.protocol === 'https:'
    this.requestTimeout = requestTimeout
    this.token = token
    /** @type {string | undefined} */
    this.bearer = token === undefined || typeof token === 'function' ? undefined : tokenText(token)
    /** Whether somebody has ever answered. */
    this.answered = false
    /** The token function while it is being asked. @type {Promise<string> | undefined} */
    this.asking = undefined
    this.agent = new (this.secure ? https : http).Agent({ keepAlive: true, noDelay: true })
  }

  /**
   * The token as it is now; a token function is asked at first, and once for every token that the broker refused.
   * @param {string} [refused]
   * @returns {Promise<string | undefined>}
   */
  async authorization(refused) {
    const { token } = this
    if (typeof token === 'function' && this.bearer === refused) {
      this.asking ??= this.ask(token).finally(() => (this.asking = undefined))
      await this.asking
    }
    return this.bearer
  }

  /** @param {() => string | Promise<string>} token */
  async ask(token) {
    try {
      return (this.bearer = tokenText(await token()))
    } catch (cause) {
      // Whoever gave one before may give one again.
      const retryable = this.bearer !== undefined
      throw new EddylineError('token_failed', `the token function failed: ${/** @type {any} */ (cause)?.message}`, { retryable, cause })
    }
  }

  /**
   * The error of a request that has no answer. Who cannot be trusted, or is no broker, stays so, unless there was one before.
   * @param {unknown} cause
   * @returns {EddylineError}
   */
  failed(cause) {
    const error = fromNetwork(cause)
    if (error.code === 'tls_failed' || error.code === 'bad_answer') error.retryable = this.answered
    return error
  }

  /**
   * Asks, and takes the whole answer.
   * @param {string} method
   * @param {string} path behind `/v1`
   * @param {RequestOptions} [options]
   * @returns {Promise<Answer>}
   */
  async request(method, path, options = {}) {
    const response = await this.open(method, path, options)
    try {
      return { status: response.statusCode ?? 0, headers: response.headers, pieces: await piecesOf(response) }
    } catch (error) {
      throw this.failed(error)
    }
  }

  /**
   * Asks for JSON.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions & { json?: unknown }} [options]
   * @returns {Promise<any>}
   */
  async json(method, path, { json, ...options } = {}) {
    const body = json === undefined ? undefined : JSON.stringify(json)
    const answer = await this.request(method, path, { ...options, body })
    const text = Buffer.concat(answer.pieces).toString()
    try {
      return text.length === 0 ? undefined : JSON.parse(text)
    } catch (cause) {
      throw new EddylineError('bad_answer', `what answers is no broker: ${text.slice(0, 80)}`, { cause })
    }
  }

  /**
   * Asks, and gives the answer's stream once its head said yes.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<http.IncomingMessage>}
   */
  async open(method, path, options = {}) {
    /** @type {string | undefined} */
    let refused
    for (;;) {
      const bearer = await this.authorization(refused)
      const response = await this.send(method, path, options, bearer).catch((error) => {
        throw this.failed(error)
      })
      this.answered = true
      const status = response.statusCode ?? 0
      if (status >= 200 && status < 300) return response
      const body = Buffer.concat(await piecesOf(response).catch(() => []))
      // A token that ran out may have a successor.
      if (status !== 401 || typeof this.token !== 'function' || refused !== undefined) throw fromAnswer(status, body.toString())
      refused = bearer
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} options
   * @param {string | undefined} bearer
   * @returns {Promise<http.IncomingMessage>}
   */
  send(method, path, { body, accept, signal, waitMs = 0 }, bearer) {
    /** @type {Record<string, string | number>} */
    const headers = { Accept: accept ?? 'application/json' }
    if (bearer !== undefined) headers.Authorization = `Bearer ${bearer}`
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    if (body !== undefined || method !== 'GET') headers['Content-Length'] = Buffer.byteLength(body ?? '')
    // Silence for longer than was asked for means that nobody is there any more.
    const timeout = this.requestTimeout + waitMs
    return new Promise((resolve, reject) => {
      const request = (this.secure ? https : http).request(
        new URL(`${this.base}/v1${path}`, this.url),
        { method, headers, agent: this.agent, signal, timeout },
        resolve,
      )
      request.on('timeout', () => {
        const error = new EddylineError('timeout', `no answer for ${timeout} ms`, { retryable: true, effect: 'unknown' })
        request.destroy(error)
      })
      request.on('error', reject)
      request.end(body)
    })
  }

  /** Closes the connections; what is still being asked fails. */
  close() {
    this.agent.destroy()
  }
}

/**
 * A token as it stands in a header: what a file has around it is cut off.
 * @param {unknown} given
 * @returns {string}
 */
function tokenText(given) {
  const text = typeof given === 'string' ? given.trim() : ''
  if (!/^[\x21-\x7e]+$/.test(text)) throw new EddylineError('bad_options', 'a token is a string of printable ASCII signs, without spaces')
  return text
}

/**
 * The bytes of an answer, as they come.
 * @param {http.IncomingMessage} response
 * @returns {Promise<Buffer[]>}
 */
function piecesOf(response) {
  return new Promise((resolve, reject) => {
    /** @type {Buffer[]} */
    const pieces = []
    response.on('data', (piece) => pieces.push(piece))
    response.on('end', () => resolve(pieces))
    response.on('error', reject)
    response.on('aborted', () => reject(new Error('the answer was cut off')))
  })
}

/**
 * A query string of what is not undefined.
 * @param {Record<string, string | number | undefined>} parameters
 * @returns {string}
 */
export function query(parameters) {
  const given = new URLSearchParams()
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) given.set(name, String(value))
  return given.size === 0 ? '' : `?${given}`
}

/**
 * The path of a group, or of one of its consumers.
 * @param {string} group
 * @param {string} [consumer]
 * @returns {string}
 */
export function pathOf(group, consumer) {
  const path = `/groups/${encodeURIComponent(group)}`
  return consumer === undefined ? path : `${path}/consumers/${encodeURIComponent(consumer)}`
}
