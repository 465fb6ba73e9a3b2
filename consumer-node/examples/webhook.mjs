// Posts every event to a URL, with its offset as an idempotency key; what is not taken is tried again by the node.
//
//   WEBHOOK=https://example.org/hook npx consumer-node --group orders --name hook --retries 5 --order-by key webhook.mjs

const url = process.env.WEBHOOK ?? 'http://127.0.0.1:8080/'

/**
 * @param {import('@eddyline/consumer').ConsumedEvent} event
 * @param {{ signal: AbortSignal }} context
 */
export default async function forward(event, { signal }) {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': event.id },
    body: JSON.stringify(event.data),
    signal,
  })
  await answer.arrayBuffer()
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`)
}
