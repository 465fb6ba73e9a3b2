//! Who may send when. In the closed loop: whoever has room, at once. In the open loop: each planned moment goes to one
//! request, the oldest first, never skipped however late; and whose fault a late one is, is told apart.
//!
//! A moment that falls due while no connection is free waits for the broker; one that falls due while a connection is
//! free waits for nobody but the generator. So the generator's own delay counts from the later of the planned moment
//! and the moment since which some connection has been free.

use std::iter::{Peekable, Take};
use std::time::{Duration, Instant};

use crate::record::Window;
use crate::schedule::Schedule;

/// Lateness that is counted: what sleeping, waking and a few requests before it in the same turn can take.
pub const LATE: Duration = Duration::from_millis(1);

/// Gives out permission to begin requests.
#[derive(Debug)]
pub struct Pace {
    shut: bool,
    /// Whether planned moments are kept back, for whoever has waited longest.
    held: bool,
    plan: Option<Planned>,
}

/// The open loop's state.
#[derive(Debug)]
struct Planned {
    schedule: Take<Schedule>,
    /// The same once more where a count ends the run: what is not past of it.
    ahead: Option<Peekable<Take<Schedule>>>,
    start: Instant,
    window: Window,
    /// The oldest moment that was not given out yet; `None` once the window is over.
    next: Option<Instant>,
    free_since: Option<Instant>,
    punctuality: Punctuality,
}

/// How a plan was kept, in requests planned within the measured part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Punctuality {
    /// Planned.
    pub planned: u64,
    /// Sent more than [`LATE`] after their moment.
    pub late: u64,
    /// Of those, late although a connection was free for as long: the generator's own doing.
    pub late_by_generator: u64,
    /// Sent more than [`LATE`] after the last moment of the whole plan, where a count ends the run.
    pub overdue: u64,
    /// Never sent.
    pub unsent: u64,
}

impl Punctuality {
    /// Adds another worker's.
    pub fn add(&mut self, other: Punctuality) {
        self.planned += other.planned;
        self.late += other.late;
        self.late_by_generator += other.late_by_generator;
        self.overdue += other.overdue;
        self.unsent += other.unsent;
    }
}

impl Pace {
    /// Nothing may begin yet.
    pub fn before() -> Pace {
        Pace { shut: true, held: false, plan: None }
    }

    /// Everybody may begin as soon as there is room.
    pub fn closed_loop() -> Pace {
        Pace { shut: false, held: false, plan: None }
    }

    /// Requests begin at their planned moments within the window, counted from `start`; so many at most.
    pub fn open_loop(schedule: Schedule, most: u64, start: Instant, window: Window) -> Pace {
        let schedule = schedule.take(most as usize);
        let ahead = window.until.is_none().then(|| schedule.clone().peekable());
        let punctuality = Punctuality::default();
        let mut plan = Planned { schedule, ahead, start, window, next: None, free_since: None, punctuality };
        plan.advance();
        Pace { shut: false, held: false, plan: Some(plan) }
    }

    /// Whether new requests may begin, now or later.
    pub fn is_open(&self) -> bool {
        !self.shut
    }

    /// Begins nothing new. The moments up to `end` that were not given out are passed to `each`.
    pub fn shut(&mut self, end: Instant, mut each: impl FnMut(Instant)) {
        if std::mem::replace(&mut self.shut, true) {
            return;
        }
        if let Some(plan) = &mut self.plan {
            while let Some(planned) = plan.next.filter(|planned| *planned <= end) {
                plan.punctuality.unsent += u64::from(plan.count(planned));
                each(planned);
                plan.advance();
            }
        }
    }

    /// Permission to begin a request now: the moment that was planned for it.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        if self.shut {
            return None;
        }
        let Some(plan) = &mut self.plan else { return Some(now) };
        if self.held {
            return None;
        }
        let planned = plan.next.filter(|planned| *planned <= now)?;
        let measured = plan.count(planned);
        let own = plan.free_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since.max(planned)));
        plan.punctuality.late += u64::from(measured && now - planned > LATE);
        plan.punctuality.late_by_generator += u64::from(measured && own > LATE);
        plan.punctuality.overdue += u64::from(measured && plan.is_over(now));
        plan.advance();
        Some(planned)
    }

    /// Keeps planned moments back, or no longer: while connections are looked after in the order of their numbers, the
    /// first of them would take all.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether requests are planned.
    pub fn is_planned(&self) -> bool {
        self.plan.is_some()
    }

    /// The oldest moment that was not given out, if anything may begin.
    pub fn next(&self) -> Option<Instant> {
        if self.shut { None } else { self.plan.as_ref()?.next }
    }

    /// Since when some connection has been free, if one is.
    pub fn free_since(&mut self, since: Option<Instant>) {
        if let Some(plan) = &mut self.plan {
            plan.free_since = since;
        }
    }

    /// How the plan was kept; `None` if there is none.
    pub fn punctuality(&self) -> Option<Punctuality> {
        self.plan.as_ref().map(|plan| plan.punctuality)
    }
}

impl Planned {
    fn advance(&mut self) {
        let next = self.schedule.next().map(|since| self.start + since);
        self.next = next.filter(|next| self.window.until.is_none_or(|until| *next < until));
    }

    /// Whether the last moment of a plan that a count ends is past, by more than [`LATE`].
    fn is_over(&mut self, now: Instant) -> bool {
        let Some(ahead) = &mut self.ahead else { return false };
        let past = now.saturating_duration_since(self.start);
        while ahead.next_if(|moment| *moment + LATE < past).is_some() {}
        ahead.peek().is_none()
    }

