//! The data directory at a start: whose it is, how often its node was started, and which logs must
//! be in it.

use super::{BootError, LOG_FOLDER, system};
use crate::config::{Config, Member};
use ringraft_types::Lacked;
use ringraft_wal::lock;
use ringraft_wal::manifest::{Found, Manifest};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is wrong with a log that was begun and isn't there, and what to do.
pub(super) const LOST: &str = "is missing, and the node has promised what was in it: put it back \
                               as it was, or leave this node stopped; an older copy won't do";
/// How long a starting node waits for a predecessor to let go of the data directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A data directory that is this node's, held.
pub(super) struct Directory {
    pub(super) found: Found,
    pub(super) lock: File,
}

/// Locks the data directory and judges it.
pub(super) fn open_directory(config: &Config) -> Result<Directory, BootError> {
    let path = &config.data_dir;
    let refuse = |sentence: String| BootError::DataDirectory(sentence);
    if !Manifest::exists(path) {
        return Err(refuse(format!(
            "data directory {} is not formatted; make it with: ringraft format --config FILE",
            path.display()
        )));
    }
    let lock = lock::acquire(path, LOCK_PATIENCE).map_err(|error| refuse(error.to_string()))?;
    let found = Manifest::load(path).map_err(|error| refuse(error.to_string()))?;
    let manifest = &found.manifest;
    if manifest.cluster != config.cluster {
        return Err(refuse(format!(
            "data directory {} belongs to cluster {:032x}, the configuration says {:032x}; \
             name the directory of this cluster, or format a new one",
            path.display(),
            manifest.cluster.0,
            config.cluster.0
        )));
    }
    if manifest.node != config.node {
        return Err(refuse(format!(
            "data directory {} belongs to node {}, the configuration says {}; \
             name this node's own directory",
            path.display(),
            manifest.node,
            config.node
        )));
    }
    if let Some(Lacked { start, by }) = manifest.lacked {
        return Err(refuse(format!(
            "data directory {} is an older copy: node {by} met this node in start {}, which isn't \
             in it, so it forgot what the node promised since; put the newest directory back, the \
             one with that start, or leave this node stopped",
            path.display(),
            start.number
        )));
    }
    let folder = path.join(LOG_FOLDER);
    if !manifest.logs.is_empty() && !folder.is_dir() {
        return Err(refuse(format!("{} {LOST}", folder.display())));
    }
    std::fs::create_dir_all(folder).map_err(system("making the log's folder"))?;
    Ok(Directory { found, lock })
}

/// Writes what changes in the manifest while the node starts.
#[derive(Clone)]
pub(super) struct Keeper {
    directory: PathBuf,
    found: Arc<Mutex<Found>>,
}

impl Keeper {
    pub(super) fn new(config: &Config, found: Found) -> Self {
        Self { directory: config.data_dir.clone(), found: Arc::new(Mutex::new(found)) }
    }

    /// Changes the manifest, durably, and returns it.
    fn change(&self, change: impl FnOnce(&mut Manifest)) -> Result<Manifest, BootError> {
        let mut found = self.found.lock().expect("a panic ends the process");
        change(&mut found.manifest);
        found.generation += 1;
        found
            .manifest
            .store(&self.directory, found.generation)
            .map_err(|error| BootError::DataDirectory(format!("writing the manifest: {error}")))?;
        Ok(found.manifest.clone())
    }

    /// Counts this start, before anybody hears of it: by it the peers tell an older copy of the
    /// data directory (decision 0011). A directory that doesn't know who votes first learns it from
    /// its file, once: what becomes of the file later changes no member. Returns what is written.
    pub(super) fn count_start(&self, nodes: &[Member]) -> Result<Manifest, BootError> {
        let nonce = getrandom::u64().map_err(|error| {
            let error = std::io::Error::other(error.to_string());
            BootError::System { what: "drawing a random number", error }
        })?;
        self.change(|manifest| {
            manifest.starts.begin(nonce);
            manifest.first.get_or_insert_with(|| nodes.iter().map(|node| node.id).collect());
        })
    }

    pub(super) fn is_begun(&self, log_id: u64) -> bool {
        self.found.lock().expect("a panic ends the process").manifest.logs.holds(log_id)
    }

    /// The directory is an older copy: no later start serves from it.
    pub(super) fn lacks(&self, lacked: Lacked) {
        let written = self.change(|manifest| {
            manifest.lacked.get_or_insert(lacked);
        });
        if let Err(error) = written {
            // This life knows it; a later one hears it again from the peers that do.
            tracing::error!(
                "{error}: a later start won't know that the directory is an older copy"
            );
        }
    }

    /// A block of the log is durable: from now on the log must be there.
    pub(super) fn begun(&self, log_id: u64) -> Result<(), BootError> {
        self.change(|manifest| manifest.logs.insert(log_id)).map(drop)
    }
}
