// What this package gives.

export { Admin } from './admin.js'
export { Consumer } from './consumer.js'
export { EddylineError } from './errors.js'
export { Batch, ConsumedEvent } from './events.js'
export { Producer } from './producer.js'
export { Supervisor } from './supervisor.js'

/** @typedef {import('./consumer.js').ConsumerOptions} ConsumerOptions */
/** @typedef {import('./consumer.js').ConsumerEvents} ConsumerEvents */
/** @typedef {import('./consumer.js').Position} Position */
/** @typedef {import('./run.js').Handler} Handler */
/** @typedef {import('./run.js').RunOptions} RunOptions */
/** @typedef {import('./events.js').AckResult} AckResult */
/** @typedef {import('./events.js').NackOptions} NackOptions */
/** @typedef {import('./events.js').NackAnswer} NackAnswer */
/** @typedef {import('./events.js').WireEvent} WireEvent */
/** @typedef {import('./producer.js').ProducerOptions} ProducerOptions */
/** @typedef {import('./producer.js').ProducerEvents} ProducerEvents */
/** @typedef {import('./producer.js').Receipt} Receipt */
/** @typedef {import('./supervisor.js').SupervisorOptions} SupervisorOptions */
/** @typedef {import('./supervisor.js').SupervisorEvents} SupervisorEvents */
/** @typedef {import('./supervisor.js').NodeStatus} NodeStatus */
/** @typedef {import('./admin.js').ConsumerStatus} ConsumerStatus */
/** @typedef {import('./admin.js').Grant} Grant */
/** @typedef {import('./admin.js').GroupEntry} GroupEntry */
/** @typedef {import('./http.js').Token} Token */
