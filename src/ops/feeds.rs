//! Metrics of feeds: how fresh what channels were told is, and what became of deliveries.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use crate::{
    feed::{Feeds, Times},
    proto::v1 as pb,
};

/// Upper bounds of the buckets, in microseconds.
const BOUNDS_US: [u64; 16] = [
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
    900_000_000,
    7_200_000_000,
];

#[derive(Debug)]
pub(super) struct OfFeeds(pub(super) Arc<Feeds>);

/// What a histogram says.
struct Measured {
    /// Labels of its line.
    labels: Vec<(&'static str, String)>,
    seconds: f64,
    count: u64,
    /// Not cumulated.
    buckets: Vec<(f64, u64)>,
}

impl Measured {
    fn of(times: &Times, labels: Vec<(&'static str, String)>) -> Self {
        let (up_to, count, seconds) = times.cumulative(&BOUNDS_US);
        let mut before = 0;
        let mut buckets: Vec<(f64, u64)> = BOUNDS_US
            .iter()
            .zip(up_to)
            .map(|(bound, up_to)| {
                let own = up_to.saturating_sub(before);
                before = up_to.max(before);
                (*bound as f64 / 1e6, own)
            })
            .collect();
        buckets.push((f64::INFINITY, count.saturating_sub(before)));
        Self {
            labels,
            seconds,
            count,
            buckets,
        }
    }
}

impl Collector for OfFeeds {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut published = Vec::new();
        let mut delivered = Vec::new();
        self.0.measured(|channel, [occurred, logged], deliveries| {
            let of =
                |since: &str| vec![("channel", channel.to_owned()), ("since", since.to_owned())];
            published.push(Measured::of(occurred, of("occurred")));
            published.push(Measured::of(logged, of("logged")));
            for delivery in deliveries {
                let of = |since: &str| {
                    let mut labels = of(since);
                    labels.push(("way", way(delivery.way)));
                    labels.push(("name", delivery.name.clone()));
                    labels
                };
                delivered.push(Measured::of(&delivery.occurred, of("occurred")));
                delivered.push(Measured::of(&delivery.logged, of("logged")));
            }
        });
        histograms(
            &mut encoder,
            "feed_published_after",
            "Time until a change was published, since it occurred and since it was logged",
            &published,
        )?;
        histograms(
            &mut encoder,
            "feed_delivered_after",
            "Time until a message was delivered, since its oldest change occurred and was logged",
            &delivered,
        )?;
        let feeds = self.0.status();
        counters(
            &mut encoder,
            "feed_numbers_published",
            "Changes of published numbers",
            feeds
                .iter()
                .map(|feed| (vec![("channel", feed.channel.clone())], feed.published)),
        )?;
        counters(
            &mut encoder,
            "feed_shown_different",
            "Differences that read-back found",
            feeds.iter().map(|feed| {
                (
                    vec![("channel", feed.channel.clone())],
                    feed.shown_different,
                )
            }),
        )?;
        type Value = fn(&pb::DeliveryStatus) -> u64;
        let of_deliveries = |value: Value| {
            feeds.iter().flat_map(move |feed| {
                feed.deliveries
                    .iter()
                    .map(move |own| (labels(feed, own), value(own)))
            })
        };
        let all: [(&str, &str, Value); 4] = [
            ("feed_messages_delivered", "Messages delivered", |own| {
                own.messages
            }),
            ("feed_numbers_delivered", "Numbers delivered", |own| {
                own.numbers
            }),
            (
                "feed_numbers_conflated",
                "Changes that a newer one took the place of before they were delivered",
                |own| own.conflated,
            ),
            (
                "feed_delivery_failures",
                "Attempts to deliver that failed",
                |own| own.failures,
            ),
        ];
        for (name, help, value) in all {
            counters(&mut encoder, name, help, of_deliveries(value))?;
        }
        let all: [(&str, &str, Value); 4] = [
            ("feed_subscribers", "Receivers now", |own| own.subscribers),
            (
                "feed_numbers_waiting",
                "SKUs that wait to be delivered",
                |own| own.waiting,
            ),
            (
                "feed_dead_letters",
                "Numbers refused for good, and still owed",
                |own| own.dead_letters,
            ),
            (
                "feed_delivery_state",
                "1 delivering, 2 standby, 3 throttled, 4 retrying, 5 circuit open",
                |own| own.state.unsigned_abs().into(),
            ),
        ];
        for (name, help, value) in all {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in of_deliveries(value) {
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn labels(feed: &pb::FeedStatus, own: &pb::DeliveryStatus) -> Vec<(&'static str, String)> {
    vec![
        ("channel", feed.channel.clone()),
        ("way", way(own.way())),
        ("name", own.name.clone()),
    ]
}

fn way(way: pb::delivery_status::Way) -> String {
    way.as_str_name().to_ascii_lowercase()
}

fn histograms(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &[Measured],
) -> fmt::Result {
    let mut family =
        encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for own in all {
        let mut line = family.encode_family(&own.labels)?;
        line.encode_histogram::<NoLabelSet>(own.seconds, own.count, &own.buckets, None)?;
    }
    Ok(())
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: impl Iterator<Item = (Vec<(&'static str, String)>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in all {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
