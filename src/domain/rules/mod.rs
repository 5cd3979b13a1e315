//! Channel rules: which channel may sell what, from where.
//!
//! A rules document is TOML, see `examples/rules.toml`. [`Rules::parse`] reads it whole, and
//! either gives rules or every error it can find, each with its line.
//!
//! # The document
//!
//! `[groups]` names lists of locations. Each `[channel.NAME]` has
//!
//! | key | unit and range | if absent | meaning |
//! |---|---|---|---|
//! | `sources` | list | required | where it sells from, in order of priority |
//! | `exclude` | list | none | where it does not sell from nevertheless |
//! | `buffer` | units, 0 to 10^9 | 0 | withheld at each location |
//! | `buffer_percent` | 0 to 100 | 0 | percent of `good` withheld at each location; the larger of both counts |
//! | `share_percent` | 0 to 100 | 100 | percent of the sum that it may sell |
//! | `minimum` | units, 0 to 10^15 | 0 | below this it sells nothing |
//! | `maximum` | units, 0 to 10^15, not under `minimum` | none | at most this |
//! | `paused` | `true`, `false` | `false` | it sells nothing |
//!
//! An entry of `sources` or `exclude` is one of
//!
//! - `"@stores"`: the group `stores`. A group that does not exist is always an error. Groups have
//!   no groups among their members.
//! - `"store-*"`: a pattern, see [`Pattern`](super::document::Pattern): `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
//! - `"dc-east"`: a location. One never seen so far is a warning ([`Rules::warnings`]), because
//!   rules may be put before the first movement. A group's name without its `@` is an error.
//!
//! `[channel.NAME.override."SKU"]` and `[channel.NAME.override."PREFIX*"]` set any of these but
//! `sources` for a SKU or for all SKUs that begin so. *One* override applies to a SKU: the exact
//! one, otherwise that of the longest prefix. It is laid over the channel's own terms; what it
//! does not set is the channel's, and its `exclude` replaces the channel's.
//!
//! # Order of priority
//!
//! Entries count in the order written, members of a group in theirs. The first that matches a
//! location gives its *rank*. Locations of equal rank (of one pattern) follow by name, byte by
//! byte. So the order of any two locations is a matter of the document and of their names alone.

mod compiled;
mod document;
mod membership;
mod policy;
#[cfg(test)]
mod property_tests;
mod tally;
#[cfg(test)]
mod tests;

pub use compiled::{ChannelIx, Rules};
pub use membership::{Membership, Memberships};
pub use policy::Policy;
pub use tally::{ChangeTally, ChannelPair, SkuChange, channel_pairs};
