//! Metrics, by the conventions of Prometheus. They are read from the instance when they are asked
//! for, so that they cost nothing where the work is done.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

use super::{Calls, feeds::OfFeeds};
use crate::{
    domain::{
        exceptions::{ParkedKind, StateKind},
        movement::TimeUs,
    },
    feed::Feeds,
    instance::{Instance, now_us},
};

/// All metrics of an instance.
pub(super) fn registry(instance: &Arc<Instance>, feeds: &Arc<Feeds>, calls: &Calls) -> Registry {
    let mut registry = Registry::with_prefix("sellable");
    let identity = instance.log_identity();
    registry.register(
        "build",
        "The program and its log",
        Info::new([
            ("version", env!("CARGO_PKG_VERSION")),
            ("log_engine", identity.engine),
        ]),
    );
    registry.register_collector(Box::new(OfInstance(Arc::clone(instance))));
    registry.register_collector(Box::new(OfFeeds(Arc::clone(feeds))));
    registry.register_collector(Box::new(OfCalls(calls.clone())));
    registry
}

struct OfInstance(Arc<Instance>);

impl fmt::Debug for OfInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OfInstance").field(&self.0.id()).finish()
    }
}

impl Collector for OfInstance {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let instance = &*self.0;
        let view = instance.view();
        let (sizes, ids) = (view.sizes(), instance.ids());
        let movements = instance.movements();
        let mut page = Page(encoder);

        page.family(
            "movements",
            "Movements read from the log, by what became of them",
            MetricType::Counter,
            "outcome",
            [
                ("applied", movements.applied),
                ("duplicate", movements.duplicate),
                ("parked", movements.parked),
            ],
        )?;
        page.family(
            "commands",
            "Commands read from the log, by what was decided",
            MetricType::Counter,
            "outcome",
            instance
                .commands()
                .map(|(verdict, count)| (verdict.name(), count)),
        )?;
        let kinds = open_exceptions(instance);
        page.family(
            "exceptions",
            "Open exceptions, by kind",
            MetricType::Gauge,
            "kind",
            kinds.iter().map(|kind| (kind.name, kind.open)),
        )?;
        let log_time_us = view.progress().time_us();
        let age_us = |oldest_us: TimeUs| (log_time_us - oldest_us).max(0);
        page.family_of_seconds(
            "exceptions_oldest_age",
            "Age of the oldest open exception by the log's time, by kind; 0: none is open",
            "kind",
            kinds.iter().map(|kind| {
                let age_us = kind.oldest_us.map_or(0, age_us);
                (kind.name, age_us as f64 / 1e6)
            }),
        )?;
        page.gauge(
            "applied_position",
            "Last log position applied by every shard",
            view.progress().position(),
        )?;
        page.gauge(
            "ready",
            "1 once caught up with the log as it stood at the start",
            u64::from(instance.ready()),
        )?;
        page.gauge(
            "writable",
            "1 if the log takes writes",
            u64::from(instance.not_writable().is_none()),
        )?;
        page.gauge("skus", "SKUs known", sizes.skus)?;
        page.gauge("cells", "Cells known: SKUs at locations", sizes.cells)?;
        page.gauge("locations", "Locations known", sizes.locations)?;
        page.gauge(
            "order_lines",
            "Lines followed: of orders, inbound deliveries, transfers and returns",
            sizes.order_lines,
        )?;
        page.gauge(
            "ids_remembered",
            "Movement ids remembered for idempotency",
            ids.remembered,
        )?;
        page.gauge(
            "movements_waiting",
            "Movements of callers that wait to be written or applied",
            instance.waiting_movements() as u64,
        )?;
        page.gauge(
            "commands_waiting",
            "Commands of callers that wait to be written or decided",
            instance.waiting_commands() as u64,
        )?;
        page.gauge(
            "rules_version",
            "Log position of the channel rules in force; 0: none",
            view.rulebook().in_force().version,
        )?;
        page.bytes(
            "cells_memory",
            "Memory of cells and their index",
            sizes.bytes,
        )?;
        page.bytes("ids_memory", "Memory of remembered movement ids", ids.bytes)?;
        let age_us = match log_time_us {
            0 => 0,
            time_us => (now_us() - time_us).max(0),
        };
        page.seconds(
            "log_time_age",
            "Age of the last record applied; grows while nothing happens",
            age_us as f64 / 1e6,
        )?;
        page.checkpoints(instance)?;
        page.seconds(
            "uptime",
            "Time since the start",
            instance.uptime().as_secs_f64(),
        )
    }
}

