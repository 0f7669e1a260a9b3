//! What nothing else would tell: that the shard itself stood still, and that nobody leads groups
//! here.
//!
//! A shard that stood still, with its process, its machine or in a turn of its own, decides nothing
//! by that: its clock goes on, so its leaders find that they were out of touch for too long, and
//! its leases have ended (decision 0020). But nothing else shows it where it comes from.

use crate::event::{ShardEvent, Wake};
use crate::links::Links;
use crate::shard::Shard;
use ringraft_types::Ticks;
use ringraft_wal::device::Device;

/// A turn that comes so much later than it was due is told.
const STILL_MIN: Ticks = Ticks::from_millis(300);
/// For so long nobody leads a group before that is told, and before it is told again.
const LEADERLESS_MIN: Ticks = Ticks::from_millis(60_000);
/// Between two looks at who leads.
const LOOK_EVERY: Ticks = Ticks::from_millis(1_000);

/// What is told next, and when.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// When the next turn is due, as the last one asked for.
    due: Option<Ticks>,
    look_at: Ticks,
    /// That nobody leads groups isn't told before this.
    quiet_until: Ticks,
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A turn begins: it may be late.
    pub(crate) fn notice_turn(&mut self, now: Ticks) {
        if let Some(due) = self.notices.due.take()
            && now.since(due) >= STILL_MIN
        {
            self.metrics.stood_still += 1;
            self.doubt_itself(now);
            self.events.push(ShardEvent::StoodStill { late: now.since(due) });
        }
        if now >= self.notices.look_at {
            self.notices.look_at = now.after(LOOK_EVERY);
            self.notice_leaderless(now);
        }
    }

    /// A turn ends, and asks for the next one.
    pub(crate) fn notice_wake(&mut self, now: Ticks, wake: Wake) {
        self.notices.due = match wake {
            Wake::Now => Some(now),
            Wake::At(at) => Some(at.max(now)),
            Wake::OnEvent => None,
        };
    }

    /// Groups of which this node is a member, whose leader it hasn't known for long.
    fn notice_leaderless(&mut self, now: Ticks) {
        let own = self.own();
        let (mut groups, mut first, mut waited) = (0, None, Ticks::ZERO);
        for group in &mut self.groups {
            let is_led = group.raft.leader().is_some();
            if is_led || group.is_muted || !group.raft.configuration().is_member(own.node) {
                group.leaderless_since = None;
                continue;
            }
            let passed = now.since(*group.leaderless_since.get_or_insert(now));
            if passed >= LEADERLESS_MIN {
                groups += 1;
                waited = waited.max(passed);
                first.get_or_insert(group.id);
            }
        }
        if let Some(first) = first
            && now >= self.notices.quiet_until
        {
            self.notices.quiet_until = now.after(LEADERLESS_MIN);
            self.events.push(ShardEvent::Leaderless { groups, first, waited });
        }
    }
}
