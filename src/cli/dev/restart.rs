//! The socket through which `ringraft dev restart` asks the process that owns the nodes. One line
//! there, the node; one line back, JSON.

use super::nodes::DevNode;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Output};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in the directory.
const SOCKET: &str = "dev.sock";
/// How long the one who asks may take to say what.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long stopping and starting may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest question, bytes.
const QUESTION_BYTES_MAX: u64 = 256;

/// The end in `ringraft dev`.
#[derive(Debug)]
pub(super) struct RestartSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl RestartSocket {
    /// The caller holds the directory's lock: a socket that is there already is nobody's.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let path = socket_path(dir);
        let failure =
            |error: io::Error| Failure::environment(format!("opening {}", path.display()), &error);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failure(error)),
            _ => {}
        }
        let listener = with_short_path(dir, |path| UnixListener::bind(path)).map_err(failure)?;
        listener.set_nonblocking(true).map_err(failure)?;
        Ok(Self { listener, path })
    }

    /// Answers who has asked since the last time.
    pub(super) fn serve(&self, nodes: &mut [DevNode], allow_buffered: bool) {
        while let Ok((socket, _)) = self.listener.accept() {
            // Whoever asked and went away needs no answer.
            let _ = answer(&socket, nodes, allow_buffered);
        }
    }
}

impl Drop for RestartSocket {
    fn drop(&mut self) {
        // The next one removes it if this one can't.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

/// A socket's address has room for 107 bytes, a path may be longer: the directory is named by its
/// descriptor.
fn with_short_path<T>(dir: &Path, reach: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = File::open(dir)?;
    reach(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(SOCKET))
}

fn answer(socket: &UnixStream, nodes: &mut [DevNode], allow_buffered: bool) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(ASK_TIMEOUT))?;
    socket.set_write_timeout(Some(ASK_TIMEOUT))?;
    let mut question = String::new();
    BufReader::new(socket).take(QUESTION_BYTES_MAX).read_line(&mut question)?;
    let asked = question.trim();
    let found =
        nodes.iter_mut().find(|node| node.name() == asked || node.id().to_string() == asked);
    let said = match found {
        None => json!({"error": format!("there is no node {asked:?} here")}),
        Some(node) => match node.restart(allow_buffered) {
            Ok(()) => json!({"id": node.id().get(), "name": node.name(), "pid": node.pid()}),
            Err(failure) => json!({"error": failure.message}),
        },
    };
    let mut socket = socket;
    writeln!(socket, "{said}")
}

/// Asks the `ringraft dev` of a directory to start a node again.
pub(super) fn ask(dir: &Path, node: &str, output: Output) -> Result<Exit, Failure> {
    let path = socket_path(dir);
    let said = exchange(dir, node).map_err(|error| {
        let message = format!("no `ringraft dev` answers at {}: {error}", path.display());
        Failure::new(Exit::Unavailable, message).cure("start it, or name its directory with --dir")
    })?;
    if let Some(error) = said["error"].as_str() {
        return Err(Failure::new(Exit::NotDone, error));
    }
    match output {
        Output::Json => output::json(&said)?,
        Output::Table => output::text(&format!(
            "node {} ({}) runs again, pid {}",
            said["id"],
            said["name"].as_str().unwrap_or_default(),
            said["pid"]
        ))?,
    }
    Ok(Exit::Ok)
}

fn exchange(dir: &Path, node: &str) -> io::Result<Value> {
    let mut socket = with_short_path(dir, |path| UnixStream::connect(path))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    writeln!(socket, "{node}")?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}
