//! Exit codes, and failures as the user reads them.

use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

/// What the exit code of every command means. `--help` prints this table.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, for a reason that trying again does not cure
  2  bad usage or bad input: flags, settings, a document, a file
  3  not found: a channel, a SKU, a version of a document
  4  no server, or one that cannot take it now: try again
  5  posted, but some movements were invalid or parked
  6  refused: a reservation that stock does not cover
  7  compared, and variances are left: reported, held for approval, or parked";

/// Exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, for a reason that trying again does not cure.
    Failed = 1,
    /// Bad usage or bad input.
    Usage = 2,
    /// Unknown channel, SKU or version.
    NotFound = 3,
    /// Nobody answers, or not now.
    Unavailable = 4,
    /// Some movements were invalid or parked.
    Partial = 5,
    /// Stock does not cover a reservation.
    Refused = 6,
    /// A snapshot was compared, and variances are left; or a marketplace shows something else.
    Variance = 7,
}

/// Why a command failed: one line, what it is about, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One line.
    pub message: String,
    /// Further lines: each finding of the server.
    pub details: Vec<String>,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure without details.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            details: Vec::new(),
            hint: String::new(),
        }
    }

    /// Bad input.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// As it is printed on stderr.
    pub fn to_text(&self) -> String {
        let mut out = format!("error: {}\n", self.message);
        for detail in &self.details {
            out.push_str(&format!("  {detail}\n"));
        }
        if !self.hint.is_empty() {
            out.push_str(&format!("next: {}\n", self.hint));
        }
        out
    }

    /// As it is printed on stderr with `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "error": {
                "exit_code": self.exit as u8,
                "message": self.message,
                "details": self.details,
                "next": self.hint,
            }
        })
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        // A status with a cause was made on this side: no server sent it.
        let in_time = !matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded);
        if let (Some(cause), true) = (std::error::Error::source(&status), in_time) {
            return Self::new(
                Exit::Unavailable,
                format!(
                    "the connection to the server was lost: {}",
                    innermost(cause)
                ),
            )
            .hint("try again");
        }
        let found = status.get_error_details();
        let mut details = Vec::new();
        if let Some(bad) = found.bad_request() {
            for violation in &bad.field_violations {
                details.push(match violation.field.as_str() {
                    "" => violation.description.clone(),
                    field => format!("{field}: {}", violation.description),
                });
            }
        }
        if let Some(failed) = found.precondition_failure() {
            for violation in &failed.violations {
                details.push(format!("{}: {}", violation.subject, violation.description));
            }
        }
        if let Some(quota) = found.quota_failure() {
            for violation in &quota.violations {
                details.push(format!("{}: {}", violation.subject, violation.description));
            }
        }
        let resource = found.resource_info().map(|resource| &resource.description);
        details.extend(resource.filter(|text| !text.is_empty()).cloned());
        if let Some(info) = found.error_info() {
            let mut metadata: Vec<_> = info.metadata.iter().collect();
            metadata.sort();
            details.extend(
                metadata
                    .iter()
                    .map(|(key, value)| format!("{key}: {value}")),
            );
        }
        // A server may say the same in the message and in a detail.
        details.retain(|detail| detail != status.message());
        let wait = found.retry_info().and_then(|retry| retry.retry_delay);
        let (exit, hint) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (Exit::Usage, String::new()),
            Code::NotFound => (Exit::NotFound, String::new()),
            Code::ResourceExhausted => (
                Exit::Unavailable,
                match wait {
                    Some(wait) => format!("try again in {} ms", wait.as_millis()),
                    None => "try again in a moment".to_owned(),
                },
            ),
            Code::DeadlineExceeded | Code::Cancelled => (
                Exit::Unavailable,
                "try again, or allow more time with --timeout".to_owned(),
            ),
            Code::Unavailable => (
                Exit::Unavailable,
                "`sellable status` says how the server stands; try again".to_owned(),
            ),
            Code::Aborted => (
                Exit::Failed,
                "somebody else was faster: look what is in force now".to_owned(),
            ),
            Code::Unimplemented => (
                Exit::Failed,
                "the server is of another version: compare `sellable status` with `sellable --version`"
                    .to_owned(),
            ),
            _ => (Exit::Failed, String::new()),
        };
        let message = match status.message() {
            "" => format!("the server answered {:?}", status.code()),
            message => message.to_owned(),
        };
        Self {
            exit,
            message,
            details,
            hint,
        }
    }
}

/// The cause at the bottom: it says the most ("Connection refused").
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn details_of_a_status_become_lines() {
        let details = ErrorDetails::with_bad_request_violation("skus[3]", "is empty");
        let status =
            tonic::Status::with_error_details(Code::InvalidArgument, "1 field is wrong", details);
        let failure = Failure::from(status);
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.to_text(),
            "error: 1 field is wrong\n  skus[3]: is empty\n"
        );
    }

    #[test]
    fn a_full_intake_says_when_to_try_again() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(250)));
        let status =
            tonic::Status::with_error_details(Code::ResourceExhausted, "intake is full", details);
        let failure = Failure::from(status);
        assert_eq!(failure.exit, Exit::Unavailable);
        assert_eq!(
            failure.to_text(),
            "error: intake is full\nnext: try again in 250 ms\n"
        );
        assert_eq!(failure.to_json()["error"]["exit_code"], 4);
    }

    #[test]
    fn a_lost_connection_is_worth_another_try() {
        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let failure = Failure::from(tonic::Status::from_error(Box::new(lost)));
        assert_eq!(failure.exit, Exit::Unavailable);
        let failure = Failure::from(tonic::Status::unknown("a bug of the server"));
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unavailable,
            Exit::Partial,
            Exit::Refused,
            Exit::Variance,
        ] {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", exit as u8)));
        }
    }
}
