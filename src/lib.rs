//! The appliance.
#![deny(unsafe_code)]

pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod cores;
pub mod feed;
#[allow(unsafe_code)]
pub mod reactor;
pub mod snapshot;
pub mod wires;
