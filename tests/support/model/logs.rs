//! Logs of facts, commands, rules and time.

use std::sync::OnceLock;

use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use prost::Message;
use sellable::{
    domain::movement::Condition,
    proto::v1::{self as pb, command::Command},
};

use super::{
    channel::{Channel, Rules},
    fact::{Fact, What},
    generate::{Event, SKUS, counted, event, location, moment, quantity},
};

/// What happens next in a log.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Facts, in one entry.
    Facts(Vec<Fact>),
    /// Commands, in one record.
    Commands(Vec<pb::Command>),
    /// So many steps of time pass.
    Time(i64),
    /// These rules come into force.
    Rules(usize),
}

/// A log.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) steps: Vec<Step>,
    /// There are only receipts and commands, so nothing may ever be oversold.
    pub(crate) clean: bool,
    pub(crate) seed: u64,
}

/// A record, as an instance writes one, that nobody waits for.
pub(crate) fn record(body: pb::record::Body) -> Bytes {
    let record = pb::Record {
        version: 1,
        instance: 0,
        token: 0,
        body: Some(body),
    };
    record.encode_to_vec().into()
}

const GROUPS: &[(&str, &[&str])] = &[("dcs", &["z-dc", "B-dc"])];

/// Two versions of the rules.
pub(crate) fn rules() -> &'static [Rules; 2] {
    static RULES: OnceLock<[Rules; 2]> = OnceLock::new();
    RULES.get_or_init(|| {
        let market = Channel {
            sources: &["@dcs", "m-store", "*"],
            buffer: 1,
            buffer_percent: 15,
            share_percent: 70,
            minimum: 3,
            maximum: Some(25),
            ..Channel::open("market")
        };
        let stores = Channel {
            sources: &["m*", "a-store"],
            exclude: &["m-store"],
            paused_sku: Some(SKUS[1]),
            ..Channel::open("stores")
        };
        let web = Channel::open("web");
        let first = Rules {
            groups: GROUPS,
            channels: vec![market.clone(), stores.clone(), web.clone()],
        };
        let second = Rules {
            groups: GROUPS,
            channels: vec![
                Channel {
                    sources: &["a*", "@dcs"],
                    buffer: 3,
                    ..Channel::open("app")
                },
                Channel {
                    sources: &["k-3pl", "*", "@dcs"],
                    share_percent: 50,
                    ..market
                },
                Channel {
                    exclude: &["z-dc"],
                    buffer_percent: 33,
                    ..web
                },
            ],
        };
        [first, second]
    })
}

const CHANNELS: [&str; 5] = ["web", "web", "market", "stores", "app"];

fn reservation() -> impl Strategy<Value = String> {
    (0..5).prop_map(|n| format!("r{n}"))
}

/// Identity of another command; sometimes one that is taken.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..1_000).prop_map(|n| format!("c{n}")),
        1 => reservation(),
    ]
}

/// Around the steps of the log's time.
fn ttl() -> impl Strategy<Value = prost_types::Duration> {
    let seconds = prop_oneof![1 => Just(0), 12 => 1..45i64];
    let nanos = prop_oneof![3 => Just(0), 1 => 0..1_000_000_000];
    (seconds, nanos).prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos })
}

fn reserve_line() -> impl Strategy<Value = pb::ReserveLine> {
    let sku = prop_oneof![
        12 => prop::sample::select(&SKUS[..]),
        1 => Just("never seen"),
    ];
    let at = prop_oneof![
        6 => Just(String::new()),
        3 => location(),
        1 => prop::sample::select(vec!["new-store", "nowhere"]).prop_map(str::to_owned),
    ];
    let units = prop_oneof![30 => 1..14i64, 1 => quantity(), 1 => Just(0)];
    let name = prop_oneof![9 => Just(""), 1 => Just("2"), 1 => Just("b")];
    (name, sku, units, at).prop_map(|(line, sku, quantity, location)| pb::ReserveLine {
        line: line.into(),
        sku: sku.into(),
        quantity,
        location,
    })
}

fn command() -> impl Strategy<Value = pb::Command> {
    let lines = prop_oneof![
        4 => prop::collection::vec(reserve_line(), 1..3),
        2 => prop::collection::vec(reserve_line(), 1..7),
    ];
    let channel = prop_oneof![
        20 => prop::sample::select(&CHANNELS[..]),
        1 => Just("nobody"),
    ];
    let reserve_id = prop_oneof![4 => reservation(), 1 => (0..99).prop_map(|n| format!("o{n}"))];
    let reserve = (
        reserve_id,
        channel,
        lines,
        prop::option::of(ttl()),
        any::<bool>(),
    )
        .prop_map(|(id, channel, lines, time_to_live, allow_split)| {
            Command::Reserve(pb::ReserveRequest {
                id,
                channel: channel.into(),
                lines,
                time_to_live,
                allow_split,
                actor: String::new(),
            })
        });
    let about = || {
        (
            id(),
            prop_oneof![15 => reservation(), 1 => Just("c1".to_owned())],
        )
    };
    let confirm = about()
        .prop_map(|(id, reservation)| Command::Confirm(pb::ConfirmRequest { id, reservation }));
    let extend = (about(), prop::option::weighted(0.95, ttl())).prop_map(
        |((id, reservation), time_to_live)| {
            Command::Extend(pb::ExtendRequest {
                id,
                reservation,
                time_to_live,
            })
        },
    );
    let line = prop::sample::select(vec!["1", "1", "2", "3", "b"]);
    let units = prop_oneof![1 => Just(0), 4 => 1..9i64];
    let release_line = (line, units).prop_map(|(line, quantity)| pb::ReleaseLine {
        line: line.into(),
        quantity,
    });
    let release = (about(), prop::collection::vec(release_line, 0..3)).prop_map(
        |((id, reservation), lines)| {
            Command::Release(pb::ReleaseRequest {
                id,
                reservation,
                lines,
            })
        },
    );
    let command = prop_oneof![6 => reserve, 2 => confirm, 2 => extend, 3 => release];
    command.prop_map(|command| pb::Command {
        command: Some(command),
    })
}

