//! (being written)

pub mod mesh;
pub mod ring;
