//! The `Reconciliation` service.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Service, status};
use crate::{
    instance::Instance,
    intake::Report,
    limits::{
        ACTOR_BYTES_MAX, COMPARISONS_MAX, NOTE_BYTES_MAX, REPORT_PAGE_DEFAULT, REPORT_PAGE_MAX,
        SNAPSHOT_MESSAGE_LINES_MAX,
    },
    proto::v1::{
        self as pb, compare_request::Request as Part, compare_response::Response as Answer,
        reconciliation_server::Reconciliation,
    },
    reconcile::{BadLine, Comparison, Options, ReconcileError, Selection, approve},
    wire::movement::timestamp,
};

/// Answers that wait for a caller that does not read them.
const ANSWERS_MAX: usize = 8;
/// Lines of one message of what was found.
const FOUND_LINES_MAX: usize = 1_000;
/// Lines that the answer to an approval shows.
const APPROVED_LINES_MAX: usize = 1_000;

type Answers = mpsc::Sender<Result<pb::CompareResponse, Status>>;

#[tonic::async_trait]
impl Reconciliation for Service {
    type CompareStream = ReceiverStream<Result<pb::CompareResponse, Status>>;

    async fn compare(
        &self,
        request: Request<Streaming<pb::CompareRequest>>,
    ) -> Result<Response<Self::CompareStream>, Status> {
        if !self.instance.ready() {
            return Err(status::not_ready(&self.instance));
        }
        let permit = Arc::clone(&self.comparisons).try_acquire_owned();
        let permit = permit.map_err(|_| too_many())?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let (instance, options) = (Arc::clone(&self.instance), self.options.reconcile);
        // A task of its own: what is being corrected and logged is brought to its end, whether the
        // caller waits for it or not.
        tokio::spawn(compare(
            instance,
            options,
            request.into_inner(),
            answers,
            permit,
        ));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_reports(
        &self,
        request: Request<pb::ListReportsRequest>,
    ) -> Result<Response<pb::ListReportsResponse>, Status> {
        self.wait_for(0).await?;
        let pb::ListReportsRequest { source, snapshot } = request.into_inner();
        let same = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let all = self.instance.reports().all();
        let reports = all
            .iter()
            .map(|report| &report.head)
            .filter(|head| same(&source, &head.source) && same(&snapshot, &head.snapshot));
        Ok(Response::new(pb::ListReportsResponse {
            reports: reports.cloned().collect(),
        }))
    }

    async fn get_report(
        &self,
        request: Request<pb::GetReportRequest>,
    ) -> Result<Response<pb::GetReportResponse>, Status> {
        self.wait_for(0).await?;
        let request = request.into_inner();
        let found = self.instance.reports().find(&request.report);
        let report = found
            .ok_or_else(|| not_compared(&ReconcileError::UnknownReport(request.report.clone())))?;
        page(&report, &request).map(Response::new)
    }

    async fn approve(
        &self,
        request: Request<pb::ApproveRequest>,
    ) -> Result<Response<pb::ApproveResponse>, Status> {
        self.wait_for(0).await?;
        let request = request.into_inner();
        for (field, text, bytes_max) in [
            ("actor", &request.actor, ACTOR_BYTES_MAX),
            ("note", &request.note, NOTE_BYTES_MAX),
        ] {
            if text.len() > bytes_max {
                let reason = format!("has {} bytes; at most {bytes_max}", text.len());
                return Err(status::bad_field(field, reason));
            }
        }
        let condition = pb::Condition::try_from(request.condition).map_err(|_| {
            let reason = format!("is {}, which is none", request.condition);
            status::bad_field("condition", reason)
        })?;
        let selection = Selection {
            sku: request.sku,
            location: request.location,
            condition,
        };
        let (instance, report) = (Arc::clone(&self.instance), request.report);
        let (actor, note) = (request.actor, request.note);
        // Brought to its end, also if the caller goes away in the middle.
        let approval =
            tokio::spawn(
                async move { approve(&instance, &report, &selection, &actor, &note).await },
            );
        let approved = approval.await.map_err(|_| status::stopping())?;
        let mut approved = approved.map_err(|error| not_compared(&error))?;
        approved.lines.truncate(APPROVED_LINES_MAX);
        Ok(Response::new(pb::ApproveResponse {
            corrected: approved.corrected,
            parked: approved.parked,
            settled: approved.settled,
            too_large: approved.too_large,
            lines: approved.lines,
            position: approved.position,
        }))
    }
}

async fn compare(
    instance: Arc<Instance>,
    options: Options,
    requests: Streaming<pb::CompareRequest>,
    answers: Answers,
    permit: OwnedSemaphorePermit,
) {
    let compared = take_snapshot(&instance, options, requests, &answers).await;
    if let Err(status) = compared {
        // Who went away does not want to know.
        let _ = answers.send(Err(status)).await;
    }
    drop(permit);
}

async fn take_snapshot(
    instance: &Arc<Instance>,
    options: Options,
    mut requests: Streaming<pb::CompareRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let refused = |error: ReconcileError| not_compared(&error);
    let first = next_part(&mut requests, answers).await?;
    let Part::Header(header) = first else {
        return Err(status::bad_field("header", "is missing; it comes first"));
    };
    let begun = Comparison::begin(instance, header, options).await;
    let mut comparison = begun.map_err(refused)?;
    let end = loop {
        match next_part(&mut requests, answers).await? {
            Part::Header(_) => return Err(status::bad_field("header", "is there twice")),
            Part::End(end) => break end,
            Part::Lines(pb::SnapshotLines { lines }) => {
                let count = lines.len();
                if count == 0 || count > SNAPSHOT_MESSAGE_LINES_MAX {
                    let reason = format!(
                        "has {count} lines; 1 to {SNAPSHOT_MESSAGE_LINES_MAX} in one message"
                    );
                    return Err(status::bad_field("lines", reason));
                }
                comparison.add(lines).await.map_err(refused)?;
                let progress = Answer::Progress(comparison.progress());
                // Who does not read its progress misses some of it.
                let _ = answers.try_send(Ok(answer(progress)));
            }
        }
    };
    let finished = comparison.finish(end).await.map_err(refused)?;
    let mut lines = finished.lines().peekable();
    while lines.peek().is_some() {
        let lines = lines.by_ref().take(FOUND_LINES_MAX).collect();
        let found = Answer::Found(pb::ReportLines { lines });
        if answers.send(Ok(answer(found))).await.is_err() {
            return Ok(());
        }
    }
    // Who went away finds it by `ListReports`.
    let _ = answers
        .send(Ok(answer(Answer::Report(finished.report.clone()))))
        .await;
    Ok(())
}

fn answer(answer: Answer) -> pb::CompareResponse {
    pb::CompareResponse {
        response: Some(answer),
    }
}

/// The next part of a snapshot; an error if it ends without its end, or nobody waits for an answer.
async fn next_part(
    requests: &mut Streaming<pb::CompareRequest>,
    answers: &Answers,
) -> Result<Part, Status> {
    let next = tokio::select! {
        next = requests.next() => next,
        () = answers.closed() => return Err(Status::cancelled("the caller has gone")),
    };
    let request = next.unwrap_or_else(|| {
        let reason =
            "is missing: the snapshot did not come whole, and nothing was corrected or kept";
        Err(status::bad_field("end", reason))
    })?;
    request.request.ok_or_else(|| {
        let reason = "is missing, or of a later version: a header, lines, or the end";
        status::bad_field("request", reason)
    })
}

fn page(report: &Report, request: &pb::GetReportRequest) -> Result<pb::GetReportResponse, Status> {
    let size = match request.page_size {
        0 => REPORT_PAGE_DEFAULT,
        size if size <= REPORT_PAGE_MAX => size,
        size => {
            let reason = format!("is {size}; at most {REPORT_PAGE_MAX}");
            return Err(status::bad_field("page_size", reason));
        }
    } as usize;
    // The report may have been compared anew meanwhile, but its lines are the same then.
    let after = match request.page_token.as_str() {
        "" => 0,
        token => token.parse::<usize>().map_err(|_| {
            let reason = "is none that a page before has given";
            status::bad_field("page_token", reason)
        })?,
    };
    let same = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    let takes = |line: &pb::ReportLine| {
        same(&request.sku, &line.sku)
            && same(&request.location, &line.location)
            && (request.verdicts.is_empty() || request.verdicts.contains(&line.verdict))
            && (request.actions.is_empty() || request.actions.contains(&line.action))
    };
    let lines = report.lines.iter().enumerate().skip(after);
    let mut lines = lines.filter(|(_, line)| takes(line));
    let page: Vec<_> = lines.by_ref().take(size).collect();
    let last = page.last().map(|(at, _)| at + 1);
    let more = lines.next().and(last);
    Ok(pb::GetReportResponse {
        report: Some(report.head.clone()),
        lines: page.into_iter().map(|(_, line)| line.clone()).collect(),
        next_page_token: more.map_or_else(String::new, |at| at.to_string()),
    })
}

fn too_many() -> Status {
    let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_secs(5)));
    let message = format!(
        "{COMPARISONS_MAX} snapshots are being compared by this instance already; try again, or \
         another instance"
    );
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// Why a snapshot was not compared.
fn not_compared(error: &ReconcileError) -> Status {
    let message = error.to_string();
    let precondition = |kind: &str, subject: &str| {
        let details = ErrorDetails::with_precondition_failure_violation(kind, subject, &message);
        Status::with_error_details(Code::FailedPrecondition, &message, details)
    };
    match error {
        ReconcileError::Header(invalid) => status::bad_field(&invalid.field, &invalid.reason),
        ReconcileError::BadLines { count, lines } => {
            let mut details = ErrorDetails::new();
            for BadLine { line, invalid } in lines {
                let field = format!("lines[{line}].{}", invalid.field);
                details.add_bad_request_violation(field, &invalid.reason);
            }
            let told = lines.len();
            let message = match *count > told as u64 {
                true => format!("{message}; the first {told} are named"),
                false => message,
            };
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        ReconcileError::NotWhole { .. } => status::bad_field("end.lines", message),
        ReconcileError::TooOld { oldest_us, .. } => {
            precondition("TOO_OLD", &timestamp(*oldest_us).to_string())
        }
        ReconcileError::UnknownWatermark { id, .. } => precondition("UNKNOWN_WATERMARK", id),
        ReconcileError::UnknownReport(name) => {
            let details =
                ErrorDetails::with_resource_info("sellable.v1.report", name, "", &message);
            Status::with_error_details(Code::NotFound, message, details)
        }
        ReconcileError::NothingHeld(report) => precondition("NOTHING_HELD", report),
        ReconcileError::Post(error) => status::not_posted(error),
    }
}
