//! What nodes say to each other, as rkyv archives. Meaning is the Raft core's; layout is decided
//! here: explicit-endian fields of alignment 1, fixed sizes, flat vectors of fixed structs, nothing
//! else. The build fails if a cargo feature of rkyv that another crate turns on would change it
//! (`archive.rs`); [`layout_hash`] in the handshake tells two builds apart whose structs differ.
//!
//! A body is validated once, by the function that opens it ([`beats`], [`append`], ...); what it
//! returns can be read without further checks.

use ringraft_types::limits::{ADDRESS_BYTES_MAX, FRAME_BODY_BYTES_MAX};
use ringraft_types::{GroupId, Index, LogId, Term, Ticks};
use rkyv::{Archive, Serialize};

use crate::archive::{Serializer, Travels, access, access_fixed, access_head, archive, fixed};
use crate::bulk_wire::{ChunkAsk, ChunkHead, SnapshotAsk, SnapshotOffer};
use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Identity, Kind};
use crate::outbox::Outbox;

fixed! {
    /// One group's heartbeat.
    BeatItem, BeatItemWire, ArchivedBeatItemWire, 33 {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// The leader's commit index, cut to what the follower is known to hold.
        commit: Index,
        /// The newest read round.
        round: u64,
        /// The follower is to hibernate, if it can.
        hibernate: bool,
    }
}

fixed! {
    /// One group's answer to a heartbeat.
    BeatReplyItem, BeatReplyItemWire, ArchivedBeatReplyItemWire, 33 {
        /// The group.
        group: GroupId,
        /// The replier's term.
        term: Term,
        /// The round that it answers.
        round: u64,
        /// The replier's commit index.
        commit: Index,
        /// It hibernates.
        hibernates: bool,
    }
}

fixed! {
    /// The head of an append; the group is in the frame's header.
    AppendHead, AppendHeadWire, ArchivedAppendHeadWire, 40 {
        /// The leader's term.
        term: Term,
        /// The term of the entry before the first one carried.
        prev_term: Term,
        /// The index of the entry before the first one carried.
        prev_index: Index,
        /// The leader's commit index.
        commit: Index,
        /// How many records follow; zero is a probe.
        count: u32,
        /// Zero.
        pad: u32,
    }
}

fixed! {
    /// One group's answer to an append.
    AppendReplyItem, AppendReplyItemWire, ArchivedAppendReplyItemWire, 57 {
        /// The group.
        group: GroupId,
        /// The replier's term.
        term: Term,
        /// The leader's term of the append that this answers.
        append_term: Term,
        /// Whether the log agreed.
        accepted: bool,
        /// Accepted: the last entry that matches. Refused: the `prev` of the append.
        matched_or_prev: Index,
        /// Refused: the term of the entry where the logs may agree.
        hint_term: Term,
        /// Refused: its index.
        hint_index: Index,
        /// The replier's commit index.
        commit: Index,
    }
}

fixed! {
    /// [`Ballot`] as it travels.
    BallotItem, BallotItemWire, ArchivedBallotItemWire, 29 {
        /// The number of its [`BallotKind`].
        kind: u32,
        /// Whether the vote is given.
        granted: bool,
        /// The term asked about, or the replier's.
        term: Term,
        /// The term of the asker's newest entry.
        last_term: Term,
        /// The index of the asker's newest entry.
        last_index: Index,
    }
}

fixed! {
    /// "Your log ends before mine begins"; the group is in the frame's header. The bytes after it
    /// are the address at which the sender's peers reach it, for a follower that never heard of it.
    InstallItem, InstallItemWire, ArchivedInstallItemWire, 36 {
        /// The leader's term.
        term: Term,
        /// The term of the entry after which the leader's log begins.
        base_term: Term,
        /// Its index.
        base_index: Index,
        /// The leader's commit index.
        commit: Index,
        /// Of the address that follows, bytes.
        address_bytes: u32,
    }
}

fixed! {
    /// "I save this group at this entry": whoever saves it there too can give the same snapshot. The
    /// group is in the frame's header.
    SaveAt, SaveAtWire, ArchivedSaveAtWire, 8 {
        /// The entry; it is committed.
        index: Index,
    }
}

fixed! {
    /// "Stand at once: I hand over to you" (thesis 3.10). The group is in the frame's header.
    StandItem, StandItemWire, ArchivedStandItemWire, 8 {
        /// The leader's term.
        term: Term,
    }
}

