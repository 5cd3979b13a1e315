//! Who delivers, as far as one instance is concerned: its records of progress are its lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::outbox::Report;
use crate::{
    instance::{Instance, now_us},
    intake::{PostError, Standing},
    proto::v1 as pb,
};

/// How long a lease is beyond the time that an answer may take.
const BEYOND: Duration = Duration::from_secs(10);
/// It is renewed when it is as little beyond that.
const RENEW: Duration = Duration::from_secs(4);
/// Another instance whose lease is over, and that still has something to deliver, is left as much
/// time to renew it: it may only have been idle.
const GRACE: Duration = Duration::from_secs(3);

/// What an instance does to be the one that delivers to a webhook.
#[derive(Debug)]
pub(super) struct Lease {
    webhook: String,
    /// No other instance can be there.
    alone: bool,
    /// How long an answer may take.
    timeout: Duration,
    /// Nobody else delivers before this.
    until: Option<Instant>,
}

/// Who may deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// This instance, if its record is the first.
    Ours,
    /// Another one, for so long at least.
    Theirs(Duration),
    /// Another one, if it has not gone: its lease is over.
    Over,
}

impl Lease {
    pub(super) fn new(webhook: &str, alone: bool, timeout: Duration) -> Self {
        Self {
            webhook: webhook.to_owned(),
            alone,
            timeout,
            until: None,
        }
    }

    /// Whose turn it is.
    pub(super) fn turn(&self, instance: &Instance, standing: &Standing) -> Turn {
        let now_us = now_us();
        if self.alone || standing.holder.is_none_or(|holder| holder == instance.id()) {
            Turn::Ours
        } else if standing.is_of_another(instance.id(), now_us) {
            let left_us = standing.lease_until_us.saturating_sub(now_us);
            Turn::Theirs(Duration::from_micros(left_us.unsigned_abs()))
        } else {
            Turn::Over
        }
    }

    /// How long to leave another instance whose lease is over.
    pub(super) fn grace() -> Duration {
        // Of several that wait, one comes first.
        GRACE + Duration::from_millis(fastrand::u64(..2_000))
    }

    /// Whether an attempt that begins now ends while nobody else delivers.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.alone || self.until.is_some_and(|until| now + self.timeout < until)
    }

    /// When to renew it, if something waits; none: never.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        let until = self.until.filter(|_| !self.alone)?;
        until.checked_sub(self.timeout + RENEW)
    }

    /// Writes progress, which renews the lease. False: another instance delivers.
    pub(super) async fn write(
        &mut self,
        instance: &Arc<Instance>,
        report: &Report,
    ) -> Result<bool, PostError> {
        // Counted from before the record is written, it is over here before it is in the log.
        let begun = Instant::now();
        let length = if self.alone {
            // So that this instance, started anew after a crash, need not wait for itself.
            Duration::from_millis(1)
        } else {
            self.timeout + BEYOND
        };
        let took_effect = self.report(instance, report, length).await?;
        self.until = took_effect.then(|| begun + length);
        Ok(took_effect)
    }

    /// Writes the last progress, and lets others deliver.
    pub(super) async fn give_up(
        &mut self,
        instance: &Arc<Instance>,
        report: &Report,
    ) -> Result<bool, PostError> {
        self.until = None;
        self.report(instance, report, Duration::ZERO).await
    }

    async fn report(
        &self,
        instance: &Arc<Instance>,
        report: &Report,
        length: Duration,
    ) -> Result<bool, PostError> {
        let progress = pb::DeliveryProgress {
            webhook: self.webhook.clone(),
            lease_ms: length.as_millis() as u64,
            position: report.position,
            dead_letters: report.dead_letters.clone(),
            settled: report.settled.clone(),
            ..pb::DeliveryProgress::default()
        };
        let reported = instance.report_delivery(progress).await?;
        Ok(reported.took_effect)
    }
}
