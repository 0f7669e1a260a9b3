//! The appliance.
pub mod config;
