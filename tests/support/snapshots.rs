//! Snapshots, compared through the public interface.
#![allow(dead_code, reason = "each test uses a part of it")]

use prost_types::Timestamp;
use sellable::proto::v1::{
    self as pb, ReconciliationPolicy as Policy, compare_request::Request as Part,
    compare_response::Response as Answer, snapshot_header::Moment,
};
use tonic::Status;

use super::server::{Client, patiently};

/// What came of comparing a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    pub(crate) report: pb::Report,
    pub(crate) lines: Vec<pb::ReportLine>,
    pub(crate) progress: Vec<pb::CompareProgress>,
}

impl Compared {
    pub(crate) fn summary(&self) -> &pb::ReportSummary {
        self.report.summary.as_ref().expect("a summary")
    }

    /// SKU, location, variance and what was done, largest first.
    pub(crate) fn found(&self) -> Vec<(&str, &str, i64, pb::ReconciliationAction)> {
        let found = self.lines.iter();
        let found = found.map(|own| (&*own.sku, &*own.location, own.variance, own.action()));
        found.collect()
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// Of the source `erp`, as of so many seconds since 1970; reported only.
pub(crate) fn header(snapshot: &str, seconds: i64) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        snapshot: snapshot.into(),
        source: "erp".into(),
        moment: Some(Moment::AsOf(at(seconds))),
        policy: Policy::Report.into(),
        ..pb::SnapshotHeader::default()
    }
}

/// The same, corrected up to so many units.
pub(crate) fn correcting(snapshot: &str, seconds: i64, up_to_units: i64) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        policy: Policy::Correct.into(),
        up_to_units: Some(up_to_units),
        ..header(snapshot, seconds)
    }
}

/// A line about good stock.
pub(crate) fn line(sku: &str, location: &str, good: i64) -> pb::SnapshotLine {
    pb::SnapshotLine {
        sku: sku.into(),
        location: location.into(),
        good: Some(good),
        ..pb::SnapshotLine::default()
    }
}

/// The messages of a snapshot that is whole.
pub(crate) fn messages(
    header: pb::SnapshotHeader,
    lines: &[pb::SnapshotLine],
) -> Vec<pb::CompareRequest> {
    let mut parts = vec![Part::Header(header)];
    parts.extend(lines.chunks(5_000).map(|lines| {
        Part::Lines(pb::SnapshotLines {
            lines: lines.to_vec(),
        })
    }));
    parts.push(Part::End(pb::SnapshotEnd {
        lines: lines.len() as u64,
        skipped_lines: 0,
    }));
    let request = |part| pb::CompareRequest {
        request: Some(part),
    };
    parts.into_iter().map(request).collect()
}

pub(crate) async fn send(
    client: &Client,
    messages: Vec<pb::CompareRequest>,
) -> Result<Compared, Status> {
    patiently(async {
        let mut service = client.reconciliation();
        let answers = service.compare(futures::stream::iter(messages)).await?;
        let mut answers = answers.into_inner();
        let (mut lines, mut progress, mut report) = (Vec::new(), Vec::new(), None);
        while let Some(answer) = answers.message().await? {
            assert!(report.is_none(), "the report is last");
            match answer.response.expect("an answer") {
                Answer::Progress(told) => progress.push(told),
                Answer::Found(found) => lines.extend(found.lines),
                Answer::Report(last) => report = Some(last),
            }
        }
        Ok(Compared {
            report: report.expect("a report"),
            lines,
            progress,
        })
    })
    .await
}

/// Compares a snapshot.
pub(crate) async fn compare(
    client: &Client,
    header: pb::SnapshotHeader,
    lines: &[pb::SnapshotLine],
) -> Result<Compared, Status> {
    send(client, messages(header, lines)).await
}

/// A report and all its lines, page by page.
pub(crate) async fn report(
    client: &Client,
    request: pb::GetReportRequest,
) -> Result<Compared, Status> {
    let mut lines = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::GetReportRequest {
            page_token,
            ..request.clone()
        };
        let page = client.reconciliation().get_report(request).await?;
        let page = page.into_inner();
        lines.extend(page.lines);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(Compared {
                report: page.report.expect("a report"),
                lines,
                progress: Vec::new(),
            });
        }
    }
}

/// Open variances: SKU, location, units.
pub(crate) async fn variances(client: &Client) -> Vec<(String, String, i64)> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListExceptionsRequest {
            kinds: vec![pb::ExceptionKind::Variance.into()],
            page_size: 1_000,
            page_token,
            ..pb::ListExceptionsRequest::default()
        };
        let page = client.operations().list_exceptions(request).await;
        let page = page.expect("a list").into_inner();
        let told = page.exceptions.into_iter();
        found.extend(told.map(|own| (own.sku, own.location, own.units)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            found.sort();
            return found;
        }
    }
}
