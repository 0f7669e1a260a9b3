//! The appliance.

pub mod cli;
pub mod config;
pub mod control;
