// Publishes events of 100 B to a JetStream stream and awaits each answer: `node nats.mjs PORT CONNECTIONS SECONDS` prints
// the rate and how many there were. It speaks the protocol itself (docs.nats.io/reference/reference-protocols/nats-protocol), so that Node has little to do.
import net from 'node:net'

const [port, connections, seconds] = process.argv.slice(2).map(Number)
const inbox = `_INBOX.${process.pid}`
const stream = JSON.stringify({ name: 'load', subjects: ['load'], storage: 'file' })
const event = 'x'.repeat(100)
let answered = 0

/** Connects and calls back with each whole message that comes. */
const connect = (heard) =>
  new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
    let rest = ''
    socket.setEncoding('latin1')
    socket.on('data', (text) => {
      rest += text
      for (;;) {
        const end = rest.indexOf('\r\n')
        if (end < 0) return
        const line = rest.slice(0, end)
        if (line.startsWith('MSG ')) {
          const behind = end + 2 + Number(line.slice(line.lastIndexOf(' '))) + 2
          if (rest.length < behind) return
          heard(socket, rest.slice(end + 2, behind - 2))
          rest = rest.slice(behind)
        } else {
          rest = rest.slice(end + 2)
          if (line.startsWith('PING')) socket.write('PONG\r\n')
          if (line.startsWith('INFO')) resolve(socket)
          if (line.startsWith('-ERR')) throw new Error(line)
        }
      }
    })
  })

await new Promise((resolve) =>
  connect((socket, answer) => {
    if (JSON.parse(answer).error && !answer.includes('already in use')) throw new Error(answer)
    socket.end()
    resolve()
  }).then((socket) => {
    const ask = `$JS.API.STREAM.CREATE.load ${inbox}.made ${Buffer.byteLength(stream)}`
    socket.write(`CONNECT {"verbose":false}\r\nSUB ${inbox}.made 1\r\nPUB ${ask}\r\n${stream}\r\n`)
  }),
)
for (let number = 0; number < connections; number++) {
  const publish = `PUB load ${inbox}.${number} ${event.length}\r\n${event}\r\n`
  connect((socket, answer) => {
    if (!answer.startsWith('{"stream"')) throw new Error(answer)
    answered += 1
    socket.write(publish)
  }).then((socket) => socket.write(`CONNECT {"verbose":false}\r\nSUB ${inbox}.${number} 1\r\n${publish}`))
}
setTimeout(() => {
  console.log(Math.round(answered / seconds), answered)
  process.exit(0)
}, seconds * 1000)
