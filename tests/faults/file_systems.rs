//! A node on a file system of its own, on a loop device: another one than the build's, and one
//! without room. Where this machine permits none (root, loop devices, `mkfs.xfs` of the package
//! xfsprogs, `mkfs.ext4` of e2fsprogs) the tests say so and have shown nothing.

use crate::cluster::{Cluster, Shape, ringraft, text_of};
use crate::load::{Load, Writer, check};
use ringraft_types::GroupId;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What makes a file system, and how large a disk is to be.
type Make = (&'static [&'static str], u64);
/// The least that mkfs.xfs agrees to, and some.
const XFS: Make = (&["mkfs.xfs", "-q"], 320 << 20);
/// Room for a few segments; none is reserved for root, as whom the node runs.
const EXT4: Make = (&["mkfs.ext4", "-q", "-m", "0"], 64 << 20);

/// A file system in a file. Gone when dropped.
struct Mounted {
    at: PathBuf,
    _directory: TempDir,
}

impl Mounted {
    /// Makes one, or says what this machine doesn't permit.
    fn new((make, bytes): Make) -> Result<Self, String> {
        let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let (image, at) = (directory.path().join("image"), directory.path().join("mounted"));
        let file = File::create(&image).expect("a file");
        file.set_len(bytes).expect("a file with a hole");
        std::fs::create_dir(&at).expect("a directory");
        run(Command::new(make[0]).args(&make[1..]).arg(&image))?;
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

/// A file system, or a word on why there is none.
fn mounted(make: Make) -> Option<Mounted> {
    let made = Mounted::new(make);
    if let Err(reason) = &made {
        eprintln!("not tested, this machine doesn't permit it: {reason}");
    }
    made.ok()
}

/// A cluster of one node that runs there; to be dropped before its file system is.
fn a_node_on(test: &'static str, mounted: &Mounted) -> Cluster {
    let mut cluster = Cluster::configured(test, &Shape { nodes: 1, ..Shape::default() });
    let data_dir = mounted.at.join("data");
    let node = &mut cluster.nodes[0];
    node.set("data_dir", &format!("{data_dir:?}"));
    node.data_dir = data_dir;
    node.format();
    node.start();
    cluster
}

/// Writes zeros to a new file: so many, or as many as there is room for.
fn fill(path: &Path, bytes_max: u64) {
    let mut file = File::create(path).expect("a file");
    let mut left = bytes_max;
    for chunk in [1 << 20, 1 << 12, 1] {
        while left >= chunk && file.write_all(&vec![0; chunk as usize]).is_ok() {
            left -= chunk;
        }
    }
    file.sync_all().expect("what is written has room");
}

/// Goal: a node that was killed while it made a segment, on a disk that is full to the last byte,
/// starts: nothing is written that takes room before recovery has freed that segment.
#[test]
fn a_node_starts_on_a_full_disk() {
    for make in [EXT4, XFS] {
        let Some(mounted) = mounted(make) else { continue };
        let mut cluster = a_node_on("a_node_starts_on_a_full_disk", &mounted);
        let writer = Writer::new(&cluster, "w", GroupId(1), Duration::from_secs(50));
        let load = Load::start(vec![writer]);
        load.wait_more(200);
        let writers = load.stop();
        let node = &mut cluster.nodes[0];
        node.kill();
        let half_made = node.data_dir.join("wal/wal-0000000000000001-00000000000000ff.seg");
        fill(&half_made, 4 << 20);
        fill(&mounted.at.join("full"), u64::MAX);
        node.start();
        // What was written can be read: the node leads, on what room it has.
        check(&cluster, &writers);
        assert!(!half_made.exists(), "{make:?}: its room is free");
        cluster.nodes[0].kill();
    }
}

/// Goal: on XFS the disk can be measured, and a node keeps what it acknowledged across kill -9.
#[test]
fn a_node_on_xfs_keeps_its_data() {
    let Some(mounted) = mounted(XFS) else { return };
    let dir = mounted.at.display().to_string();
    let fsync = ["bench", "fsync", "--dir", &dir, "--seconds", "0.05", "--sizes", "4096"];
    let output = ringraft(&[&fsync[..], &["--depths", "1"]].concat()).output().expect("it runs");
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("file system: xfs"), "{}", text_of(&output));

    let mut cluster = a_node_on("a_node_on_xfs_keeps_its_data", &mounted);
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
