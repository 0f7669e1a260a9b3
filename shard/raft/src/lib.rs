//! The Raft protocol, pure: inputs are messages, completions and ticks; outputs say what to
//! persist, what may be sent at once, and what only after it is durable.
//!
//! Nothing here reads a clock, draws from a global random source, opens a file or owns a socket.
//! The owner (a shard) feeds one [`Input`] at a time to [`Raft::step`] and carries out the
//! [`Output`]; it keeps the entries' bytes, this crate keeps their terms and lengths only.
//!
//! # The contract with the owner
//!
//! 1. After every step, carry out `Output` in this order: `truncate_from`, `append`, `hard_state`
//!    go to the log in one batch; remember the batch's [`Token`]; `send_now` may leave at once;
//!    each of `send_after_persist` leaves when its token's batch is durable.
//! 2. When a batch is durable, step [`Input::Persisted`] with its token. Tokens are reported in
//!    the order in which they were given; reporting a later one implies the earlier ones.
//! 3. Entries up to `Output::committed` may be applied, in order.
//! 4. Call `step(now, Input::Tick)` no later than [`Raft::wake_at`]; `now` never goes back.
//! 5. Call [`Raft::flush_reads`] once after a turn's [`Input::Read`] steps, and after what other
//!    nodes asked for theirs ([`Message::ReadAsk`]).
//! 6. Report [`Input::LinkUp`] for every new connection to a node: it may be another life of it.
//!    What came over an older connection isn't stepped after that.
//! 7. Ask [`Raft::judge`] before stepping what another node said; what it refuses is not stepped.
//! 8. Answer every `Output::fetch` with one [`Input::Fetched`]; empty if it can't be read.
//! 9. Give the beginning of the log up only behind a durable snapshot, and say so by
//!    [`Input::Released`]. Keep what [`Raft::needed_from`] names, within a bound of the owner's
//!    own, so that a small lag is made up for from the log and an install isn't overtaken.
//! 10. What `Output::install` asks for may take its time. When the snapshot is durable, ask
//!     [`Raft::may_install`], load it, and step [`Input::Installed`] before anything else. When
//!     `Output::emptied` answers, forget every cached entry of the group.
//! 11. After a start, put snapshot and log together by [`LogShape::after_snapshot`].
//! 12. An entry that holds a configuration is handed in decoded, wherever entries are. To change
//!     members, encode what [`Raft::plan`] answers and step [`Input::Configure`] before anything
//!     else; when `Output::completes` asks, do so with [`Raft::completion`]. A snapshot holds the
//!     configuration in force where it ends: that of the newest such entry that was applied.
//!
//! # Where to read
//!
//! `raft` takes the inputs and holds the transitions between roles. `replica` is what a node has
//! whatever its role, `durable` what of it is on the disk. `candidate`, `follower` and `leader` are
//! the roles; `progress` is one follower as its leader sees it, `reads` are linearizable reads,
//! `questions` those on a node that doesn't lead, `lease` and `promise` those that need no round.
//! `membership` is who votes, `change` how that changes, `leader/members` what a leader does about
//! it, `leader/transfer` how it hands over, `leader/levels` how far entries have come. `floor` is what a node votes by that lost entries to rot, and when it is whole again.
//! `invariants` says what must hold after every step, `breach` what other nodes may not say.
#![forbid(unsafe_code)]

pub mod input;
pub mod message;
pub mod output;
pub mod raft;
pub mod settings;

mod breach;
mod candidate;
mod change;
mod durable;
mod floor;
mod follower;
mod invariants;
mod jitter;
mod leader;
mod lease;
mod log;
mod membership;
mod progress;
mod promise;
mod questions;
mod quorum;
mod reads;
mod replica;
mod role;
mod transfer;

pub use breach::{Breach, NUMBER_MAX};
pub use change::{Allow, CAUGHT_UP_ENTRIES, Change, ChangeRefused, Plan};
pub use input::{Entries, EntryHead, Input};
pub use leader::Standing;
pub use message::{Append, AppendOutcome, Message};
pub use output::{
    Envelope, Fetch, Gated, Install, Output, ReadReady, Refusal, RoleKind, Span, Token,
};
pub use raft::Raft;
pub use settings::{Boot, Configured, EntriesMissing, HardState, LogShape, Settings};
pub use transfer::TransferRefused;
