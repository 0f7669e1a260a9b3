//! The disk door by plain blocking calls, for offline commands: every operation is done when
//! `submit` returns.
//!
//! A device that only looks changes nothing, whatever the log above it wants, and a log begins its
//! life with a block: there is no room for new files, as on a full disk; what is written to those
//! that are there goes nowhere, though it looks done; what is to be removed stays. So nothing that is
//! appended to a log on such a device is there, at once or later.

use super::uring::{file_name, list_files};
use super::{Completion, Device, Durability, FileId, Geometry, Operation};
use ringraft_types::limits::BLOCK_ALIGN_MIN;
use ringraft_types::tag::Tag;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The disk door on the files of a directory.
#[derive(Debug)]
pub struct FilesDevice {
    directory: PathBuf,
    geometry: Geometry,
    /// Nothing is changed.
    looks_only: bool,
    files: BTreeMap<FileId, File>,
    completed: Vec<Completion>,
}

impl FilesDevice {
    /// A device that changes nothing.
    pub fn looking_at(directory: &Path) -> Self {
        // Nothing is written, so nothing must be aligned as the disk demands.
        Self::new(directory, Geometry { align: BLOCK_ALIGN_MIN }, true)
    }

    /// A device that writes as the disk below the directory demands of a node's log.
    pub fn writing_to(directory: &Path, geometry: Geometry) -> Self {
        Self::new(directory, geometry, false)
    }

    fn new(directory: &Path, geometry: Geometry, looks_only: bool) -> Self {
        let (files, completed) = (BTreeMap::new(), Vec::new());
        Self { directory: directory.to_path_buf(), geometry, looks_only, files, completed }
    }

    fn open(&mut self, file: FileId, is_new: bool) -> io::Result<i32> {
        let mut options = OpenOptions::new();
        options.read(true).write(!self.looks_only);
        if is_new {
            options.create_new(true).mode(0o600);
        }
        self.files.insert(file, options.open(self.directory.join(file_name(file)))?);
        Ok(0)
    }

    fn opened(&self, file: FileId) -> io::Result<&File> {
        self.files.get(&file).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn run(&mut self, operation: &mut Operation) -> io::Result<i32> {
        match operation {
            Operation::Create(_) if self.looks_only => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            Operation::Write { buffer, .. } if self.looks_only => Ok(buffer.len() as i32),
            Operation::Remove(file) if self.looks_only => {
                self.files.remove(file);
                Ok(0)
            }
            // What is there is as durable as it is.
            Operation::Sync(_) | Operation::SyncDirectory if self.looks_only => Ok(0),
            Operation::List => unreachable!("answered apart"),
            Operation::Create(file) => self.open(*file, true),
            Operation::Open(file) => self.open(*file, false),
            Operation::Write { file, offset, buffer, durability } => {
                let file = self.opened(*file)?;
                file.write_all_at(buffer, *offset)?;
                if *durability != Durability::None {
                    file.sync_data()?;
                }
                Ok(buffer.len() as i32)
            }
            // Both ways: whoever looks at files offline sees what the kernel remembers of them.
            Operation::Read { file, offset, buffer, from: _ } => {
                self.opened(*file)?.read_at(buffer, *offset).map(|bytes| bytes as i32)
            }
            Operation::Forget(_) => Ok(0),
            Operation::Sync(file) => self.opened(*file)?.sync_data().map(|()| 0),
            Operation::SyncDirectory => File::open(&self.directory)?.sync_all().map(|()| 0),
            Operation::Close(file) => {
                self.files.remove(file);
                Ok(0)
            }
            Operation::Remove(file) => {
                self.files.remove(file);
                std::fs::remove_file(self.directory.join(file_name(*file))).map(|()| 0)
            }
        }
    }

    fn complete(&mut self, tag: Tag, result: io::Result<i32>, operation: Operation) {
        let result = result.unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO));
        let linked = matches!(
            operation,
            Operation::Write { durability: Durability::LinkedSync | Durability::Blocking, .. }
        );
        let buffer = match operation {
            Operation::Write { buffer, .. } | Operation::Read { buffer, .. } => Some(buffer),
            _ => None,
        };
        let sync_result = linked.then_some(result.min(0));
        self.completed.push(Completion { tag, result, sync_result, buffer, files: Vec::new() });
    }
}

impl Device for FilesDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, tag: Tag, mut operation: Operation) {
        if matches!(operation, Operation::List) {
            let listed = list_files(&self.directory);
            self.complete(tag, listed.as_ref().map(|_| 0).map_err(copy_of), operation);
            let last = self.completed.last_mut().expect("just put there");
            last.files = listed.unwrap_or_default();
            return;
        }
        let result = self.run(&mut operation);
        self.complete(tag, result, operation);
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.completed);
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}
