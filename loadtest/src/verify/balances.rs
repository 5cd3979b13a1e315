//! Compares balances, and recomputes numbers from their terms.

use std::sync::atomic::Ordering;

use futures::{StreamExt, stream};

use super::AT_ONCE;
use crate::{
    account::Expected,
    drive::World,
    findings::Check,
    proto::{Balances, ExplainRequest, ExplainResponse, LocationTerm},
    replay,
};

/// SKUs of which every cell is compared, whether the run touched it or not. Beyond it, of those
/// that were not touched only some are.
const UNTOUCHED_MAX: u32 = 20_000;

/// Which cells are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that the run touched, and what it should have left alone.
    All,
    /// Those that the run touched.
    Touched,
}

/// Every cell of these, by the terms of its SKU.
pub(super) async fn cells(world: &World, which: Which) {
    let catalogue = &world.catalogue;
    let every = catalogue.skus().div_ceil(UNTOUCHED_MAX).max(1);
    let touched = |sku: &u32| {
        let mut slots = 0..catalogue.width();
        slots.any(|slot| world.account.is_touched(catalogue.cell(*sku, slot)))
    };
    let skus = (0..catalogue.skus())
        .filter(|sku| (which == Which::All && sku % every == 0) || touched(sku));
    stream::iter(skus)
        .for_each_concurrent(AT_ONCE, |sku| async move {
            let name = world.catalogue.sku(sku);
            let Some(answer) = explain(world, sku as usize, &name).await else {
                return;
            };
            for slot in 0..world.catalogue.width() {
                let place = world.catalogue.location(sku, slot);
                let expected = world.account.expected(world.catalogue.cell(sku, slot));
                compare(world, &answer, &place, expected);
            }
        })
        .await;
}

fn compare(world: &World, answer: &ExplainResponse, place: &str, expected: Expected) {
    let term = answer.locations.iter().find(|term| term.location == place);
    let has = term.and_then(|term| term.balances).unwrap_or_default();
    let whole = Balances {
        good: expected.good,
        reserved: expected.reserved,
        on_hand: expected.good,
        free: expected.good - expected.reserved,
        ..Balances::default()
    };
    let example = || {
        format!(
            "{} at {place}: has {has:?}, has to have {expected:?}",
            answer.sku
        )
    };
    world.findings.that(Check::Balances, has == whole, example);
    let example = || format!("{} at {place}: {has:?}", answer.sku);
    world
        .findings
        .that(Check::BelowZero, !is_below_zero(&has), example);
}

fn is_below_zero(has: &Balances) -> bool {
    let least = [
        has.good,
        has.quarantined,
        has.damaged,
        has.return_pending,
        has.reserved,
        has.in_transit,
        has.return_expected,
        has.free,
    ];
    least.iter().any(|units| *units < 0)
}

/// What a replay has left on hand.
pub(super) async fn recorded(world: &World) {
    let Some(recording) = &world.recording else {
        return;
    };
    let all = recording.movements().iter().enumerate();
    let acknowledged = all.filter(|(n, _)| world.replayed.is_set(*n as u64));
    let books = replay::on_hand(acknowledged.map(|(_, movement)| movement));
    let untold = books.values().filter(|units| units.is_none()).count();
    if untold > 0 {
        let note = format!("{untold} replayed cells were counted or scrapped, and are left out");
        world.findings.note(Check::Balances, note);
    }
    stream::iter(books.into_iter().enumerate())
        .for_each_concurrent(AT_ONCE, |(n, ((sku, place), units))| async move {
            let (Some(units), Some(answer)) = (units, explain(world, n, &sku).await) else {
                return;
            };
            let term = answer.locations.iter().find(|term| term.location == place);
            let has = term.and_then(|term| term.balances).unwrap_or_default();
            let example = || {
                let on_hand = has.on_hand;
                format!("{sku} at {place}: {on_hand} on hand, has to have {units}")
            };
            world
                .findings
                .that(Check::Balances, has.on_hand == units, example);
        })
        .await;
}

/// Every term of one SKU, by one of the channels; the number has to follow from them.
async fn explain(world: &World, n: usize, sku: &str) -> Option<ExplainResponse> {
    let channels = world.catalogue.channels();
    let request = ExplainRequest {
        channel: channels[n % channels.len()].clone(),
        sku: sku.to_owned(),
        min_position: world.position.load(Ordering::Relaxed),
    };
    let link = &world.links[n % world.links.len()];
    match link.availability().explain(request).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let right = follows(&answer);
            world
                .findings
                .that(Check::Explained, right, || format!("{answer:?}"));
            Some(answer)
        }
        Err(status) => {
            let example = || format!("{sku} is not explained: {}", status.message());
            world.findings.wrong(Check::Balances, example);
            None
        }
    }
}

/// True if the number is what its terms give.
fn follows(answer: &ExplainResponse) -> bool {
    let terms = answer.terms.clone().unwrap_or_default();
    let available = |at: &LocationTerm| {
        let has = at.balances.unwrap_or_default();
        let share = (has.good.max(0) * i64::from(terms.buffer_percent) + 99) / 100;
        let sells = i64::from(at.sells);
        sells * (has.free - terms.buffer.max(share)).max(0)
    };
    let right = answer.locations.iter().all(|at| {
        let has = at.balances.unwrap_or_default();
        at.available == available(at) && has.free == has.good - has.reserved
    });
    let sum: i64 = answer.locations.iter().map(available).sum();
    let share = sum * i64::from(terms.share_percent) / 100;
    let ats = match terms.paused || share < terms.minimum {
        true => 0,
        false => share.min(terms.maximum.unwrap_or(i64::MAX)),
    };
    right && answer.sum == sum && answer.ats == ats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ChannelTerms;

    fn answer(ats: i64) -> ExplainResponse {
        let at = |good, reserved, available| LocationTerm {
            sells: true,
            balances: Some(Balances {
                good,
                reserved,
                free: good - reserved,
                ..Balances::default()
            }),
            available,
            ..LocationTerm::default()
        };
        ExplainResponse {
            ats,
            locations: vec![at(101, 1, 89), at(5, 0, 2)],
            sum: 91,
            terms: Some(ChannelTerms {
                buffer: 3,
                buffer_percent: 10,
                share_percent: 90,
                ..ChannelTerms::default()
            }),
            ..ExplainResponse::default()
        }
    }

    #[test]
    fn a_number_has_to_follow_from_its_terms() {
        assert!(follows(&answer(81)));
        assert!(!follows(&answer(82)));
        let mut wrong = answer(81);
        wrong.locations[0].available += 1;
        assert!(!follows(&wrong));
    }

    #[test]
    fn less_than_nothing_is_found_in_every_balance() {
        assert!(!is_below_zero(&Balances::default()));
        let below = Balances {
            in_transit: -1,
            ..Balances::default()
        };
        assert!(is_below_zero(&below));
    }
}
