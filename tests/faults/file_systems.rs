//! A node on another file system than the build's: XFS on a loop device, where this machine permits
//! one (root, loop devices, `mkfs.xfs` of the package xfsprogs). Where it doesn't, the test says so
//! and has shown nothing.

use crate::cluster::{Cluster, Shape, ringraft, text_of};
use crate::load::{Load, Writer, check};
use ringraft_types::GroupId;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The least that mkfs.xfs agrees to, and some.
const IMAGE_BYTES: u64 = 512 << 20;

/// A file system in a file. Gone when dropped.
struct Mounted {
    at: PathBuf,
    _directory: TempDir,
}

impl Mounted {
    /// Makes one, or says what this machine doesn't permit.
    fn xfs() -> Result<Self, String> {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let (image, at) = (directory.path().join("image"), directory.path().join("mounted"));
        let file = File::create(&image).expect("a file");
        file.set_len(IMAGE_BYTES).expect("a file with a hole");
        std::fs::create_dir(&at).expect("a directory");
        run(Command::new("mkfs.xfs").arg("-q").arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self { at, _directory: directory })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the last writes of a killed node may still hold it. If it fails, what is left
        // behind says so.
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", text_of(&output))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Goal: on XFS the disk can be measured, and a node keeps what it acknowledged across kill -9.
#[test]
fn a_node_on_xfs_keeps_its_data() {
    let mounted = match Mounted::xfs() {
        Ok(mounted) => mounted,
        Err(reason) => {
            eprintln!("not tested, this machine doesn't permit it: {reason}");
            return;
        }
    };
    let dir = mounted.at.display().to_string();
    let fsync = ["bench", "fsync", "--dir", &dir, "--seconds", "0.05", "--sizes", "4096"];
    let output = ringraft(&[&fsync[..], &["--depths", "1"]].concat()).output().expect("it runs");
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("file system: xfs"), "{}", text_of(&output));

    // Dropped before its file system is.
    let shape = Shape { nodes: 1, ..Shape::default() };
    let mut cluster = Cluster::configured("a_node_on_xfs_keeps_its_data", &shape);
    let data_dir = mounted.at.join("data");
    let node = &mut cluster.nodes[0];
    node.set("data_dir", &format!("{data_dir:?}"));
    node.data_dir = data_dir;
    node.format();
    node.start();
    let mut writers = vec![Writer::new(&cluster, "w", GroupId(1), Duration::from_secs(50))];
    for _ in 0..2 {
        let load = Load::start(writers);
        load.wait_more(200);
        cluster.nodes[0].kill();
        cluster.nodes[0].start();
        load.wait_more(200);
        writers = load.stop();
        check(&cluster, &writers);
    }
}