fixed! {
    /// What a follower asks the leader of one group for its reads.
    ReadAskItem, ReadAskItemWire, ArchivedReadAskItemWire, 24 {
        /// The group.
        group: GroupId,
        /// The asker's term.
        term: Term,
        /// The question's number.
        question: u64,
    }
}

fixed! {
    /// The leader's answer.
    ReadAnswerItem, ReadAnswerItemWire, ArchivedReadAnswerItemWire, 32 {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// The question that it answers.
        question: u64,
        /// The entry that the reads must see.
        index: Index,
    }
}

fixed! {
    /// What a shard is that takes part in who leads, and how much it leads (decision 0026).
    LeadWord, LeadWordWire, ArchivedLeadWordWire, 14 {
        /// The node's priority, 0 to 255.
        priority: u32,
        /// Groups of more than one voter that the shard leads.
        led: u32,
        /// Groups of more than one voter in which it votes and isn't damaged.
        votes: u32,
        /// Whether it takes its part of what nodes of its priority lead.
        spreads: bool,
        /// Whether it may be told to lead.
        is_fit: bool,
    }
}

fixed! {
    /// The hash of a group's state at an entry, or what was found from such (decision 0030). The group
    /// is in the frame's header.
    StateWord, StateWordWire, ArchivedStateWordWire, 28 {
        /// The sender's term.
        term: Term,
        /// The entry.
        index: Index,
        /// The hash of the state when that was applied; zero with [`StateWord::WANTED`].
        hash: u64,
        /// Which word it is: [`StateWord::NOTED`], [`StateWord::ODD`] or [`StateWord::WANTED`].
        said: u32,
    }
}

mod lives;
mod repair;

pub use lives::{LIFE_ITEMS_MAX, Life, LifeItem, life_answer, life_ask};
pub use repair::{
    ASK_RUNS_MAX, AnswerState, RepairAnswer, RepairAsk, RunItem, repair_answer, repair_ask,
};

/// How a shard is, as every frame of many items says of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// For how long its disk has held its oldest write; zero: it holds none, or has just taken it.
    pub disk_wait: Ticks,
    /// Whether its node's memory for data is full.
    pub is_memory_full: bool,
}

/// Declares a frame of many items, with how the sending shard is before them.
macro_rules! many {
    ($(#[$doc:meta])* $name:ident, $wire:ident, $archived:ident, $view:ident,
     $item:ident, $item_wire:ident, $item_bytes:literal, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Archive, Serialize)]
        #[rkyv(archived = $archived)]
        struct $wire {
            disk_wait: u64,
            is_memory_full: u8,
            items: Vec<$item_wire>,
        }

        const _: () = assert!(size_of::<$archived>() == 17);
        const _: () = assert!(align_of::<$archived>() == 1);

        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name($wire);

        impl $name {
            /// The most items that one frame carries; more are sent in several.
            pub const ITEMS_MAX: usize = (FRAME_BODY_BYTES_MAX - 17) / $item_bytes;

            /// None yet; allocates with the first item.
            pub fn new() -> Self {
                Self::default()
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool {
                self.0.items.is_empty()
            }

            /// How many there are.
            pub fn len(&self) -> usize {
                self.0.items.len()
            }

            /// Adds one.
            ///
            /// # Panics
            /// If there are [`Self::ITEMS_MAX`] already: send and clear first.
            pub fn push(&mut self, item: $item) {
                assert!(self.0.items.len() < Self::ITEMS_MAX, "the frame is full");
                self.0.items.push(item.to_wire());
            }

            /// Forgets all, keeps the memory.
            pub fn clear(&mut self) {
                self.0.items.clear();
            }

            /// Writes them as one frame, with how the sending shard is.
            pub fn write(&mut self, out: &mut Outbox, sender: Identity, health: Health) {
                self.0.disk_wait = health.disk_wait.to_wire();
                self.0.is_memory_full = health.is_memory_full.to_wire();
                write_archive(out, Kind::$kind, GroupId(0), sender, &self.0);
            }
        }

        /// The same, received and validated.
        #[derive(Clone, Copy)]
        pub struct $view<'a>(&'a $archived);

        impl<'a> $view<'a> {
            /// Opens a body that holds this and nothing else.
            fn open(frame: &Frame<'a>) -> Result<Self, WireError> {
                let archived: &$archived = access(frame, Kind::$kind, frame.body)?;
                let length = frame.body.len();
                let is_sound = archived.is_memory_full <= 1;
                let whole = size_of::<$archived>() + archived.items.len() * $item_bytes;
                if length != whole || !is_sound {
                    return Err(WireError::Archive { kind: Kind::$kind, length });
                }
                Ok(Self(archived))
            }

            /// How many items there are.
            pub fn len(&self) -> usize {
                self.0.items.len()
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool {
                self.0.items.is_empty()
            }

            /// How the sending shard is.
            pub fn health(&self) -> Health {
                Health {
                    disk_wait: Ticks::from_wire(self.0.disk_wait),
                    is_memory_full: bool::from_wire(self.0.is_memory_full),
                }
            }

            /// The items, in the order in which they were pushed.
            pub fn items(&self) -> impl Iterator<Item = $item> + use<'a> {
                self.0.items.as_slice().iter().map($item::from_wire)
            }
        }
    };
}