/// Open exceptions of one kind.
struct OfKind {
    name: &'static str,
    open: u64,
    oldest_us: Option<TimeUs>,
}

/// By kind, parked ones first, also those of which none is open.
fn open_exceptions(instance: &Instance) -> Vec<OfKind> {
    let desk = instance.exceptions();
    let (counts, oldest) = (desk.parked().counts(), desk.parked().oldest());
    let parked = ParkedKind::ALL.into_iter().map(|kind| OfKind {
        name: kind.name(),
        open: counts.get(&kind).copied().unwrap_or(0),
        oldest_us: oldest.get(&kind).copied(),
    });
    let (counts, oldest) = (desk.counts(), desk.oldest());
    let open = StateKind::ALL.into_iter().map(|kind| OfKind {
        name: kind.name(),
        open: counts.get(&kind).copied().unwrap_or(0),
        oldest_us: oldest.get(&kind).copied(),
    });
    parked.chain(open).collect()
}

#[derive(Debug)]
struct OfCalls(Calls);

impl Collector for OfCalls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counted = self.0.counted();
        if counted.is_empty() {
            return Ok(());
        }
        let mut calls = encoder.encode_descriptor(
            "grpc_calls",
            "gRPC calls answered, by method and code",
            None,
            MetricType::Counter,
        )?;
        for method in &counted {
            for (code, count) in &method.codes {
                let labels = [("method", method.method), ("code", code)];
                ConstCounter::new(*count).encode(calls.encode_family(&labels)?)?;
            }
        }
        let mut durations = encoder.encode_descriptor(
            "grpc_call_duration",
            "Time from a call's headers to its answer's; of a stream, until it is open",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for method in &counted {
            let labels = [("method", method.method)];
            let count = method.buckets.iter().map(|(_, count)| count).sum();
            let mut family = durations.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(method.seconds, count, &method.buckets, None)?;
        }
        Ok(())
    }
}

/// What is asked for, as it is written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn checkpoints(&mut self, instance: &Instance) -> fmt::Result {
        let own = instance.checkpoints().unwrap_or_default();
        let last = own.last.as_ref();
        let position = last.map_or(0, |last| last.position);
        self.family(
            "checkpoints",
            "Checkpoints since the start, by what became of them",
            MetricType::Counter,
            "outcome",
            [("taken", own.taken), ("failed", own.failed)],
        )?;
        self.gauge(
            "checkpoint_position",
            "Log position of the last checkpoint; 0: there is none",
            position,
        )?;
        let applied = instance.view().progress().position();
        self.gauge(
            "checkpoint_replay_records",
            "Log records that a restart would read after its checkpoint",
            applied.saturating_sub(position),
        )?;
        self.bytes(
            "checkpoint_size",
            "Size of the last checkpoint",
            last.map_or(0, |last| last.bytes),
        )?;
        let age_us = last.map_or(0, |last| (now_us() - last.taken_us).max(0));
        self.seconds(
            "checkpoint_age",
            "Time since the last checkpoint was begun; 0: there is none",
            age_us as f64 / 1e6,
        )?;
        self.seconds(
            "checkpoint_duration",
            "How long the last checkpoint took to take, or to load",
            last.map_or(0.0, |last| last.duration.as_secs_f64()),
        )
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        gauge.encode(
            self.0
                .encode_descriptor(name, help, None, MetricType::Gauge)?,
        )
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let unit = Some(&Unit::Bytes);
        gauge.encode(
            self.0
                .encode_descriptor(name, help, unit, MetricType::Gauge)?,
        )
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let unit = Some(&Unit::Seconds);
        gauge.encode(
            self.0
                .encode_descriptor(name, help, unit, MetricType::Gauge)?,
        )
    }

    /// Seconds, one line for each value of a label.
    fn family_of_seconds<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, f64)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut family = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (value, seconds) in values {
            let labels = [(label, value)];
            ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// One line for each value of a label.
    fn family<'v>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in values {
            let labels = [(label, value)];
            match kind {
                MetricType::Counter => {
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
                _ => ConstGauge::new(count).encode(family.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }
}
