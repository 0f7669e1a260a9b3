//! The checkers against histories that are right by construction, and against each way to break
//! one that a cluster might have.

mod directed;
mod properties;
mod world;
