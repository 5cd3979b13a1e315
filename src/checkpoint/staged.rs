//! Writing a large file from beginning to end past the page cache.
//!
//! Through it, each page is looked up, copied into, marked and written back: several times as much
//! processor time as all else that the thread does which writes a checkpoint, and what was in the
//! cache before has to make room for a file that nobody is going to read. Where a file system can do
//! nothing else, it goes through the cache.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::limits::{CHECKPOINT_SYNC_BYTES, CHECKPOINT_WRITE_BYTES};

/// What is written directly has to begin, in memory and in the file, at a multiple of this, and to be
/// as long. Disks that want more are not known; there, it goes through the cache.
const ALIGNMENT: usize = 4 << 10;

const _: () = assert!(CHECKPOINT_WRITE_BYTES.is_multiple_of(ALIGNMENT));

/// A file that is being written.
#[derive(Debug)]
pub(super) struct StagedFile {
    file: File,
    path: PathBuf,
    direct: bool,
    /// What is not written yet is in it from `begin` on, where memory is aligned.
    stage: Vec<u8>,
    begin: usize,
    staged: usize,
    written: u64,
    synced: u64,
}

impl StagedFile {
    /// Begins one. What lies there is overwritten.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true);
        let (file, direct) = match direct(&mut options.clone()).open(path) {
            Ok(file) => (file, cfg!(target_os = "linux")),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                (options.open(path)?, false)
            }
            Err(error) => return Err(error),
        };
        let stage = vec![0; CHECKPOINT_WRITE_BYTES + ALIGNMENT];
        let begin = stage.as_ptr().align_offset(ALIGNMENT);
        Ok(Self {
            file,
            path: path.to_owned(),
            direct,
            stage,
            begin,
            staged: 0,
            written: 0,
            synced: 0,
        })
    }

    /// Adds bytes.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHECKPOINT_WRITE_BYTES - self.staged;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            let from = self.begin + self.staged;
            self.stage[from..from + now.len()].copy_from_slice(now);
            self.staged += now.len();
            bytes = rest;
            if self.staged == CHECKPOINT_WRITE_BYTES {
                self.write(CHECKPOINT_WRITE_BYTES)?;
            }
        }
        Ok(())
    }

    /// Writes the rest, and syncs all of it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let bytes = self.written + self.staged as u64;
        let len = self.staged.next_multiple_of(ALIGNMENT);
        self.stage[self.begin + self.staged..self.begin + len].fill(0);
        self.write(len)?;
        self.file.set_len(bytes)?;
        self.file.sync_all()
    }

    fn write(&mut self, len: usize) -> io::Result<()> {
        let staged = &self.stage[self.begin..self.begin + len];
        let mut done = self.file.write_all_at(staged, self.written);
        if self.direct && matches!(&done, Err(error) if error.kind() == io::ErrorKind::InvalidInput)
        {
            // It let the file be opened so, and cannot do it.
            self.file = OpenOptions::new().write(true).open(&self.path)?;
            self.direct = false;
            done = self.file.write_all_at(staged, self.written);
        }
        done?;
        self.staged = 0;
        self.written += len as u64;
        // The last sync is not to have all to do, nor the log's own syncs to wait behind it.
        if !self.direct && self.written - self.synced >= CHECKPOINT_SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn direct(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_DIRECT)
}

#[cfg(not(target_os = "linux"))]
fn direct(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_in_the_file_whatever_its_length() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let max = CHECKPOINT_WRITE_BYTES;
        for len in [0, 1, ALIGNMENT, max - 1, max, max + 1, 3 * max + 77] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 31 / 7) as u8).collect();
            for part in [1 << 10, max, 2 * max] {
                let mut file = StagedFile::create(&path).expect("a file");
                for part in bytes.chunks(part) {
                    file.put(part).expect("it can be written");
                }
                file.finish().expect("it can be synced");
                assert!(std::fs::read(&path).expect("a file") == bytes, "{len}");
            }
        }
    }

    #[test]
    fn what_the_file_system_cannot_write_directly_goes_through_the_cache() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let mut file = StagedFile::create(&path).expect("a file");
        // Memory that begins elsewhere: if that is refused, it is as if all were.
        file.begin = (file.begin + 1) % ALIGNMENT;
        let bytes = vec![7; CHECKPOINT_WRITE_BYTES + 5];
        file.put(&bytes).expect("it can be written");
        file.finish().expect("it can be synced");
        assert!(std::fs::read(&path).expect("a file") == bytes);
    }
}
