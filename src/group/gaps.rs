//! Gaps: ranges of offsets that were given once, whose events are lost, and that a repair gave up for good. Nothing
//! stands there, and no offset of them is given again. A gap always lies between two segments, or behind the last one.

use crate::log::wire::{Fields, Malformed};

/// Lost offsets: the first of them, and the one behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// First lost offset.
    pub from: u64,
    /// Offset behind the last lost one.
    pub to: u64,
}

impl std::fmt::Display for Gap {
    /// `from-to`, as in a header.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.from, self.to)
    }
}

/// The gaps of one group, in order, none of them touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// Adds a gap; it is joined with those that it touches.
    pub fn add(&mut self, gap: Gap) {
        debug_assert!(gap.from < gap.to, "a gap holds an offset");
        let start = self.0.partition_point(|known| known.to < gap.from);
        let end = self.0.partition_point(|known| known.from <= gap.to);
        let joined = self.0[start..end]
            .iter()
            .fold(gap, |joined, known| Gap { from: joined.from.min(known.from), to: joined.to.max(known.to) });
        self.0.splice(start..end, [joined]);
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Gap> + use<'_> {
        self.0.iter().copied()
    }

    /// The gap that `offset` lies in.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<Gap> {
        let place = self.0.partition_point(|gap| gap.to <= offset);
        self.0.get(place).copied().filter(|gap| gap.from <= offset)
    }

    /// The first gap that begins behind `offset`.
    #[must_use]
    pub fn behind(&self, offset: u64) -> Option<Gap> {
        self.0.get(self.0.partition_point(|gap| gap.from <= offset)).copied()
    }

    /// How many offsets of `from..to` are lost.
    #[must_use]
    pub fn lost(&self, from: u64, to: u64) -> u64 {
        self.iter().map(|gap| gap.to.min(to).saturating_sub(gap.from.max(from))).sum()
    }

    /// The offset `count` events before `tail`; 0 when there never were so many.
    #[must_use]
    pub fn back(&self, tail: u64, mut count: u64) -> u64 {
        let mut place = tail;
        for gap in self.iter().rev().filter(|gap| gap.to <= tail) {
            let between = place - gap.to;
            if count <= between {
                break;
            }
            count -= between;
            place = gap.from;
        }
        place.saturating_sub(count)
    }

    /// Appends the stored form of the gaps that do not lie wholly below `earliest`.
    pub fn encode(&self, earliest: u64, out: &mut Vec<u8>) {
        let kept = &self.0[self.0.partition_point(|gap| gap.to <= earliest)..];
        out.extend_from_slice(&(kept.len() as u32).to_le_bytes());
        for gap in kept {
            out.extend_from_slice(&gap.from.to_le_bytes());
            out.extend_from_slice(&gap.to.to_le_bytes());
        }
    }

    /// Takes the stored form.
    ///
    /// # Errors
    /// When the bytes are cut, or the gaps are not in order.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let count = fields.u32()?;
        let gaps = (0..count).map(|_| Ok(Gap { from: fields.u64()?, to: fields.u64()? }));
        let gaps = gaps.collect::<Result<Vec<_>, Malformed>>()?;
        let ordered = gaps.iter().all(|gap| gap.from < gap.to) && gaps.is_sorted_by(|one, next| one.to < next.from);
        if ordered { Ok(Self(gaps)) } else { Err(Malformed("a group's gaps are out of order")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(ranges: &[(u64, u64)]) -> Gaps {
        let mut gaps = Gaps::default();
        ranges.iter().for_each(|&(from, to)| gaps.add(Gap { from, to }));
        gaps
    }

    fn ranges(gaps: &Gaps) -> Vec<(u64, u64)> {
        gaps.iter().map(|gap| (gap.from, gap.to)).collect()
    }

    #[test]
    fn gaps_that_touch_are_one_and_the_others_stay_in_order() {
        for (added, expected) in [
            (&[(10, 20), (30, 40)][..], &[(10, 20), (30, 40)][..]),
            (&[(30, 40), (10, 20)], &[(10, 20), (30, 40)]),
            (&[(10, 20), (20, 25)], &[(10, 25)]),
            (&[(20, 25), (10, 20)], &[(10, 25)]),
            (&[(10, 20), (30, 40), (15, 35)], &[(10, 40)]),
            (&[(10, 20), (30, 40), (50, 60), (20, 50)], &[(10, 60)]),
            (&[(10, 20), (12, 15)], &[(10, 20)]),
        ] {
            assert_eq!(ranges(&gaps(added)), expected, "{added:?}");
        }
    }

    #[test]
    fn an_offset_is_in_a_gap_or_not_and_events_are_counted_around_them() {
        let gaps = gaps(&[(10, 20), (30, 40), (60, 70)]);
        for (offset, from) in
            [(9, None), (10, Some(10)), (19, Some(10)), (20, None), (39, Some(30)), (60, Some(60)), (70, None)]
        {
            assert_eq!(gaps.at(offset).map(|gap| gap.from), from, "{offset}");
        }
        for (from, to, lost) in [(0, 100, 30), (0, 10, 0), (15, 35, 10), (39, 61, 2), (20, 30, 0)] {
            assert_eq!(gaps.lost(from, to), lost, "{from}..{to}");
        }
        for (tail, count, offset) in [
            (75, 0, 75),
            (75, 5, 70),
            (75, 6, 59),
            (75, 25, 40),
            (75, 26, 29),
            (75, 36, 9),
            (75, 45, 0),
            (75, 99, 0),
            (70, 0, 70),
            (70, 1, 59),
            (25, 6, 9),
        ] {
            assert_eq!(gaps.back(tail, count), offset, "{count} before {tail}");
        }
    }

    #[test]
    fn the_stored_form_comes_back_without_what_is_below_the_first_event() {
        let all = gaps(&[(10, 20), (30, 40)]);
        for (earliest, kept) in [(0, 2), (19, 2), (20, 1), (40, 0)] {
            let mut bytes = Vec::new();
            all.encode(earliest, &mut bytes);
            let mut fields = Fields::new(&bytes);
            let back = Gaps::decode(&mut fields).unwrap();
            assert!(fields.rest().is_empty());
            assert_eq!(ranges(&back), ranges(&all)[2 - kept..], "{earliest}");
            (0..bytes.len()).for_each(|cut| assert!(Gaps::decode(&mut Fields::new(&bytes[..cut])).is_err(), "{cut}"));
        }
        for wrong in [[(20_u64, 10_u64), (30, 40)], [(30, 40), (10, 20)], [(10, 20), (20, 30)]] {
            let mut bytes = 2_u32.to_le_bytes().to_vec();
            wrong.iter().for_each(|(from, to)| bytes.extend([from.to_le_bytes(), to.to_le_bytes()].concat()));
            assert!(Gaps::decode(&mut Fields::new(&bytes)).is_err(), "{wrong:?}");
        }
    }
}
