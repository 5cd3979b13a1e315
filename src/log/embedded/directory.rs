//! What the log's directory holds beside the segments: the lock, the identity, and the mark of what
//! is synced.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    now_us,
    segment::{self, Segment},
};
use crate::log::{Identity, LogError, Position};

/// An error of the operating system, as something to correct.
pub(super) fn setup(path: &Path, what: &str, error: &io::Error) -> LogError {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give the user that runs this process read and write permission there"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "it lies on a read-only file system; mount it writable or choose another data directory"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk or quota is full; free some space"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way; choose another data directory, or remove it"
        }
        _ => "check the data directory and the disk it lies on",
    };
    LogError::Setup(format!(
        "cannot {what} {}: {error}; {advice}",
        path.display()
    ))
}

pub(super) fn future_format(path: &Path, format: u32) -> LogError {
    LogError::Setup(format!(
        "{} was written in format {format}, and this version knows only format {}; run the \
         version of Sellable that wrote it, or a later one",
        path.display(),
        segment::FORMAT,
    ))
}

/// Takes the directory for this process alone.
pub(super) fn take(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| setup(&path, "open", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Setup(format!(
            "the data directory {} is in use by another process; stop that one, or give this one \
             a directory of its own",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(setup(&path, "lock", &error)),
    }
}

/// Reads the log's identity, or makes a new one in an empty directory.
pub(super) fn identify(dir: &Path, segments: &[Segment]) -> Result<Identity, LogError> {
    let path = dir.join("identity");
    let corrupt = |what: &str| LogError::Corrupt(format!("{}: {what}", path.display()));
    let identity = |created_us, id| Identity {
        engine: "embedded",
        name: dir.display().to_string(),
        created_us,
        id,
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && segments.is_empty() => {
            let created_us = now_us();
            // The standard library's hasher keys are the randomness that needs no dependency.
            let seed = std::hash::BuildHasher::hash_one(
                &std::hash::RandomState::new(),
                std::process::id(),
            );
            let id = xxh3_64_with_seed(&created_us.to_le_bytes(), seed);
            let mut text = format!(
                "format {}\ncreated_us {created_us}\nid {id}\n",
                segment::FORMAT
            );
            let checksum = xxh3_64(text.as_bytes());
            let _ = writeln!(text, "xxh3 {checksum}");
            segment::write_atomically(&path, text.as_bytes(), text.len() as u64)
                .map_err(|error| setup(&path, "write", &error))?;
            // The directory itself may be new, too.
            if let Some(parent) = dir.parent().filter(|parent| parent.is_dir()) {
                segment::sync_dir(parent).map_err(|error| setup(parent, "sync", &error))?;
            }
            return Ok(identity(created_us, id));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(corrupt("is missing, though there are entries"));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(corrupt("is not text"));
        }
        Err(error) => return Err(setup(&path, "read", &error)),
    };
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    // The format comes first: a later one may be checked in another way.
    match field("format ") {
        Some(format) if format != u64::from(segment::FORMAT) => {
            return Err(future_format(
                &path,
                u32::try_from(format).unwrap_or(u32::MAX),
            ));
        }
        Some(_) => {}
        None => return Err(corrupt("is damaged")),
    }
    let signed = text.find("xxh3 ").zip(field("xxh3 "));
    if signed.is_none_or(|(end, checksum)| xxh3_64(&text.as_bytes()[..end]) != checksum) {
        return Err(corrupt("is damaged"));
    }
    let fields = field("created_us ").zip(field("id "));
    let (created_us, id) = fields.ok_or_else(|| corrupt("is damaged"))?;
    Ok(identity(created_us.cast_signed(), id))
}

/// The file that says up to where the log had been synced at least. It is written after each sync
/// and never synced itself: after a power failure it may say too little, but never too much.
#[derive(Debug)]
pub(super) struct SyncedMark {
    file: File,
    log_id: u64,
}

impl SyncedMark {
    const BYTES: usize = 16;

    pub(super) fn open(dir: &Path, log_id: u64) -> Result<(Self, Position), LogError> {
        let path = dir.join("synced");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| setup(&path, "open", &error))?;
        let mut bytes = [0; Self::BYTES];
        let position = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {
                let (position, checksum) = bytes.split_at(8);
                let sound = xxh3_64_with_seed(position, log_id).to_le_bytes() == *checksum;
                if !sound {
                    tracing::warn!(file = %path.display(), "is damaged, and is made anew");
                }
                let position = u64::from_le_bytes(position.try_into().expect("8 bytes"));
                if sound { position } else { 0 }
            }
            Err(_) => 0,
        };
        Ok((Self { file, log_id }, position))
    }

    pub(super) fn set(&self, position: Position) -> io::Result<()> {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&position.to_le_bytes());
        let checksum = xxh3_64_with_seed(&bytes[..8], self.log_id);
        bytes[8..].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&bytes, 0)
    }
}
