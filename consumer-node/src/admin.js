// What whoever manages the broker needs: groups, approvals, status.

import { Http, pathOf, query } from './http.js'

/** @typedef {import('./consumer.js').Position} Position */

/**
 * A consumer as the broker shows it (docs/CONSUMERS.md, Status).
 * @typedef {object} ConsumerStatus
 * @property {string} group
 * @property {string} consumer
 * @property {'pending' | 'suspended' | 'revoked' | 'live' | 'catching_up' | 'idle' | 'disconnected' | 'blocked' | 'stuck' | 'gap'} state
 * @property {string | null} reason
 * @property {'pending' | 'approved' | 'suspended' | 'revoked'} life
 * @property {{ acked_offset: number | null, next: number, delivered_offset: number | null, earliest: number, tail: number,
 *   acked_id: string | null, acked_received: string | null, acked_at: string | null }} cursor
 * @property {{ events: number, bytes: number, seconds: number }} lag
 * @property {{ epoch: number, anonymous: boolean, opened: string, streaming: boolean, lease_left_ms: number } | null} session
 * @property {number} standbys
 * @property {number} attempt
 * @property {number} redelivered
 * @property {number} dead_lettered
 * @property {{ from: number, to: number } | null} gap
 * @property {number} rate_1m
 * @property {{ lease_ms: number, max_in_flight: { events: number, bytes: number }, max_attempts: number,
 *   on_poison: 'stall' | 'dead_letter' }} limits
 * @property {string} [token] shown once, by the approval that made it
 */

/**
 * What an approval grants.
 * @typedef {{ start?: Position, lease?: string, max_in_flight?: { events?: number, bytes?: string }, max_attempts?: number,
 *   on_poison?: 'stall' | 'dead_letter', expires?: string }} Grant
 */

/** @typedef {{ group: string, number: number, shard: number, created: string }} GroupEntry */

export class Admin {
  /** @param {import('./http.js').HttpOptions} [options] */
  constructor(options = {}) {
    this.http = new Http(options)
  }

  /**
   * @param {string} group
   * @param {Record<string, unknown>} [config]
   * @returns {Promise<Record<string, any>>}
   */
  createGroup(group, config) {
    return this.http.json('PUT', pathOf(group), { json: config })
  }

  /**
   * @param {string} group
   * @returns {Promise<Record<string, any>>}
   */
  group(group) {
    return this.http.json('GET', pathOf(group))
  }

  /**
   * @param {string} group
   * @param {Record<string, unknown>} config what is to be changed
   * @returns {Promise<Record<string, any>>}
   */
  configureGroup(group, config) {
    return this.http.json('PATCH', pathOf(group), { json: config })
  }

  /**
   * @param {string} group
   * @returns {Promise<void>}
   */
  deleteGroup(group) {
    return this.http.json('DELETE', pathOf(group))
  }

  /**
   * All groups that the caller may see, page by page.
   * @param {{ prefix?: string }} [which]
   * @returns {AsyncGenerator<GroupEntry>}
   */
  groups({ prefix } = {}) {
    return this.pages('/groups', 'groups', { prefix })
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @param {Position} [start]
   * @returns {Promise<ConsumerStatus>}
   */
  subscribe(group, consumer, start) {
    return this.http.json('PUT', pathOf(group, consumer), { json: { start } })
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @param {Grant} [grant]
   * @returns {Promise<ConsumerStatus>} with the consumer's token, where one was made
   */
  approve(group, consumer, grant = {}) {
    return this.http.json('POST', `${pathOf(group, consumer)}/approve`, { json: grant })
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @returns {Promise<ConsumerStatus>}
   */
  suspend(group, consumer) {
    return this.http.json('POST', `${pathOf(group, consumer)}/suspend`)
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @returns {Promise<ConsumerStatus>}
   */
  resume(group, consumer) {
    return this.http.json('POST', `${pathOf(group, consumer)}/resume`)
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @returns {Promise<ConsumerStatus>}
   */
  revoke(group, consumer) {
    return this.http.json('POST', `${pathOf(group, consumer)}/revoke`)
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @returns {Promise<void>}
   */
  unsubscribe(group, consumer) {
    return this.http.json('DELETE', pathOf(group, consumer))
  }

  /**
   * @param {string} group
   * @param {string} consumer
   * @returns {Promise<ConsumerStatus>}
   */
  consumer(group, consumer) {
    return this.http.json('GET', pathOf(group, consumer))
  }

  /**
   * Consumers of one group, or of all, page by page.
   * @param {{ group?: string, prefix?: string }} [which]
   * @returns {AsyncGenerator<ConsumerStatus>}
   */
  consumers({ group, prefix } = {}) {
    return this.pages(group === undefined ? '/consumers' : `${pathOf(group)}/consumers`, 'consumers', { prefix })
  }

  /**
   * Has a consumer's dead letters delivered to it again.
   * @param {string} group
   * @param {string} consumer
   * @param {{ from?: Position, limit?: number }} [which]
   * @returns {Promise<{ events: number, gone: number, next: number }>}
   */
  replay(group, consumer, which = {}) {
    return this.http.json('POST', `${pathOf(group, consumer)}/replay`, { json: which })
  }

  /** @returns {Promise<Record<string, any>>} */
  status() {
    return this.http.json('GET', '/status')
  }

  /**
   * @param {string} path
   * @param {string} member
   * @param {Record<string, string | undefined>} parameters
   * @returns {AsyncGenerator<any>}
   */
  async *pages(path, member, parameters) {
    let after
    do {
      const page = await this.http.json('GET', `${path}${query({ ...parameters, after, limit: 1000 })}`)
      yield* page[member]
      after = page.next
    } while (after !== undefined)
  }

  close() {
    this.http.close()
  }
}
