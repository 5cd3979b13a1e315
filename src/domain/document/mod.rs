//! What the TOML documents that people write have in common: channel rules, source authority,
//! webhooks.
//!
//! A document has one table of its own, and most have `[groups]`, lists of locations, which the
//! entries of that table name. It is read whole, and every finding names its line and key.

mod duplicate;
mod finding;
mod pattern;
mod places;
mod reader;

pub use finding::{DocumentError, Finding, Warning};
pub use pattern::Pattern;

pub(crate) use duplicate::Twice;
pub(crate) use finding::{hint, join};
pub(super) use places::{Entry, Group, Map, Places, unmatched, unseen};
pub(crate) use reader::{Grammar, Reader, Value, read};