    /// Counts a planned request; says whether it is measured.
    fn count(&mut self, planned: Instant) -> bool {
        let measured = planned >= self.window.from;
        self.punctuality.planned += u64::from(measured);
        measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Arrivals, Stage};

    /// Ten requests a second from `start` on; the first second is not measured, and after three nothing is planned.
    fn pace(start: Instant) -> Pace {
        let stage = Stage { length: Duration::ZERO, requests_per_second: 10.0 };
        let window = Window { from: start + Duration::from_secs(1), until: Some(start + Duration::from_secs(3)) };
        Pace::open_loop(Schedule::new(&[stage], Arrivals::Constant, 1, 0, 1), 1_000, start, window)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn moments_are_given_out_in_order_none_before_its_time_none_skipped() {
        let start = Instant::now();
        let mut pace = pace(start);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start + ms(99)), None);
        assert_eq!(pace.next(), Some(start + ms(100)));
        let late: Vec<_> = std::iter::from_fn(|| pace.take(start + ms(1950))).map(|at| at - start).collect();
        assert_eq!(late, (1..20).map(|n| ms(n * 100)).collect::<Vec<_>>());
        assert_eq!(pace.punctuality(), Some(Punctuality { planned: 10, late: 10, ..Punctuality::default() }));
    }

    #[test]
    fn what_is_not_sent_by_the_end_is_told_and_only_what_was_planned() {
        let start = Instant::now();
        for (end, unsent) in [(ms(1350), 4), (ms(2000), 11), (ms(10_000), 20)] {
            let mut pace = pace(start);
            while pace.take(start + ms(950)).is_some() {}
            let mut told = Vec::new();
            pace.shut(start + end, |planned| told.push(planned - start));
            assert_eq!(told.len() as u64, unsent, "{end:?}");
            assert_eq!(told.first(), Some(&ms(1000)));
            assert_eq!(pace.punctuality(), Some(Punctuality { planned: unsent, unsent, ..Punctuality::default() }));
            assert_eq!((pace.take(start + end), pace.next(), pace.is_open()), (None, None, false));
        }
    }

    #[test]
    fn no_more_moments_are_planned_than_there_are_requests() {
        let start = Instant::now();
        let stage = Stage { length: Duration::ZERO, requests_per_second: 10.0 };
        let schedule = Schedule::new(&[stage], Arrivals::Constant, 1, 0, 1);
        let mut pace = Pace::open_loop(schedule, 3, start, Window { from: start, until: None });
        let end = start + ms(9_000);
        assert_eq!(std::iter::from_fn(|| pace.take(end)).count(), 3);
        pace.shut(end, |_| panic!("all were sent"));
        assert_eq!(pace.punctuality().map(|found| found.planned), Some(3));
    }

    #[test]
    fn what_is_sent_after_the_last_moment_of_a_counted_plan_is_overdue() {
        let start = Instant::now();
        let stage = Stage { length: Duration::ZERO, requests_per_second: 10.0 };
        // Moments at 0, 100 … 900 ms; the warm-up takes the first three.
        for (sends, overdue) in [
            (&[(900, 9), (901, 1)][..], 0),
            (&[(900, 9), (902, 1)], 1),
            (&[(500, 4), (950, 6)], 6),
            (&[(5_000, 10)], 7),
        ] {
            let schedule = Schedule::new(&[stage], Arrivals::Constant, 1, 0, 1);
            let window = Window { from: start + ms(300), until: None };
            let mut pace = Pace::open_loop(schedule, 10, start, window);
            for (at, count) in sends {
                assert!((0..*count).all(|_| pace.take(start + ms(*at)).is_some()));
            }
            assert_eq!(pace.punctuality().map(|found| (found.planned, found.overdue)), Some((7, overdue)), "{sends:?}");
        }
        let mut timed = pace(start);
        while timed.take(start + ms(60_000)).is_some() {}
        assert_eq!(timed.punctuality().map(|found| found.overdue), Some(0), "where time ends the run it is never sent");
    }

    #[test]
    fn lateness_is_the_generators_only_while_a_connection_was_free() {
        let start = Instant::now();
        let at = |offset| start + ms(offset);
        for (free_since, now, late, own) in [
            (Some(0), 1000, 0, 0),
            (Some(0), 1001, 0, 0),
            (Some(0), 1002, 1, 1),
            (None, 1050, 1, 0),
            (Some(1049), 1050, 1, 0),
            (Some(1040), 1050, 1, 1),
        ] {
            let mut pace = pace(start);
            while pace.take(at(950)).is_some() {}
            pace.free_since(free_since.map(at));
            assert_eq!(pace.take(at(now)), Some(at(1000)));
            let found = pace.punctuality().unwrap();
            assert_eq!((found.late, found.late_by_generator), (late, own), "{free_since:?} {now}");
        }
    }

    #[test]
    fn what_is_held_back_is_given_out_later_and_the_closed_loop_holds_nothing() {
        let start = Instant::now();
        for (mut pace, held) in [(pace(start), None), (Pace::closed_loop(), Some(start))] {
            pace.hold(true);
            assert_eq!(pace.take(start), held);
            pace.hold(false);
            assert_eq!(pace.take(start), Some(start));
        }
    }

    #[test]
    fn the_closed_loop_asks_for_nothing_but_to_be_open() {
        let now = Instant::now();
        let mut pace = Pace::closed_loop();
        assert_eq!((pace.take(now), pace.next(), pace.punctuality()), (Some(now), None, None));
        pace.shut(now, |_| panic!("nothing was planned"));
        assert_eq!(pace.take(now), None);
        assert_eq!(Pace::before().take(now), None);
    }
}
