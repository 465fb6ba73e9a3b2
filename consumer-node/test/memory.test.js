// Memory does not grow with what was read: a million events, in both modes together.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Consumer, Producer } from '../src/index.js'
import { Broker } from './broker.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc')

const EACH = 100_000
const ROUNDS = 5

test('a million events leave nothing behind', async (t) => {
  const broker = await Broker.start(t)
  const producer = new Producer({ url: broker.url, group: 'g' })
  for (let n = 0; n < EACH; n++) {
    void producer.send({ n, filler: 'x'.repeat(80) })
    if (n % 1000 === 0) await producer.ready()
    if (n % 1000 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  await producer.close()
  for (const mode of /** @type {const} */ (['next', 'stream'])) {
    const consumer = new Consumer({ url: broker.url, group: 'g', name: mode, mode, max: 2000 })
    t.after(() => consumer.close({ timeout: 0 }))
    /** @type {number[]} */
    const heaps = []
    let seen = 0
    for await (const batch of consumer.batches()) {
      seen += batch.events.length
      await batch.ack()
      if (batch.events[batch.events.length - 1].offset < EACH - 1) continue
      // What the first leaves to be freed is free behind the second.
      for (let times = 0; times < 2; times++) {
        collect()
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      const { heapUsed, external } = process.memoryUsage()
      heaps.push(heapUsed + external)
      if (heaps.length === ROUNDS) break
      await consumer.rewind({ to: 0 })
    }
    assert.equal(seen, EACH * ROUNDS)
    const grown = heaps[ROUNDS - 1] - heaps[1]
    // What a round reads is 25 MB: a tenth of it would show.
    assert.ok(grown < 8 << 20, `${mode}: ${heaps.map((bytes) => (bytes / 1048576).toFixed(1))} MiB`)
    await consumer.close()
  }
})
