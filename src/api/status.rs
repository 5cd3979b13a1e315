//! Errors as gRPC statuses with `google.rpc` details.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    domain::document::DocumentError,
    instance::{Instance, NotTaken},
    intake::{PostError, Refusal},
    log::AppendError,
};

/// After how long a refused caller should try again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A field of the request is wrong.
pub(super) fn bad_field(field: impl Into<String>, reason: impl Into<String>) -> Status {
    let (field, reason) = (field.into(), reason.into());
    let message = format!("{field}: {reason}");
    let details = ErrorDetails::with_bad_request_violation(field, reason);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The bytes of a request are no message of its kind.
pub(super) fn malformed(error: &prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

/// A document is wrong: one violation for each finding, with its line.
pub(super) fn bad_document(error: &DocumentError) -> Status {
    let mut details = ErrorDetails::new();
    for finding in &error.findings {
        let field = format!("toml:{}:{}", finding.line, finding.column);
        details.add_bad_request_violation(field, finding.to_string());
    }
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

/// The rules have no such channel.
pub(super) fn unknown_channel<'c>(channel: &str, known: impl Iterator<Item = &'c str>) -> Status {
    let known: Vec<&str> = known.collect();
    let message = if known.is_empty() {
        format!(
            "there is no channel {channel:?}, and no channel at all: put rules in force first \
             (`sellable rules put FILE`)"
        )
    } else {
        format!(
            "there is no channel {channel:?}; the rules have {}",
            known.join(", ")
        )
    };
    let details = ErrorDetails::with_resource_info("sellable.v1.channel", channel, "", &message);
    Status::with_error_details(Code::NotFound, message, details)
}

/// Still catching up, or stopping.
pub(super) fn not_ready(instance: &Instance) -> Status {
    let message = format!(
        "this instance does not answer yet, or no more: {}; try again, or another instance",
        instance.not_ready_because()
    );
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// `min_position` did not come in time.
pub(super) fn position_not_reached(wanted: u64, reached: u64, waited: Duration) -> Status {
    let message = format!(
        "min_position {wanted} was not reached within {} ms; this instance is at {reached}",
        waited.as_millis()
    );
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::DeadlineExceeded, message, details)
}

/// Movements or rules were not taken.
pub(super) fn not_posted(error: &PostError) -> Status {
    let retry = || ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    let (code, details) = match error {
        PostError::Full { .. } => (Code::ResourceExhausted, retry()),
        PostError::Log(AppendError::TooLarge { .. }) => {
            (Code::InvalidArgument, ErrorDetails::new())
        }
        PostError::Log(AppendError::Refused(_)) => (Code::ResourceExhausted, retry()),
        PostError::Log(AppendError::Poisoned(_)) | PostError::Stopping => {
            (Code::Unavailable, ErrorDetails::new())
        }
        PostError::Log(AppendError::Unconfirmed(_)) => (Code::Unavailable, retry()),
    };
    Status::with_error_details(code, error.to_string(), details)
}

/// A command was refused for another reason than stock.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    let resource =
        |kind: &str, name: &str| ErrorDetails::with_resource_info(kind, name, "", &message);
    let precondition = |kind: &str, subject: &str| {
        ErrorDetails::with_precondition_failure_violation(kind, subject, &message)
    };
    const RESERVATION: &str = "sellable.v1.reservation";
    let (code, details) = match refusal {
        Refusal::Invalid(invalid) => return bad_field(&invalid.field, &invalid.reason),
        Refusal::IdTaken(id) => (Code::AlreadyExists, resource("sellable.v1.command", id)),
        Refusal::UnknownChannel(name) => (Code::NotFound, resource("sellable.v1.channel", name)),
        Refusal::UnknownReservation(id) => (Code::NotFound, resource(RESERVATION, id)),
        Refusal::UnknownLine { line, .. } => (Code::NotFound, resource(RESERVATION, line)),
        Refusal::NotGranted(id) => (Code::FailedPrecondition, precondition("NOT_GRANTED", id)),
        Refusal::Expired(id) => (Code::FailedPrecondition, precondition("EXPIRED", id)),
        Refusal::NoTimeLimit(id) => (Code::FailedPrecondition, precondition("NO_TIME_LIMIT", id)),
        Refusal::TooFewLeft { line, .. } => {
            (Code::FailedPrecondition, precondition("TOO_FEW_LEFT", line))
        }
        Refusal::TooMany => (Code::ResourceExhausted, ErrorDetails::new()),
    };
    Status::with_error_details(code, message, details)
}

/// No checkpoint was taken.
pub(super) fn not_taken(error: &NotTaken) -> Status {
    let code = match error {
        NotTaken::Empty | NotTaken::Off => Code::FailedPrecondition,
        NotTaken::Io(_) | NotTaken::Broken(_) => Code::Internal,
        NotTaken::Log(_) | NotTaken::Stopping => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// The instance stops while a call is under way.
pub(super) fn stopping() -> Status {
    Status::unavailable("this instance is stopping; try another one")
}
