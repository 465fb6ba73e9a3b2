// Shows events as they come, with their age: history first, then what is live. Ctrl-C ends it.
//
//   node tail.mjs orders

import { Consumer } from '@eddyline/consumer'

const stop = new AbortController()
process.once('SIGINT', () => stop.abort())
process.once('SIGTERM', () => stop.abort())
const consumer = new Consumer({ group: process.argv[2] ?? 'demo', name: 'tail', mode: 'stream', signal: stop.signal })
consumer.on('reconnecting', ({ error, delayMs }) => console.error(`${error.message}; again in ${delayMs} ms`))
for await (const event of consumer) {
  console.log(`${event.offset}\t${event.received}\t${event.key ?? '-'}\t${JSON.stringify(event.data)}`)
  void event.ack()
}
await consumer.close()
