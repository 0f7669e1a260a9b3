//! One connection to one node, without a client's cleverness: it asks exactly the node and shard
//! that it was made for, and hears exactly what that answers.

use ringraft_net::client_wire::{
    BatchWriter, Consistency, ErrorFrame, LocateReply, Reply, replies, write_locate,
};
use ringraft_net::{Hello, Identity, Inbox, Kind, Outbox, Welcome};
use ringraft_types::{ClientId, GroupId, ShardId, Status};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a node may be silent before the connection counts as dead.
const SILENCE: Duration = Duration::from_secs(1);

/// A connection that was welcomed.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    /// The shard that welcomed it.
    pub(crate) shard: ShardId,
    calls: u64,
}

/// An answer that owns its body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) call: u64,
    pub(crate) status: Status,
    pub(crate) body: Vec<u8>,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Raw {
    /// Connects to the shard of a node, or to whichever takes the connection.
    pub(crate) fn connect(address: &str, shard: Option<ShardId>) -> io::Result<Self> {
        let hello = Hello::from_client(ClientId(7), None, None, shard);
        let (mut raw, welcome) = Self::greet(address, &hello)?;
        welcome.verdict.map_err(broken)?;
        raw.shard = welcome.shard;
        Ok(raw)
    }

    /// Greets a port of a node; what it answers.
    pub(crate) fn greet(address: &str, hello: &Hello) -> io::Result<(Self, Welcome)> {
        let address: SocketAddr = address.parse().map_err(broken)?;
        let mut stream = TcpStream::connect_timeout(&address, SILENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.write_all(&hello.encode())?;
        let (inbox, outbox) = (Inbox::new(), Outbox::new(1 << 20));
        let mut raw = Self { stream, inbox, outbox, shard: ShardId(0), calls: 0 };
        let welcome = loop {
            if let Some(bytes) = raw.inbox.take_handshake() {
                break Welcome::decode(&bytes).map_err(broken)?;
            }
            raw.receive()?;
        };
        Ok((raw, welcome))
    }

    /// How long a call of [`Self::answers`] waits.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout above zero");
    }

    /// Sends one read or write; its number.
    pub(crate) fn send(
        &mut self,
        kind: Kind,
        group: GroupId,
        payload: [&[u8]; 2],
    ) -> io::Result<u64> {
        self.send_many(kind, group, payload, 1)
    }

    /// Sends a read that may see this; its number.
    pub(crate) fn send_read(
        &mut self,
        group: GroupId,
        command: &[u8],
        of: Consistency,
    ) -> io::Result<u64> {
        let sender = Identity::default();
        let mut batch = BatchWriter::begin_reads(&mut self.outbox, of, group, sender);
        self.calls += 1;
        batch.request(self.calls, [command, b""]);
        batch.finish();
        self.flush()?;
        Ok(self.calls)
    }

    /// Sends the same read or write several times in one frame; the last one's number.
    pub(crate) fn send_many(
        &mut self,
        kind: Kind,
        group: GroupId,
        payload: [&[u8]; 2],
        times: usize,
    ) -> io::Result<u64> {
        let mut batch = BatchWriter::begin(&mut self.outbox, kind, group, Identity::default());
        for _ in 0..times {
            self.calls += 1;
            batch.request(self.calls, payload);
        }
        batch.finish();
        self.flush()?;
        Ok(self.calls)
    }

    /// Where the node thinks that the group is.
    pub(crate) fn locate(&mut self, group: GroupId) -> io::Result<LocateReply> {
        write_locate(&mut self.outbox, group, Identity::default());
        self.flush()?;
        loop {
            if let Some(frame) = self.inbox.next_frame().map_err(broken)? {
                assert_eq!(frame.header.kind, Kind::LocateReply, "nothing else was asked");
                return LocateReply::read(&frame).map_err(broken);
            }
            self.receive()?;
        }
    }

    /// What the node answered next, to one or several calls.
    pub(crate) fn answers(&mut self) -> io::Result<Vec<Answer>> {
        loop {
            if let Some(frame) = self.inbox.next_frame().map_err(broken)? {
                if frame.header.kind == Kind::Error {
                    let error = ErrorFrame::read(&frame).map_err(broken)?;
                    return Err(broken(error.sentence));
                }
                let own = |reply: Reply<'_>| Answer {
                    call: reply.call,
                    status: reply.status,
                    body: reply.body.to_vec(),
                };
                return Ok(replies(&frame).map_err(broken)?.iter().map(own).collect());
            }
            self.receive()?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.outbox.take_for_send() {
            self.stream.write_all(bytes)?;
            let count = bytes.len();
            self.outbox.sent(count);
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        match self.stream.read(self.inbox.space())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.inbox.filled(count);
                Ok(())
            }
        }
    }
}
