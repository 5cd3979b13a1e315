//! Exceptions: business facts that need a person.

/// Why a movement is parked: it is in the log, but not in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ParkedKind {
    /// Cannot be decoded, or breaks a documented limit.
    Malformed = 1,
    /// An id that is known, with other content.
    ConflictingDuplicate = 2,
    /// Occurred before the time up to which ids have been forgotten.
    Stale = 3,
}

impl ParkedKind {
    /// All kinds.
    pub const ALL: [ParkedKind; 3] = [
        ParkedKind::Malformed,
        ParkedKind::ConflictingDuplicate,
        ParkedKind::Stale,
    ];

    /// The name of the kind.
    pub const fn name(self) -> &'static str {
        match self {
            ParkedKind::Malformed => "malformed",
            ParkedKind::ConflictingDuplicate => "conflicting_duplicate",
            ParkedKind::Stale => "stale",
        }
    }

    /// Why a movement is parked as this, and what to do.
    pub const fn advice(self) -> &'static str {
        match self {
            ParkedKind::Malformed => "it cannot be read",
            ParkedKind::ConflictingDuplicate => {
                "its id is known with other content, and the first to arrive counts; if both are \
                 right, post this one under another id"
            }
            ParkedKind::Stale => {
                "it occurred before the time up to which ids have been forgotten, so it cannot be \
                 proved new; if it is, post an adjustment under another id, dated now"
            }
        }
    }
}

/// What became of a movement in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// In the books.
    Applied,
    /// Not in the books; a person decides.
    Parked(ParkedKind),
}
