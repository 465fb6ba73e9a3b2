// HTTP for producing: requests one behind the other on one connection without waiting, answers in the same order.
// `node:http` has no pipelining, and of HTTP this needs little: answers with a length, or without a body.

import net from 'node:net'
import tls from 'node:tls'
import { EddylineError } from './errors.js'

/** @typedef {{ status: number, headers: Map<string, string>, body: string }} WireAnswer */

const HEAD_END = Buffer.from('\r\n\r\n')

/**
 * Takes answers apart. Knows no socket.
 */
export class Answers {
  constructor() {
    /** @type {Buffer} */
    this.buffer = Buffer.alloc(0)
  }

  /**
   * @param {Buffer} chunk
   * @returns {WireAnswer[]} what is whole
   */
  feed(chunk) {
    this.buffer = this.buffer.length === 0 ? chunk : Buffer.concat([this.buffer, chunk])
    const answers = []
    for (;;) {
      const end = this.buffer.indexOf(HEAD_END)
      if (end < 0) return answers
      const [line, ...fields] = this.buffer.toString('latin1', 0, end).split('\r\n')
      const status = /^HTTP\/1\.[01] (\d{3})/.exec(line)?.[1]
      if (status === undefined) throw badAnswer(`this is no answer of HTTP: ${line.slice(0, 80)}`)
      const headers = new Map(fields.map((field) => splitField(field)))
      if (headers.has('transfer-encoding')) {
        throw badAnswer('an answer to producing has a length; something in between changed it')
      }
      const length = Number(headers.get('content-length') ?? 0)
      const next = end + HEAD_END.length + length
      if (this.buffer.length < next) return answers
      const body = this.buffer.toString('utf8', end + HEAD_END.length, next)
      this.buffer = this.buffer.subarray(next)
      // 100 and its like are not the answer.
      if (Number(status) >= 200) answers.push({ status: Number(status), headers, body })
    }
  }
}

/** @param {string} message */
function badAnswer(message) {
  return new EddylineError('bad_answer', message, { retryable: true, effect: 'unknown' })
}

/**
 * @param {string} field
 * @returns {[string, string]}
 */
function splitField(field) {
  const at = field.indexOf(':')
  return [field.slice(0, at).toLowerCase(), field.slice(at + 1).trim()]
}

/** One connection. */
export class Pipe {
  /**
   * @param {URL} url
   * @param {{ answer: (answer: WireAnswer) => void, end: (error: unknown) => void, timeout: number }} to
   */
  constructor(url, { answer, end, timeout }) {
    const secure = url.protocol === 'https:'
    const port = Number(url.port) || (secure ? 443 : 80)
    const host = url.hostname.replace(/^\[|\]$/g, '')
    this.socket = secure ? tls.connect({ host, port, servername: net.isIP(host) ? undefined : host }) : net.connect({ host, port })
    this.socket.setNoDelay(true)
    const answers = new Answers()
    let over = false
    const finish = (/** @type {unknown} */ error) => {
      if (over) return
      over = true
      this.socket.destroy()
      end(error)
    }
    this.socket.on('data', (chunk) => {
      try {
        answers.feed(chunk).forEach((each) => over || answer(each))
      } catch (error) {
        finish(error)
      }
    })
    this.socket.on('error', finish)
    this.socket.on('close', () => finish(Object.assign(new Error('the connection was closed'), { code: 'ECONNRESET' })))
    this.socket.setTimeout(timeout, () => finish(Object.assign(new Error(`no answer for ${timeout} ms`), { code: 'ETIMEDOUT' })))
  }

  /**
   * @param {string} head
   * @param {Buffer} body
   */
  send(head, body) {
    this.socket.cork()
    this.socket.write(head, 'latin1')
    this.socket.write(body)
    this.socket.uncork()
  }

  close() {
    this.socket.destroy()
  }
}
