//! Updates in JSON: CloudEvents 1.0 in structured mode.
//!
//! ```text
//! {"specversion": "1.0", "type": "sellable.availability.changes.v1",
//!  "source": "sellable/jetstream-…/web", "id": "4711-4720-4720",
//!  "time": "2026-11-21T10:00:00.123456Z", "datacontenttype": "application/json",
//!  "data": {"channel": "web", "after_position": 4711, "position": 4720, "as_of_position": 4720,
//!           "numbers": [{"sku": "tee-red-M", "units": 0}],
//!           "oldest_occurred_at": "…", "oldest_logged_at": "…", "log": "jetstream-…"}}
//! ```
//!
//! `type` ends in `state.v1`, `changes.v1` or `heartbeat.v1`, `time` is when the update was made, and
//! `data` says what `AvailabilityUpdate` in `proto/sellable/v1/feeds.proto` says.

use serde_json::{Value, json};

use crate::{instance::now_us, proto::v1 as pb};

/// The update as a CloudEvent.
pub fn cloud_event(update: &pb::AvailabilityUpdate) -> Value {
    let kind = update.kind().as_str_name().to_ascii_lowercase();
    json!({
        "specversion": "1.0",
        "type": format!("sellable.availability.{kind}.v1"),
        "source": format!("sellable/{}/{}", update.log, update.channel),
        "id": format!(
            "{}-{}-{}",
            update.after_position, update.position, update.as_of_position
        ),
        "time": time(Some(&crate::wire::movement::timestamp(now_us()))),
        "datacontenttype": "application/json",
        "data": data(update),
    })
}

fn data(update: &pb::AvailabilityUpdate) -> Value {
    let number = |own: &pb::PublishedNumber| json!({ "sku": own.sku, "units": own.units });
    json!({
        "channel": update.channel,
        "after_position": update.after_position,
        "position": update.position,
        "as_of_position": update.as_of_position,
        "numbers": update.numbers.iter().map(number).collect::<Vec<_>>(),
        "oldest_occurred_at": time(update.oldest_occurred_at.as_ref()),
        "oldest_logged_at": time(update.oldest_logged_at.as_ref()),
        "log": update.log,
    })
}

fn time(at: Option<&prost_types::Timestamp>) -> Value {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok())
        .map_or(Value::Null, |at| at.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_a_cloud_event() {
        let update = pb::AvailabilityUpdate {
            kind: pb::availability_update::Kind::Changes.into(),
            channel: "web".into(),
            after_position: 4,
            position: 9,
            as_of_position: 9,
            numbers: vec![pb::PublishedNumber {
                sku: "A".into(),
                units: 3,
            }],
            log: "embedded-1".into(),
            ..pb::AvailabilityUpdate::default()
        };
        let mut event = cloud_event(&update);
        let time = event["time"].take();
        assert!(crate::wire::parse_time(time.as_str().expect("a text")).is_ok());
        assert_eq!(
            event,
            json!({
                "specversion": "1.0",
                "type": "sellable.availability.changes.v1",
                "source": "sellable/embedded-1/web",
                "id": "4-9-9",
                "time": null,
                "datacontenttype": "application/json",
                "data": {
                    "channel": "web",
                    "after_position": 4,
                    "position": 9,
                    "as_of_position": 9,
                    "numbers": [{ "sku": "A", "units": 3 }],
                    "oldest_occurred_at": null,
                    "oldest_logged_at": null,
                    "log": "embedded-1",
                },
            })
        );
    }
}
