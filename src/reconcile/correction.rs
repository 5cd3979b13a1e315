//! The movement that corrects a variance. Pure.

use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

use super::tally::{Finding, condition};
use crate::{domain::movement::TimeUs, proto::v1 as pb, wire::movement::timestamp};

/// Source of corrections, and their reason. Source authority goes by it.
pub const SOURCE: &str = "reconciliation";

/// What corrections of one snapshot have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'s> {
    /// The snapshot's source.
    pub(super) source: &'s str,
    /// Its id.
    pub(super) snapshot: &'s str,
    /// Its moment.
    pub(super) as_of_us: TimeUs,
    /// Who approved it; may be empty.
    pub(super) actor: &'s str,
}

/// The id of a correction: made of what is corrected, so that whoever corrects the same does it
/// once. What the books held is part of it: once they hold something else, another correction may
/// be due. If they hold the same again, after it was corrected, `repeats` counts how often.
pub(super) fn id(of: &Of<'_>, finding: &Finding, repeats: u32) -> String {
    let mut bytes = Vec::with_capacity(160);
    let texts = [of.source, of.snapshot, &finding.sku, &finding.location];
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        // No valid text has it.
        bytes.push(0);
    }
    bytes.push(finding.condition as u8);
    bytes.extend_from_slice(&finding.stated.to_le_bytes());
    bytes.extend_from_slice(&finding.book.to_le_bytes());
    if repeats > 0 {
        bytes.extend_from_slice(&repeats.to_le_bytes());
    }
    format!("{:032x}", xxh3_128(&bytes))
}

/// The movement, dated at the moment of the snapshot.
pub(super) fn movement(of: &Of<'_>, finding: &Finding, repeats: u32) -> pb::Movement {
    let Of {
        source, snapshot, ..
    } = of;
    let reference = match finding.line {
        0 => format!("snapshot {source}/{snapshot}, which lacks it"),
        line => format!("snapshot {source}/{snapshot} line {line}"),
    };
    pb::Movement {
        id: id(of, finding, repeats),
        source: SOURCE.into(),
        occurred_at: Some(timestamp(of.as_of_us)),
        sku: finding.sku.to_string(),
        quantity: finding.variance(),
        reference,
        actor: of.actor.into(),
        kind: Some(pb::movement::Kind::Adjusted(pb::Adjusted {
            location: finding.location.to_string(),
            condition: condition(finding.condition).into(),
            reason: SOURCE.into(),
        })),
        ..pb::Movement::default()
    }
}

/// The same, encoded.
pub(super) fn encoded(of: &Of<'_>, finding: &Finding, repeats: u32) -> bytes::Bytes {
    movement(of, finding, repeats).encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        domain::{balances::Account, movement::TimeUs},
        limits,
    };

    fn finding() -> Finding {
        Finding {
            sku: "A".into(),
            location: "dc".into(),
            condition: Account::Good,
            stated: 5,
            book: 8,
            found: pb::ReconciliationVerdict::Variance,
            action: pb::ReconciliationAction::None,
            line: 4,
            reason: "",
        }
    }

    const OF: Of<'_> = Of {
        source: "erp",
        snapshot: "s-1",
        as_of_us: 1_000_000,
        actor: "",
    };

    #[test]
    fn the_id_changes_with_all_that_it_is_made_of_and_with_nothing_else() {
        let with = |change: fn(&mut Finding)| {
            let mut changed = finding();
            change(&mut changed);
            id(&OF, &changed, 0)
        };
        let ids: HashSet<String> = [
            id(&OF, &finding(), 0),
            id(&Of { source: "er", ..OF }, &finding(), 0),
            id(
                &Of {
                    snapshot: "s-2",
                    ..OF
                },
                &finding(),
                0,
            ),
            with(|own| own.sku = "B".into()),
            with(|own| own.location = "dcs".into()),
            with(|own| own.condition = Account::Damaged),
            with(|own| own.stated = 6),
            with(|own| own.book = 9),
        ]
        .into();
        assert_eq!(ids.len(), 8);
        assert!(!ids.contains(&id(&OF, &finding(), 1)));
        let other_actor = Of { actor: "kim", ..OF };
        assert_eq!(id(&other_actor, &finding(), 0), id(&OF, &finding(), 0));
        assert_eq!(with(|own| own.line = 9), id(&OF, &finding(), 0));
    }

    #[test]
    fn the_longest_correction_is_a_valid_movement() {
        let of = Of {
            source: &"s".repeat(limits::SOURCE_BYTES_MAX),
            snapshot: &"i".repeat(limits::ID_BYTES_MAX),
            as_of_us: 1_000_000,
            actor: &"a".repeat(limits::ACTOR_BYTES_MAX),
        };
        for (stated, book, line) in [(5, 8, u64::MAX), (limits::QUANTITY_MAX, 0, 0)] {
            let finding = Finding {
                sku: "k".repeat(limits::SKU_BYTES_MAX).into(),
                location: "l".repeat(limits::LOCATION_BYTES_MAX).into(),
                stated,
                book,
                line,
                ..finding()
            };
            let movement = movement(&of, &finding, 0);
            assert_eq!(movement.quantity, stated - book);
            let read = crate::wire::movement::from_proto(&movement).expect("a movement");
            read.check(TimeUs::MAX).expect("valid");
        }
    }
}
