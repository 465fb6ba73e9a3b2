// Lists of events from the broker's bytes. The broker says how long an event's data is, so most events are found by
// stepping from one to the next, and nothing of them is parsed until it is touched. Whatever looks different in any way
// is left to `JSON.parse`, so nothing but speed depends on the order of members. Bytes come in pieces, as they were
// received, and only what stands where two of them meet is copied.

import { ConsumedEvent } from './events.js'

/** @typedef {{ length: number, at: number[], words: number[] }} Expected */

/**
 * A text as words to compare with; the last one ends where the text does.
 * @param {string} text
 * @returns {Expected}
 */
function expected(text) {
  const bytes = Buffer.from(text)
  const at = Array.from({ length: Math.ceil(bytes.length / 4) }, (_, word) => Math.min(word * 4, bytes.length - 4))
  return { length: bytes.length, at, words: at.map((place) => bytes.readUInt32LE(place)) }
}

const BEGIN = expected('{"offset":')
const ID = expected(',"id":"')
const RECEIVED = expected('","received":"')
const LENGTH = expected('Z","length":')
const KEY = expected(',"key":"')
const DATA = expected(',"encoding":"json","data":')

/** From an id to its end, and to the end of the time behind it. */
const ID_BYTES = 36
const TO_LENGTH = ID_BYTES + RECEIVED.length + '2026-11-23T10:11:12.123456'.length

const QUOTE = 34
const COMMA = 44
const BACKSLASH = 92
const OPENING = new Set([...'{['].map((sign) => sign.charCodeAt(0)))
const CLOSING = new Set([...'}]'].map((sign) => sign.charCodeAt(0)))

/** How far an event is looked for in the next piece before all of them are put together. */
const SEAM = 4096

/**
 * The elements of a list without its brackets, or lines: events, and control frames as they are.
 * @param {Buffer[]} pieces none of them empty
 * @param {',' | '\n'} separator
 * @returns {any[]}
 */
export function parseList(pieces, separator) {
  const between = separator.charCodeAt(0)
  /** @type {any[]} */
  const list = []
  let at = 0
  for (let piece = 0; piece < pieces.length - 1; piece++) {
    const bytes = pieces[piece]
    const rest = bytes.subarray(take(bytes, at, between, list))
    at = 0
    if (rest.length === 0) continue
    const next = pieces[piece + 1]
    const seam = Buffer.concat([rest, next.subarray(0, SEAM)])
    const event = plain(seam, viewOf(seam), 0)
    const end = event === undefined ? seam.length : event.end + 1
    if (event !== undefined && seam[event.end] === between && end < seam.length) {
      list.push(event)
      at = end - rest.length
    } else {
      pieces = [Buffer.concat([rest, ...pieces.slice(piece + 1)])]
    }
  }
  if (pieces.length === 0) return list
  // None stands behind the last.
  const last = pieces[pieces.length - 1]
  list.push(element(last.subarray(take(last, at, between, list))))
  return list
}

/**
 * Takes every element that has a separator behind it.
 * @param {Buffer} bytes
 * @param {number} at
 * @param {number} between
 * @param {any[]} list
 * @returns {number} where the first begins that has none
 */
function take(bytes, at, between, list) {
  const view = viewOf(bytes)
  for (;;) {
    const event = plain(bytes, view, at)
    if (event !== undefined && bytes[event.end] === between) {
      list.push(event)
      at = event.end + 1
      continue
    }
    const end = elementEnd(bytes, at, between)
    if (end === bytes.length) return at
    list.push(element(bytes.subarray(at, end)))
    at = end + 1
  }
}

/** @param {Buffer} bytes */
function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/**
 * @param {Buffer} bytes
 * @returns {any}
 */
function element(bytes) {
  const event = plain(bytes, viewOf(bytes), 0)
  if (event?.end === bytes.length) return event
  const value = JSON.parse(bytes.toString())
  return value.frame === undefined ? new ConsumedEvent(value.offset, value.length, value, 0, 0) : value
}

/**
 * An event that looks as most do: JSON, and nothing with it but a key.
 * @param {Buffer} bytes
 * @param {DataView} view of the same
 * @param {number} at
 * @returns {ConsumedEvent | undefined} nothing if any of it is not as expected
 */
function plain(bytes, view, at) {
  if (!matches(view, at, BEGIN)) return undefined
  let next = at + BEGIN.length
  let offset = 0
  for (let code = bytes[next]; code !== COMMA; code = bytes[++next]) {
    if (!(code >= 48 && code <= 57)) return undefined
    offset = offset * 10 + code - 48
  }
  const idAt = next + ID.length
  if (!matches(view, next, ID) || !matches(view, idAt + ID_BYTES, RECEIVED)) return undefined
  next = idAt + TO_LENGTH
  if (!matches(view, next, LENGTH)) return undefined
  next += LENGTH.length
  let length = 0
  for (let code = bytes[next]; code !== COMMA; code = bytes[++next]) {
    if (!(code >= 48 && code <= 57)) return undefined
    length = length * 10 + code - 48
  }
  if (!matches(view, next, DATA)) {
    if (!matches(view, next, KEY)) return undefined
    next = stringEnd(bytes, next + KEY.length) + 1
    if (!matches(view, next, DATA)) return undefined
  }
  const dataAt = next + DATA.length
  if (bytes[dataAt + length] !== 125) return undefined
  return new ConsumedEvent(offset, length, bytes, idAt, dataAt)
}

/**
 * The key of a plain event.
 * @param {Buffer} bytes
 * @param {number} idAt
 * @param {number} dataAt
 * @returns {string | undefined}
 */
export function keyOf(bytes, idAt, dataAt) {
  const length = idAt + TO_LENGTH + LENGTH.length
  const end = dataAt - DATA.length
  const behind = bytes.indexOf(COMMA, length)
  return behind === end ? undefined : JSON.parse(bytes.toString('utf8', behind + KEY.length - 1, end))
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {Expected} text
 */
function matches(view, at, text) {
  if (at + text.length > view.byteLength) return false
  for (let word = 0; word < text.words.length; word++) {
    if (view.getUint32(at + text.at[word], true) !== text.words[word]) return false
  }
  return true
}

/**
 * Where a string's closing quote stands.
 * @param {Buffer} bytes
 * @param {number} at behind its opening quote
 */
function stringEnd(bytes, at) {
  while (at < bytes.length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1
  return at
}

/**
 * Where the separator behind an element stands.
 * @param {Buffer} bytes
 * @param {number} at
 * @param {number} between
 */
function elementEnd(bytes, at, between) {
  let depth = 0
  for (; at < bytes.length; at++) {
    const code = bytes[at]
    if (code === QUOTE) at = stringEnd(bytes, at + 1)
    else if (OPENING.has(code)) depth++
    else if (CLOSING.has(code)) depth--
    else if (code === between && depth === 0) return at
  }
  return bytes.length
}
