// Lists are parsed as `JSON.parse` would, whatever their events look like.

import assert from 'node:assert/strict'
import { test } from 'node:test'
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

test('plain or not, alone or between others, as a list or as lines', () => {
  for (const one of [...PLAIN, ...OTHER]) {
    for (const list of [[one], [PLAIN[0], one], [one, PLAIN[1]], [PLAIN[2], one, one, PLAIN[4]]]) {
      const expected = JSON.parse(`[${list.join(',')}]`)
      assert.deepEqual(parseList(Buffer.from(list.join(',')), ','), expected, one)
      assert.deepEqual(parseList(Buffer.from(list.join('\n')), '\n'), expected, one)
    }
  }
})

test('what is cut short is no list', () => {
  const text = PLAIN.join(',')
  const ends = new Set(PLAIN.map((_, at) => PLAIN.slice(0, at + 1).join(',').length))
  for (let cut = 1; cut < text.length; cut++) {
    if (!ends.has(cut)) assert.throws(() => parseList(Buffer.from(text.slice(0, cut)), ','), SyntaxError, `cut at ${cut}`)
  }
})
