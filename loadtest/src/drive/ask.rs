//! One call, asked again until its outcome is known.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tonic::{Code, Status};

use super::World;
use crate::{findings::Check, measure::Kind, words::code_name};

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What became of a call.
#[derive(Debug)]
pub(super) enum Settled<T> {
    /// Its answer.
    Answer(T),
    /// It certainly did nothing.
    Refused(Status),
    /// Nobody knows whether it did anything.
    Unknown,
}

impl<T> Settled<T> {
    /// The answer, if there is one.
    pub(super) fn answer(self) -> Option<T> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Refused(_) | Self::Unknown => None,
        }
    }
}

/// A planned call, from when it is due until its outcome is known. It may take more than one
/// request.
pub(super) struct Call<'a> {
    world: &'a World,
    kind: Kind,
    due: Duration,
    failed: bool,
}

impl<'a> Call<'a> {
    /// It is sent now.
    pub(super) fn begin(world: &'a World, kind: Kind, due: Duration) -> Self {
        world.recorder.planned(kind, due);
        world.recorder.sent(kind, due, world.now());
        Self {
            world,
            kind,
            due,
            failed: false,
        }
    }

    /// Asks until the outcome is known: the same request with the same ids is always safe. What
    /// counts is how the first try ends.
    pub(super) async fn ask<T, F>(&mut self, mut request: impl FnMut() -> F) -> Settled<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let patience = self.world.patience;
        let asked = Instant::now();
        let mut wait = RETRY_FIRST;
        let mut unsettled = false;
        loop {
            let status = match tokio::time::timeout(patience.timeout, request()).await {
                Ok(Ok(answer)) => {
                    if unsettled {
                        self.world.findings.right(Check::Settled, 1);
                    }
                    return Settled::Answer(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!(
                    "no answer within {} ms",
                    patience.timeout.as_millis()
                )),
            };
            self.fail(&code_name(status.code()), status.message());
            if is_final(status.code()) {
                return Settled::Refused(status);
            }
            unsettled = true;
            if asked.elapsed() + wait > patience.settle {
                let what = || format!("{}: {}", self.kind.name(), status.message());
                self.world.findings.wrong(Check::Settled, what);
                return Settled::Unknown;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// One query: it changes nothing, so that nobody has to know what became of a lost one.
    pub(super) async fn look<T>(
        &mut self,
        request: impl Future<Output = Result<T, Status>>,
    ) -> Option<T> {
        let timeout = self.world.patience.timeout;
        match tokio::time::timeout(timeout, request).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(status)) => {
                self.fail(&code_name(status.code()), status.message());
                None
            }
            Err(_) => {
                let message = format!("no answer within {} ms", timeout.as_millis());
                self.fail("DEADLINE_EXCEEDED", &message);
                None
            }
        }
    }

    /// It failed, at its first try.
    pub(super) fn fail(&mut self, code: &str, message: &str) {
        if !self.failed {
            self.failed = true;
            self.world
                .recorder
                .failed(self.kind, self.due, code, message);
        }
    }

    /// Its answer is here; gives the time.
    pub(super) fn end(self) -> Duration {
        let now = self.world.now();
        if !self.failed {
            self.world.recorder.answered(self.kind, self.due, now);
        }
        now
    }
}

/// True if such an error says that nothing was done, and that asking again would not help.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}
