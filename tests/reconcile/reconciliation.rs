//! Snapshots of the ERP against the real program: compared with the books of their own time,
//! reported, corrected, held and approved.

use sellable::proto::v1::{
    self as pb, ReconciliationAction as Action, ReconciliationVerdict as Verdict,
    compare_request::Request as Part, movement::Kind, snapshot_header::Moment,
};
use tonic::Code;

use crate::{
    bad::{says, violations},
    nats,
    server::{Client, Setup, movement},
    snapshots::{self, at, compare, correcting, header, line, messages, report, send, variances},
};

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
/// The moment of the snapshots, in seconds since 1970.
const T: i64 = 1_700_000_000;

/// `quantity` good units of `sku` come to `dc` (or go, below 0), `after` seconds after [`T`].
fn moved(id: &str, sku: &str, quantity: i64, after: i64) -> pb::Movement {
    moved_at(id, sku, "dc", quantity, after)
}

fn moved_at(id: &str, sku: &str, location: &str, quantity: i64, after: i64) -> pb::Movement {
    let kind = Kind::Adjusted(pb::Adjusted {
        location: location.into(),
        condition: pb::Condition::Good.into(),
        reason: "test".into(),
    });
    pb::Movement {
        occurred_at: Some(at(T + after)),
        ..movement(id, sku, quantity, kind)
    }
}

async fn good(client: &Client, sku: &str) -> i64 {
    client.ats(sku, 0).await.expect("an answer").items[0].ats
}

