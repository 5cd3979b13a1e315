//! The directory of an instance's checkpoints.
//!
//! A checkpoint is written under another name, synced, renamed, and the directory synced: what has
//! a checkpoint's name is whole, unless the disk damaged it afterwards.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::format::{Contents, Reject};
use crate::log::{LogError, Position};

const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".sellable";
/// What is being written.
const UNFINISHED: &str = "unfinished";
const LOCK: &str = "lock";

/// See the module. Dropping it frees the directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    keep: usize,
    _lock: File,
}

/// The files of checkpoints in a directory, the newest first, with the positions in their names.
///
/// # Errors
/// Of the operating system. A directory that is not there has none.
pub fn list(dir: &Path) -> io::Result<Vec<(Position, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if let Some(position) = position_of(&path) {
            found.push((position, path));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Name of the file of a checkpoint at a position.
pub fn file_name(position: Position) -> String {
    format!("{PREFIX}{position:020}{SUFFIX}")
}

fn position_of(path: &Path) -> Option<Position> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.parse().ok()
}

impl Store {
    /// Takes a directory for this process alone; makes it if it is missing. Keeps the `keep` newest
    /// checkpoints, at least one.
    ///
    /// # Errors
    /// If it is in use, or the operating system does not let it be used.
    pub fn open(dir: &Path, keep: usize) -> Result<Self, LogError> {
        let setup = |what: &str, path: &Path, error: &io::Error| {
            LogError::Setup(format!(
                "cannot {what} {}: {error}; check the directory of the checkpoints \
                 (`checkpoint.dir`)",
                path.display()
            ))
        };
        fs::create_dir_all(dir).map_err(|error| setup("make", dir, &error))?;
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| setup("open", &path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LogError::Setup(format!(
                    "the checkpoints in {} are in use by another process; stop that one, or give \
                     this one a directory of its own (`checkpoint.dir`)",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(setup("lock", &path, &error)),
        }
        let unfinished = dir.join(UNFINISHED);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(setup("remove", &unfinished, &error));
            }
            _ => {}
        }
        Ok(Self {
            dir: dir.to_owned(),
            keep: keep.max(1),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All checkpoints, the newest first.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn list(&self) -> io::Result<Vec<(Position, PathBuf)>> {
        list(&self.dir)
    }

    /// Where the next one is to be written.
    pub fn unfinished(&self) -> PathBuf {
        self.dir.join(UNFINISHED)
    }

    /// What was written there, and synced, is the checkpoint at this position. Removes what is too
    /// many. Gives its path.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn commit(&self, position: Position) -> io::Result<PathBuf> {
        let path = self.dir.join(file_name(position));
        fs::rename(self.unfinished(), &path)?;
        self.sync()?;
        for (_, surplus) in self.list()?.into_iter().skip(self.keep) {
            fs::remove_file(surplus)?;
        }
        self.sync()?;
        Ok(path)
    }

    /// Up to where the log may be forgotten: the position of the oldest checkpoint, if there are as
    /// many as are kept, and each of them can be read whole.
    ///
    /// # Errors
    /// Why one cannot be read.
    pub fn forgettable_below(&self) -> Result<Option<Position>, Reject> {
        let all = self.list()?;
        let oldest = all.last().map(|(position, _)| *position);
        if all.len() < self.keep {
            return Ok(None);
        }
        for (_, path) in &all {
            Contents::open(path)?.check()?;
        }
        Ok(oldest)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}
