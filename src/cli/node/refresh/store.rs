//! A node's file, read and replaced as a whole: whoever reads it meanwhile, and a start after a
//! loss of power, finds the old text or the new one.

use crate::cli::exit::{Exit, Failure};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Where the file really is, behind links, and its text.
pub(super) fn read(file: &Path) -> Result<(PathBuf, String), Failure> {
    let read = || Ok((fs::canonicalize(file)?, fs::read_to_string(file)?));
    read().map_err(|error: io::Error| {
        let message = format!("{}: cannot be read: {error}", file.display());
        Failure::new(Exit::Config, message).cure("name the file that the node is started with")
    })
}

/// Replaces the text that was read, with the same owner, group and mode.
pub(super) fn replace(path: &Path, before: &str, after: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let tried = format!("writing {}, which is as it was", path.display());
        Failure::environment(tried, &error).cure(
            "run it as the file's owner or as root, where the file and its directory can be \
             written; or write the plan into the file by hand",
        )
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let beside = beside(path).map_err(failed)?;
    let written = write(&beside, after, path);
    let is_as_read = written.and_then(|()| Ok(fs::read_to_string(path)? == before));
    let result = match is_as_read {
        Ok(true) => fs::rename(&beside, path).map_err(failed),
        Ok(false) => {
            let message = format!("{} was written by somebody else meanwhile", path.display());
            Err(Failure::new(Exit::NotDone, message).cure("start the command again"))
        }
        Err(error) => Err(failed(error)),
    };
    if let Err(failure) = result {
        // It is no node's file: whoever finds it may remove it.
        let _ = fs::remove_file(&beside);
        return Err(failure);
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| {
        let tried = format!("syncing {}, where the file is replaced", directory.display());
        Failure::environment(tried, &error)
            .cure("look at the file after the next loss of power: it may be the old one")
    })
}

/// A name beside the file that nothing takes for a node's file.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{random:016x}.new")))
}

/// Writes a new file, durably, with the owner, group and mode of another.
fn write(path: &Path, text: &str, like: &Path) -> io::Result<()> {
    let like = fs::metadata(like)?;
    // Nobody else reads it before it has the mode of the other.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    own(&file, &like)?;
    file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    file.sync_all()
}

/// Gives a file the owner and the group of another, if it doesn't have them.
fn own(file: &File, like: &Metadata) -> io::Result<()> {
    let is = file.metadata()?;
    if (is.uid(), is.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect()
    }

    /// Goal: the file is replaced with its mode, behind a link too, and nothing is left beside it.
    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (real, elsewhere) = (directory.path().join("real"), directory.path().join("etc"));
        for path in [&real, &elsewhere] {
            fs::create_dir(path).expect("a directory");
        }
        let (file, link) = (real.join("a.toml"), elsewhere.join("a.toml"));
        fs::write(&file, "old").expect("the file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("its mode");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let inode = fs::metadata(&file).expect("the file").ino();
        let (path, text) = read(&link).expect("it is there");
        replace(&path, &text, "new").expect("it can be written");
        assert_eq!(fs::read_to_string(&link).expect("the file"), "new");
        let is = fs::metadata(&file).expect("the file");
        assert_eq!(is.mode() & 0o7777, 0o640);
        assert_ne!(is.ino(), inode, "another file took its place");
        assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
        assert_eq!(names(&real), ["a.toml"]);
    }

    /// Goal: what somebody else wrote meanwhile isn't lost, and a failure leaves everything as it
    /// was.
    #[test]
    fn a_file_that_was_written_meanwhile_is_kept() {
        let directory = tempfile::tempdir().expect("tempdir");
        let file = directory.path().join("a.toml");
        fs::write(&file, "another").expect("the file");
        let failure = replace(&file, "old", "new").expect_err("it isn't as it was read");
        assert_eq!(failure.exit, Exit::NotDone);
        assert_eq!(fs::read_to_string(&file).expect("the file"), "another");
        assert_eq!(names(directory.path()), ["a.toml"]);
        let gone = directory.path().join("gone/a.toml");
        assert_eq!(replace(&gone, "", "new").expect_err("no directory").exit, Exit::Environment);
        assert_eq!(read(&gone).expect_err("no file").exit, Exit::Config);
    }
}
