//! The files of the embedded log.
//!
//! A segment is a header and then frames, one for each entry; what follows the last frame is
//! zeros. All numbers are little-endian.
//!
//! ```text
//! header (40 B)  magic 8 | format 4 | reserved 4 | log id 8 | first position 8 | xxh3 of these 8
//! frame  (40 B)  xxh3 of the rest 8 | payload length 4 | magic 4 | position 8 | time 8 | synced 8
//!                payload
//! ```
//!
//! `synced` is the last position known to be on disk when the frame was written. It tells a torn
//! tail from damage: a bad frame is a write that a crash cut short, unless a later frame says
//! that its position had been on disk already.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    domain::movement::TimeUs,
    limits,
    log::{Entry, Lane, LogError, Position},
};

/// Version of this format.
pub(super) const FORMAT: u32 = 1;
/// Where the first frame of a segment starts.
pub(super) const HEADER_BYTES: u64 = 40;
const HEADER_MAGIC: [u8; 8] = *b"sellable";
const FRAME_HEADER_BYTES: usize = 40;
const FRAME_MAGIC: u32 = 0x6c65_7321;
const SUFFIX: &str = ".segment";

/// A segment's file: its name carries the position of its first entry.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) first: Position,
    pub(super) path: PathBuf,
}

/// Bytes of the frame for a payload.
pub(super) fn frame_bytes(payload: &[u8]) -> usize {
    FRAME_HEADER_BYTES + payload.len()
}

/// Appends the frame of one entry to `buffer`.
pub(super) fn encode(
    buffer: &mut Vec<u8>,
    position: Position,
    time_us: TimeUs,
    synced: Position,
    payload: &[u8],
) {
    let start = buffer.len();
    let len = u32::try_from(payload.len()).expect("a record is far smaller than 4 GiB");
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    buffer.extend_from_slice(&position.to_le_bytes());
    buffer.extend_from_slice(&time_us.to_le_bytes());
    buffer.extend_from_slice(&synced.to_le_bytes());
    buffer.extend_from_slice(payload);
    let checksum = xxh3_64(&buffer[start + 8..]);
    buffer[start..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// What stands at the start of some bytes of a segment.
enum Frame {
    /// A sound frame.
    Sound { entry: Entry, synced: Position },
    /// The bytes end before the frame does; it has this many.
    Partial(usize),
    /// Not a frame.
    Bad,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn decode(bytes: &Bytes) -> Frame {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Frame::Partial(FRAME_HEADER_BYTES);
    }
    let len = u32_at(bytes, 8) as usize;
    if u32_at(bytes, 12) != FRAME_MAGIC || len > limits::RECORD_BYTES_MAX {
        return Frame::Bad;
    }
    let end = FRAME_HEADER_BYTES + len;
    if bytes.len() < end {
        return Frame::Partial(end);
    }
    if xxh3_64(&bytes[8..end]) != u64_at(bytes, 0) {
        return Frame::Bad;
    }
    Frame::Sound {
        entry: Entry {
            position: u64_at(bytes, 16),
            time_us: u64_at(bytes, 24).cast_signed(),
            lane: Lane::Record,
            payload: bytes.slice(FRAME_HEADER_BYTES..end),
        },
        synced: u64_at(bytes, 32),
    }
}

/// The segments of a directory, oldest first. Removes what a crash left half made.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name else { continue };
        if name.ends_with(".tmp") {
            fs::remove_file(&path)?;
        } else if let Some(first) = name
            .strip_suffix(SUFFIX)
            .and_then(|digits| digits.parse().ok())
        {
            segments.push(Segment { first, path });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Makes the name of a new or removed file survive a power failure.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes a whole file so that after a crash it is there complete or not at all.
pub(super) fn write_atomically(path: &Path, bytes: &[u8], len: u64) -> io::Result<File> {
    let temporary = path.with_extension("tmp");
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(len)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().expect("a file lies in a directory"))?;
    Ok(file)
}

/// Creates the segment that starts with `first`, at its full size: a sync then need not write
/// down a new length each time.
pub(super) fn create(
    dir: &Path,
    log_id: u64,
    first: Position,
    bytes_max: u64,
) -> io::Result<(Segment, File)> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend_from_slice(&HEADER_MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&log_id.to_le_bytes());
    header.extend_from_slice(&first.to_le_bytes());
    header.extend_from_slice(&xxh3_64(&header).to_le_bytes());
    let path = dir.join(format!("{first:020}{SUFFIX}"));
    let file = write_atomically(&path, &header, bytes_max)?;
    Ok((Segment { first, path }, file))
}

/// Checks a segment's header.
pub(super) fn check_header(segment: &Segment, file: &File, log_id: u64) -> Result<(), LogError> {
    let corrupt = |what: String| LogError::Corrupt(format!("{}: {what}", segment.path.display()));
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0)
        .map_err(|error| corrupt(format!("the header cannot be read: {error}")))?;
    if header[..8] != HEADER_MAGIC || xxh3_64(&header[..32]) != u64_at(&header, 32) {
        return Err(corrupt("the header is damaged".into()));
    }
    let format = u32_at(&header, 8);
    if format != FORMAT {
        return Err(super::directory::future_format(&segment.path, format));
    }
    if u64_at(&header, 16) != log_id || u64_at(&header, 24) != segment.first {
        return Err(corrupt("it belongs to another log, or was renamed".into()));
    }
    Ok(())
}