many! {
    /// Heartbeats of many groups, from one shard to another.
    Beats, BeatsWire, ArchivedBeatsWire, BeatsView, BeatItem, BeatItemWire, 33, Beats
}
many! {
    /// Answers to heartbeats of many groups.
    BeatReplies, BeatRepliesWire, ArchivedBeatRepliesWire, BeatRepliesView,
    BeatReplyItem, BeatReplyItemWire, 33, BeatReplies
}
many! {
    /// Answers to appends of many groups.
    AppendReplies, AppendRepliesWire, ArchivedAppendRepliesWire, AppendRepliesView,
    AppendReplyItem, AppendReplyItemWire, 57, AppendReplies
}
many! {
    /// What followers' reads must see, asked of the leaders of many groups.
    ReadAsks, ReadAsksWire, ArchivedReadAsksWire, ReadAsksView,
    ReadAskItem, ReadAskItemWire, 24, ReadAsks
}
many! {
    /// Answers to that, of many groups.
    ReadAnswers, ReadAnswersWire, ArchivedReadAnswersWire, ReadAnswersView,
    ReadAnswerItem, ReadAnswerItemWire, 32, ReadAnswers
}

/// Which of the vote messages a [`Ballot`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BallotKind {
    /// "Would you vote for me?"
    PreVote = 1,
    /// Its answer.
    PreVoteReply = 2,
    /// "Vote for me."
    Vote = 3,
    /// Its answer.
    VoteReply = 4,
    /// "Vote for me: my leader told me to stand."
    TransferVote = 5,
}

/// A vote asked or given; the group is in the frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Which of them.
    pub kind: BallotKind,
    /// The term asked about, or the replier's.
    pub term: Term,
    /// The asker's newest entry; zero in an answer.
    pub last: LogId,
    /// Whether the vote is given; false in a question.
    pub granted: bool,
}

impl Ballot {
    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        let item = BallotItem {
            kind: self.kind as u32,
            granted: self.granted,
            term: self.term,
            last_term: self.last.term,
            last_index: self.last.index,
        };
        write_archive(out, Kind::Ballot, group, sender, &item.to_wire());
    }
}

impl SaveAt {
    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        write_archive(out, Kind::SaveAt, group, sender, &self.to_wire());
    }
}

impl StandItem {
    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        write_archive(out, Kind::TimeoutNow, group, sender, &self.to_wire());
    }
}

impl LeadWord {
    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, sender: Identity) {
        write_archive(out, Kind::LeadWord, GroupId(0), sender, &self.to_wire());
    }
}

impl StateWord {
    /// To the leader: my state had this hash at this entry.
    pub const NOTED: u32 = 1;
    /// Of the leader: a majority of the voters had this hash there, and you had not.
    pub const ODD: u32 = 2;
    /// To the leader: I need a snapshot of this entry or a later one.
    pub const WANTED: u32 = 3;

    /// Writes it as one frame.
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity) {
        write_archive(out, Kind::StateWord, group, sender, &self.to_wire());
    }
}

impl InstallItem {
    /// Writes it as one frame, with the address at which the sender's peers reach it, or none: its
    /// length is put into the item.
    ///
    /// # Panics
    /// If the address is over [`ADDRESS_BYTES_MAX`].
    pub fn write(&self, out: &mut Outbox, group: GroupId, sender: Identity, address: &[u8]) {
        assert!(address.len() <= ADDRESS_BYTES_MAX, "an address is over the limit");
        let item = Self { address_bytes: address.len() as u32, ..*self };
        let mut writer = FrameWriter::begin(out, Kind::Install, group, sender);
        archive(&mut writer, &item.to_wire());
        writer.extend(address);
        writer.finish();
    }
}

