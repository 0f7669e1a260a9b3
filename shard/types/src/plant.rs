//! Bugs planted on purpose, to show that the tests would find them. Compiled only under
//! `--cfg ringraft_plant`; never part of a release.
//!
//! Production code asks [`planted`] under `#[cfg(ringraft_plant)]` at the very place of the
//! defence that a bug takes away. Which bug there is, if any, is chosen per thread, so that many
//! runs beside each other may differ. `docs/TESTING.md` says what finds each.

use std::cell::Cell;

macro_rules! plants {
    ($($(#[doc = $what:literal])+ $plant:ident,)+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Plant {
            $($(#[doc = $what])+ $plant,)+
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Plant] = &[$(Plant::$plant),+];
        }
    };
}

plants! {
    /// A follower acknowledges an append before its disk has it.
    AckBeforeFlush,
    /// A vote leaves before it is durable.
    VoteBeforeFlush,
    /// A restart forgets whom the node voted for.
    VoteForgotten,
    /// A short write counts as a whole one.
    ShortWriteIgnored,
    /// The sync isn't ordered behind its write, and alone says what is durable.
    SyncUnordered,
    /// A leader commits an entry of an older term by counting.
    OldTermCounted,
    /// An append that holds nothing new removes what the log holds behind it.
    TailTruncated,
    /// A read is served by a leader that committed nothing of its own term.
    ReadNotReady,
    /// A leader that hears no majority goes on.
    NoCheckQuorum,
    /// Nobody is asked before a term is raised.
    NoPreVote,
    /// A replay applies an entry twice.
    ReplayTwice,
    /// Sessions end by the local clock.
    ClockInApply,
    /// A block that names another place is taken for this one's.
    StaleBlockAccepted,
    /// Rot is always taken for a torn tail.
    RotTaken,
    /// An acknowledgement of an append of an older term counts.
    OldAckCounted,
    /// A buffer is filled again before its write is complete.
    BufferReused,

    /// A completion proves an index, whatever was appended there since.
    GateByIndex,
    /// A block that overtook another makes that one count as durable too.
    HoleIgnored,
    /// A written block's header calls durable what is only submitted.
    DurableOverstated,
    /// A block that was written in parts is not synced as a whole.
    SplitUnsynced,
    /// A sync that failed is tried again, and then believed.
    SyncRetried,
    /// A new segment's name is not made durable.
    DirectoryUnsynced,
    /// What a recovery finds is believed without making it durable.
    RecoveryUnsynced,
    /// A block that an earlier recovery cut is back at the next.
    CutBlockAccepted,
    /// What can't be read at the end of a log is taken for a torn tail.
    UnreadableCut,
    /// A log that is gone is begun anew.
    LostLogTaken,
    /// A record's checksum is not compared.
    RecordUnchecked,
    /// A log with rot votes by what is left of it.
    FloorIgnored,
    /// A log that is being filled up after damage forgets at the next start what it had promised.
    FloorForgotten,
    /// A log counts as repaired with the first entry that it gets after damage.
    FloorLiftedEarly,
    /// A log counts as repaired before what it lost is on its disk again.
    FloorLiftedUnsynced,
    /// A log removes the segment that alone tells of a loss which isn't made good.
    LossPurged,
    /// A snapshot that is installed takes along what lies behind it in a log with holes.
    OutlineForgotten,
    /// A snapshot that can't be loaded, and that no record names, is owed to nobody.
    UnloadedForgotten,
    /// A log whose entries can't be read counts as repaired when it grows.
    UnreadableLifted,
    /// A term is not written when there are entries that name it.
    TermUnwritten,
    /// A leader counts itself before its own disk is done.
    SelfCountedEarly,
    /// Half of the voters are a majority.
    HalfIsMajority,
    /// A vote goes to a candidate whose log is behind.
    ShorterLogElected,
    /// A follower doesn't compare the term before an append's entries.
    PrevTermUnchecked,
    /// A follower takes an append of an older term.
    OldAppendTaken,
    /// A follower commits what it holds beyond an append.
    AppendCommitUncut,
    /// A heartbeat's commit index isn't cut to what the follower is known to hold.
    BeatCommitUncut,
    /// A read is served without asking a majority.
    ReadUnconfirmed,
    /// A lease counts from when its round was answered, not from when that left.
    LeaseFromAnswer,
    /// A lease lasts longer than clocks allow that differ.
    LeaseWithoutMargin,
    /// A restart votes at once, whatever was promised before.
    PromiseForgotten,
    /// An answer to any round of heartbeats confirms the newest.
    RoundUnchecked,
    /// An answer that tells of a newer term looks like one to a round of that term.
    RoundEchoed,
    /// A leader's answer to a follower's question is taken for its newest, for reads that came later.
    FollowerReadOldAnswer,
    /// A read is served before its index is applied.
    ReadBeforeApply,
    /// A retry is applied again.
    RetryApplied,
    /// Writes under way when leadership is lost are told as refused.
    UnknownAsRefused,
    /// A peer is believed in whatever life of its data directory.
    IncarnationUnchecked,
    /// A peer whose directory was rolled back to an older copy is believed, and believes itself.
    RollbackUnchecked,
    /// The head of a snapshot is written without waiting for what it is the head of.
    SnapshotHeadEarly,
    /// A key that is changed while a snapshot is taken is saved as it is then.
    SnapshotUnsaved,
    /// A snapshot is loaded without the sessions.
    SessionsUnloaded,
    /// A chunk of a snapshot is believed whatever its checksum.
    ChunkUnchecked,
    /// Of a joint configuration the new voters' majority decides alone.
    NewMajorityOnly,
    /// Of a joint configuration the old voters' majority decides alone.
    OldMajorityOnly,
    /// A configuration stays in force when its entry is removed.
    ConfigurationKept,
    /// A configuration is in force when it is committed, and not before.
    ConfigurationWhenCommitted,
    /// A snapshot is loaded without its configuration.
    SnapshotConfigurationIgnored,
    /// A leader changes the configuration before an entry of its own term is committed.
    ChangeBeforeCommit,
    /// A leader appends a configuration before the one in force is committed.
    TwoChanges,
    /// A leader goes on from a joint configuration before it is committed.
    JointLeftEarly,
    /// A joint configuration stays when its leader is lost.
    JointStuck,
    /// A learner's copy counts.
    LearnerCounted,
    /// A leader that the configuration leaves out counts its own copy.
    RemovedLeaderCounted,
    /// A higher term of a node that was removed deposes a leader.
    OutsiderDeposes,
    /// A leader that hands over tells the target at once, and voters give it their votes whatever it
    /// holds.
    TransferBlind,
    /// Leaders are spread without counting who leads how much.
    SpreadUncounted,
    /// Replicas' state hashes are told, and nobody compares them.
    StatesUncompared,
    /// Who holds another state than the others keeps its snapshots: a start comes back with it.
    FenceForgotten,
    /// What couldn't be read counts as there again before it is durable.
    MendedEarly,
    /// The leader's own entries count for a level before its disk has them.
    LevelSelfCountedEarly,
    /// Of a joint configuration the old voters alone are asked how far a level has come.
    LevelOldVotersOnly,
    /// A group takes what all groups together may have, and more.
    ShareIgnored,
    /// A group that left and comes again doesn't know in which terms it voted.
    LeftForgotten,
    /// A node that is silent wakes nothing that rests on it.
    SilenceUnnoticed,
    /// A leader hibernates though a follower is awake.
    RestsUnasked,
    /// A start goes by what the system group said long ago, whatever this node knew before.
    PlacementOld,
    /// The snapshots of a group that leaves are removed before the log says durably that it left.
    HomeUnordered,
    /// A full memory refuses nothing.
    QuotaIgnored,
    /// A compaction is answered as done, and nothing is forgotten.
    CompactionIgnored,
    /// The client forgets that a write was sent when its connection is lost.
    DoubtForgotten,
    /// The client gives the number of a write that it gave up to the next.
    NumberReused,
}

impl Plant {
    /// The name that a command line gives it: `ack-before-flush` for [`Plant::AckBeforeFlush`].
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// The bug with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plant| plant.name() == name)
    }
}

thread_local! {
    static CHOSEN: Cell<Option<Plant>> = const { Cell::new(None) };
}

/// From now on this thread has this bug, or none.
pub fn plant(chosen: Option<Plant>) {
    CHOSEN.set(chosen);
}

/// Whether this thread has this bug.
pub fn planted(plant: Plant) -> bool {
    CHOSEN.get() == Some(plant)
}
