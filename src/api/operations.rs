//! The `Operations` service.

use tonic::{Request, Response, Status};

use super::{Service, log_time, movements::kind_to_proto, status};
use crate::{
    domain::{
        exceptions::{Acknowledged, ExceptionId, Open, ParkedKind, StateKind},
        movement::TimeUs,
    },
    instance::{CheckpointStatus, Filter, OpenOrParked, PageToken, now_us},
    intake::{Parked, PostError, Resolved},
    limits::{
        ACTOR_BYTES_MAX, EXCEPTIONS_PAGE_BYTES_MAX, EXCEPTIONS_PAGE_DEFAULT, EXCEPTIONS_PAGE_MAX,
        NOTE_BYTES_MAX,
    },
    log::{AppendError, Position},
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
            checkpoints: instance
                .checkpoints()
                .map(|own| checkpoints(&own, applied_position)),
        }))
    }

    async fn checkpoint(
        &self,
        _: Request<pb::CheckpointRequest>,
    ) -> Result<Response<pb::CheckpointResponse>, Status> {
        let taken = self.instance.checkpoint().await;
        let taken = taken.map_err(|error| status::not_taken(&error))?;
        Ok(Response::new(pb::CheckpointResponse {
            position: taken.position,
            bytes: taken.bytes,
            duration_ms: taken.duration.as_millis() as i64,
            digest: taken.digest.to_string(),
            file: taken.path.display().to_string(),
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
        let page_size = match request.page_size {
            0 => EXCEPTIONS_PAGE_DEFAULT,
            size if size <= EXCEPTIONS_PAGE_MAX => size,
            size => {
                let reason = format!("is {size}; at most {EXCEPTIONS_PAGE_MAX}");
                return Err(status::bad_field("page_size", reason));
            }
        } as usize;
        let after: Option<PageToken> = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| {
                status::bad_field(
                    "page_token",
                    "is not one that this service gave; take it from the page before, or leave it empty",
                )
            })?),
        };
        let filter = filter_of(request)?;
        let desk = self.instance.exceptions();
        let page = desk.page(&filter, after, page_size, EXCEPTIONS_PAGE_BYTES_MAX);
        let last = page.last().map(|(place, _)| *place);
        let more = last.is_some() && !desk.page(&filter, last, 1, 0).is_empty();
        let parked = desk.parked().counts().into_iter();
        let parked = parked.filter(|(kind, _)| filter.takes_parked(*kind));
        let open = desk.counts().into_iter();
        let open = open.filter(|(kind, _)| filter.takes_state(*kind));
        let total =
            parked.map(|(_, count)| count).sum::<u64>() + open.map(|(_, count)| count).sum::<u64>();
        let now_us = self.instance.view().progress().time_us();
        let exception = |(PageToken(_, id), found)| match found {
            OpenOrParked::Open(open) => open_exception(id, open, now_us),
            OpenOrParked::Parked(parked) => parked_exception(id, parked, now_us),
        };
        Ok(Response::new(pb::ListExceptionsResponse {
            next_page_token: match last {
                Some(last) if more => last.to_string(),
                _ => String::new(),
            },
            total,
            exceptions: page.into_iter().map(exception).collect(),
        }))
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::ResolveResponse>, Status> {
        let request = request.into_inner();
        let resolution = request.resolution();
        let id = u128::from_str_radix(&request.exception_id, 16);
        let id = ExceptionId(id.map_err(|_| {
            let reason = "is no exception's identity; take `exception_id` from the list";
            status::bad_field("exception_id", reason)
        })?);
        check_text("actor", &request.actor, ACTOR_BYTES_MAX)?;
        check_text("note", &request.note, NOTE_BYTES_MAX)?;
        let desk = self.instance.exceptions();
        let kind = desk.parked().kind(id);
        if !desk.contains(id) {
            return Err(no_exception(id));
        }
        let mut record = pb::ResolveException {
            exception: id.to_string(),
            resolution: request.resolution,
            actor: request.actor,
            note: request.note,
            disposition: request.disposition,
            ..pb::ResolveException::default()
        };
        match resolution {
            pb::Resolution::Unspecified => {
                let reason = "is missing, or unknown; acknowledge, release or discard";
                return Err(status::bad_field("resolution", reason));
            }
            pb::Resolution::Acknowledge => {}
            _ if kind.is_none() => {
                return Err(Status::failed_precondition(
                    "this exception is no parked movement: it closes by itself when the facts fit; \
                     acknowledge it, or post what is missing",
                ));
            }
            pb::Resolution::Discard => {}
            pb::Resolution::Release => {
                let parked = desk.parked().get(id).ok_or_else(|| {
                    Status::failed_precondition(
                        "its bytes are no longer held in memory (see `exceptions.kept`), only in \
                         the log; have its source send it again, and discard this one",
                    )
                })?;
                record.original = parked.original.into();
                record.source = parked.source;
                record.content_type = parked.media_type;
            }
        }
        let (resolved, position) =
            self.instance
                .resolve(record)
                .await
                .map_err(|error| match &error {
                    PostError::Log(AppendError::TooLarge { .. }) => Status::failed_precondition(
                        format!("{error}; have its source send it again, and discard this one"),
                    ),
                    _ => status::not_posted(&error),
                })?;
        match resolved {
            Resolved::Done => Ok(Response::new(pb::ResolveResponse { position })),
            Resolved::NotFound => Err(no_exception(id)),
            Resolved::Refused(reason) => Err(Status::failed_precondition(reason)),
        }
    }
}