impl AppendHead {
    /// Begins an append frame: this head is written, `count` encoded records are to follow.
    pub fn begin<'a>(
        &self,
        out: &'a mut Outbox,
        group: GroupId,
        sender: Identity,
    ) -> FrameWriter<'a> {
        let mut writer = FrameWriter::begin(out, Kind::Append, group, sender);
        archive(&mut writer, &self.to_wire());
        writer
    }

    /// Writes an append frame: this head, then `records`, encoded, in the order of their indexes.
    ///
    /// # Panics
    /// If all of it is longer than a frame may be.
    pub fn write<'a>(
        &self,
        out: &mut Outbox,
        group: GroupId,
        sender: Identity,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let mut writer = self.begin(out, group, sender);
        for record in records {
            writer.extend(record);
        }
        writer.finish();
    }
}

/// Opens the body of a `Beats` frame.
///
/// # Errors
/// If it isn't one.
pub fn beats<'a>(frame: &Frame<'a>) -> Result<BeatsView<'a>, WireError> {
    let view = BeatsView::open(frame)?;
    for item in view.0.items.as_slice() {
        check_bool(Kind::Beats, "hibernate", item.hibernate)?;
    }
    Ok(view)
}

/// Opens the body of a `BeatReplies` frame.
///
/// # Errors
/// If it isn't one.
pub fn beat_replies<'a>(frame: &Frame<'a>) -> Result<BeatRepliesView<'a>, WireError> {
    let view = BeatRepliesView::open(frame)?;
    for item in view.0.items.as_slice() {
        check_bool(Kind::BeatReplies, "hibernates", item.hibernates)?;
    }
    Ok(view)
}

/// Opens the body of an `AppendReplies` frame.
///
/// # Errors
/// If it isn't one.
pub fn append_replies<'a>(frame: &Frame<'a>) -> Result<AppendRepliesView<'a>, WireError> {
    let view = AppendRepliesView::open(frame)?;
    for item in view.0.items.as_slice() {
        check_bool(Kind::AppendReplies, "accepted", item.accepted)?;
    }
    Ok(view)
}

/// Opens the body of a `ReadAsks` frame.
///
/// # Errors
/// If it isn't one.
pub fn read_asks<'a>(frame: &Frame<'a>) -> Result<ReadAsksView<'a>, WireError> {
    ReadAsksView::open(frame)
}

/// Opens the body of a `ReadAnswers` frame.
///
/// # Errors
/// If it isn't one.
pub fn read_answers<'a>(frame: &Frame<'a>) -> Result<ReadAnswersView<'a>, WireError> {
    ReadAnswersView::open(frame)
}

/// Opens the body of an `Append` frame: its head, and the bytes of its records, which are not
/// looked into here.
///
/// # Errors
/// If it isn't one.
pub fn append<'a>(frame: &Frame<'a>) -> Result<(AppendHead, &'a [u8]), WireError> {
    let (archived, records): (&ArchivedAppendHeadWire, _) = access_head(frame, Kind::Append)?;
    Ok((AppendHead::from_wire(archived), records))
}

/// Opens the body of a `Ballot` frame.
///
/// # Errors
/// If it isn't one.
pub fn ballot(frame: &Frame<'_>) -> Result<Ballot, WireError> {
    let archived: &ArchivedBallotItemWire = access_fixed(frame, Kind::Ballot, frame.body)?;
    check_bool(Kind::Ballot, "granted", archived.granted)?;
    let item = BallotItem::from_wire(archived);
    let kind = match item.kind {
        1 => BallotKind::PreVote,
        2 => BallotKind::PreVoteReply,
        3 => BallotKind::Vote,
        4 => BallotKind::VoteReply,
        5 => BallotKind::TransferVote,
        other => {
            let value = u64::from(other);
            return Err(WireError::Field { kind: Kind::Ballot, field: "kind", value });
        }
    };
    let last = LogId::new(item.last_term, item.last_index);
    Ok(Ballot { kind, term: item.term, last, granted: item.granted })
}

/// Opens the body of an `Install` frame: the item, and the sender's address, of at most
/// [`ADDRESS_BYTES_MAX`] bytes.
///
/// # Errors
/// If it isn't one.
pub fn install<'a>(frame: &Frame<'a>) -> Result<(InstallItem, &'a [u8]), WireError> {
    let length = frame.body.len();
    let (item, address) = frame
        .body
        .split_at_checked(size_of::<ArchivedInstallItemWire>())
        .ok_or(WireError::Archive { kind: Kind::Install, length })?;
    let archived: &ArchivedInstallItemWire = access_fixed(frame, Kind::Install, item)?;
    let item = InstallItem::from_wire(archived);
    if item.address_bytes as usize != address.len() || address.len() > ADDRESS_BYTES_MAX {
        let value = u64::from(item.address_bytes);
        return Err(WireError::Field { kind: Kind::Install, field: "address_bytes", value });
    }
    Ok((item, address))
}

