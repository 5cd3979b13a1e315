//! What the TOML documents that people write have in common: channel rules and source authority.
//!
//! A document has `[groups]`, lists of locations, and one other table, whose entries name groups
//! and locations. It is read whole, and every finding names its line and key.

mod duplicate;
mod finding;
mod pattern;
mod places;
mod reader;

pub use finding::{DocumentError, Finding, Warning};
pub use pattern::Pattern;

pub(super) use duplicate::Twice;
pub(super) use finding::{hint, join};
pub(super) use places::{Entry, Group, Map, Places, unmatched, unseen};
pub(super) use reader::{Grammar, Reader, Value, read};
