//! What a log holds of its groups, taken out of it and put into the log of a new cluster: for a
//! cluster that lost its majority for good (decision 0016).
//!
//! Offline and in one go, over devices that complete at once. The log that is read may be on a
//! device that changes nothing; what a start would take from it is taken, by the same rules, and
//! everything behind what is known as committed is applied as well: the majority that is gone may
//! have acknowledged it.

use crate::apply::{apply_command, state_hash};
use crate::machine::StateMachine;
use crate::members::Members;
use crate::session::Sessions;
use crate::snapshots::{
    LoadFailure, LoadStep, Loaded, LoadedGroup, LoadedState, Loading, Part, SLICE_BYTES, end_piece,
    members_piece,
};
use crate::start;
use ringraft_types::limits::RECORD_HEADER_BYTES;
use ringraft_types::record::{self, HomeState, RecordKind};
use ringraft_types::{ConfigurationError, GroupId, Index, LogId, STRANDS, Term, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{
    Log, LogSettings, ReadRequest, Recovered, RecoveredGroup, Recovery, SnapshotError, WalError,
    WalFatal,
};
use std::collections::BTreeSet;

/// Bytes of entries that are read at once, give or take one.
const READ_BYTES: usize = 8 << 20;
/// What a turn takes, for all that a log knows: nothing here reads a clock.
const TURN: Ticks = Ticks::from_millis(1);

/// Why nothing was taken out of a log, or put into one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SalvageError {
    /// The log can't be recovered.
    #[error(transparent)]
    Recovery(#[from] WalError),
    /// A log can't go on.
    #[error(transparent)]
    Log(#[from] WalFatal),
    /// An entry that this version can't apply.
    #[error("entry {index} of group {group} is unknown to this version; use a newer one")]
    UnknownCommand {
        /// Of which group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// An entry says of the members what no group can have.
    #[error("entry {index} of group {group}: {error}")]
    Members {
        /// Of which group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// What is wrong.
        error: ConfigurationError,
    },
    /// A snapshot can't be written.
    #[error("the snapshot of group {group} can't be written: {error}")]
    Snapshot {
        /// Of which group.
        group: GroupId,
        /// Why not.
        error: SnapshotError,
    },
    /// There is no room for the new log.
    #[error("the disk is full")]
    Full,
}

/// How much a log holds of a group.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which group.
    pub group: GroupId,
    /// The newest entry in the state.
    pub last: LogId,
    /// The newest term that the log names.
    pub term: Term,
    /// What was known as committed.
    pub commit: Index,
    /// The snapshot that the state begins with.
    pub snapshot: Option<LogId>,
    /// Snapshots that can't be loaded: their files' numbers, and why.
    pub unreadable: Vec<(u64, LoadFailure)>,
    /// Rot took entries: up to here the group had promised them. Index `u64::MAX`: nobody knows.
    pub missing: Option<LogId>,
    /// The members as of the newest entry; nobody: as the group began.
    pub members: Members,
}

/// A group as a log holds it: its state, with every entry of the log applied.
pub struct Salvaged {
    /// How much that is.
    pub held: Held,
    machine: Box<dyn StateMachine>,
    sessions: Sessions,
}

impl Salvaged {
    /// The hash of the state, as `status` shows it.
    pub fn state_hash(&self) -> u64 {
        state_hash(&*self.machine, &self.sessions)
    }
}

/// Recovers a log and loads its snapshots.
///
/// # Errors
/// If the log can't be recovered.
pub fn load<D: Device>(
    settings: LogSettings,
    device: &mut D,
    machine: &mut impl FnMut(GroupId) -> Box<dyn StateMachine>,
) -> Result<Loaded, SalvageError> {
    let (log, recovered) = Recovery::run(settings, device)?;
    let groups: BTreeSet<GroupId> = recovered.snapshots.iter().map(|head| head.group).collect();
    let groups: Vec<GroupId> = groups.into_iter().collect();
    let mut loading = Loading::new(log, recovered, &groups);
    let mut now = Ticks::ZERO;
    loop {
        now = now.after(TURN);
        match loading.turn(now, device, machine)? {
            LoadStep::Working(rest) => {
                // Whatever the pause: nobody else is waiting.
                std::thread::yield_now();
                loading = rest;
            }
            LoadStep::Done(loaded) => return Ok(*loaded),
        }
    }
}

/// Everything that a log holds of its groups, ascending.
///
/// # Errors
/// If an entry can't be applied, or the log fails.
pub fn salvage<D: Device>(
    loaded: Loaded,
    device: &mut D,
    machine: &mut impl FnMut(GroupId) -> Box<dyn StateMachine>,
) -> Result<Vec<Salvaged>, SalvageError> {
    let Loaded { mut log, recovered, mut groups } = loaded;
    let Recovered { groups: found, .. } = recovered;
    let ids: BTreeSet<GroupId> = found.keys().chain(groups.keys()).copied().collect();
    let mut all = Vec::new();
    for id in ids {
        let loaded = groups.remove(&id).unwrap_or_default();
        let (mut salvaged, through) = begun(id, found.get(&id), loaded, machine);
        replay(&mut salvaged, through, &mut log, device)?;
        all.push(salvaged);
    }
    Ok(all)
}

/// The state that a group starts from, and the last of the entries that go on from there.
fn begun(
    group: GroupId,
    found: Option<&RecoveredGroup>,
    loaded: LoadedGroup,
    machine: &mut impl FnMut(GroupId) -> Box<dyn StateMachine>,
) -> (Salvaged, Index) {
    let LoadedGroup { state, failed, .. } = loaded;
    let snapshot = state.as_ref().map(|state| state.last);
    let unloaded = failed.iter().map(|(head, _)| head.last).max();
    let (shape, missing, _) = start::shape(found, snapshot, unloaded);
    let unreadable = failed.into_iter().map(|(head, why)| (head.number, why)).collect();
    let state = state.unwrap_or_else(|| LoadedState {
        last: LogId::ZERO,
        machine: machine(group),
        sessions: Sessions::new(),
        members: Members::none(),
    });
    let (mut term, mut commit) = (state.last.term, state.last.index);
    if let Some((named, _, known)) = found.and_then(|found| found.hard) {
        (term, commit) = (term.max(named), commit.max(known));
    }
    let lost = found.and_then(|found| found.hard_lost).filter(|lost| *lost < Term(u64::MAX));
    term = term.max(lost.unwrap_or_default());
    term = term.max(shape.runs.last().map_or(Term::ZERO, |&(_, term)| term));
    let LoadedState { last, machine, sessions, members } = state;
    let held = Held { group, last, term, commit, snapshot, unreadable, missing, members };
    (Salvaged { held, machine, sessions }, shape.last)
}

/// Applies the entries behind the state, up to `through`. What can't be read is missing.
fn replay<D: Device>(
    salvaged: &mut Salvaged,
    through: Index,
    log: &mut Log,
    device: &mut D,
) -> Result<(), SalvageError> {
    let mut now = Ticks::ZERO;
    while salvaged.held.last.index < through {
        let held = &mut salvaged.held;
        let first = held.last.index.next();
        let (ticket, bytes_max) = (first.0, READ_BYTES);
        let group = held.group;
        log.read(ReadRequest { ticket, group, first, last: through, bytes_max });
        let done = loop {
            now = now.after(TURN);
            log.turn(now, device)?;
            if let Some(done) = log.take_read() {
                break done;
            }
        };
        let Ok(records) = done.result else {
            let known = LogId::new(held.term, through);
            held.missing = Some(held.missing.unwrap_or_default().max(known));
            return Ok(());
        };
        let mut rest = &records[..];
        while !rest.is_empty() {
            let header = record::peek(rest).expect("the log verifies what it reads");
            let (entry, behind) = rest.split_at(record::encoded_bytes(header.length as usize));
            salvaged.apply(entry)?;
            rest = behind;
        }
    }
    Ok(())
}

impl Salvaged {
    fn apply(&mut self, entry: &[u8]) -> Result<(), SalvageError> {
        let header = record::peek(entry).expect("the log verifies what it reads");
        let (group, index) = (self.held.group, header.index);
        assert!(
            header.group == group && index == self.held.last.index.next(),
            "entry {index} of group {} isn't the next of {group} (V13)",
            header.group
        );
        let payload = &entry[RECORD_HEADER_BYTES..][..header.length as usize];
        match header.kind {
            RecordKind::Command => {
                let (sessions, machine) = (&mut self.sessions, &mut *self.machine);
                apply_command(sessions, machine, index, payload, &mut Vec::new())
                    .map_err(|()| SalvageError::UnknownCommand { group, index })?;
            }
            RecordKind::Configuration => {
                self.held.members = Members::decode(index, payload)
                    .map_err(|error| SalvageError::Members { group, index, error })?;
            }
            _ => {}
        }
        self.held.last = LogId::new(header.term, index);
        Ok(())
    }
}

/// The log of a new cluster, with nothing in it but what is added.
#[derive(Debug)]
pub struct NewLog {
    log: Log,
    now: Ticks,
}

impl NewLog {
    /// Begins it, where no log is.
    ///
    /// # Errors
    /// If it can't be.
    pub fn begin<D: Device>(settings: LogSettings, device: &mut D) -> Result<Self, SalvageError> {
        let (log, _) = Recovery::run(settings, device)?;
        Ok(Self { log, now: Ticks::ZERO })
    }

    /// Adds a group: its state as a snapshot, which the log names. All of it is durable afterwards.
    /// Who votes in it, says the configuration. A group without entries begins as any other, and
    /// takes no place, unless it was created at run time. Returns whether it took one.
    ///
    /// # Errors
    /// If there is no room, or the log fails.
    pub fn add<D: Device>(
        &mut self,
        device: &mut D,
        salvaged: Salvaged,
        configuration: &[u8],
    ) -> Result<bool, SalvageError> {
        let Held { group, last, term, .. } = salvaged.held;
        let mut record = Vec::new();
        // No node is configured with it: that it is here, the log says.
        let is_created = group >= GroupId::FIRST_CREATED;
        if is_created {
            let (node, index) = (GroupId::ZERO, Index(group.0));
            let payload = [&HomeState::Here.head()[..], configuration];
            record::encode(&mut record, RecordKind::Home, node, index, Term::ZERO, payload);
            self.log.append(&record).expect("a log that waits for nothing has room");
        }
        if last == LogId::ZERO {
            self.settle(device)?;
            return Ok(is_created);
        }
        let number = self.write(device, salvaged, configuration)?;
        // Nobody voted in the new cluster yet, and everything in the state counts as committed.
        for (kind, term, payload) in [
            (RecordKind::HardState, term, [0; 8]),
            (RecordKind::Snapshot, last.term, number.to_le_bytes()),
        ] {
            record.clear();
            record::encode(&mut record, kind, group, last.index, term, [&payload, b""]);
            self.log.append(&record).expect("a log that waits for nothing has room");
        }
        self.settle(device)?;
        Ok(true)
    }

    /// All that was appended is durable.
    fn settle<D: Device>(&mut self, device: &mut D) -> Result<(), SalvageError> {
        while !self.log.is_idle() {
            self.turn(device)?;
        }
        Ok(())
    }

    fn turn<D: Device>(&mut self, device: &mut D) -> Result<(), SalvageError> {
        self.now = self.now.after(TURN);
        self.log.turn(self.now, device)?;
        if self.log.space_exhausted() { Err(SalvageError::Full) } else { Ok(()) }
    }

    /// Writes a group's snapshot, and returns its number.
    fn write<D: Device>(
        &mut self,
        device: &mut D,
        salvaged: Salvaged,
        configuration: &[u8],
    ) -> Result<u64, SalvageError> {
        let Salvaged { held, mut machine, mut sessions } = salvaged;
        let Held { group, last, .. } = held;
        let failed = |error| SalvageError::Snapshot { group, error };
        let number = self.log.begin_snapshot(group, last, [0; STRANDS]);
        self.log.add_to_snapshot(number, &members_piece(Index::ZERO, configuration));
        machine.begin_snapshot();
        sessions.begin_snapshot();
        let (mut part, mut piece) = (Part::Machine, Vec::new());
        while part != Part::End {
            while !self.log.snapshot_has_room(number) {
                self.turn(device)?;
                if let Some(written) = self.log.take_snapshot_written() {
                    let error = written.result.expect_err("it wasn't ended");
                    return Err(failed(error));
                }
            }
            part = part.cut(SLICE_BYTES, &mut *machine, &mut sessions, &mut piece, None);
            self.log.add_to_snapshot(number, &piece);
        }
        self.log.add_to_snapshot(number, &end_piece());
        self.log.end_snapshot(number);
        let written = loop {
            self.turn(device)?;
            if let Some(written) = self.log.take_snapshot_written() {
                break written;
            }
        };
        written.result.map_err(failed)?;
        self.log.close_snapshot(device, number);
        Ok(number)
    }
}
