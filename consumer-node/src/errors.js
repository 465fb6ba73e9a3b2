// The one error class of this package. `code` is stable: the broker's own (docs/HTTP.md), or one of the few made here.

/** What was refused or went wrong, and whether trying again can help. */
export class EddylineError extends Error {
  /**
   * @param {string} code stable name of the error
   * @param {string} message
   * @param {{ retryable?: boolean, status?: number, effect?: 'none' | 'unknown', retryAfterMs?: number,
   *   problem?: Record<string, any>, cause?: unknown }} [more]
   */
  constructor(code, message, more = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.name = 'EddylineError'
    this.code = code
    /** Whether the same call may succeed later. */
    this.retryable = more.retryable ?? false
    /** Status of the broker's answer, if there was one. */
    this.status = more.status
    /** `none`: nothing was done. `unknown`: nobody can say. */
    this.effect = more.effect ?? 'none'
    /** How long the broker asks to wait. */
    this.retryAfterMs = more.retryAfterMs
    /** The broker's whole answer, with the members that belong to the code. */
    this.problem = more.problem
  }
}

const PASSING = new Set([408, 425, 429, 502, 503, 504])

/**
 * The error in an answer that is no success.
 * @param {number} status
 * @param {string} body
 * @returns {EddylineError}
 */
export function fromAnswer(status, body) {
  /** @type {Record<string, any>} */
  let problem = {}
  try {
    problem = JSON.parse(body)
  } catch {
    // Not the broker's own answer: a proxy in between.
  }
  return new EddylineError(problem.code ?? `http_${status}`, problem.detail ?? problem.title ?? `HTTP ${status}`, {
    status,
    problem,
    effect: problem.effect ?? (status >= 500 ? 'unknown' : 'none'),
    // The disk's failure may be over after a restart, and what was asked may be asked again.
    retryable: problem.code === 'unknown' || (problem.retryable ?? PASSING.has(status)),
    retryAfterMs: problem.retry_after_ms,
  })
}

/** Codes of Node and OpenSSL, and what they mean. @type {[RegExp, string, string][]} */
const FAILURES = [
  [/SELF_SIGNED|ISSUER|LEAF_SIGNATURE/, 'tls_failed', 'the certificate is not trusted (NODE_EXTRA_CA_CERTS names a file of those that are)'],
  [/CERT|SIGNATURE|^ERR_SSL|^EPROTO$/, 'tls_failed', 'TLS failed'],
  [/^HPE_/, 'bad_answer', 'what answers is no broker'],
  [/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/, 'unreachable', 'the broker cannot be reached'],
]

/**
 * The error in a connection that broke or never came about.
 * @param {any} cause
 * @returns {EddylineError}
 */
export function fromNetwork(cause) {
  if (cause instanceof EddylineError) return cause
  const [, code, what] = FAILURES.find(([codes]) => codes.test(cause?.code)) ?? [undefined, 'connection_lost', 'the connection was lost']
  const effect = code === 'tls_failed' || code === 'unreachable' ? 'none' : 'unknown'
  return new EddylineError(code, `${what}: ${cause?.message}`, { retryable: true, effect, cause })
}

/** @returns {EddylineError} */
export function closedError() {
  return new EddylineError('closed', 'it was closed')
}