/// Reads frames one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// Position of the next frame.
    pub(super) position: Position,
    /// Where it starts.
    pub(super) offset: u64,
}

impl Cursor {
    /// At the start of a segment.
    pub(super) fn start(segment: &Segment) -> Self {
        Self {
            position: segment.first,
            offset: HEADER_BYTES,
        }
    }

    /// Reads about [`limits::READ_BYTES`], and at least one frame if one follows. Stops at the
    /// first that is not sound, and after `last`; then, and at the end, the answer is empty.
    pub(super) fn read(&mut self, file: &File, last: Position) -> io::Result<Vec<Entry>> {
        let mut want = limits::READ_BYTES;
        loop {
            let mut bytes = read_up_to(file, self.offset, want)?;
            let at_end = bytes.len() < want;
            let mut entries = Vec::new();
            loop {
                match decode(&bytes) {
                    Frame::Sound { entry, .. }
                        if entry.position == self.position && entry.position <= last =>
                    {
                        let len = frame_bytes(&entry.payload);
                        let _ = bytes.split_to(len);
                        self.offset += len as u64;
                        self.position += 1;
                        entries.push(entry);
                    }
                    Frame::Partial(len) if entries.is_empty() && !at_end => {
                        want = len;
                        break;
                    }
                    _ => return Ok(entries),
                }
            }
        }
    }
}

fn read_up_to(file: &File, offset: u64, bytes_max: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(bytes_max);
    let mut len = 0;
    while len < bytes_max {
        match file.read_at(&mut bytes[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes.freeze())
}

/// Finds where a log ends, in its last segment, and cuts off what a crash left unfinished there.
/// Answers the position and place of the next entry. An error if the bytes there were once known
/// to be on disk.
pub(super) fn recover(segment: &Segment, file: &File) -> Result<Cursor, LogError> {
    let io_error = |error: io::Error| super::directory::setup(&segment.path, "read", &error);
    let mut cursor = Cursor::start(segment);
    while !cursor
        .read(file, Position::MAX)
        .map_err(io_error)?
        .is_empty()
    {}
    let len = file.metadata().map_err(io_error)?.len();
    let rest = read_up_to(
        file,
        cursor.offset,
        len.saturating_sub(cursor.offset) as usize,
    )
    .map_err(io_error)?;
    let Some(last_byte) = rest.iter().rposition(|byte| *byte != 0) else {
        return Ok(cursor);
    };
    if let Some(position) = witness(&rest, cursor.position) {
        return Err(LogError::Corrupt(format!(
            "{}: the entry at position {} (byte {}) is damaged, though it had been stored when \
             position {position} was written; restore this file from a backup",
            segment.path.display(),
            cursor.position,
            cursor.offset,
        )));
    }
    tracing::warn!(
        file = %segment.path.display(),
        position = cursor.position,
        bytes = last_byte + 1,
        "cut off an entry that a crash left unfinished; it was never acknowledged"
    );
    file.set_len(cursor.offset).map_err(io_error)?;
    file.set_len(len).map_err(io_error)?;
    file.sync_all().map_err(io_error)?;
    Ok(cursor)
}

/// A sound frame in `rest` which says that `missing` had been synced before it was written.
fn witness(rest: &Bytes, missing: Position) -> Option<Position> {
    let magic = FRAME_MAGIC.to_le_bytes();
    // The magic stands 12 bytes into a frame.
    (12..rest.len().saturating_sub(3))
        .filter(|at| rest[*at..*at + 4] == magic)
        .find_map(|at| match decode(&rest.slice(at - 12..)) {
            Frame::Sound { entry, synced } if synced >= missing => Some(entry.position),
            _ => None,
        })
}