fn checkpoints(own: &CheckpointStatus, applied_position: Position) -> pb::CheckpointStatus {
    let mut answer = pb::CheckpointStatus {
        replay_records: applied_position,
        started_from: own.started_from.unwrap_or(0),
        taken: own.taken,
        failed: own.failed,
        ..pb::CheckpointStatus::default()
    };
    if let Some(last) = &own.last {
        answer.position = last.position;
        answer.taken_at = log_time(last.taken_us);
        answer.age_ms = age_ms(last.taken_us, now_us());
        answer.bytes = last.bytes;
        answer.duration_ms = last.duration.as_millis() as i64;
        answer.replay_records = applied_position.saturating_sub(last.position);
    }
    answer
}

fn no_exception(id: ExceptionId) -> Status {
    Status::not_found(format!(
        "no exception {id} is open; it may have closed by itself, or been resolved"
    ))
}

fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Status> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    let reason = format!("has {} bytes; at most {bytes_max}", text.len());
    Err(status::bad_field(field, reason))
}

fn filter_of(request: pb::ListExceptionsRequest) -> Result<Filter, Status> {
    let mut filter = Filter {
        sku: request.sku,
        location: request.location,
        source: request.source,
        unacknowledged_only: request.unacknowledged_only,
        ..Filter::default()
    };
    for (place, number) in request.kinds.into_iter().enumerate() {
        let wanted = pb::ExceptionKind::try_from(number).ok();
        let parked = ParkedKind::ALL
            .into_iter()
            .find(|kind| Some(kind_to_proto(*kind)) == wanted);
        let state = StateKind::ALL
            .into_iter()
            .find(|kind| *kind as i32 == number);
        match (parked, state) {
            (Some(kind), _) => filter.parked_kinds.push(kind),
            (_, Some(kind)) => filter.state_kinds.push(kind),
            _ => {
                let field = format!("kinds[{place}]");
                let reason = format!("is {number}, which is no kind of exception");
                return Err(status::bad_field(field, reason));
            }
        }
    }
    Ok(filter)
}

fn parked_exception(id: ExceptionId, parked: Parked, now_us: TimeUs) -> pb::Exception {
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
        exception_id: id.to_string(),
        age_ms: age_ms(parked.first_seen_us, now_us),
        acknowledgement: parked.acknowledged.map(acknowledgement),
        ..pb::Exception::default()
    }
}

fn open_exception(id: ExceptionId, open: Open, now_us: TimeUs) -> pb::Exception {
    let reason = open.reason();
    let Open {
        kind,
        subject,
        units,
        first_seen_us,
        acknowledged,
    } = open;
    // Of a negative balance, the document is the condition, which the reason names.
    let document = match kind {
        StateKind::NegativeBalance => String::new(),
        _ => subject.document.into(),
    };
    pb::Exception {
        kind: kind as i32,
        first_seen: log_time(first_seen_us),
        reason,
        exception_id: id.to_string(),
        sku: subject.sku.into(),
        location: subject.location.into(),
        document,
        line: subject.line.into(),
        units,
        age_ms: age_ms(first_seen_us, now_us),
        acknowledgement: acknowledged.map(acknowledgement),
        ..pb::Exception::default()
    }
}

fn age_ms(first_seen_us: TimeUs, now_us: TimeUs) -> i64 {
    (now_us - first_seen_us).max(0) / 1_000
}

fn acknowledgement(acknowledged: Acknowledged) -> pb::Acknowledgement {
    pb::Acknowledgement {
        actor: acknowledged.actor,
        at: log_time(acknowledged.at_us),
        note: acknowledged.note,
    }
}
