//! How numbers and fixed structs go into archives and come out: the one place that knows rkyv's
//! writers and validators. What is written is decided in `wire.rs`.

use ringraft_types::{
    GroupId, Incarnation, Index, NodeId, STRANDS, Sequence, StrandBytes, Term, Ticks,
};
use rkyv::api::low::{LowSerializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::rend::unaligned::{u32_ule, u64_ule};
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::{Positional, Writer};
use rkyv::vec::ArchivedVec;
use rkyv::{Archive, Portable, Serialize};

use crate::error::WireError;
use crate::frame::{Frame, FrameWriter, Kind};

// What rkyv makes of a number is decided by its cargo features, which unify over a build. These
// lines don't compile if that is anything but little-endian and unaligned.
const _: fn(<u64 as Archive>::Archived) -> u64_ule = |number| number;
const _: fn(<u32 as Archive>::Archived) -> u32_ule = |number| number;
const _: () = assert!(size_of::<ArchivedVec<u8>>() == 8 && align_of::<ArchivedVec<u8>>() == 1);

/// A number: how it goes into an archive, and how it comes out.
pub(crate) trait Travels: Copy {
    type Wire: Archive;
    fn to_wire(self) -> Self::Wire;
    fn from_wire(wire: <Self::Wire as Archive>::Archived) -> Self;
}

macro_rules! travels {
    ($($name:ident),*) => {$(
        impl Travels for $name {
            type Wire = u64;
            fn to_wire(self) -> u64 {
                self.0
            }
            fn from_wire(wire: u64_ule) -> Self {
                Self(wire.to_native())
            }
        }
    )*};
}

travels!(GroupId, Term, Index, Sequence, Ticks, Incarnation);

impl Travels for NodeId {
    type Wire = u32;
    fn to_wire(self) -> u32 {
        self.0
    }
    fn from_wire(wire: u32_ule) -> Self {
        Self(wire.to_native())
    }
}

impl Travels for u64 {
    type Wire = u64;
    fn to_wire(self) -> u64 {
        self
    }
    fn from_wire(wire: u64_ule) -> Self {
        wire.to_native()
    }
}

impl Travels for u32 {
    type Wire = u32;
    fn to_wire(self) -> u32 {
        self
    }
    fn from_wire(wire: u32_ule) -> Self {
        wire.to_native()
    }
}

impl Travels for StrandBytes {
    type Wire = [u64; STRANDS];
    fn to_wire(self) -> [u64; STRANDS] {
        self
    }
    fn from_wire(wire: [u64_ule; STRANDS]) -> Self {
        wire.map(u64_ule::to_native)
    }
}

impl Travels for bool {
    type Wire = u8;
    fn to_wire(self) -> u8 {
        u8::from(self)
    }
    /// Only 0 and 1 get here: the border refuses all else.
    fn from_wire(wire: u8) -> Self {
        wire != 0
    }
}

/// The one place where received bytes become an archive.
pub(crate) fn access<'a, T>(
    frame: &Frame<'_>,
    kind: Kind,
    bytes: &'a [u8],
) -> Result<&'a T, WireError>
where
    T: Portable + for<'b> CheckBytes<LowValidator<'b, Failure>>,
{
    assert_eq!(frame.header.kind, kind, "the caller chooses the function by the frame's kind");
    rkyv::api::low::access::<T, Failure>(bytes)
        .map_err(|_| WireError::Archive { kind, length: frame.body.len() })
}

/// A fixed struct that is all there is.
pub(crate) fn access_fixed<'a, T>(
    frame: &Frame<'_>,
    kind: Kind,
    bytes: &'a [u8],
) -> Result<&'a T, WireError>
where
    T: Portable + for<'b> CheckBytes<LowValidator<'b, Failure>>,
{
    // An archive ends where its bytes end: what stands before it would go unnoticed.
    if bytes.len() != size_of::<T>() {
        return Err(WireError::Archive { kind, length: frame.body.len() });
    }
    access(frame, kind, bytes)
}

/// A fixed struct that a frame's body begins with, and what follows it.
pub(crate) fn access_head<'a, T>(
    frame: &Frame<'a>,
    kind: Kind,
) -> Result<(&'a T, &'a [u8]), WireError>
where
    T: Portable + for<'b> CheckBytes<LowValidator<'b, Failure>>,
{
    let length = frame.body.len();
    let (head, rest) = frame.body.split_at_checked(size_of::<T>()).ok_or(WireError::Short {
        kind,
        length,
        item: 0,
    })?;
    Ok((access(frame, kind, head)?, rest))
}

/// The fixed structs that the rest of a frame's body is made of.
pub(crate) fn access_items<'a, T>(
    frame: &Frame<'_>,
    kind: Kind,
    bytes: &'a [u8],
) -> impl ExactSizeIterator<Item = Result<&'a T, WireError>>
where
    T: Portable + for<'b> CheckBytes<LowValidator<'b, Failure>> + 'a,
{
    bytes.chunks(size_of::<T>()).enumerate().map(move |(at, item)| {
        if item.len() != size_of::<T>() {
            let length = frame.body.len();
            return Err(WireError::Short { kind, length, item: at as u32 });
        }
        access(frame, kind, item)
    })
}

/// Positions in an archive count from where it starts in the frame's body.
pub(crate) struct ArchiveWriter<'a, 'b> {
    frame: &'a mut FrameWriter<'b>,
    start: usize,
}

impl Positional for ArchiveWriter<'_, '_> {
    fn pos(&self) -> usize {
        self.frame.body_len() - self.start
    }
}

impl Writer<Failure> for ArchiveWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.frame.extend(bytes);
        Ok(())
    }
}

/// What an archive is written with.
pub(crate) type Serializer<'a, 'b, 'c> =
    LowSerializer<ArchiveWriter<'a, 'b>, SubAllocator<'c>, Failure>;

pub(crate) fn archive(
    frame: &mut FrameWriter<'_>,
    value: &impl for<'a, 'b, 'c> Serialize<Serializer<'a, 'b, 'c>>,
) {
    let start = frame.body_len();
    rkyv::api::low::to_bytes_in_with_alloc::<_, _, Failure>(
        value,
        ArchiveWriter { frame, start },
        SubAllocator::new(&mut []),
    )
    .expect("fixed fields need no scratch memory, and an outbox takes all bytes");
}

/// Declares a fixed struct three times: as the rest of the program uses it, as it is archived, and
/// its layout as text for [`layout_hash`]. Asserts that nothing pads it.
macro_rules! fixed {
    ($(#[$doc:meta])* $name:ident, $wire:ident, $archived:ident, $bytes:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ident,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        #[derive(Clone, Copy, Debug, Archive, Serialize)]
        struct $wire {
            $($field: <$type as Travels>::Wire,)*
        }

        const _: () = assert!(size_of::<$archived>() == $bytes);
        const _: () = assert!(align_of::<$archived>() == 1);

        impl $name {
            pub(crate) const LAYOUT: &str = concat!(
                stringify!($name), "=", stringify!($bytes),
                $(",", stringify!($field), ":", stringify!($type)),*
            );

            fn to_wire(self) -> $wire {
                $wire { $($field: self.$field.to_wire(),)* }
            }

            fn from_wire(wire: &$archived) -> Self {
                Self { $($field: Travels::from_wire(wire.$field),)* }
            }
        }
    };
}
pub(crate) use fixed;
