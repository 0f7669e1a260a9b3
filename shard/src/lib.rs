//! (being written)

pub mod machine;
pub mod session;
