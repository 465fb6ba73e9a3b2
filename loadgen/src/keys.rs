//! Keys of events: which of how many, evenly or as popularity is spread. A pure function of seed and event, like all that
//! is sent.
//!
//! The skewed choice is Zipf's law with exponent 0.99, the one that the YCSB benchmark made usual, by the closed form of
//! Gray et al., "Quickly generating billion-record synthetic databases" (1994).

use crate::payload::{EventKey, mixed};

/// Most keys: preparing Zipf's law takes a sum over all of them.
pub const KEYS_MAX: u64 = 10_000_000;

/// Zipf's exponent.
const THETA: f64 = 0.99;

/// Keeps the choice of keys apart from the choice of pads.
const SALT: u64 = 0x6b65_7973;

/// How often each key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spread {
    /// All alike.
    Uniform,
    /// The n-th most popular n times as seldom as the first, nearly.
    Zipf,
}

/// The keys of a run.
#[derive(Clone, Debug)]
pub struct Keys {
    seed: u64,
    count: u64,
    zipf: Option<Zipf>,
}

/// What the closed form needs.
#[derive(Clone, Copy, Debug)]
struct Zipf {
    zeta: f64,
    eta: f64,
}

impl Keys {
    /// So many keys, from 1 to [`KEYS_MAX`].
    pub fn new(seed: u64, count: u64, spread: Spread) -> Keys {
        let zipf = (spread == Spread::Zipf && count > 2).then(|| {
            let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
            let first_two = 1.0 + 0.5_f64.powf(THETA);
            let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - first_two / zeta);
            Zipf { zeta, eta }
        });
        Keys { seed: seed ^ SALT, count, zipf }
    }

    /// Which key an event has, the most popular being 0.
    pub fn rank(&self, event: EventKey) -> u64 {
        let bits = mixed(self.seed, event.connection, event.sequence);
        let Some(Zipf { zeta, eta }) = self.zipf else { return bits % self.count };
        // 53 bits make every float below 1 that is equally likely.
        let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let place = share * zeta;
        if place < 1.0 {
            0
        } else if place < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            let rank = self.count as f64 * (eta * share - eta + 1.0).powf(1.0 / (1.0 - THETA));
            (rank as u64).min(self.count - 1)
        }
    }

    /// Appends an event's key.
    pub fn append(&self, event: EventKey, out: &mut Vec<u8>) {
        out.push(b'k');
        out.extend_from_slice(itoa::Buffer::new().format(self.rank(event)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of `count` keys is taken by 100 000 events.
    fn taken(count: u64, spread: Spread) -> Vec<u64> {
        let keys = Keys::new(7, count, spread);
        let mut taken = vec![0; count as usize];
        for sequence in 0..100_000 {
            taken[keys.rank(EventKey { connection: 3, sequence, index: 0 }) as usize] += 1;
        }
        taken
    }

    #[test]
    fn uniform_keys_are_all_taken_alike() {
        let taken = taken(100, Spread::Uniform);
        assert!(taken.iter().all(|times| (800..1200).contains(times)), "{taken:?}");
    }

    #[test]
    fn the_nth_zipf_key_is_taken_about_an_nth_as_often_as_the_first() {
        let taken = taken(1000, Spread::Zipf);
        let first = taken[0] as f64;
        for rank in [2, 4, 10, 30] {
            let expected = first * f64::from(rank).powf(-THETA);
            let found: u64 = taken[rank as usize - 1..rank as usize + 1].iter().sum();
            let found = found as f64 / 2.0;
            assert!((found / expected - 1.0).abs() < 0.25, "rank {rank}: {found} for {expected}");
        }
        // The sum of 1/n^0.99 up to 1000 is 7.73, so the first key has 13 % of all.
        assert!((0.12..0.14).contains(&(first / 100_000.0)), "{first}");
    }

    #[test]
    fn a_few_keys_and_the_last_one_are_no_exception() {
        for count in [1, 2, 3] {
            for spread in [Spread::Uniform, Spread::Zipf] {
                assert!(taken(count, spread).iter().all(|times| *times > 0), "{count} {spread:?}");
            }
        }
        let mut key = Vec::new();
        Keys::new(1, 1, Spread::Uniform).append(EventKey { connection: 0, sequence: 0, index: 0 }, &mut key);
        assert_eq!(key, b"k0");
    }
}
