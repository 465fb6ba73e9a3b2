//! Events between their planned send and a consumer's hands: producers note when each request was planned, consumers look
//! it up by what an event says of itself. Bounded: of each connection the latest requests are known, some thousands;
//! what is delivered later than that is delivered untimed, and counted as such.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::payload::sender;
use crate::plan::{Plan, RequestKey};

/// Requests known, all connections together; a power of two. Eight bytes each.
const REQUESTS: usize = 1 << 20;
/// Of one connection at least, and at most.
const OF_ONE: (usize, usize) = (16, 1 << 16);

/// Planned moments of the latest requests.
#[derive(Debug)]
pub struct Flight {
    start: Instant,
    /// Nanoseconds since `start` before which nothing is timed.
    from: AtomicU64,
    batch: u64,
    /// Requests known of a connection; a power of two.
    length: usize,
    /// Nanoseconds since `start` times 2^16, plus which round of the ring the request belongs to; 0 for nothing.
    rings: Vec<AtomicU64>,
}

impl Flight {
    /// Nothing under way yet.
    pub fn new(plan: &Plan) -> Flight {
        let connections = plan.connections as usize;
        let length = (REQUESTS / connections).clamp(OF_ONE.0, OF_ONE.1);
        let length = 1 << length.ilog2();
        let rings = (0..connections * length).map(|_| AtomicU64::new(0)).collect();
        Flight { start: Instant::now(), from: AtomicU64::new(0), batch: plan.batch.into(), length, rings }
    }

    /// What was planned before `from` is the warm-up's.
    pub fn begin(&self, from: Instant) {
        self.from.store(self.nanos(from), Ordering::Relaxed);
    }

    /// Notes when a request was planned.
    pub fn sent(&self, key: RequestKey, planned: Instant) {
        let nanos = self.nanos(planned);
        let timed = nanos >= self.from.load(Ordering::Relaxed);
        let value = if timed { nanos.max(1) << 16 | self.round(key.request) } else { 0 };
        self.slot(key).store(value, Ordering::Relaxed);
    }

    /// When the request of an event was planned, by the event's bytes; `None` if that is not known (any more).
    pub fn planned(&self, event: &[u8]) -> Option<Instant> {
        let (connection, sequence) = sender(event)?;
        let key = RequestKey { connection, request: u32::try_from(sequence / self.batch).ok()? };
        if connection as usize >= self.rings.len() / self.length {
            return None;
        }
        let value = self.slot(key).load(Ordering::Relaxed);
        let known = value != 0 && value & 0xffff == self.round(key.request);
        known.then(|| self.start + Duration::from_nanos(value >> 16))
    }

    fn slot(&self, key: RequestKey) -> &AtomicU64 {
        &self.rings[key.connection as usize * self.length + key.request as usize % self.length]
    }

    fn round(&self, request: u32) -> u64 {
        (request as usize / self.length) as u64 & 0xffff
    }

    fn nanos(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.start).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    fn event(connection: u32, sequence: u64) -> Vec<u8> {
        format!("{{\"w\":{connection},\"n\":{sequence},\"pad\":\"x\"}}").into_bytes()
    }

    #[test]
    fn a_request_is_known_until_the_ring_comes_round() {
        let flight = Flight::new(&Plan { connections: 100_000, batch: 3, ..plan() });
        assert_eq!(flight.length, 16);
        let at = |ms| flight.start + Duration::from_millis(ms);
        for request in 0..20 {
            flight.sent(RequestKey { connection: 7, request }, at(u64::from(request)));
        }
        for (sequence, planned) in [(3 * 19 + 2, Some(19)), (3 * 4, Some(4)), (3 * 3 + 2, None), (3 * 20, None)] {
            assert_eq!(flight.planned(&event(7, sequence)), planned.map(at), "{sequence}");
        }
        assert_eq!(flight.planned(&event(8, 0)), None, "nothing was sent there");
        for other in [&b"{}"[..], b"", b"{\"w\":100000,\"n\":0,\"pad\":\"\"}", b"{\"w\":7}"] {
            assert_eq!(flight.planned(other), None);
        }
    }

    #[test]
    fn the_warm_up_is_not_timed() {
        let flight = Flight::new(&plan());
        let at = |ms| flight.start + Duration::from_millis(ms);
        flight.begin(at(10));
        for (request, ms) in [(0, 9), (1, 10)] {
            flight.sent(RequestKey { connection: 0, request }, at(ms));
        }
        assert_eq!((flight.planned(&event(0, 0)), flight.planned(&event(0, 1))), (None, Some(at(10))));
    }
}
