// One side of the bench, in a process of its own: prints events a second.

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
  async bare() {
    const agent = new http.Agent({ keepAlive: true })
    /** @type {(path: string) => Promise<Buffer>} */
    const get = (path) =>
      new Promise((resolve, reject) => {
        http.get(`${url}/v1/groups/${group}/consumers/bare/next?max=${max}&max_bytes=8MiB&wait=20s${path}`, { agent }, (answer) => {
          let bytes = 0
          let last = Buffer.alloc(0)
          answer.on('data', (chunk) => ((bytes += chunk.length), (last = chunk)))
          answer.on('end', () => resolve(last))
        }).on('error', reject)
      })
    for (let next = 0; next < total; ) {
      const end = await get(next === 0 ? '' : `&after=${next - 1}&ack=${next - 1}`)
      next = Number(/"next":(\d+)/.exec(end.toString('latin1', Math.max(0, end.length - 300)))?.[1])
    }
    agent.destroy()
  },
  next: () => consume('next'),
  stream: () => consume('stream'),
}

/** @param {'next' | 'stream'} mode */
async function consume(mode) {
  const consumer = new Consumer({ url, group, name: mode, mode, max })
  let bytes = 0
  for await (const batch of consumer.batches()) {
    for (const event of batch.events) bytes += event.length
    const acked = batch.ack()
    if (batch.events[batch.events.length - 1].offset === total - 1) {
      await acked
      break
    }
  }
  if (bytes < total * 90) throw new Error(`only ${bytes} bytes came`)
  await consumer.close()
}

/** @param {Error} error @returns {never} */
function stop(error) {
  process.stderr.write(`${error.stack}\n`)
  process.exit(1)
}

const began = process.hrtime.bigint()
await sides[name]().catch(stop)
process.stdout.write(String(total / (Number(process.hrtime.bigint() - began) / 1e9)))
