// What this package gives.

export { Admin } from './admin.js'
export { Consumer } from './consumer.js'
export { EddylineError } from './errors.js'
export { Batch, ConsumedEvent } from './events.js'
export { Producer } from './producer.js'
export { Supervisor } from './supervisor.js'
