// A terminal on which lines scroll by above a text that stays below them.

/** Draws over itself. */
export class Screen {
  /**
   * @param {import('node:tty').WriteStream} terminal
   * @param {() => string} text what stays
   */
  constructor(terminal, text) {
    this.terminal = terminal
    this.text = text
    /** Lines of the text that are on the terminal. */
    this.lines = 0
    /** @type {NodeJS.Immediate | undefined} */
    this.due = undefined
  }

  /** Draws the text as it is now. As much as fits: a line that wraps, or scrolls away, could not be drawn over. */
  draw() {
    const { columns = 80, rows = 24 } = this.terminal
    const lines = this.text().split('\n')
    const shown = lines.length < rows ? lines : [...lines.slice(0, rows - 2), `… and ${lines.length - rows + 2} more`]
    this.clear()
    this.terminal.write(shown.map((line) => `${line.slice(0, columns - 1)}\n`).join(''))
    this.lines = shown.length
  }

  clear() {
    if (this.lines > 0) this.terminal.write(`\x1b[${this.lines}F\x1b[J`)
    this.lines = 0
  }

  /**
   * @param {string} line
   * @param {NodeJS.WritableStream} to the terminal, by whichever stream
   */
  above(line, to) {
    this.clear()
    to.write(`${line}\n`)
    // Lines that come together have the text drawn once.
    this.due ??= setImmediate(() => {
      this.due = undefined
      this.draw()
    })
  }
}
