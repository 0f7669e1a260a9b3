//! A glommio socket as hyper wants it. A write that the other side doesn't take is given up after
//! a while: a client that never reads keeps neither a connection nor a buffer.

use crate::control::deadlines::{Deadline, Deadlines};
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Bytes taken from the socket at once: requests here are small.
const READ_BYTES: usize = 4096;

/// One HTTP connection.
pub(crate) struct Stream {
    socket: TcpStream,
    deadlines: Deadlines,
    /// How long a write may wait for the other side to read.
    patience: Duration,
    stalled: Option<Pin<Box<Deadline>>>,
    bytes: [u8; READ_BYTES],
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, deadlines: Deadlines, patience: Duration) -> Self {
        Self { socket, deadlines, patience, stalled: None, bytes: [0; READ_BYTES] }
    }

    /// A pending write becomes an error once it has been pending for too long.
    fn or_stalled<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let (deadlines, patience) = (&self.deadlines, self.patience);
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(deadlines.until(Instant::now() + patience)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let length = buffer.remaining().min(READ_BYTES);
        if length == 0 {
            return Poll::Ready(Ok(()));
        }
        let bytes = &mut this.bytes[..length];
        let read = Pin::new(&mut this.socket).poll_read(context, bytes);
        read.map_ok(|count| buffer.put_slice(&this.bytes[..count]))
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.or_stalled(written, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(context);
        this.or_stalled(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closed = Pin::new(&mut this.socket).poll_close(context);
        this.or_stalled(closed, context)
    }
}
