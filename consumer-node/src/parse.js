// Lists of events from the broker's text. Most events are JSON in plain ASCII, and the text says how long their data is:
// those are cut out and only their data is parsed, which takes half the time. Whatever looks different in any way is left
// to `JSON.parse`, so nothing but speed depends on the order of members.

import { isAscii } from 'node:buffer'

/** @typedef {import('./events.js').WireEvent} WireEvent */

const COMMA = 44

/**
 * The elements of a list without its brackets, or lines.
 * @param {Buffer} bytes
 * @param {',' | '\n'} separator
 * @returns {any[]}
 */
export function parseList(bytes, separator) {
  if (isAscii(bytes)) {
    const text = bytes.toString('latin1')
    return plain(text, separator) ?? whole(text, separator)
  }
  return whole(bytes.toString(), separator)
}

/**
 * @param {string} text
 * @param {',' | '\n'} separator
 * @returns {any[]}
 */
function whole(text, separator) {
  // A line holds no line end, so lines with commas in between are the elements of a list.
  return JSON.parse(`[${separator === '\n' ? text.replaceAll('\n', ',') : text}]`)
}

/**
 * @param {string} text ASCII
 * @param {string} separator
 * @returns {WireEvent[] | undefined} nothing if any of it is not as expected
 */
function plain(text, separator) {
  const events = []
  for (let at = 0; at < text.length; at++) {
    if (!text.startsWith('{"offset":', at)) return undefined
    const id = text.indexOf(',', at + 10)
    const received = id + 44
    const length = received + 42
    if (!text.startsWith(',"id":"', id) || !text.startsWith('","received":"', received - 1)) return undefined
    if (!text.startsWith('Z","length":', length - 3)) return undefined
    let digits = length + 9
    let bytes = 0
    for (let code = text.charCodeAt(digits); code !== COMMA; code = text.charCodeAt(++digits)) {
      if (!(code >= 48 && code <= 57)) return undefined
      bytes = bytes * 10 + code - 48
    }
    let next = digits
    let key
    if (text.startsWith(',"key":"', next)) {
      const end = text.indexOf('"', next + 8)
      key = text.slice(next + 8, end)
      if (end < 0 || key.includes('\\')) return undefined
      next = end + 1
    }
    if (!text.startsWith(',"encoding":"json","data":', next)) return undefined
    const data = next + 26
    const end = data + bytes
    const behind = end + 1
    if (text[end] !== '}') return undefined
    if (behind < text.length && (text[behind] !== separator || behind === text.length - 1)) return undefined
    /** @type {WireEvent} */
    const event = {
      offset: Number(text.slice(at + 10, id)),
      id: text.slice(id + 7, id + 43),
      received: text.slice(received + 13, received + 40),
      length: bytes,
      encoding: 'json',
      data: JSON.parse(text.slice(data, end)),
    }
    if (key !== undefined) event.key = key
    events.push(event)
    at = behind
  }
  return events
}
