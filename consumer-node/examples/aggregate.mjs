// Counts events by key, each exactly once: the counts and the offset they stand for are one file, which appears in one
// step under the name of that offset. What comes again is below it and left out; and a node that was replaced while it
// slept can only write again what is there already, for the file of the highest offset counts.
//
//   COUNTS=./counts npx consumer-node --group orders --name counts aggregate.mjs

import { mkdir, open, readFile, readdir, rename, unlink } from 'node:fs/promises'
import path from 'node:path'

const directory = process.env.COUNTS ?? './counts'

/** @typedef {{ next: number, counts: Record<string, number> }} State */

/** @returns {Promise<{ state: State, files: string[] }>} */
export async function load() {
  await mkdir(directory, { recursive: true })
  for (;;) {
    const files = (await readdir(directory)).filter((name) => name.endsWith('.json')).sort()
    const last = files.at(-1)
    if (last === undefined) return { state: { next: 0, counts: {} }, files }
    try {
      return { state: JSON.parse(await readFile(path.join(directory, last), 'utf8')), files }
    } catch (error) {
      // Another node went on meanwhile, and removed it.
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT') throw error
    }
  }
}

/** @param {import('@eddyline/consumer').ConsumedEvent} event */
export default async function aggregate(event) {
  const { state, files } = await load()
  if (event.offset < state.next) return
  const key = event.key ?? ''
  state.counts[key] = (state.counts[key] ?? 0) + 1
  state.next = event.offset + 1
  const fresh = path.join(directory, `${process.pid}.tmp`)
  const file = await open(fresh, 'w')
  await file.writeFile(JSON.stringify(state))
  await file.sync()
  await file.close()
  await rename(fresh, path.join(directory, `${String(state.next).padStart(16, '0')}.json`))
  const entries = await open(directory)
  await entries.sync()
  await entries.close()
  for (const old of files) await unlink(path.join(directory, old)).catch(() => {})
}