/// Opens the body of a `SaveAt` frame.
///
/// # Errors
/// If it isn't one.
pub fn save_at(frame: &Frame<'_>) -> Result<SaveAt, WireError> {
    let archived: &ArchivedSaveAtWire = access_fixed(frame, Kind::SaveAt, frame.body)?;
    Ok(SaveAt::from_wire(archived))
}

/// Opens the body of a `TimeoutNow` frame.
///
/// # Errors
/// If it isn't one.
pub fn timeout_now(frame: &Frame<'_>) -> Result<StandItem, WireError> {
    let archived: &ArchivedStandItemWire = access_fixed(frame, Kind::TimeoutNow, frame.body)?;
    Ok(StandItem::from_wire(archived))
}

/// Opens the body of a `LeadWord` frame.
///
/// # Errors
/// If it isn't one.
pub fn lead_word(frame: &Frame<'_>) -> Result<LeadWord, WireError> {
    let kind = Kind::LeadWord;
    let archived: &ArchivedLeadWordWire = access_fixed(frame, kind, frame.body)?;
    check_bool(kind, "spreads", archived.spreads)?;
    check_bool(kind, "is_fit", archived.is_fit)?;
    let word = LeadWord::from_wire(archived);
    if word.priority > u32::from(u8::MAX) {
        let value = u64::from(word.priority);
        return Err(WireError::Field { kind, field: "priority", value });
    }
    Ok(word)
}

/// Opens the body of a `StateWord` frame.
///
/// # Errors
/// If it isn't one.
pub fn state_word(frame: &Frame<'_>) -> Result<StateWord, WireError> {
    let kind = Kind::StateWord;
    let archived: &ArchivedStateWordWire = access_fixed(frame, kind, frame.body)?;
    let word = StateWord::from_wire(archived);
    if !(StateWord::NOTED..=StateWord::WANTED).contains(&word.said) {
        return Err(WireError::Field { kind, field: "said", value: u64::from(word.said) });
    }
    if word.said == StateWord::WANTED && word.hash != 0 {
        return Err(WireError::Field { kind, field: "hash", value: word.hash });
    }
    Ok(word)
}

/// Names the layout of everything above: two builds with different hashes don't talk.
pub const fn layout_hash() -> u64 {
    let layouts = [
        BeatItem::LAYOUT,
        BeatReplyItem::LAYOUT,
        AppendHead::LAYOUT,
        AppendReplyItem::LAYOUT,
        BallotItem::LAYOUT,
        InstallItem::LAYOUT,
        SaveAt::LAYOUT,
        StandItem::LAYOUT,
        LeadWord::LAYOUT,
        StateWord::LAYOUT,
        ReadAskItem::LAYOUT,
        ReadAnswerItem::LAYOUT,
        repair::LAYOUTS[0],
        repair::LAYOUTS[1],
        repair::LAYOUTS[2],
        lives::LAYOUTS[0],
        lives::LAYOUTS[1],
        "Beats,BeatReplies,AppendReplies,ReadAsks,ReadAnswers=disk_wait:u64,items:vec32@end",
        "Install=item,address@end",
        SnapshotAsk::LAYOUT,
        SnapshotOffer::LAYOUT,
        ChunkAsk::LAYOUT,
        ChunkHead::LAYOUT,
    ];
    // FNV-1a, 64 bits.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut layout = 0;
    while layout < layouts.len() {
        let bytes = layouts[layout].as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        layout += 1;
    }
    hash
}

pub(crate) fn check_bool(kind: Kind, field: &'static str, value: u8) -> Result<(), WireError> {
    if value > 1 {
        return Err(WireError::Field { kind, field, value: u64::from(value) });
    }
    Ok(())
}

pub(crate) fn write_archive(
    out: &mut Outbox,
    kind: Kind,
    group: GroupId,
    sender: Identity,
    value: &impl for<'a, 'b, 'c> Serialize<Serializer<'a, 'b, 'c>>,
) {
    let mut writer = FrameWriter::begin(out, kind, group, sender);
    archive(&mut writer, value);
    writer.finish();
}
