//! Bad queries, rules and other calls over gRPC, against the real program: each refusal has a
//! code, says what is wrong, and carries `google.rpc` details.

use std::time::Duration;

use sellable::{limits, proto::v1 as pb};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::{
    bad::{says, violations},
    server::{CHANNEL, Client, Server, Setup, patiently, received},
};

const TWO_CHANNELS: &str = "[channel.web]\nsources = [\"*\"]\n\n[channel.app]\nsources = [\"*\"]\n";

async fn start() -> (Server, Client) {
    let server = Setup::new().rules(TWO_CHANNELS).start();
    let client = server.connect().await;
    (server, client)
}

async fn get(client: &Client, request: pb::GetRequest) -> Result<pb::GetResponse, Status> {
    let answer = patiently(client.availability().get(request)).await;
    answer.map(tonic::Response::into_inner)
}

fn of_skus<S: Into<String>>(skus: impl IntoIterator<Item = S>) -> pb::GetRequest {
    pb::GetRequest {
        channel: CHANNEL.into(),
        skus: skus.into_iter().map(Into::into).collect(),
        ..pb::GetRequest::default()
    }
}

#[track_caller]
fn is_bad(status: &Status, field: &str, reason: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(violations(status), [(field.to_owned(), reason.to_owned())]);
    assert_eq!(status.message(), format!("{field}: {reason}"));
}

#[tokio::test]
async fn bad_skus_are_named() {
    let (_server, client) = start().await;
    let long = "x".repeat(101);
    let thousand_and_one = vec!["A"; 1_001];
    for (request, field, reason) in [
        (
            of_skus([""; 0]),
            "skus",
            "has 0 SKUs; 1 to 1000 in one query",
        ),
        (
            of_skus(thousand_and_one),
            "skus",
            "has 1001 SKUs; 1 to 1000 in one query",
        ),
        (
            of_skus(["A", ""]),
            "skus[1]",
            "has 0 bytes; a SKU has 1 to 100",
        ),
        (
            of_skus(["A", "B", &long]),
            "skus[2]",
            "has 101 bytes; a SKU has 1 to 100",
        ),
    ] {
        is_bad(
            &get(&client, request).await.expect_err("refused"),
            field,
            reason,
        );
    }
    let answer = get(&client, of_skus(vec!["A"; 1_000]))
        .await
        .expect("an answer");
    assert_eq!(answer.items.len(), 1_000);
    assert!(answer.items.iter().all(|item| !item.known && item.ats == 0));
    for (sku, reason) in [
        ("", "is empty; it is required"),
        (&long, "has 101 bytes; at most 100"),
    ] {
        let request = pb::ExplainRequest {
            channel: CHANNEL.into(),
            sku: sku.into(),
            min_position: 0,
        };
        let answer = patiently(client.availability().explain(request)).await;
        is_bad(&answer.expect_err("refused"), "sku", reason);
    }
}

#[tokio::test]
async fn an_unknown_channel_lists_the_known() {
    let (_server, client) = start().await;
    let mut request = of_skus(["A"]);
    for channel in ["wep", "", "WEB", "web "] {
        request.channel = channel.into();
        let status = get(&client, request.clone()).await.expect_err("refused");
        assert_eq!(status.code(), Code::NotFound);
        says(
            status.message(),
            &[&format!("no channel {channel:?}"), "app, web"],
        );
        let details = status.get_error_details();
        let resource = details.resource_info().expect("which resource");
        assert_eq!(resource.resource_name, channel);
        assert_eq!(resource.resource_type, "sellable.v1.channel");
        let request = pb::ExplainRequest {
            channel: channel.into(),
            sku: "A".into(),
            min_position: 0,
        };
        let status = client.availability().explain(request).await;
        assert_eq!(status.expect_err("refused").code(), Code::NotFound);
    }
    let server = Setup::new().start();
    let client = server.connect().await;
    let status = get(&client, request).await.expect_err("refused");
    says(
        status.message(),
        &["no channel at all", "sellable rules put"],
    );
}

