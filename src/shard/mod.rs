//! Shards: the cells of some SKUs each, with one writer thread, and the view that readers have
//! of all of them.

mod block;
mod books;
mod changes;
pub(crate) mod commands;
pub(crate) mod compare;
mod index;
mod locations;
mod progress;
pub(crate) mod queue;
mod rulebook;
pub(crate) mod saving;
mod seqlock;
mod view;
pub(crate) mod worker;

pub use books::Audit;
pub use changes::Change;
pub use locations::{Locations, Sources};
pub use progress::Progress;
pub use rulebook::{Rulebook, RulesInForce};
pub use view::{Explanation, LocationTerm, NotReadable, Reading, Sizes, View};
pub use worker::Receipt;
