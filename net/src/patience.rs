//! How long a node waits for whom. The hot lane keeps to these, and so does the simulator's.

use ringraft_types::Ticks;

/// A greeting must be whole this long after the connection was accepted.
pub const GREETING_TIME: Ticks = Ticks::from_millis(5_000);
/// A frame must be whole this long after its first byte: a client that sends one byte a second
/// holds no buffer for ever.
pub const FRAME_TIME: Ticks = Ticks::from_millis(30_000);
/// A dial must have led to a welcome after this long.
pub const DIAL_TIME: Ticks = Ticks::from_millis(2_000);
/// Pauses between dials grow from the first to the second.
pub const DIAL_PAUSE: (Ticks, Ticks) = (Ticks::from_millis(20), Ticks::from_millis(1_000));
/// For so long there must have been no connection before the one of two peers dials that leaves it
/// to the other.
pub const SECOND_DIAL: Ticks = Ticks::from_millis(10_000);
/// A connection on which something waits to be sent is closed when the other side takes nothing
/// for this long.
pub const SEND_TIME: Ticks = Ticks::from_millis(10_000);
/// How often overdue connections are looked for, and how long a lane sleeps at most.
pub const SWEEP_TIME: Ticks = Ticks::from_millis(500);
