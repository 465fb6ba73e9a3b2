//! Event ids: UUIDv7 (RFC 9562) that sort like offsets within a group.
//!
//! ```text
//! 48 bits ms of `received` │ 7 │ counter, high 12 │ 10 │ counter, low 14 │ group number, low 24 │ random 24
//! ```
//!
//! The counter starts at 0 in each millisecond; when its 26 bits overflow, the millisecond advances.

const COUNTER_MAX: u32 = (1 << 26) - 1;

/// Makes the ids of one group.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ids {
    last: u128,
}

impl Ids {
    /// Continues behind `last` (0: from the beginning).
    #[must_use]
    pub fn behind(last: u128) -> Self {
        Self { last }
    }

    /// The id made last.
    #[must_use]
    pub fn last(&self) -> u128 {
        self.last
    }

    /// Millisecond and counter of the next id.
    fn following(&self, received_us: u64) -> (u64, u32) {
        let last_ms = (self.last >> 80) as u64;
        let counter = (((self.last >> 64) as u32 & 0xfff) << 14) | ((self.last >> 48) as u32 & 0x3fff);
        let ms = received_us / 1000;
        match (self.last, ms.cmp(&last_ms), counter) {
            (0, ..) | (_, std::cmp::Ordering::Greater, _) => (ms, 0),
            (.., COUNTER_MAX) => (last_ms + 1, 0),
            _ => (last_ms, counter + 1),
        }
    }

    /// The next id, for an event received at `received_us`.
    pub fn next(&mut self, received_us: u64, group: u32) -> u128 {
        let (ms, counter) = self.following(received_us);
        let random = fastrand::u32(..1 << 24);
        self.last = (u128::from(ms) << 80)
            | (7 << 76)
            | (u128::from(counter >> 14) << 64)
            | (0b10 << 62)
            | (u128::from(counter & 0x3fff) << 48)
            | (u128::from(group & 0xff_ffff) << 24)
            | u128::from(random);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn ids_are_version_7_and_sort_like_the_order_they_were_made_in() {
        let mut ids = Ids::default();
        let mut last = 0;
        for received_us in [1_000_000, 1_000_000, 1_000_999, 1_001_000, 900_000, 5_000_000] {
            let id = ids.next(received_us, 7);
            assert!(id > last);
            last = id;
            let uuid = Uuid::from_u128(id);
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, uuid::Variant::RFC4122));
        }
        assert_eq!(last >> 80, 5000, "the time is received's");
    }

    #[test]
    fn an_overflow_advances_the_millisecond_and_a_restart_continues() {
        let mut ids = Ids::default();
        ids.next(1_000_000, 7);
        let full = ids.last | (0xfff << 64) | (0x3fff << 48);
        let mut ids = Ids::behind(full);
        let id = ids.next(1_000_000, 7);
        assert!(id > full);
        assert_eq!(id >> 80, 1001);
        let mut again = Ids::behind(id);
        assert!(again.next(1_000_000, 7) > id, "also when the clock is behind");
    }
}
