//! Bytes on the wire: frames, the handshake, what nodes say to each other and to clients, and the
//! client library.
//!
//! Everything but the client's driver is sans-I/O: bytes in, frames out. Nothing else here opens a
//! socket, reads a clock or draws a random number.
#![deny(unsafe_code)]

mod archive;
pub mod barrier_wire;
pub mod bulk_wire;
mod bytes;
pub mod client;
pub mod client_wire;
pub mod connection;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod inbox;
pub mod lead_wire;
pub mod link_table;
pub mod members_wire;
pub mod outbox;
pub mod patience;
pub mod status;
pub mod wire;

pub use client::{Client, ClientOptions};
pub use error::{ClientError, FrameError, WireError};
pub use frame::{Frame, FrameHeader, FrameWriter, Identity, Kind};
pub use handshake::{Hello, RefusalCode, Role, Welcome};
pub use inbox::Inbox;
pub use outbox::Outbox;
