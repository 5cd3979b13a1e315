//! The `Availability` service.

use tonic::{Request, Response, Status};

use super::{Service, balances, log_time, now_us, status};
use crate::{
    domain::{movement::text, rules::ChannelIx},
    limits::{QUERY_SKUS_MAX, SKU_BYTES_MAX},
    proto::v1::{self as pb, availability_server::Availability},
    shard::{Explanation, Reading},
};

#[tonic::async_trait]
impl Availability for Service {
    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetResponse>, Status> {
        let request = request.into_inner();
        check_skus(&request.skus)?;
        self.wait_for(request.min_position).await?;
        let reading = self.instance.view().read();
        let channel = channel_of(&reading, &request.channel)?;
        let items = if request.include_locations {
            let item = |sku: String| with_locations(reading.explain(channel, &sku), sku);
            request.skus.into_iter().map(item).collect()
        } else {
            without_locations(&reading, channel, request.skus)
        };
        Ok(Response::new(pb::GetResponse {
            items,
            position: reading.position,
            as_of: log_time(reading.time_us),
            rules_version: reading.rules.version,
        }))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let request = request.into_inner();
        text("sku", &request.sku, SKU_BYTES_MAX)
            .map_err(|invalid| status::bad_field(invalid.field, invalid.reason))?;
        self.wait_for(request.min_position).await?;
        // What is only known by asking the log is not worth failing for.
        let log_position = self.instance.log_position().await.unwrap_or_default();
        let reading = self.instance.view().read();
        let channel = channel_of(&reading, &request.channel)?;
        let explanation = reading.explain(channel, &request.sku);
        let age_us = match reading.time_us {
            0 => 0,
            time_us => (now_us() - time_us).max(0),
        };
        Ok(Response::new(pb::ExplainResponse {
            channel: request.channel,
            sku: request.sku,
            ats: explanation.ats,
            known: explanation.known,
            sum: explanation.sum,
            steps: explanation.policy.steps(explanation.sum),
            rules_version: reading.rules.version,
            position: reading.position,
            as_of: log_time(reading.time_us),
            age_ms: age_us / 1_000,
            lag_positions: log_position.saturating_sub(reading.position),
            terms: Some(channel_terms(&explanation)),
            locations: location_terms(explanation),
        }))
    }
}

fn channel_terms(explanation: &Explanation) -> pb::ChannelTerms {
    let policy = &explanation.policy;
    pb::ChannelTerms {
        buffer: policy.buffer,
        buffer_percent: policy.buffer_percent.into(),
        share_percent: policy.share_percent.into(),
        minimum: policy.minimum,
        maximum: policy.maximum,
        paused: policy.paused,
        override_by: explanation.override_by.clone().unwrap_or_default(),
    }
}

fn location_terms(explanation: Explanation) -> Vec<pb::LocationTerm> {
    let terms = explanation.locations.into_iter();
    terms
        .map(|term| pb::LocationTerm {
            location: term.location,
            sells: term.priority > 0,
            priority: term.priority,
            balances: Some(balances(&term.balances)),
            buffer_withheld: term.withheld,
            available: term.available,
        })
        .collect()
}

fn without_locations(
    reading: &Reading<'_>,
    channel: ChannelIx,
    skus: Vec<String>,
) -> Vec<pb::SkuAvailability> {
    let mut answers = Vec::with_capacity(skus.len());
    reading.available(channel, &skus, |_, ats| answers.push(ats));
    // The names go back as they came, without a copy.
    let item = |(sku, ats): (String, Option<i64>)| pb::SkuAvailability {
        sku,
        ats: ats.unwrap_or(0),
        known: ats.is_some(),
        locations: Vec::new(),
    };
    skus.into_iter().zip(answers).map(item).collect()
}

fn with_locations(explanation: Explanation, sku: String) -> pb::SkuAvailability {
    pb::SkuAvailability {
        sku,
        ats: explanation.ats,
        known: explanation.known,
        locations: explanation
            .locations
            .into_iter()
            .filter(|term| term.priority > 0)
            .map(|term| pb::LocationAvailability {
                location: term.location,
                available: term.available,
                balances: Some(balances(&term.balances)),
            })
            .collect(),
    }
}

fn channel_of(reading: &Reading<'_>, channel: &str) -> Result<ChannelIx, Status> {
    let rules = &reading.rules.rules;
    let known = || rules.channels().map(|(_, name)| name);
    rules
        .channel(channel)
        .ok_or_else(|| status::unknown_channel(channel, known()))
}

fn check_skus(skus: &[String]) -> Result<(), Status> {
    if skus.is_empty() || skus.len() > QUERY_SKUS_MAX {
        let reason = format!(
            "has {} SKUs; 1 to {QUERY_SKUS_MAX} in one query",
            skus.len()
        );
        return Err(status::bad_field("skus", reason));
    }
    let wrong = |sku: &String| sku.is_empty() || sku.len() > SKU_BYTES_MAX;
    match skus.iter().position(wrong) {
        None => Ok(()),
        Some(index) => Err(status::bad_field(
            format!("skus[{index}]"),
            format!(
                "has {} bytes; a SKU has 1 to {SKU_BYTES_MAX}",
                skus[index].len()
            ),
        )),
    }
}
