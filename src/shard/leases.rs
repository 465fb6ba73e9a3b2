//! Leases: a session that nobody renews ends by itself, so that its failure is on record and whoever stands by may come.
//!
//! A consumer with a session has one place in a heap, by the time at which somebody should look at it. A lease that was
//! renewed meanwhile is put back with its new end, so renewing costs nothing. One that ends earlier now, because a shorter
//! one was granted, gets an earlier place, and leaves the old one behind.

use super::Shard;
use crate::group::consumer::Consumer;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Instant;

/// Consumers with a session, the one to look at first on top.
pub(super) type Leases = BinaryHeap<Reverse<(Instant, u32, Box<str>)>>;

impl Shard {
    /// Looks after a consumer's lease from now on, if it has a session and is not looked after in time yet.
    pub(super) fn look_after_lease(&self, leases: &mut Leases, group: u32, name: &str, consumer: &mut Consumer) {
        let at = look_at(consumer);
        if consumer.session.is_none() || consumer.live.look_at.is_some_and(|earlier| earlier <= at) {
            return;
        }
        let first = leases.peek().is_none();
        consumer.live.look_at = Some(at);
        leases.push(Reverse((at, group, name.into())));
        if first {
            self.lease_turn.notify_one();
        }
    }

    /// After a start: sessions go on with fresh leases.
    pub(super) fn recover_leases(&self) {
        let state = &mut *self.state.borrow_mut();
        let now = Instant::now();
        for (&number, member) in &mut state.groups {
            let tail = member.group.visible_next();
            for (name, consumer) in &mut member.group.consumers {
                consumer.recovered(tail, now);
                self.look_after_lease(&mut state.leases, number, name, consumer);
                state.consumers += 1;
            }
        }
    }

    /// The loop that ends sessions whose leases have lapsed, until the shard fails.
    pub(super) async fn end_leases(self: Rc<Self>) {
        loop {
            let next = self.state.borrow().leases.peek().map(|Reverse((at, ..))| *at);
            match next {
                _ if self.fault().is_some() => return,
                None => self.lease_turn.notified().await,
                Some(at) if at > Instant::now() => {
                    // A shorter lease than all others may begin meanwhile: look again at least this often.
                    let at = at.min(Instant::now() + LOOK);
                    tokio::time::sleep_until(at.into()).await;
                }
                Some(_) => self.look_at_lease().await,
            }
        }
    }

    async fn look_at_lease(&self) {
        let Some(Reverse((at, group, name))) = self.state.borrow_mut().leases.pop() else { return };
        {
            let state = &mut *self.state.borrow_mut();
            let consumer = state.groups.get_mut(&group).and_then(|member| member.group.consumers.get_mut(&name));
            // One of that name which was removed, or got an earlier place, has left this one behind.
            let Some(consumer) = consumer.filter(|consumer| consumer.live.look_at == Some(at)) else { return };
            consumer.live.look_at = None;
        }
        // Every decision begins with a look at the lease, and puts the consumer back if its session goes on. One that
        // cannot be written down now is looked at again by whoever calls next.
        let _ = self.decide(group, &name, |_, _, _| Ok(())).await;
    }
}

/// How long a lease that is shorter than all others may be overlooked.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// When to look at a consumer's lease.
fn look_at(consumer: &Consumer) -> Instant {
    consumer.lapses_at().unwrap_or_else(|| Instant::now() + consumer.terms.lease)
}
