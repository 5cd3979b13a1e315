//! The file of a checkpoint.
//!
//! ```text
//! file    = head section* totals
//! head    = "SELLCKPT" format:u32 0:u32 sum:u64
//! section = kind:u16 shard:u16 shards:u16 0:u16 len:u64 payload_sum:u64 head_sum:u64 payload
//! totals  = a section of kind 255: digest and counts, among them sections and bytes before it
//! ```
//!
//! All numbers are little-endian, all sums XXH3-64. A section's head has a sum of its own, seeded
//! with its place in the file, so that a damaged length is told from a file that ends too early,
//! and a section that was moved is noticed. Sections come in any order; what has to be known first is
//! found by walking over the heads. The head of the file stays as it is in all formats.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{FORMAT, FORMAT_OLDEST, Kind, Meta, Totals, staged::StagedFile};
use crate::domain::saved::{Broken, Input, Output};

const MAGIC: &[u8; 8] = b"SELLCKPT";
const HEAD_BYTES: usize = 24;
const SECTION_HEAD_BYTES: usize = 32;

/// Which section, and of which shard of how many; (0, 0) if it is of no shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// What it holds.
    pub kind: Kind,
    /// Of which shard.
    pub shard: u16,
    /// Of how many shards.
    pub shards: u16,
}

impl Label {
    /// Of no shard.
    pub const fn of(kind: Kind) -> Self {
        Self {
            kind,
            shard: 0,
            shards: 0,
        }
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Reject {
    /// The operating system does not let it be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It does not begin as one does.
    #[error("it is no checkpoint")]
    NotACheckpoint,
    /// Another version of the program wrote it.
    #[error(
        "it was written in format {0}, and this version reads formats {FORMAT_OLDEST} to {FORMAT}"
    )]
    Format(u32),
    /// It ends too early: the machine stopped while it was copied or written.
    #[error("it is torn: it ends at byte {bytes}, before its last section")]
    Torn {
        /// Its size.
        bytes: u64,
    },
    /// Stored bytes have changed.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// It is whole, and yet cannot be understood: a bug, here or there.
    #[error("it cannot be understood: {0}")]
    Broken(#[from] Broken),
}

/// Writes one.
#[derive(Debug)]
pub struct FileWriter {
    file: StagedFile,
    at: u64,
    sections: u64,
}

impl FileWriter {
    /// Begins one. What lies there is overwritten.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = StagedFile::create(path)?;
        let mut output = Output::new();
        output.raw(MAGIC);
        output.u32(FORMAT);
        output.u32(0);
        let mut head = output.into_bytes();
        head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
        file.put(&head)?;
        Ok(Self {
            file,
            at: HEAD_BYTES as u64,
            sections: 0,
        })
    }

    /// Adds a section.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn section(&mut self, label: Label, payload: &[u8]) -> io::Result<()> {
        let mut output = Output::new();
        output.u16(label.kind as u16);
        output.u16(label.shard);
        output.u16(label.shards);
        output.u16(0);
        output.u64(payload.len() as u64);
        output.u64(xxh3_64(payload));
        let mut head = output.into_bytes();
        head.extend_from_slice(&xxh3_64_with_seed(&head, self.at).to_le_bytes());
        self.file.put(&head)?;
        self.file.put(payload)?;
        self.at += (SECTION_HEAD_BYTES + payload.len()) as u64;
        self.sections += 1;
        Ok(())
    }

    /// Adds the last section and syncs the file. Gives its size in bytes.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn finish(mut self, mut totals: Totals) -> io::Result<(Totals, u64)> {
        totals.sections = self.sections;
        totals.bytes = self.at;
        self.section(Label::of(Kind::Totals), &totals.save())?;
        self.file.finish()?;
        Ok((totals, self.at))
    }
}

/// A section of a file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// What it holds.
    pub label: Label,
    /// Where its payload begins.
    pub at: u64,
    /// Bytes of its payload.
    pub len: u64,
    sum: u64,
}

/// A file whose heads, meta and totals were read and are right. Payloads are checked as they are
/// read.
#[derive(Debug)]
pub struct Contents {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is of.
    pub meta: Meta,
    /// What is in it.
    pub totals: Totals,
    /// Its size.
    pub bytes: u64,
    sections: Vec<Section>,
    file: File,
}

/// Bytes that are read ahead at once.
const READ_AHEAD_BYTES: usize = 1 << 20;

