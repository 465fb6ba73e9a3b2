// Events in lists show what `JSON.parse` would, whatever they look like.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { parseList } from '../src/parse.js'

const event = (/** @type {object} */ more, /** @type {string} */ data, /** @type {number} */ length = data.length) => {
  const members = { offset: 7, id: '01939a8b-1234-7abc-8def-0123456789ab', received: '2026-11-23T10:11:12.123456Z', length, ...more }
  return `${JSON.stringify(members).slice(0, -1)},"data":${data}}`
}
const json = { encoding: 'json' }

const PLAIN = [
  event(json, '{"a": 1}'), event(json, 'null'), event({ key: 'k', ...json }, '"x"'), event({ key: '', ...json }, '[]'),
  event({ offset: 2 ** 48, ...json }, '12.50'),
]
const OTHER = [
  event({ key: 'a"b', ...json }, '1'), event({ key: 'ä', ...json }, '1'), event(json, '"ä"', 4),
  event({ content_type: 'a/b', ...json }, '1'), event({ headers: { encoding: 'json', data: 'x' }, ...json }, '1'),
  event({ encoding: 'text' }, '"a\\nb"', 3), event({ encoding: 'base64' }, '"AP8="', 2), event(json, '{"a":"}"}', 3),
  '{"frame":"heartbeat","tail":3}',
]

/** @type {(list: string[], separator: ',' | '\n') => any[]} */
const shown = (list, separator) => JSON.parse(JSON.stringify(parseList([Buffer.from(list.join(separator))], separator)))

test('plain or not, alone or between others, as a list or as lines', () => {
  for (const one of [...PLAIN, ...OTHER]) {
    for (const list of [[one], [PLAIN[0], one], [one, PLAIN[1]], [PLAIN[2], one, one, PLAIN[4]]]) {
      const expected = JSON.parse(`[${list.join(',')}]`)
      assert.deepEqual(shown(list, ','), expected, one)
      assert.deepEqual(shown(list, '\n'), expected, one)
    }
  }
})

test('what is cut short is no list', () => {
  const text = PLAIN.join(',')
  const ends = new Set(PLAIN.map((_, at) => PLAIN.slice(0, at + 1).join(',').length))
  for (let cut = 1; cut < text.length; cut++) {
    if (!ends.has(cut)) assert.throws(() => parseList([Buffer.from(text.slice(0, cut))], ','), SyntaxError, `cut at ${cut}`)
  }
})

test('pieces may be cut anywhere', () => {
  const lists = [[PLAIN[0], PLAIN[2], PLAIN[4]], [OTHER[0], PLAIN[1], OTHER[5], OTHER[8]], [PLAIN[3], event(json, `"${'x'.repeat(9000)}"`), PLAIN[1]]]
  for (const list of lists) {
    const bytes = Buffer.from(list.join(','))
    const whole = JSON.parse(`[${bytes}]`)
    for (let cut = 1; cut < bytes.length; cut += cut % 500 === 499 ? 97 : 1) {
      for (const pieces of [[bytes.subarray(0, cut), bytes.subarray(cut)], inPieces(bytes, cut)]) {
        assert.deepEqual(JSON.parse(JSON.stringify(parseList(pieces, ','))), whole, `cut at ${cut}`)
      }
    }
  }
})

/** @type {(bytes: Buffer, length: number) => Buffer[]} */
const inPieces = (bytes, length) =>
  Array.from({ length: Math.ceil(bytes.length / length) }, (_, n) => bytes.subarray(n * length, (n + 1) * length))

test('an event is a place in bytes until it is touched, and gives the same value again', () => {
  const [event, bytes] = parseList([Buffer.from([PLAIN[0], OTHER[6]].join(','))], ',')
  assert.equal(event.data, event.data)
  assert.deepEqual(event.data, { a: 1 })
  assert.deepEqual(bytes.data, Buffer.from([0, 255]))
  assert.match(inspect(event), /offset: 7.*a: 1/s)
})
