//! Sends acknowledged requests again: each has to be known, with what came of it.

use std::time::Duration;

use futures::{StreamExt, stream};

use super::AT_ONCE;
use crate::{
    drive::World,
    findings::Check,
    orders::Held,
    plan::{Cart, Op, Plan},
    proto::{Movement, Outcome, PostRequest},
};

/// Most movements that are sent again; of more, as many are, evenly over the run.
const MOVEMENTS_MAX: u64 = 200_000;
/// The same of carts.
const CARTS_MAX: usize = 20_000;
/// Movements in one message.
const BATCH: usize = 1_000;

/// Of a plan, what is to be asked again.
pub(super) fn to_ask_again(world: &World, plan: Plan) -> Vec<(Duration, Op)> {
    let every_movement = world.moved.count().div_ceil(MOVEMENTS_MAX).max(1);
    let carts = world.orders.decided().count();
    let every_cart = carts.div_ceil(CARTS_MAX).max(1) as u64;
    let mut messages = 0;
    plan.filter(|(_, op)| match op {
        Op::Move { .. } => {
            messages += 1;
            messages % every_movement == 0
        }
        Op::Reserve(cart) => u64::from(cart.order) % every_cart == 0,
        _ => false,
    })
    .collect()
}

/// Movements have to be known as applied.
pub(super) async fn movements(world: &World, plan: &[(Duration, Op)]) {
    let acknowledged = plan.iter().filter_map(|(due, op)| match op {
        Op::Move { first, moves } if world.moved.is_set(*first) => {
            Some(world.movements(*first, *due, moves))
        }
        _ => None,
    });
    let movements: Vec<Movement> = acknowledged.flatten().collect();
    known(world, &movements).await;
}

/// The same of recorded movements, which may also have been parked.
pub(super) async fn recorded(world: &World) {
    let Some(recording) = &world.recording else {
        return;
    };
    let all = recording.movements().iter().enumerate();
    let acknowledged: Vec<Movement> = all
        .filter(|(n, _)| world.replayed.is_set(*n as u64))
        .map(|(_, movement)| movement.clone())
        .collect();
    known(world, &acknowledged).await;
}

async fn known(world: &World, movements: &[Movement]) {
    stream::iter(movements.chunks(BATCH))
        .for_each_concurrent(AT_ONCE / 8, |batch| async move {
            let request = PostRequest {
                movements: batch.to_vec(),
            };
            let answer = match world.links[0].movements().post(request).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    let example = || format!("sent again: {}", status.message());
                    return world.findings.wrong(Check::MovementsIn, example);
                }
            };
            for (movement, outcome) in batch.iter().zip(&answer.outcomes) {
                let right = outcome.duplicate && outcome.outcome() == Outcome::Applied;
                let example = || {
                    format!(
                        "{} was acknowledged; sent again it is {:?}, {}known",
                        movement.id,
                        outcome.outcome(),
                        if outcome.duplicate { "" } else { "not " }
                    )
                };
                world.findings.that(Check::MovementsIn, right, example);
            }
        })
        .await;
}

/// Reservations have to be decided as they were.
pub(super) async fn reservations(world: &World, plan: &[(Duration, Op)]) {
    let carts = plan.iter().filter_map(|(_, op)| match op {
        Op::Reserve(cart) => Some(cart),
        _ => None,
    });
    let decided = carts.filter_map(|cart| {
        let decision = world.orders.get(cart.order).decided.get()?;
        decision
            .answered
            .then_some((cart, decision.held.as_slice()))
    });
    stream::iter(decided)
        .for_each_concurrent(AT_ONCE, |(cart, held)| async move {
            let right = same_decision(world, cart, held).await;
            let example = || format!("cart {}: {:?}", cart.order, right);
            world
                .findings
                .that(Check::DecidedOnce, right.is_ok(), example);
        })
        .await;
}

async fn same_decision(world: &World, cart: &Cart, held: &[Held]) -> Result<(), String> {
    let request = world.reserve_request(cart);
    let answer = world.links[0].reservations().reserve(request).await;
    let answer = answer.map_err(|status| status.message().to_owned())?;
    let answer = answer.into_inner();
    let now: Vec<(&str, &str, i64)> = answer
        .allocations
        .iter()
        .map(|given| (given.line.as_str(), given.location.as_str(), given.quantity))
        .collect();
    let places: Vec<String> = held
        .iter()
        .map(|held| world.catalogue.location(held.sku, held.slot))
        .collect();
    let first: Vec<(&str, &str, i64)> = held
        .iter()
        .zip(&places)
        .map(|(held, place)| (held.line.as_str(), place.as_str(), held.units))
        .collect();
    let same = answer.duplicate && answer.granted != held.is_empty() && now == first;
    same.then_some(())
        .ok_or_else(|| format!("first {first:?}, sent again {answer:?}"))
}