fn received() -> impl Strategy<Value = Event> {
    (prop::sample::select(&SKUS[..]), 1..30i64, location())
        .prop_map(|(sku, quantity, at)| (sku, quantity, What::Received(at, Condition::Good)))
}

/// Facts about the lines of reservations.
fn fact_of_order() -> impl Strategy<Value = Event> {
    let line = (
        reservation(),
        prop::sample::select(vec!["1", "1", "2", "b"]),
    );
    let line = line.prop_map(|(order, line)| (order, line.to_owned()));
    let two = (location(), location()).prop_filter("it moves", |(from, to)| from != to);
    let places = (two, any::<bool>());
    let about = (line, places, moment(), 0..8);
    (prop::sample::select(&SKUS[..]), 1..9i64, about).prop_map(
        |(sku, quantity, (line, ((from, to), named), us, kind))| {
            let what = match kind {
                0 => What::Reserved(line, from, us),
                1 => What::Reassigned(line, from, to),
                2 | 3 => What::Released(line, named.then_some(from)),
                _ => What::Shipped(line, from),
            };
            (sku, quantity, what)
        },
    )
}

/// A step before its facts have ids, and before what is repeated is known.
#[derive(Debug, Clone)]
enum Draft {
    Events(Vec<Event>),
    /// Facts and commands that were there before.
    Again(Index, usize),
    Commands(Vec<pb::Command>),
    Time(i64),
    Rules(usize),
}

fn draft(clean: bool) -> impl Strategy<Value = Draft> {
    let events = if clean {
        prop::collection::vec(received(), 1..4).boxed()
    } else {
        let sku = prop::sample::select(&SKUS[..]);
        let count = (sku, Just(0), counted());
        let any = prop_oneof![3 => received(), 5 => fact_of_order(), 2 => event(), 1 => count];
        prop::collection::vec(any, 1..5).boxed()
    };
    prop_oneof![
        5 => events.prop_map(Draft::Events),
        8 => prop::collection::vec(command(), 1..2).prop_map(Draft::Commands),
        3 => prop::collection::vec(command(), 1..5).prop_map(Draft::Commands),
        2 => (any::<Index>(), 1..3usize).prop_map(|(at, count)| Draft::Again(at, count)),
        2 => (1..3i64).prop_map(Draft::Time),
        1 => (0..2usize).prop_map(Draft::Rules),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    any::<bool>().prop_flat_map(|clean| {
        let stock = prop::collection::vec(received(), 0..12);
        let drafts = prop::collection::vec(draft(clean), 1..25);
        (stock, drafts, any::<u64>()).prop_map(move |(stock, drafts, seed)| {
            let begin = [Draft::Rules(0), Draft::Events(stock)];
            History {
                steps: steps(begin.into_iter().chain(drafts)),
                clean,
                seed,
            }
        })
    })
}

fn steps(drafts: impl Iterator<Item = Draft>) -> Vec<Step> {
    let (mut steps, mut count) = (Vec::new(), 0);
    for draft in drafts {
        let step = match draft {
            Draft::Events(events) => {
                let number = |(sku, quantity, what): Event| {
                    count += 1;
                    Fact {
                        id: format!("m{count}"),
                        sku: sku.to_owned(),
                        quantity,
                        occurred_us: super::OCCURRED_US - count % 7 * 1_000_000,
                        what,
                    }
                };
                Step::Facts(events.into_iter().map(number).collect())
            }
            Draft::Again(at, count) => {
                let at = at.index(steps.len().max(1));
                match steps.get(at) {
                    Some(Step::Commands(commands)) => {
                        let again = commands.iter().cycle().take(commands.len() * count);
                        Step::Commands(again.cloned().collect())
                    }
                    Some(Step::Facts(facts)) => Step::Facts(facts.clone()),
                    _ => continue,
                }
            }
            Draft::Commands(commands) => Step::Commands(commands),
            Draft::Time(time) => Step::Time(time),
            Draft::Rules(version) => Step::Rules(version),
        };
        steps.push(step);
    }
    steps
}