#[tokio::test]
async fn a_position_that_never_comes_is_waited_for_within_the_bound() {
    let server = Setup::new()
        .rules(TWO_CHANNELS)
        .set("query.min_position_wait_ms_max", 100)
        .start();
    let client = server.connect().await;
    let position = client
        .post(vec![received("a", "A", 5, "dc")])
        .await
        .position;
    for wanted in [position + 1, u64::MAX] {
        let is_late = |status: Status| {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
            let wanted = format!("min_position {wanted} was not reached within 100 ms");
            says(status.message(), &[&wanted, &format!("is at {position}")]);
            let details = status.get_error_details();
            let retry = details.retry_info().expect("when to try again");
            assert!(retry.retry_delay.is_some());
        };
        is_late(client.ats("A", wanted).await.expect_err("too late"));
        let request = pb::DigestRequest {
            min_position: wanted,
        };
        let digest = patiently(client.operations().digest(request)).await;
        is_late(digest.expect_err("too late"));
    }
    assert!(client.ats("A", position).await.is_ok());
}

#[tokio::test]
async fn a_wait_ends_with_the_callers_deadline() {
    let server = Setup::new()
        .rules(TWO_CHANNELS)
        .set("query.min_position_wait_ms_max", 600_000)
        .start();
    let client = server.connect().await;
    let mut request = Request::new(pb::GetRequest {
        min_position: u64::MAX,
        ..of_skus(["A"])
    });
    request.set_timeout(Duration::from_millis(300));
    let answer = patiently(client.availability().get(request)).await;
    let code = answer.expect_err("too late").code();
    // Who notices first, the client or the server, decides which.
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code:?}"
    );
    assert!(client.ats("A", 0).await.is_ok());
}

async fn put(
    client: &Client,
    request: pb::PutRulesRequest,
) -> Result<pb::PutRulesResponse, Status> {
    let answer = patiently(client.rules().put(request)).await;
    answer.map(tonic::Response::into_inner)
}

fn document(toml: impl Into<String>) -> pb::PutRulesRequest {
    pb::PutRulesRequest {
        toml: toml.into(),
        ..pb::PutRulesRequest::default()
    }
}

#[tokio::test]
async fn broken_rules_name_their_lines() {
    let (_server, client) = start().await;
    let in_force = client.status().await.rules_version;
    let web = "[channel.web]\nsources = [\"*\"]\n";
    for (toml, findings) in [
        (
            format!("{web}bufer = 3\n"),
            vec![("toml:3:", "did you mean `buffer`?")],
        ),
        (
            format!("{web}buffer = -1\n"),
            vec![("toml:3:", "channel.web.buffer")],
        ),
        (
            format!("{web}buffer = \"3\"\n"),
            vec![("toml:3:", "channel.web.buffer")],
        ),
        (
            format!("{web}share_percent = 101\n"),
            vec![("toml:3:", "share_percent")],
        ),
        (
            format!("{web}minimum = 9223372036854775808\n"),
            vec![("toml:3:", "minimum")],
        ),
        (
            format!("{web}\n{web}"),
            vec![("toml:4:", "defined twice; first in line 1")],
        ),
        (
            "[channel.web]\nsources = [\"@no\"]\n".into(),
            vec![("toml:2:", "no")],
        ),
        ("[channel.web]\nsources = [\n".into(), vec![("toml:", "")]),
        ("\u{0}".into(), vec![("toml:1:", "")]),
        (
            format!("{web}buffer = -1\n\n[channel.app]\nsources = [\"*\"]\npaused = 1\n"),
            vec![("toml:3:", "buffer"), ("toml:7:", "paused")],
        ),
    ] {
        for validate_only in [true, false] {
            let mut request = document(&toml);
            request.validate_only = validate_only;
            let status = put(&client, request).await.expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument, "{toml}: {status:?}");
            let found = violations(&status);
            assert_eq!(found.len(), findings.len(), "{toml}: {found:?}");
            for ((place, part), (field, description)) in findings.iter().zip(&found) {
                assert!(field.starts_with(place), "{toml}: {found:?}");
                says(description, &["line ", part]);
                says(status.message(), &[description]);
            }
        }
    }
    assert_eq!(client.status().await.rules_version, in_force);
}

#[tokio::test]
async fn rules_that_are_too_large_are_refused_by_one_limit() {
    let (_server, client) = start().await;
    let of_bytes = |bytes: usize| {
        let comment = "#".repeat(bytes - TWO_CHANNELS.len() - 1);
        document(format!("{TWO_CHANNELS}{comment}\n"))
    };
    let answer = put(&client, of_bytes(limits::RULES_BYTES_MAX)).await;
    assert!(answer.expect("in force").changed);
    let status = put(&client, of_bytes(limits::RULES_BYTES_MAX + 1)).await;
    let status = status.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    says(
        &violations(&status)[0].1,
        &[&limits::RULES_BYTES_MAX.to_string()],
    );
    let mut request = document(TWO_CHANNELS);
    request.actor = "x".repeat(129);
    is_bad(
        &put(&client, request.clone()).await.expect_err("refused"),
        "actor",
        "has 129 bytes; at most 128",
    );
    request.actor.clear();
    request.note = "x".repeat(513);
    is_bad(
        &put(&client, request).await.expect_err("refused"),
        "note",
        "has 513 bytes; at most 512",
    );
}

