//! Ticks: an idle log goes on in time, so that what waits for a time happens.

use std::{sync::Weak, time::Duration};

use prost::Message;

use super::{Instance, now_us};
use crate::{
    limits::{TICK_EVERY_US, TICK_LOOK_EVERY_MS},
    proto::v1 as pb,
};

/// Looks every now and then whether something is due by this machine's clock that is not by the
/// log's, and then lets the log go on, at most once a second, however many instances do so: the
/// record is named after the second, and the log takes the first of a name.
pub(super) async fn tick(instance: Weak<Instance>) {
    let mut look = tokio::time::interval(Duration::from_millis(TICK_LOOK_EVERY_MS));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_second = 0;
    loop {
        look.tick().await;
        let Some(instance) = instance.upgrade() else {
            return;
        };
        let now_us = now_us();
        let second = now_us / TICK_EVERY_US;
        let due = instance.view().next_timer_us() <= now_us;
        if !due || second == last_second || !instance.ready() || instance.not_writable().is_some() {
            continue;
        }
        last_second = second;
        let record = pb::Record {
            version: 1,
            instance: instance.id,
            token: 0,
            body: Some(pb::record::Body::Tick(pb::Tick {})),
        };
        let name = format!("tick-{second}");
        let appended = instance
            .log
            .append_once(record.encode_to_vec().into(), &name)
            .await;
        if let Err(error) = appended {
            tracing::warn!(%error, "the log took no tick; trying again in a second");
        }
    }
}
