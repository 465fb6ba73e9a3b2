// The nodes as a table for people.

/** @typedef {import('./supervisor.js').NodeStatus} NodeStatus */

/**
 * @param {NodeStatus[]} nodes
 * @returns {string}
 */
export function table(nodes) {
  const heading = ['NODE', 'GROUP', 'PID', 'STATE', 'ACKED', 'EVENTS', 'LAG', 'RESTARTS', 'ERROR']
  const rows = nodes.map(({ node, group, pid, state, acked, events, lag, restarts, error }) => [
    node, group, pid ?? '-', state, acked < 0 ? '-' : acked, events, lag ?? '-', restarts, (error ?? '').slice(0, 60),
  ].map(String))
  const widths = heading.map((name, at) => Math.max(name.length, ...rows.map((row) => row[at].length)))
  return [heading, ...rows].map((row) => row.map((cell, at) => cell.padEnd(widths[at])).join('  ').trimEnd()).join('\n')
}
