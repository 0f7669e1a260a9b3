//! (being written)

pub mod machine;
