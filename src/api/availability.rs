//! The `Availability` service.

use prost::Message;
use tonic::{Request, Response, Status};

use super::{Service, balances, log_time, now_us, raw::availability_server::Availability, status};
use crate::{
    domain::{movement::text, rules::ChannelIx},
    limits::{QUERY_SKUS_MAX, SKU_BYTES_MAX},
    proto::v1 as pb,
    shard::{Explanation, Reading},
    wire::{
        Encoded,
        query::{ITEM_BYTES_MAX, Query, put_item},
    },
};

#[tonic::async_trait]
impl Availability for Service {
    async fn get(&self, request: Request<Encoded>) -> Result<Response<Encoded>, Status> {
        let request = request.into_inner().0;
        let answer = match Query::read_plain(&request) {
            Some(query) => self.answer(query).await?,
            None => {
                let read = pb::GetRequest::decode(&request[..]);
                let read = read.map_err(|error| status::malformed(&error))?;
                self.answer(Query::from(&read)).await?
            }
        };
        Ok(Response::new(answer))
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

impl Service {
    /// The encoded `GetResponse` of a query.
    async fn answer(&self, query: Query<'_>) -> Result<Encoded, Status> {
        check_skus(&query.skus)?;
        self.wait_for(query.min_position).await?;
        let reading = self.instance.view().read();
        let channel = channel_of(&reading, query.channel)?;
        let mut answer = Vec::new();
        let mut head = pb::GetResponse {
            items: Vec::new(),
            position: reading.position,
            as_of: log_time(reading.time_us),
            rules_version: reading.rules.version,
        };
        let skus = query.skus.iter().copied();
        if query.include_locations {
            let item = |sku: &str| with_locations(reading.explain(channel, sku), sku);
            head.items = skus.map(item).collect();
        } else {
            let item_bytes = |sku: &str| sku.len() + ITEM_BYTES_MAX;
            let items_bytes: usize = skus.clone().map(item_bytes).sum();
            answer.reserve_exact(items_bytes + head.encoded_len());
            reading.available(channel, skus, |sku, ats| put_item(sku, ats, &mut answer));
        }
        head.encode_raw(&mut answer);
        Ok(Encoded(answer.into()))
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

fn with_locations(explanation: Explanation, sku: &str) -> pb::SkuAvailability {
    pb::SkuAvailability {
        sku: sku.to_owned(),
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

fn check_skus(skus: &[&str]) -> Result<(), Status> {
    if skus.is_empty() || skus.len() > QUERY_SKUS_MAX {
        let reason = format!(
            "has {} SKUs; 1 to {QUERY_SKUS_MAX} in one query",
            skus.len()
        );
        return Err(status::bad_field("skus", reason));
    }
    let wrong = |sku: &str| sku.is_empty() || sku.len() > SKU_BYTES_MAX;
    match skus.iter().enumerate().find(|(_, sku)| wrong(sku)) {
        None => Ok(()),
        Some((index, sku)) => Err(status::bad_field(
            format!("skus[{index}]"),
            format!("has {} bytes; a SKU has 1 to {SKU_BYTES_MAX}", sku.len()),
        )),
    }
}