impl Contents {
    /// Walks over a file's heads.
    ///
    /// # Errors
    /// If it is not a whole checkpoint of this format, as far as that shows.
    pub fn open(path: &Path) -> Result<Self, Reject> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let torn = Reject::Torn { bytes };
        let mut head = [0; HEAD_BYTES];
        if bytes < HEAD_BYTES as u64 {
            return Err(torn);
        }
        file.read_exact_at(&mut head, 0)?;
        let damaged = |at, what| Reject::Damaged { at, what };
        if !head.starts_with(MAGIC) {
            return Err(Reject::NotACheckpoint);
        }
        let mut input = Input::new(&head[MAGIC.len()..]);
        let (format, _) = (input.u32()?, input.u32()?);
        if xxh3_64(&head[..HEAD_BYTES - 8]) != input.u64()? {
            return Err(damaged(0, "the head has another checksum"));
        }
        if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
            return Err(Reject::Format(format));
        }
        let mut sections = Vec::new();
        let mut at = HEAD_BYTES as u64;
        loop {
            if at + SECTION_HEAD_BYTES as u64 > bytes {
                return Err(torn);
            }
            let section = read_head(&file, at)?;
            let end = section.at.checked_add(section.len);
            if end.is_none_or(|end| end > bytes) {
                return Err(torn);
            }
            at = section.at + section.len;
            sections.push(section);
            if section.label.kind == Kind::Totals {
                break;
            }
        }
        if at != bytes {
            return Err(damaged(at, "something follows the last section"));
        }
        let totals = sections.pop().expect("the loop ends with it");
        let payload = read_payload(&file, &totals)?;
        let totals_at = totals.at - SECTION_HEAD_BYTES as u64;
        let totals = Totals::load(&payload)?;
        if (totals.sections, totals.bytes) != (sections.len() as u64, totals_at) {
            return Err(damaged(totals_at, "sections are missing, or too many"));
        }
        let mut metas = sections
            .iter()
            .filter(|section| section.label.kind == Kind::Meta);
        let (Some(meta), None) = (metas.next(), metas.next()) else {
            return Err(Broken("it does not say, once, what it is of").into());
        };
        let meta = Meta::load(&read_payload(&file, meta)?)?;
        Ok(Self {
            path: path.to_owned(),
            meta,
            totals,
            bytes,
            sections,
            file,
        })
    }

    /// Its sections of a kind, in the order in which they were written.
    pub fn sections(&self, kind: Kind) -> impl Iterator<Item = &Section> {
        let sections = self.sections.iter();
        sections.filter(move |section| section.label.kind == kind)
    }

    /// The payload of a section.
    ///
    /// # Errors
    /// If it is damaged or cannot be read.
    pub fn read(&self, section: &Section) -> Result<Vec<u8>, Reject> {
        read_payload(&self.file, section)
    }

    /// Brings all of it into the page cache, in order, at the speed of the disk. A convenience for
    /// those who read sections meanwhile: whatever goes wrong, they will notice.
    pub fn read_ahead(&self) {
        let mut buffer = vec![0; READ_AHEAD_BYTES];
        let mut at = 0;
        while let Ok(read @ 1..) = self.file.read_at(&mut buffer, at) {
            at += read as u64;
        }
    }

    /// Reads all of it, and keeps nothing.
    ///
    /// # Errors
    /// If anything is damaged.
    pub fn check(&self) -> Result<(), Reject> {
        let mut sections = self.sections.iter();
        sections.try_for_each(|section| self.read(section).map(drop))
    }

    /// The payload of the one section of a kind.
    ///
    /// # Errors
    /// If there is none, or another number of them; or as [`Contents::read`].
    pub fn read_only_one(&self, kind: Kind) -> Result<Vec<u8>, Reject> {
        let mut sections = self.sections(kind);
        match (sections.next(), sections.next()) {
            (Some(section), None) => self.read(section),
            _ => Err(Broken("it has not exactly one of a section that it needs").into()),
        }
    }
}

fn read_head(file: &File, at: u64) -> Result<Section, Reject> {
    let mut head = [0; SECTION_HEAD_BYTES];
    file.read_exact_at(&mut head, at)?;
    let what = "the head of a section has another checksum";
    let damaged = Reject::Damaged { at, what };
    let (before, sum) = head.split_at(SECTION_HEAD_BYTES - 8);
    if xxh3_64_with_seed(before, at).to_le_bytes() != sum {
        return Err(damaged);
    }
    let mut input = Input::new(before);
    let (kind, shard, shards, _) = (input.u16()?, input.u16()?, input.u16()?, input.u16()?);
    let kind = Kind::ALL.into_iter().find(|own| *own as u16 == kind);
    Ok(Section {
        label: Label {
            kind: kind.ok_or(Broken("it has a section of an unknown kind"))?,
            shard,
            shards,
        },
        len: input.u64()?,
        sum: input.u64()?,
        at: at + SECTION_HEAD_BYTES as u64,
    })
}

fn read_payload(file: &File, section: &Section) -> Result<Vec<u8>, Reject> {
    let mut payload = vec![0; section.len as usize];
    file.read_exact_at(&mut payload, section.at)?;
    if xxh3_64(&payload) != section.sum {
        return Err(Reject::Damaged {
            at: section.at,
            what: "the payload of a section has another checksum",
        });
    }
    Ok(payload)
}
