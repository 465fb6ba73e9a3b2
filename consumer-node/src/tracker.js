// What was delivered and is not acked yet, in the order of delivery. Events may be done in any order; only the unbroken
// beginning of what is done may be acked. Knows no broker.

/**
 * A run of offsets that were delivered together; what is before the cursor is done, and only the first run's moves.
 * @typedef {{ first: number, next: number, cursor: number, done: Uint8Array | undefined }} Run
 */

/** Done or not done, by offset. */
export class Tracker {
  constructor() {
    /** @type {Run[]} */
    this.runs = []
    /** Done, but to be delivered again because something before them failed. @type {Set<number>} */
    this.kept = new Set()
    /** The last offset that may be acked; −1 before there is one. */
    this.ackable = -1
    /** Counts how often `ackable` moved: in a replay it may move back. */
    this.steps = 0
  }

  /** Events that were delivered and may not be acked yet. */
  get inHand() {
    return this.runs.reduce((sum, run) => sum + run.next - run.cursor, 0)
  }

  /** The first offset that is not done, if anything is in hand. @returns {number | undefined} */
  get head() {
    return this.runs[0]?.cursor
  }

  /**
   * Takes note of events `first..next` and says which of them are to be handed out: not those that are in hand, or done.
   * @param {number} first
   * @param {number} next
   * @returns {((offset: number) => boolean) | undefined} nothing if all of them are
   */
  admit(first, next) {
    const inHand = this.runs.filter((run) => run.first < next && first < run.next)
    if (inHand.length === 0 && this.kept.size === 0) {
      this.add(first, next)
      return undefined
    }
    const done = new Set()
    /** @param {number} offset */
    const held = (offset) => inHand.some((run) => run.first <= offset && offset < run.next)
    for (let from = first; from < next; ) {
      let to = from
      while (to < next && held(to) === held(from)) to++
      if (!held(from)) this.add(from, to)
      from = to
    }
    for (let offset = first; offset < next; offset++) {
      if (!this.kept.delete(offset)) continue
      done.add(offset)
      this.finish(offset)
    }
    return (offset) => !held(offset) && !done.has(offset)
  }

  /**
   * @param {number} first
   * @param {number} next
   */
  add(first, next) {
    this.runs.push({ first, next, cursor: first, done: undefined })
  }

  /**
   * Notes that one event is done.
   * @param {number} offset
   * @returns {boolean} whether it was in hand
   */
  finish(offset) {
    const run = this.find(offset)
    if (run === undefined) return false
    if (run === this.runs[0] && offset === run.cursor) {
      run.cursor++
      this.settle()
    } else if (offset >= run.cursor) {
      run.done ??= new Uint8Array(run.next - run.first)
      run.done[offset - run.first] = 1
    }
    return true
  }

  /**
   * Notes that everything in hand up to and including `offset` is done.
   * @param {number} offset
   * @returns {boolean} whether it was in hand
   */
  finishThrough(offset) {
    const last = this.find(offset)
    if (last === undefined) return false
    for (const run of this.runs.slice(0, this.runs.indexOf(last) + 1)) {
      run.cursor = Math.max(run.cursor, run === last ? offset + 1 : run.next)
    }
    this.settle()
    return true
  }

  /**
   * Whether an event is done, but waits for one before it.
   * @param {number} offset
   * @returns {boolean}
   */
  waits(offset) {
    const run = this.find(offset)
    return run !== undefined && (run !== this.runs[0] || offset >= run.cursor)
  }

  /** Something at the head failed: what is in hand is delivered again. What is done of it stays done. */
  restart() {
    for (const run of this.runs) {
      for (let at = run.cursor; at < run.next; at++) if (run.done?.[at - run.first] === 1) this.kept.add(at)
    }
    this.runs = []
  }

  /**
   * @param {number} offset
   * @returns {Run | undefined}
   */
  find(offset) {
    return this.runs.find((run) => run.first <= offset && offset < run.next)
  }

  settle() {
    while (this.runs.length > 0) {
      const run = this.runs[0]
      while (run.done?.[run.cursor - run.first] === 1) run.cursor++
      if (run.cursor > run.first && this.ackable !== run.cursor - 1) {
        this.ackable = run.cursor - 1
        this.steps++
      }
      if (run.cursor < run.next) return
      this.runs.shift()
    }
  }
}