async fn reports(client: &Client) -> Vec<pb::Report> {
    let request = pb::ListReportsRequest::default();
    let list = client.reconciliation().list_reports(request).await;
    list.expect("a list").into_inner().reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_compared_with_the_books_of_its_own_time() {
    let mut server = Setup::new().shards(3).rules(RULES).start();
    let client = server.connect().await;
    client
        .post(vec![
            moved("1", "A", 10, -100),
            moved("2", "B", 10, -100),
            moved("3", "C", 10, -100),
            moved("4", "D", 10, -100),
            // After the snapshot was taken: it does not know.
            moved("5", "A", -4, 50),
            moved("6", "B", -4, 50),
            // So close that clocks may differ.
            moved("7", "D", -3, 1),
        ])
        .await;
    let header = pb::SnapshotHeader {
        clock_tolerance_ms: 2_000,
        ..header("monday", T)
    };
    let lines = [
        line("A", "dc", 10),
        line("B", "dc", 12),
        line("C", "dc", 3),
        line("D", "dc", 7),
        line("E", "dc", 5),
        line("A", "nowhere", 2),
        line("F", "nowhere", 0),
    ];
    let compared = compare(&client, header.clone(), &lines)
        .await
        .expect("compared");
    let reported = Action::Reported;
    assert_eq!(
        compared.found(),
        [
            ("C", "dc", -7, reported),
            ("E", "dc", 5, reported),
            ("D", "dc", -3, Action::None),
            ("A", "nowhere", 2, reported),
            ("B", "dc", 2, reported),
        ]
    );
    let verdicts: Vec<_> = compared.lines.iter().map(pb::ReportLine::verdict).collect();
    let missing = Verdict::MissingInBooks;
    assert_eq!(
        verdicts,
        [
            Verdict::Variance,
            missing,
            Verdict::Timing,
            missing,
            Verdict::Variance
        ]
    );
    let first = &compared.lines[0];
    assert_eq!((first.stated, first.book, first.line), (3, 10, 3));
    let mut summary = compared.summary().clone();
    assert_eq!(summary.by_location.len(), 2);
    assert_eq!(summary.by_location[0].name, "dc");
    assert_eq!(summary.by_sku[0].name, "C");
    assert_eq!(summary.by_condition[0].units_short, 7);
    (summary.by_location, summary.by_sku, summary.by_condition) = Default::default();
    assert_eq!(
        summary,
        pb::ReportSummary {
            cells: 7,
            matched: 2,
            timing: 1,
            variance: 4,
            missing_in_books: 2,
            lines_over: 3,
            lines_short: 1,
            units_over: 9,
            units_short: 7,
            reported: 4,
            // A, B, C, E and A at nowhere; of these, A is none.
            without_as_of: 5,
            false_alarms_avoided: 1,
            ..pb::ReportSummary::default()
        }
    );
    let open = [
        ("A", "nowhere", 2),
        ("B", "dc", 2),
        ("C", "dc", -7),
        ("E", "dc", 5),
    ]
    .map(|(sku, location, units)| (sku.to_owned(), location.to_owned(), units));
    assert_eq!(variances(&client).await, open);

    // A fact that had been missing closes what it explains, and opens what it contradicts.
    client
        .post(vec![moved("8", "C", -7, -10), moved("9", "A", 1, 99)])
        .await;
    assert_eq!(variances(&client).await, [&open[..2], &open[3..]].concat());

    // Reports outlive a restart, and so do variances.
    let by_id = pb::GetReportRequest {
        report: compared.report.report.clone(),
        page_size: 2,
        ..pb::GetReportRequest::default()
    };
    let kept = report(&client, by_id.clone()).await.expect("kept");
    assert_eq!(
        (&kept.report, &kept.lines),
        (&compared.report, &compared.lines)
    );
    let before = client.digest(0).await;
    server.stop();
    server.restart();
    let client = server.connect().await;
    assert_eq!(client.digest(0).await.digest, before.digest);
    let again = report(&client, by_id).await.expect("kept");
    assert_eq!((&kept.report, &kept.lines), (&again.report, &again.lines));
    assert_eq!(variances(&client).await.len(), 3);

    // Lines by what they are about.
    let of = |request| async {
        let lines = report(&client, request).await.expect("kept").lines;
        lines.into_iter().map(|own| own.sku).collect::<Vec<_>>()
    };
    let by = || pb::GetReportRequest {
        report: "monday".into(),
        ..pb::GetReportRequest::default()
    };
    let at_nowhere = pb::GetReportRequest {
        location: "nowhere".into(),
        ..by()
    };
    assert_eq!(of(at_nowhere).await, ["A"]);
    let timing = pb::GetReportRequest {
        verdicts: vec![Verdict::Timing.into()],
        ..by()
    };
    assert_eq!(of(timing).await, ["D"]);
    let of_b = pb::GetReportRequest {
        sku: "B".into(),
        actions: vec![reported.into()],
        page_size: 1,
        ..by()
    };
    assert_eq!(of(of_b).await, ["B"]);

    // A later snapshot that matches closes what is open; one of an earlier moment does not.
    let later = [line("B", "dc", 6), line("A", "nowhere", 0)];
    let sunday = snapshots::header("sunday", T - 50);
    let earlier = compare(&client, sunday, &[line("B", "dc", 10)]).await;
    assert_eq!(earlier.expect("compared").summary().matched, 1);
    assert_eq!(variances(&client).await.len(), 3);
    let tuesday = compare(&client, snapshots::header("tuesday", T + 60), &later);
    let tuesday = tuesday.await.expect("compared");
    assert_eq!(
        (tuesday.summary().matched, tuesday.summary().closed),
        (2, 2)
    );
    assert_eq!(variances(&client).await, &open[3..]);
    let list = reports(&client).await;
    let names: Vec<_> = list.iter().map(|own| own.snapshot.as_str()).collect();
    assert_eq!(names, ["tuesday", "sunday", "monday"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_variances_are_corrected_once_and_large_ones_held_until_approved() {
    let server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    let stock = ["A", "B", "C", "D"].map(|sku| moved(sku, sku, 100, -100));
    client.post(stock.to_vec()).await;
    // Sold since.
    client.post(vec![moved("s", "A", -30, 50)]).await;
    let lines = [
        line("A", "dc", 95),
        line("B", "dc", 105),
        line("C", "dc", 94),
        line("D", "dc", 300),
    ];
    let snapshot = || correcting("monday", T, 5);
    let compared = compare(&client, snapshot(), &lines)
        .await
        .expect("compared");
    assert_eq!(
        compared.found(),
        [
            ("D", "dc", 200, Action::Held),
            ("C", "dc", -6, Action::Held),
            ("A", "dc", -5, Action::Corrected),
            ("B", "dc", 5, Action::Corrected),
        ]
    );
    let summary = compared.summary();
    assert_eq!((summary.corrected, summary.held), (2, 2));
    assert_eq!(
        (good(&client, "A").await, good(&client, "B").await),
        (65, 105)
    );
    assert_eq!(
        (good(&client, "C").await, good(&client, "D").await),
        (100, 100)
    );
    let open: Vec<_> = variances(&client)
        .await
        .into_iter()
        .map(|own| own.0)
        .collect();
    assert_eq!(open, ["C", "D"]);

    // The same snapshot again corrects nothing again.
    let again = compare(&client, snapshot(), &lines)
        .await
        .expect("compared");
    assert_eq!(again.summary().matched, 2);
    assert_eq!(again.summary().corrected, 0);
    assert_eq!(good(&client, "A").await, 65);
    assert_eq!(client.status().await.movements_applied, 7);

    // What arrived late is not corrected a second time.
    client.post(vec![moved("late", "C", -2, -1)]).await;
    let approve = |sku: &str| {
        let request = pb::ApproveRequest {
            report: "monday".into(),
            sku: sku.into(),
            actor: "kim".into(),
            note: "counted".into(),
            ..pb::ApproveRequest::default()
        };
        let mut service = client.reconciliation();
        async move {
            service
                .approve(request)
                .await
                .map(tonic::Response::into_inner)
        }
    };
    let of_c = approve("C").await.expect("approved");
    assert_eq!((of_c.corrected, of_c.settled, of_c.lines.len()), (1, 0, 1));
    assert_eq!((of_c.lines[0].book, of_c.lines[0].variance), (98, -4));
    assert_eq!(good(&client, "C").await, 94);
    let none = approve("C").await.expect_err("nothing is held any more");
    assert_eq!(none.code(), Code::FailedPrecondition);
    client.post(vec![moved("found", "D", 200, -1)]).await;
    let rest = approve("").await.expect("approved");
    assert_eq!((rest.corrected, rest.settled), (0, 1));
    assert_eq!(good(&client, "D").await, 300);
    assert!(variances(&client).await.is_empty());
    let newest = pb::GetReportRequest {
        report: "monday".into(),
        ..pb::GetReportRequest::default()
    };
    let newest = report(&client, newest).await.expect("kept");
    assert_eq!((newest.summary().held, newest.summary().approved), (0, 1));
    let line = newest.lines.iter().find(|own| own.sku == "C").expect("C");
    assert_eq!(line.action(), Action::Approved);

    // If the books hold the same again, another correction is due, though the numbers repeat.
    client.post(vec![moved("undone", "A", 5, -1)]).await;
    let third = compare(&client, snapshot(), &lines[..1])
        .await
        .expect("compared");
    assert_eq!(third.found(), [("A", "dc", -5, Action::Corrected)]);
    assert_eq!(good(&client, "A").await, 65);
    assert!(variances(&client).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_the_books_may_be_the_limit_and_none_holds_everything() {
    let server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    client
        .post(vec![moved("1", "A", 200, -1), moved("2", "B", 20, -1)])
        .await;
    let lines = [line("A", "dc", 190), line("B", "dc", 18)];
    let percent = |up_to_percent, up_to_units| pb::SnapshotHeader {
        up_to_percent,
        up_to_units,
        ..correcting("s", T, 0)
    };
    let held = compare(&client, percent(None, None), &lines)
        .await
        .expect("compared");
    assert_eq!(held.summary().held, 2);
    let both = compare(&client, percent(Some(5), Some(1)), &lines).await;
    assert_eq!(both.expect("compared").summary().held, 2);
    let share = compare(&client, percent(Some(5), None), &lines)
        .await
        .expect("compared");
    assert_eq!(
        share.found(),
        [
            ("A", "dc", -10, Action::Corrected),
            ("B", "dc", -2, Action::Held)
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_complete_snapshot_lacks_is_stated_to_be_nothing() {
    let server = Setup::new().shards(2).rules(RULES).start();
    let client = server.connect().await;
    let mut stock: Vec<_> = (0..900)
        .map(|n| moved_at(&format!("a{n}"), &format!("S{n}"), "store-1", 2, -9))
        .collect();
    stock.push(moved_at("b", "S1", "store-2", 3, -9));
    stock.push(moved_at("c", "S1", "dc", 7, -9));
    // Came and went before, and came after.
    stock.push(moved_at("d", "S2", "store-2", 3, -9));
    stock.push(moved_at("e", "S2", "store-2", -3, -8));
    stock.push(moved_at("f", "S3", "store-2", 3, 9));
    client.post(stock).await;
    let lines: Vec<_> = (10..900)
        .map(|n| line(&format!("S{n}"), "store-1", 2))
        .collect();
    let partial = compare(&client, header("part", T), &lines)
        .await
        .expect("compared");
    assert_eq!(partial.summary().matched, 890);
    assert_eq!(partial.summary().cells, 890);
    let whole = pb::SnapshotHeader {
        scope: vec!["store-*".into()],
        ..correcting("whole", T, 2)
    };
    let whole = compare(&client, whole, &lines).await.expect("compared");
    let summary = whole.summary();
    assert_eq!((summary.cells, summary.matched), (901, 890));
    assert_eq!((summary.variance, summary.missing_in_snapshot), (11, 11));
    assert_eq!((summary.corrected, summary.held), (10, 1));
    assert_eq!(whole.found()[0], ("S1", "store-2", -3, Action::Held));
    assert!(
        whole
            .lines
            .iter()
            .all(|own| own.verdict() == Verdict::MissingInSnapshot)
    );
    assert_eq!(whole.lines[0].line, 0);
    // S1 at the distribution centre is no matter of this snapshot.
    assert_eq!(good(&client, "S1").await, 10);
    assert_eq!(good(&client, "S0").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_says_exactly_what_is_in() {
    let server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    let of = |source: &str, movement: pb::Movement| pb::Movement {
        source: source.into(),
        ..movement
    };
    client
        .post(vec![
            of("erp", moved("1", "A", 10, -5)),
            of("erp", moved("2", "A", -1, 0)),
            // By the same clock after it, so it is not in, however close.
            of("erp", moved("3", "A", -2, 1)),
            of("pos", moved("4", "B", 4, -5)),
            // By another clock.
            of("pos", moved("5", "B", -1, 1)),
        ])
        .await;
    let marked = |id: &str| pb::SnapshotHeader {
        moment: Some(Moment::Watermark(id.into())),
        clock_tolerance_ms: 5_000,
        ..header(&format!("at-{id}"), 0)
    };
    let lines = [line("A", "dc", 9), line("B", "dc", 3)];
    let exact = compare(&client, marked("2"), &lines)
        .await
        .expect("compared");
    assert_eq!(exact.report.as_of, Some(at(T)));
    assert_eq!(exact.report.watermark, "2");
    assert_eq!((exact.summary().matched, exact.summary().timing), (1, 1));
    // Were the third in, 7 would be stated: no tolerance excuses that.
    let wrong = compare(&client, marked("2"), &[line("A", "dc", 7)])
        .await
        .expect("compared");
    assert_eq!(wrong.found(), [("A", "dc", -2, Action::Reported)]);
    let unknown = compare(&client, marked("77"), &lines)
        .await
        .expect_err("unknown");
    assert_eq!(unknown.code(), Code::FailedPrecondition);
    says(unknown.message(), &["\"77\"", "\"erp\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrections_obey_the_source_authority_and_say_so() {
    let server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    client
        .post(vec![
            moved("1", "A", 10, -5),
            moved_at("2", "B", "shop", 10, -5),
        ])
        .await;
    let toml = "[source.test]\nmay = [\"*\"]\n[source.reconciliation]\nmay = [\"adjusted\"]\nlocations = [\"dc\"]\n";
    let authority = pb::PutRulesRequest {
        toml: toml.into(),
        ..pb::PutRulesRequest::default()
    };
    client
        .rules()
        .put_authority(authority)
        .await
        .expect("in force");
    let lines = [line("A", "dc", 9), line("B", "shop", 8)];
    let compared = compare(&client, correcting("s", T, 5), &lines)
        .await
        .expect("compared");
    assert_eq!(
        compared.found(),
        [
            ("B", "shop", -2, Action::Parked),
            ("A", "dc", -1, Action::Corrected)
        ]
    );
    says(&compared.lines[0].reason, &["source authority"]);
    assert_eq!(
        (compared.summary().parked, compared.summary().corrected),
        (1, 1)
    );
    assert_eq!(
        variances(&client).await,
        [("B".to_owned(), "shop".to_owned(), -2)]
    );
    let request = pb::ListExceptionsRequest {
        source: "reconciliation".into(),
        ..pb::ListExceptionsRequest::default()
    };
    let parked = client
        .operations()
        .list_exceptions(request)
        .await
        .expect("a list");
    let parked = parked.into_inner().exceptions;
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].id, compared.lines[0].correction);
    // Whoever releases it closes the variance.
    let release = pb::ResolveRequest {
        exception_id: parked[0].exception_id.clone(),
        resolution: pb::Resolution::Release.into(),
        ..pb::ResolveRequest::default()
    };
    client
        .operations()
        .resolve(release)
        .await
        .expect("released");
    assert!(variances(&client).await.is_empty());
    assert_eq!(good(&client, "B").await, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_nothing_is_opened_or_corrected() {
    let server = Setup::new()
        .rules(RULES)
        .set("reconciliation.variances_max", 3)
        .start();
    let client = server.connect().await;
    client.post(vec![moved("1", "A", 10, -5)]).await;
    let lines: Vec<_> = (0..4)
        .map(|n| line(&format!("S{n}"), "dc", n + 1))
        .collect();
    let compared = compare(&client, correcting("s", T, 5), &lines)
        .await
        .expect("compared");
    assert!(compared.summary().too_many_variances);
    assert_eq!(
        (compared.summary().corrected, compared.summary().held),
        (0, 0)
    );
    assert_eq!(compared.found()[0], ("S3", "dc", 4, Action::Reported));
    assert!(variances(&client).await.is_empty());
    assert_eq!(client.status().await.movements_applied, 1);
    let fewer = compare(&client, correcting("s", T, 5), &lines[..3])
        .await
        .expect("compared");
    assert_eq!(fewer.summary().corrected, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_and_changes_nothing() {
    let server = Setup::new()
        .rules(RULES)
        .set("ids.horizon_hours", 1)
        .start();
    let client = server.connect().await;
    client.post(vec![moved("1", "A", 10, -5)]).await;
    let lines = [line("A", "dc", 9)];
    let fields = async |header: pb::SnapshotHeader, lines: &[pb::SnapshotLine]| {
        let error = compare(&client, header, lines).await.expect_err("wrong");
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        let found = violations(&error);
        found
            .into_iter()
            .map(|(field, _)| field)
            .collect::<Vec<_>>()
    };
    let ok = || correcting("s", T, 5);
    let with = |change: fn(&mut pb::SnapshotHeader)| {
        let mut header = ok();
        change(&mut header);
        header
    };
    for (header, field) in [
        (with(|own| own.snapshot.clear()), "snapshot"),
        (with(|own| own.source = "an erp".into()), "source"),
        (with(|own| own.moment = None), "as_of"),
        (
            with(|own| own.moment = Some(Moment::AsOf(at(4_000_000_000)))),
            "as_of",
        ),
        (
            with(|own| own.moment = Some(Moment::Watermark(String::new()))),
            "watermark",
        ),
        (
            with(|own| own.clock_tolerance_ms = -1),
            "clock_tolerance_ms",
        ),
        (
            with(|own| own.clock_tolerance_ms = 3_600_001),
            "clock_tolerance_ms",
        ),
        (
            with(|own| own.scope = vec!["dc".into(), "[".into()]),
            "scope[1]",
        ),
        (with(|own| own.up_to_units = Some(-1)), "up_to_units"),
        (with(|own| own.up_to_percent = Some(101)), "up_to_percent"),
        (with(|own| own.policy = 1), "policy"),
        (with(|own| own.policy = 9), "policy"),
        (with(|own| own.actor = "x".repeat(129)), "actor"),
    ] {
        assert_eq!(fields(header, &lines).await, [field]);
    }
    // Every wrong line at once, with its number, and cells that are stated twice.
    let wrong = [
        line("A", "dc", 9),
        line("", "dc", 9),
        line("B", "dc", i64::MAX),
        pb::SnapshotLine {
            good: None,
            line: 77,
            ..line("C", "dc", 0)
        },
    ];
    let named = ["lines[2].sku", "lines[3].good", "lines[77].good"];
    assert_eq!(fields(ok(), &wrong).await, named);
    let twice = [line("A", "dc", 9), line("B", "dc", 1), line("A", "dc", 8)];
    let error = compare(&client, with(|own| own.skip_bad_lines = true), &twice).await;
    let error = error.expect_err("twice");
    assert_eq!(violations(&error)[0].0, "lines[3].sku");
    says(&violations(&error)[0].1, &["line 1", "dc"]);
    assert_eq!(fields(ok(), &[]).await, ["lines"]);

    // A snapshot that does not come whole.
    let mut cut = messages(ok(), &lines);
    cut.pop();
    let error = send(&client, cut.clone()).await.expect_err("cut off");
    assert_eq!(violations(&error)[0].0, "end");
    cut.push(pb::CompareRequest {
        request: Some(Part::End(pb::SnapshotEnd {
            lines: 2,
            skipped_lines: 0,
        })),
    });
    let error = send(&client, cut).await.expect_err("a line is missing");
    assert_eq!(violations(&error)[0].0, "end.lines");
    let mut headless = messages(ok(), &lines);
    headless.remove(0);
    let error = send(&client, headless).await.expect_err("no header");
    assert_eq!(violations(&error)[0].0, "header");
    let mut twice = messages(ok(), &lines);
    twice.insert(1, twice[0].clone());
    let error = send(&client, twice).await.expect_err("two headers");
    assert_eq!(violations(&error)[0].0, "header");

    // Nothing of all this had any effect.
    assert_eq!(good(&client, "A").await, 10);
    assert!(variances(&client).await.is_empty());
    assert!(reports(&client).await.is_empty());
    let get = pb::GetReportRequest {
        report: "s".into(),
        ..pb::GetReportRequest::default()
    };
    let unknown = report(&client, get).await.expect_err("none");
    assert_eq!(unknown.code(), Code::NotFound);

    // Bad lines may be skipped; the others are compared.
    let skipping = with(|own| own.skip_bad_lines = true);
    let skipped = compare(&client, skipping, &wrong).await.expect("compared");
    assert_eq!(
        (skipped.summary().bad_lines, skipped.summary().corrected),
        (3, 1)
    );
    assert_eq!(good(&client, "A").await, 9);
    let page = |page_size, page_token: &str| pb::GetReportRequest {
        report: "s".into(),
        page_size,
        page_token: page_token.into(),
        ..pb::GetReportRequest::default()
    };
    for (request, field) in [(page(5_001, ""), "page_size"), (page(0, "x"), "page_token")] {
        let error = client.reconciliation().get_report(request).await;
        assert_eq!(violations(&error.expect_err("wrong"))[0].0, field);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_that_compare_the_same_at_once_correct_it_once() {
    let nats = nats::NatsServer::start();
    let setup = || Setup::new().rules(RULES).nats(&nats.url());
    let (one, other) = (setup().start(), setup().shards(3).start());
    let (a, b) = (one.connect().await, other.connect().await);
    for round in 0..5 {
        let skus: Vec<String> = (0..300).map(|n| format!("R{round}-{n}")).collect();
        let stock = skus.iter().map(|sku| moved(sku, sku, 10, -5)).collect();
        let posted = a.post(stock).await;
        b.digest(posted.position).await;
        let lines = skus.iter().enumerate();
        let lines: Vec<_> = lines
            .map(|(n, sku)| line(sku, "dc", 8 + n as i64 % 5))
            .collect();
        let name = format!("round-{round}");
        let snapshot = || correcting(&name, T, 1);
        // A late fact in between, so that they may see different books.
        let late = moved(&format!("late-{round}"), &skus[1], -1, -1);
        let (of_a, of_b, late) = tokio::join!(
            compare(&a, snapshot(), &lines),
            compare(&b, snapshot(), &lines),
            a.post(vec![late])
        );
        let (of_a, of_b) = (of_a.expect("compared"), of_b.expect("compared"));
        let last = of_a
            .report
            .position
            .max(of_b.report.position)
            .max(late.position);
        let (digest_a, digest_b) = (a.digest(last).await, b.digest(last).await);
        // The log may go on with the last of the records in between.
        if digest_a.position == digest_b.position {
            assert_eq!(digest_a.digest, digest_b.digest);
        }
        // Once more, when all is quiet: what is within the limit is right, and the rest is held.
        let quiet = compare(&b, snapshot(), &lines).await.expect("compared");
        assert_eq!(quiet.summary().timing, 0);
        let open = variances(&b).await.len();
        for (n, sku) in skus.iter().enumerate() {
            let stated = 8 + n as i64 % 5;
            let expected = match stated - 10 {
                -1..=1 => stated,
                _ => 10,
            };
            assert_eq!(good(&b, sku).await, expected, "{sku}");
        }
        assert!(open > 0);
        let found = report(
            &a,
            pb::GetReportRequest {
                report: name.clone(),
                ..pb::GetReportRequest::default()
            },
        );
        found.await.expect("both know all reports");
    }
}
