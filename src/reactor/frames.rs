//! Frames out of inboxes and into the shard, and what happens to a stream that breaks the rules.

use super::meet::send_last;
use super::{CLOSED, LaneError, Reactor};
use crate::control::LogEvent;
use ringraft_net::client_wire::ErrorFrame;
use ringraft_net::connection::State;
use ringraft_net::handshake::{Hello, Welcome};
use ringraft_shard::FrameRefusal;
use ringraft_shard::event::Event;

impl Reactor {
    /// Looks at every socket that received something.
    pub(super) fn take_frames(&mut self) -> Result<(), LaneError> {
        let mut ready = std::mem::take(&mut self.ready);
        for slot in ready.drain(..) {
            if slot & CLOSED != 0 {
                self.close(slot & !CLOSED)?;
                self.shard.links.list(slot & !CLOSED);
            } else {
                self.take_frames_of(slot)?;
                self.shard.links.list(slot);
            }
        }
        self.ready = ready;
        Ok(())
    }

    pub(super) fn take_frames_of(&mut self, slot: u32) -> Result<(), LaneError> {
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        if socket.closing {
            return Ok(());
        }
        match socket.state {
            State::Greeting { port } => {
                let Some(bytes) = socket.inbox.take_handshake() else { return Ok(()) };
                let hello = Hello::decode(&bytes);
                self.greeted(slot, port, hello)?;
            }
            State::Dialed(node, role) => {
                let Some(bytes) = socket.inbox.take_handshake() else { return Ok(()) };
                let welcome = Welcome::decode(&bytes);
                self.welcomed(slot, node, role, welcome)?;
            }
            _ => {}
        }
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        let state = socket.state;
        if !state.is_open() || socket.closing {
            return Ok(());
        }
        self.take_frames_of_inbox(slot, state)
    }

    pub(super) fn take_frames_of_inbox(
        &mut self,
        slot: u32,
        state: State,
    ) -> Result<(), LaneError> {
        let Some(socket) = self.shard.links.get(slot) else { return Ok(()) };
        // The inbox leaves its socket while its frames are looked at: they borrow it, and the
        // shard may write to the same socket's outbox meanwhile.
        let mut inbox = std::mem::take(&mut socket.inbox);
        let connection = self.shard.links.connection_id(slot);
        let shard = self.shard.links.shard;
        let mut refusal = None;
        loop {
            if state == State::Client
                && let Some(socket) = self.shard.links.get(slot)
            {
                // Its answers would have no place to wait.
                socket.stalled = socket.outbox.is_full();
                if socket.stalled || socket.closing {
                    break;
                }
            }
            let frame = match inbox.next_frame() {
                Ok(Some(frame)) => {
                    self.shard.links.give_time(slot, self.now);
                    frame
                }
                Ok(None) => break,
                Err(error) => {
                    let reason = "bytes that are no frame";
                    refusal = Some((LogEvent::FrameRefused { shard, reason }, error.to_string()));
                    break;
                }
            };
            let event = match state {
                State::Peer(from) => Event::PeerFrame { from, frame },
                State::Pull(from) | State::Serve(from) => Event::BulkFrame { from, frame },
                _ => Event::ClientFrame { from: connection, frame },
            };
            if let Err(error) = self.shard.collect(self.now, event)? {
                let told = match (&error, state) {
                    (&FrameRefusal::Breach { group, breach }, State::Peer(peer)) => {
                        LogEvent::Breach { peer, group, breach }
                    }
                    _ => {
                        let reason = "a frame that breaks the protocol";
                        LogEvent::FrameRefused { shard, reason }
                    }
                };
                refusal = Some((told, error.to_string()));
                break;
            }
        }
        if let Some(socket) = self.shard.links.get(slot) {
            socket.inbox = inbox;
        }
        if let Some((told, sentence)) = refusal {
            self.refuse(slot, state, told, &sentence)?;
        }
        Ok(())
    }

    /// A stream that broke the rules is closed; a client is told why first.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        state: State,
        told: LogEvent,
        sentence: &str,
    ) -> Result<(), LaneError> {
        let sender = self.shard.settings().identity;
        if state == State::Client
            && let Some(socket) = self.shard.links.get(slot)
            && !socket.sending
        {
            ErrorFrame { code: 1, sentence }.write(&mut socket.outbox, sender);
            if let Some(bytes) = socket.outbox.take_for_send() {
                send_last(&socket.fd, bytes);
            }
        }
        self.shard.links.frames_refused += 1;
        self.say(told);
        self.close(slot)
    }
}
