//! Source authority: which source may post which movements, for which locations.
//!
//! The document is TOML, see `examples/authority.toml`. [`Authority::parse`] reads it whole, and
//! either gives an authority or every error it can find, each with its line.
//!
//! # The document
//!
//! `[groups]` names lists of locations, as in the channel rules. Each `[source.NAME]` has
//!
//! | key | if absent | meaning |
//! |---|---|---|
//! | `may` | required | the kinds of movements that it may post: names of the contract, or patterns of them (`"transfer_*"`, `"*"`) |
//! | `locations` | everywhere | where: groups (`"@stores"`), locations, and patterns of them, as in the rules |
//!
//! A source that may do different things at different places has several grants, each written as
//! `[[source.NAME]]`; what any of them allows is allowed.
//!
//! The location of a movement is the one at which its source acts
//! ([`Kind::acts_at`](super::movement::Kind::acts_at)): of a transfer that is shipped and of a
//! reassignment it is `from`. A movement that names none, such as `return_refunded`, is allowed by
//! its kind alone.
//!
//! The empty document allows everything. As soon as one source is named, all others may post
//! nothing.
//!
//! There are no names for sets of kinds: whose prefix does not say it (`transfer_*`, `return_*`)
//! is listed, so that nobody has to look up what a name allows, and a new kind is never allowed by
//! surprise.

mod compiled;
mod document;
mod permissions;
#[cfg(test)]
mod tests;

pub use compiled::Authority;
pub use permissions::Permissions;