#[tokio::test]
async fn rules_put_over_others_are_refused() {
    let (_server, client) = start().await;
    let in_force = client.status().await.rules_version;
    let mut request = document(format!("{TWO_CHANNELS}buffer = 1\n"));
    for expected in [0, in_force + 1, u64::MAX] {
        request.expected_version = Some(expected);
        for dry_run in [true, false] {
            request.dry_run = dry_run;
            let status = put(&client, request.clone()).await.expect_err("refused");
            assert_eq!(status.code(), Code::Aborted, "{status:?}");
            let expected = format!("version {expected} of the rules was expected");
            says(
                status.message(),
                &[&expected, &format!("{in_force} is in force"), "read it"],
            );
        }
    }
    assert_eq!(client.status().await.rules_version, in_force);
    request.expected_version = Some(in_force);
    assert!(put(&client, request).await.expect("in force").version > in_force);
    let request = pb::GetRulesRequest { version: 12_345 };
    let status = client.rules().get(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);
    says(
        status.message(),
        &["version 12345 of the rules is not kept", "in force is"],
    );
}

#[tokio::test]
async fn bad_pages_of_exceptions_are_refused() {
    let (_server, client) = start().await;
    let list = async |kinds: Vec<i32>, page_size: u32, page_token: &str| {
        let request = pb::ListExceptionsRequest {
            kinds,
            page_size,
            page_token: page_token.into(),
            ..pb::ListExceptionsRequest::default()
        };
        patiently(client.operations().list_exceptions(request)).await
    };
    let status = list(vec![], 1_001, "").await.expect_err("refused");
    is_bad(&status, "page_size", "is 1001; at most 1000");
    for token in ["x", "-1", "1-", "1-x", " 1-0", "8000000000000000-0"] {
        let status = list(vec![], 0, token).await.expect_err("refused");
        assert_eq!(violations(&status)[0].0, "page_token", "{token}");
        says(status.message(), &["page before"]);
    }
    for kind in [0, 99, -1] {
        let status = list(vec![1, kind], 0, "").await.expect_err("refused");
        assert_eq!(violations(&status)[0].0, "kinds[1]", "{kind}");
        says(status.message(), &[&kind.to_string()]);
    }
    // The end of all numbers is a token like any other: nothing comes after it.
    let last = format!("{:x}-{:x}", i64::MAX, u128::MAX);
    let page = list(vec![], 0, &last).await.expect("listed");
    assert!(page.into_inner().exceptions.is_empty());
    assert!(list(vec![1, 2, 3, 25], 1_000, "0-0").await.is_ok());
}

#[tokio::test]
async fn conflicting_duplicates_are_parked_and_answered_alike() {
    let (_server, client) = start().await;
    client.post(vec![received("a", "A", 5, "dc")]).await;
    let other = || pb::PostRequest {
        movements: vec![received("a", "A", 6, "dc"), received("b", "A", 1, "dc")],
    };
    for _ in 0..2 {
        let answer = client.movements().post(other()).await.expect("answered");
        let answer = answer.into_inner();
        let parked = &answer.outcomes[0];
        assert_eq!(parked.outcome(), pb::Outcome::Parked, "{parked:?}");
        assert_eq!(parked.parked_as(), pb::ExceptionKind::ConflictingDuplicate);
        says(
            &parked.reason,
            &["first to arrive counts", "release this one too"],
        );
        assert_eq!(answer.outcomes[1].outcome(), pb::Outcome::Applied);
        assert_eq!(
            client.ats("A", answer.position).await.expect("ats").items[0].ats,
            6
        );
    }
    let request = pb::ListExceptionsRequest::default();
    let listed = client
        .operations()
        .list_exceptions(request)
        .await
        .expect("listed");
    let listed = listed.into_inner();
    assert_eq!((listed.total, listed.exceptions.len()), (1, 1));
    assert_eq!(listed.exceptions[0].occurrences, 2);
    assert_eq!(
        (&*listed.exceptions[0].source, &*listed.exceptions[0].id),
        ("test", "a")
    );
}
