//! The `Operations` service.

use tonic::{Request, Response, Status};

use super::{Service, log_time, movements::kind_to_proto, status};
use crate::{
    domain::exceptions::ParkedKind,
    intake::Parked,
    limits::{EXCEPTIONS_PAGE_BYTES_MAX, EXCEPTIONS_PAGE_DEFAULT, EXCEPTIONS_PAGE_MAX},
    proto::v1::{self as pb, operations_server::Operations},
};

#[tonic::async_trait]
impl Operations for Service {
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let instance = &self.instance;
        let identity = instance.log_identity();
        let view = instance.view();
        let (sizes, movements, ids) = (view.sizes(), instance.movements(), instance.ids());
        let applied_position = view.progress().position();
        let log_position = instance.log_position().await.unwrap_or_default();
        let rules = view.rulebook().in_force();
        let channels = rules.rules.channels().map(|(_, name)| name.to_owned());
        Ok(Response::new(pb::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: format!("{:016x}", instance.id()),
            log_engine: identity.engine.to_owned(),
            log_identity: format!(
                "{}, created {}",
                identity.name,
                crate::wire::movement::timestamp(identity.created_us)
            ),
            log_position: log_position.max(applied_position),
            applied_position,
            log_time: log_time(view.progress().time_us()),
            ready: instance.ready(),
            shards: view.shards() as u32,
            skus: sizes.skus,
            cells: sizes.cells,
            locations: sizes.locations,
            order_lines: sizes.order_lines,
            ids_remembered: ids.remembered,
            ids_forgotten_before: ids.forgotten_before_us.and_then(log_time),
            movements_applied: movements.applied,
            movements_duplicate: movements.duplicate,
            movements_parked: movements.parked,
            rules_version: rules.version,
            channels: channels.collect(),
            not_writable_because: instance.not_writable().unwrap_or_default(),
            uptime_ms: instance.uptime().as_millis() as i64,
        }))
    }

    async fn digest(
        &self,
        request: Request<pb::DigestRequest>,
    ) -> Result<Response<pb::DigestResponse>, Status> {
        self.wait_for(request.into_inner().min_position).await?;
        let (audit, position) = self.instance.audit().await.ok_or_else(status::stopping)?;
        Ok(Response::new(pb::DigestResponse {
            digest: audit.digest.to_string(),
            position,
            cells: audit.cells,
            order_lines: audit.order_lines,
            conservation_violations: audit.conservation_violations,
            units: audit.units,
        }))
    }

    async fn list_exceptions(
        &self,
        request: Request<pb::ListExceptionsRequest>,
    ) -> Result<Response<pb::ListExceptionsResponse>, Status> {
        let request = request.into_inner();
        let kinds = kinds_of(&request.kinds)?;
        let page_size = match request.page_size {
            0 => EXCEPTIONS_PAGE_DEFAULT,
            size if size <= EXCEPTIONS_PAGE_MAX => size,
            size => {
                let reason = format!("is {size}; at most {EXCEPTIONS_PAGE_MAX}");
                return Err(status::bad_field("page_size", reason));
            }
        } as usize;
        let after = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| {
                status::bad_field(
                    "page_token",
                    "is not one that this service gave; take it from the page before, or leave it empty",
                )
            })?,
        };
        let list = self.instance.parked();
        let page = list.page(&kinds, after, page_size, EXCEPTIONS_PAGE_BYTES_MAX);
        let last = page.last().map_or(after, |(number, _)| *number);
        let more = !list.page(&kinds, last, 1, 0).is_empty();
        Ok(Response::new(pb::ListExceptionsResponse {
            next_page_token: if more {
                last.to_string()
            } else {
                String::new()
            },
            total: list
                .counts()
                .into_iter()
                .filter(|(kind, _)| kinds.is_empty() || kinds.contains(kind))
                .map(|(_, count)| count)
                .sum(),
            exceptions: page
                .into_iter()
                .map(|(_, parked)| exception(parked))
                .collect(),
        }))
    }
}

fn exception(parked: Parked) -> pb::Exception {
    pb::Exception {
        kind: kind_to_proto(parked.kind).into(),
        position: parked.position,
        index: parked.index,
        first_seen: log_time(parked.first_seen_us),
        source: parked.source,
        id: parked.id,
        reason: parked.reason,
        original: parked.original.into(),
        content_type: parked.media_type,
        occurrences: parked.occurrences,
    }
}

fn kinds_of(kinds: &[i32]) -> Result<Vec<ParkedKind>, Status> {
    let kind = |(index, number): (usize, &i32)| {
        ParkedKind::ALL
            .into_iter()
            .find(|kind| i32::from(kind_to_proto(*kind)) == *number)
            .ok_or_else(|| {
                status::bad_field(
                    format!("kinds[{index}]"),
                    format!("{number} is no kind; name some, or none for all"),
                )
            })
    };
    kinds.iter().enumerate().map(kind).collect()
}
