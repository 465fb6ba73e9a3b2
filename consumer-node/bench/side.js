// One side of the bench, in a process of its own: prints events a second, of time and of the processor's time.

import http from 'node:http'
import { Consumer, Producer } from '../src/index.js'

const [name, url, group, count] = process.argv.slice(2)
const total = Number(count)
const max = 5000

/** @type {Record<string, () => Promise<void>>} */
const sides = {
  async produce() {
    const producer = new Producer({ url, group, maxEvents: 2000 })
    const filler = 'x'.repeat(78)
    for (let n = 0; n < total; n++) {
      // About 100 bytes of JSON.
      producer.send({ n: n + 1_000_000, filler }).catch(stop)
      if (n % 1000 === 999) {
        await new Promise((resolve) => setImmediate(resolve))
        await producer.ready()
      }
    }
    await producer.flush()
    await producer.close()
  },
  bare: () => loop('bare', (chunks) => chunks[chunks.length - 1]),
  parsed: () =>
    loop('parsed', (chunks) => {
      const body = Buffer.concat(chunks)
      const { events } = JSON.parse(body.toString())
      for (const event of events) sum += event.offset + event.data.n
      return body
    }),
  next: () => consume('next', 'next', (event) => void (bytes += event.length)),
  stream: () => consume('stream', 'stream', (event) => void (bytes += event.length)),
  'next-data': () => consume('next-data', 'next', (event) => void (sum += event.data.n)),
  'stream-data': () => consume('stream-data', 'stream', (event) => void (sum += event.data.n)),
}
let bytes = 0
let sum = 0

/**
 * What one writes without a client: asks for batch after batch by `node:http`, and acks the last with the next request.
 * @param {string} consumer
 * @param {(chunks: Buffer[]) => Buffer} take looks at an answer, and gives bytes with its end
 */
async function loop(consumer, take) {
  const agent = new http.Agent({ keepAlive: true })
  const route = `${url}/v1/groups/${group}/consumers/${consumer}/next?max=${max}&max_bytes=8MiB&wait=20s`
  /** @type {(more: string) => Promise<Buffer[]>} */
  const get = (more) =>
    new Promise((resolve, reject) => {
      http.get(route + more, { agent }, (answer) => {
        /** @type {Buffer[]} */
        const chunks = []
        answer.on('data', (chunk) => {
          bytes += chunk.length
          // Who only counts keeps the end.
          if (consumer === 'bare') chunks.length = 0
          chunks.push(chunk)
        })
        answer.on('end', () => resolve(chunks))
      }).on('error', reject)
    })
  for (let next = 0; next < total; ) {
    const end = take(await get(next === 0 ? '' : `&after=${next - 1}&ack=${next - 1}`))
    next = Number(/"next":(\d+)/.exec(end.toString('latin1', Math.max(0, end.length - 300)))?.[1])
  }
  agent.destroy()
}

/**
 * A handler that looks at every event, in order, and acks every batch.
 * @param {string} name
 * @param {'next' | 'stream'} mode
 * @param {(event: import('../src/index.js').ConsumedEvent) => void} look
 */
async function consume(name, mode, look) {
  const consumer = new Consumer({ url, group, name, mode, max })
  let next = 0
  for await (const batch of consumer.batches()) {
    for (const event of batch.events) {
      if (event.offset !== next++) throw new Error(`${event.offset} came instead of ${next - 1}`)
      look(event)
    }
    const acked = batch.ack()
    if (next === total) {
      await acked
      break
    }
  }
  await consumer.close()
}

/** @param {Error} error @returns {never} */
function stop(error) {
  process.stderr.write(`${error.stack}\n`)
  process.exit(1)
}

const before = process.cpuUsage()
const began = process.hrtime.bigint()
await sides[name]().catch(stop)
const seconds = Number(process.hrtime.bigint() - began) / 1e9
const { user, system } = process.cpuUsage(before)
process.stdout.write(JSON.stringify({ rate: total / seconds, cpu: total / ((user + system) / 1e6) }))
