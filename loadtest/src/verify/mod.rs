//! Compares what the server says in the end with the generator's own books.

mod again;
mod balances;

use std::{sync::atomic::Ordering, time::Duration};

use balances::Which;
use futures::{StreamExt, stream};

use crate::{
    drive::World,
    findings::Check,
    orders::Fate,
    plan::{Op, Plan},
    proto::{DigestRequest, GetReservationRequest, ReservationState, StatusRequest},
};

/// Questions under way at once.
const AT_ONCE: usize = 64;
/// How long after its time a cart may take to expire: an idle log is given the time once a second.
const EXPIRY_MAX: Duration = Duration::from_secs(30);
const EXPIRY_POLL: Duration = Duration::from_millis(200);

/// Checks everything that can be checked from outside, after the run. `plan` is the plan anew.
pub async fn verify(world: &World, plan: Plan) {
    let plan: Vec<(Duration, Op)> = again::to_ask_again(world, plan);
    expired(world).await;
    // Before anything is sent again, which would bring in what was lost.
    balances::cells(world, Which::All).await;
    balances::recorded(world).await;
    watched(world).await;
    history(world);
    again::movements(world, &plan).await;
    again::recorded(world).await;
    again::reservations(world, &plan).await;
    // And after it: it has to have changed nothing.
    balances::cells(world, Which::Touched).await;
    conserved(world).await;
}

/// What watchers were told, up to the last position that there is.
async fn watched(world: &World) {
    if world.watchers.is_empty() {
        return;
    }
    let link = &world.links[0];
    let Ok(status) = link.operations().status(StatusRequest {}).await else {
        return world
            .findings
            .note(Check::Watched, "the server's status is not told");
    };
    let last = status.into_inner().applied_position;
    let (catalogue, findings) = (&world.catalogue, &world.findings);
    world.watchers.check(link, catalogue, last, findings).await;
}

/// What was left alone has to be free again.
async fn expired(world: &World) {
    let left: Vec<_> = world
        .orders
        .decided()
        .filter(|(_, decision)| decision.fate == Fate::Left && !decision.held.is_empty())
        .collect();
    stream::iter(left)
        .for_each_concurrent(AT_ONCE, |(number, decision)| async move {
            let last = decision.at + world.leave + EXPIRY_MAX;
            let state = expiry(world, u64::from(number), last).await;
            if state == Ok(ReservationState::Expired) {
                for held in &decision.held {
                    let cell = world.catalogue.cell(held.sku, held.slot);
                    world.account.expire(cell, held.units);
                }
            }
            let example = || format!("cart {number} was left, and is {state:?}");
            let right = state == Ok(ReservationState::Expired);
            world.findings.that(Check::Expired, right, example);
        })
        .await;
}

/// The state of a cart, waited for until it has expired, or its time is long over.
async fn expiry(world: &World, number: u64, last: Duration) -> Result<ReservationState, String> {
    loop {
        let request = GetReservationRequest {
            id: world.id("order", number),
            ..GetReservationRequest::default()
        };
        let answer = world.links[0].reservations().get(request).await;
        let answer = answer.map_err(|status| status.message().to_owned())?;
        let state = answer.into_inner().state();
        if state == ReservationState::Expired || world.now() > last {
            return Ok(state);
        }
        tokio::time::sleep(EXPIRY_POLL).await;
    }
}

fn history(world: &World) {
    let catalogue = &world.catalogue;
    let opening = |cell| catalogue.opening(cell as u32 % catalogue.width());
    let (entries, found, complete) = world.account.shortfalls(opening);
    world.findings.right(Check::Oversell, entries);
    for short in found {
        world.findings.wrong(Check::Oversell, || {
            let (sku, slot) = place(world, short.cell);
            format!(
                "{} at {}: {} free at position {}",
                catalogue.sku(sku),
                catalogue.location(sku, slot),
                short.free,
                short.position
            )
        });
    }
    if !complete {
        let note = "too many steps to keep them all: what was free is checked at the end only";
        world.findings.note(Check::Oversell, note);
    }
}

async fn conserved(world: &World) {
    let request = DigestRequest {
        min_position: world.position.load(Ordering::Relaxed),
    };
    match world.links[0].operations().digest(request).await {
        Ok(digest) => {
            let digest = digest.into_inner();
            let right = digest.conservation_violations == 0;
            let example = || format!("{} SKUs", digest.conservation_violations);
            world.findings.that(Check::Conserved, right, example);
        }
        Err(status) => world
            .findings
            .note(Check::Conserved, format!("not told: {}", status.message())),
    }
}

/// SKU and slot of a cell.
fn place(world: &World, cell: usize) -> (u32, u32) {
    let (cell, width) = (cell as u32, world.catalogue.width());
    (cell / width, cell % width)
}
