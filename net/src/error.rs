//! What can be wrong with bytes from the wire, and with a call of the client library.
//! Every message says what, where, and how to mend it.

use std::io;

use ringraft_types::{ConfigurationError, GroupId};

use crate::client::{Reason, Response, Shortfall, SubmitError, Trouble};
use crate::frame::{Kind, WIRE_VERSION, WIRE_VERSION_MIN};

/// Why received bytes are not a frame. The stream is out of step: the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are not a frame's.
    #[error(
        "frame header starts with {found:#010x}, not with RRFR: the other end doesn't speak \
         ringraft; check address and port"
    )]
    Magic {
        /// In the header.
        found: u32,
    },
    /// The header's checksum doesn't match.
    #[error(
        "frame header checksum is {found:#010x}, its bytes give {computed:#010x}: damaged on the \
         way, the connection is closed and made anew; if it recurs, check network and memory"
    )]
    HeaderChecksum {
        /// In the header.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// The version is not spoken here.
    #[error(
        "frame has wire version {found}, this build speaks {WIRE_VERSION_MIN} to {WIRE_VERSION}: \
         upgrade the older end"
    )]
    Version {
        /// In the header.
        found: u8,
    },
    /// The kind is unknown to this version.
    #[error("frame kind {found} is unknown to wire version {WIRE_VERSION}: upgrade this end")]
    Kind {
        /// In the header.
        found: u8,
    },
    /// Flags or reserved bytes are not zero.
    #[error("{kind:?} frame has non-zero reserved bytes: upgrade this end")]
    Reserved {
        /// The frame's kind.
        kind: Kind,
    },
    /// The body is longer than its kind allows.
    #[error(
        "{kind:?} frame claims {length} body bytes, the limit is {limit}: split the request, or \
         upgrade the older end"
    )]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// In the header.
        length: u32,
        /// The most that the kind allows.
        limit: usize,
    },
    /// The body's checksum doesn't match.
    #[error(
        "{kind:?} frame body checksum is {found:#010x}, its bytes give {computed:#010x}: damaged \
         on the way, the connection is closed and made anew; if it recurs, check network and memory"
    )]
    BodyChecksum {
        /// The frame's kind.
        kind: Kind,
        /// In the header.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
}

/// Why an intact frame's body is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body is not a valid archive of its kind.
    #[error(
        "{kind:?} frame of {length} bytes is not a valid archive: the two ends were built from \
         different sources; install the same release on both"
    )]
    Archive {
        /// The frame's kind.
        kind: Kind,
        /// The body's bytes.
        length: usize,
    },
    /// A field holds a value that means nothing.
    #[error(
        "{kind:?} frame has {field} = {value}, which means nothing to this version: install the \
         same release on both ends"
    )]
    Field {
        /// The frame's kind.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The body ends before what it announces.
    #[error(
        "{kind:?} frame of {length} body bytes ends inside item {item}: the sender's encoder is at \
         fault; upgrade it"
    )]
    Short {
        /// The frame's kind.
        kind: Kind,
        /// The body's bytes.
        length: usize,
        /// The item, counted from zero.
        item: u32,
    },
    /// The body goes on after what it announces.
    #[error(
        "{kind:?} frame has {surplus} bytes after its last item: the sender's encoder is at fault; \
         upgrade it"
    )]
    Surplus {
        /// The frame's kind.
        kind: Kind,
        /// How many.
        surplus: usize,
    },
    /// An item is over a limit.
    #[error(
        "{kind:?} frame, item {item}: {length} bytes, allowed are {least} to {most}: send a \
         smaller command"
    )]
    Length {
        /// The frame's kind.
        kind: Kind,
        /// The item, counted from zero.
        item: u32,
        /// What it has.
        length: usize,
        /// The least allowed.
        least: usize,
        /// The most allowed.
        most: usize,
    },
    /// More items than the frame may carry.
    #[error("{kind:?} frame has {count} items, the limit is {limit}: send several frames")]
    Count {
        /// The frame's kind.
        kind: Kind,
        /// How many it claims.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The members in a frame are none that a group can have.
    #[error("{kind:?} frame, its members: {error}; name others, or upgrade the older end")]
    Members {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong with them.
        error: ConfigurationError,
    },
    /// A frame's group is zero where one is needed, or the other way round.
    #[error("{kind:?} frame names group {group}: a frame of this kind can't")]
    Group {
        /// The frame's kind.
        kind: Kind,
        /// What it names.
        group: GroupId,
    },
}

/// Why a blocking call failed, or the client can't work at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No endpoint was given.
    #[error("the client has no endpoint: give the client address of a node, as host:port")]
    NoEndpoint,
    /// An endpoint is not an address.
    #[error("endpoint {endpoint:?} is not an address: write host:port, or [address]:port for IPv6")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gives no random bytes ({error}): allow the getrandom call")]
    Random {
        /// Its answer.
        error: getrandom::Error,
    },
    /// The operating system's readiness queue failed.
    #[error("waiting for sockets failed ({error}): check the limit of open files")]
    Poll {
        /// Its answer.
        error: io::Error,
    },
    /// The call was not taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// Definitely not done.
    #[error("not done: {reason}{}", trouble_text(.trouble))]
    NotDone {
        /// Why.
        reason: Reason,
        /// What last went wrong with a connection.
        trouble: Option<Trouble>,
    },
    /// Done or not: it isn't known.
    #[error("it isn't known whether it was done: {reason}{}", trouble_text(.trouble))]
    Unknown {
        /// Why.
        reason: Reason,
        /// What last went wrong with a connection.
        trouble: Option<Trouble>,
    },
    /// A write was done, and is committed at the response's index. The level that was asked for
    /// wasn't seen reached in time.
    #[error("done and committed at entry {}, but {lacks}", .response.index)]
    Below {
        /// The answer to the write.
        response: Box<Response>,
        /// What it lacks.
        lacks: Shortfall,
    },
    /// A node or shard didn't say how it is.
    #[error("{address} doesn't say how it is: {reason}{}", trouble_text(.trouble))]
    NoStatus {
        /// Where it was asked.
        address: String,
        /// Why.
        reason: Reason,
        /// What last went wrong with a connection.
        trouble: Option<Trouble>,
    },
    /// The answer makes no sense.
    #[error(transparent)]
    Wire(#[from] WireError),
}

fn trouble_text(trouble: &Option<Trouble>) -> String {
    trouble.as_ref().map_or(String::new(), |trouble| format!(" (last trouble: {trouble})"))
}
