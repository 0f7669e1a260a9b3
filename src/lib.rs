//! The appliance.
#![deny(unsafe_code)]

pub mod clock;
pub mod config;
pub mod cores;
pub mod reactor;
pub mod snapshot;
pub mod wires;
