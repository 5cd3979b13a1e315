//! `sellable reconcile` against the real program: files, what is shown, exit codes.

#[path = "support/bad.rs"]
mod bad;
#[path = "support/server.rs"]
mod server;
#[path = "support/snapshots.rs"]
mod snapshots;

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
};

use bad::says;
use sellable::proto::v1 as pb;
use serde_json::Value;
use server::{Client, Server, Setup, received};
use snapshots::variances;

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
/// When all stock of these tests came, and a moment after it.
const AS_OF: &str = "2023-11-14T22:13:20Z";

/// A server with ten units each of S0 to S9 at `dc` and at `shop`.
async fn stocked() -> (Server, Client) {
    let server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    let stock = (0..10).flat_map(|n| {
        let sku = format!("S{n}");
        ["dc", "shop"].map(|at| received(&format!("{sku}@{at}"), &sku, 10, at))
    });
    client.post(stock.collect()).await;
    (server, client)
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn csv(rows: &[&str]) -> String {
    let mut text = "sku,location,good,damaged\n".to_owned();
    rows.iter().for_each(|row| text += &format!("{row}\n"));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_compared_shown_exported_and_approved() {
    let (server, client) = stocked().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (file, out_csv, out_json) = (path("monday.csv"), path("out.csv"), path("out.json"));
    let rows = [
        "S0,dc,10,0",
        "S1,dc,12,",
        "S2,dc,110,1",
        "S3,shop,9,0",
        "S4,shop,,0",
    ];
    fs::write(&file, csv(&rows)).expect("written");

    let run = |more: &[&str]| {
        let base = ["reconcile", &file, "--as-of", AS_OF, "--quiet"];
        text(&server.run(&[&base, more].concat()))
    };
    let (code, told, err) = run(&["--export", &out_csv]);
    assert_eq!(code, Some(7), "{told}{err}");
    says(
        &told,
        &[
            "erp/monday.csv",
            "cells compared",
            "100",
            "S2",
            "dc",
            "shop",
            "reported",
        ],
    );
    let exported = fs::read_to_string(&out_csv).expect("exported");
    let lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(
        lines[1].starts_with("S2,dc,good,110,10,100,variance,reported,4,"),
        "{exported}"
    );

    let correct = [
        "--policy", "correct", "--up-to", "2", "--by", "sku", "--export", &out_json,
    ];
    let (code, told, err) = run(&[&correct[..], &["--json"]].concat());
    assert_eq!(code, Some(7), "{told}{err}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["summary"]["corrected"], 3);
    assert_eq!(told["summary"]["held"], 1);
    assert_eq!(told["summary"]["by_sku"][0]["name"], "S2");
    assert_eq!(told["lines"][0]["variance"], 100);
    let exported: Value =
        serde_json::from_str(&fs::read_to_string(&out_json).expect("exported")).expect("JSON");
    assert_eq!(exported, told["lines"]);
    assert_eq!(
        client.ats("S1", 0).await.expect("an answer").items[0].ats,
        22
    );

    let (code, told, _) = text(&server.run(&["reconcile", "reports"]));
    assert_eq!(code, Some(0));
    assert_eq!(told.matches("erp/monday.csv").count(), 2, "{told}");
    let (code, told, _) = text(&server.run(&[
        "reconcile",
        "show",
        "monday.csv",
        "--action",
        "held",
        "--sku",
        "S2",
    ]));
    assert_eq!(code, Some(0));
    says(
        &told,
        &["S2", "held for approval", "sellable reconcile approve"],
    );
    assert!(!told.contains("S3"), "{told}");
    let approve = [
        "reconcile",
        "approve",
        "monday.csv",
        "--sku",
        "S2",
        "--condition",
        "good",
    ];
    let (code, told, err) = text(&server.run(&approve));
    assert_eq!(code, Some(0), "{told}{err}");
    says(&told, &["corrected", "approved", "100"]);
    assert_eq!(
        client.ats("S2", 0).await.expect("an answer").items[0].ats,
        120
    );
    let (code, _, err) = text(&server.run(&approve));
    assert_eq!(code, Some(1));
    says(&err, &["held for approval"]);
    assert!(variances(&client).await.is_empty());

    // Now nothing differs, and the exit code says so.
    let (code, told, _) = run(&["--tolerance", "2s"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, _, err) = text(&server.run(&["reconcile", "show", "nothing"]));
    assert_eq!(code, Some(3));
    says(&err, &["nothing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_lines_are_named_and_stop_everything_unless_they_are_skipped() {
    let (server, client) = stocked().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bad.csv").display().to_string();
    let rows = ["S0,dc,9,0", "S1,dc,ten,0", "S2,dc", "S3,dc,9,0", ",dc,1,0"];
    fs::write(&file, csv(&rows)).expect("written");
    let run = |more: &[&str]| {
        let base = [
            "reconcile",
            &file,
            "--as-of",
            AS_OF,
            "--policy",
            "correct",
            "--up-to",
            "5",
        ];
        text(&server.run(&[&base, more].concat()))
    };
    let (code, _, err) = run(&[]);
    assert_eq!(code, Some(2), "{err}");
    let named = [
        "bad.csv, line 3: good: is \"ten\"",
        "bad.csv, line 4: row: has 2 fields",
        "bad.csv, line 6: sku: is empty",
        "3 lines cannot be read",
        "--skip-bad",
    ];
    says(&err, &named);
    assert_eq!(
        client.ats("S0", 0).await.expect("an answer").items[0].ats,
        20
    );
    assert!(variances(&client).await.is_empty());

    let (code, told, err) = run(&["--skip-bad"]);
    assert_eq!(code, Some(5), "{told}{err}");
    says(&told, &["lines skipped", "3", "corrected", "2"]);
    for sku in ["S0", "S3"] {
        assert_eq!(
            client.ats(sku, 0).await.expect("an answer").items[0].ats,
            19
        );
    }

    // A cell that is stated twice is nobody's to choose, and an unusable file none at all.
    fs::write(&file, csv(&["S0,dc,9,0", "S1,dc,10,0", "S0,dc,8,0"])).expect("written");
    let (code, _, err) = run(&["--skip-bad"]);
    assert_eq!(code, Some(2));
    says(&err, &["lines[4].sku", "line 2"]);
    for (content, says_so) in [
        ("", "empty"),
        ("sku,location,god\n", "did you mean `good`?"),
    ] {
        fs::write(&file, content).expect("written");
        let (code, _, err) = run(&[]);
        assert_eq!(code, Some(2));
        says(&err, &["bad.csv", says_so]);
    }
    let wrong: [(&[&str], i32, &str); 7] = [
        (&[], 2, "no file is named"),
        (&[&file], 2, "--as-of TIME"),
        (&["no.csv", "--as-of", AS_OF], 2, "cannot read no.csv"),
        (&[".", "--as-of", AS_OF, "--format", "csv"], 2, "directory"),
        (&["-", "--as-of", AS_OF, "--format", "csv"], 2, "--snapshot"),
        (
            &[&file, "--as-of", AS_OF, "--up-to", "1"],
            2,
            "--policy correct",
        ),
        (
            &[&file, "--watermark", "erp/1", "--source", "sap"],
            2,
            "--source",
        ),
    ];
    for (arguments, code, says_so) in wrong {
        let (told, _, err) = text(&server.run(&[&["reconcile"], arguments].concat()));
        assert_eq!(told, Some(code), "{arguments:?} {err}");
        says(&err, &[says_so]);
    }
    fs::write(&file, csv(&["S0,dc,9,0"])).expect("written");
    let future = ["reconcile", &file, "--as-of", "2999-01-01T00:00:00Z"];
    let (code, _, err) = text(&server.run(&future));
    assert_eq!(code, Some(2));
    says(&err, &["as_of", "has not come"]);
    let unknown = ["reconcile", &file, "--watermark", "test/none"];
    let (code, _, err) = text(&server.run(&unknown));
    assert_eq!(code, Some(1));
    says(&err, &["no movement \"none\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ndjson_comes_from_stdin_and_a_watermark_names_its_moment() {
    let (server, client) = stocked().await;
    let mut later = received("later", "S0", 5, "dc");
    later.occurred_at = Some(snapshots::at(1_700_000_100));
    client.post(vec![later]).await;
    let mut child = server
        .command(&[
            "reconcile",
            "-",
            "--format",
            "ndjson",
            "--snapshot",
            "night",
            "--json",
            "--watermark",
            "test/S9@shop",
            "--scope",
            "dc",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let mut stdin = child.stdin.take().expect("piped");
    for n in 0..9 {
        writeln!(
            stdin,
            "{{\"sku\":\"S{n}\",\"location\":\"dc\",\"good\":10}}"
        )
        .expect("written");
    }
    drop(stdin);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.expect("waits").expect("it ends");
    let (code, told, err) = text(&output);
    assert_eq!(code, Some(7), "{told}{err}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["source"], &told["watermark"]),
        (&"test".into(), &"S9@shop".into())
    );
    assert_eq!(told["as_of"], AS_OF);
    assert_eq!(told["summary"]["matched"], 9);
    assert_eq!(told["summary"]["missing_in_snapshot"], 1);
    assert_eq!(told["summary"]["false_alarms_avoided"], 1);
    assert_eq!(told["lines"][0]["verdict"], "missing_in_snapshot");
    assert_eq!(told["lines"][0]["sku"], "S9");
    let open = variances(&client).await;
    assert_eq!(open, [("S9".to_owned(), "dc".to_owned(), -10)]);
    let found = text(&server.run(&["exceptions", "--kind", "variance"]));
    says(
        &found.1,
        &["snapshot test/night states 10 fewer units of S9"],
    );
    let ack = pb::ListExceptionsRequest::default();
    let list = client
        .operations()
        .list_exceptions(ack)
        .await
        .expect("a list");
    assert_eq!(list.into_inner().total, 1);
}
