//! `sellable reconcile` against the real program: files, what is shown, exit codes.

use std::{
    fs,
    io::{Seek, Write},
    process::{Output, Stdio},
};

use parquet::{
    basic::{Compression, Encoding, GzipLevel, ZstdLevel},
    file::properties::{WriterProperties, WriterVersion},
};
use sellable::{
    proto::v1 as pb,
    reconcile::files::{self, FileError, Format, Row},
};
use serde_json::Value;

use crate::{
    bad::says,
    parquet_file::{self, Cells},
    server::{Client, Server, Setup, received},
    snapshots::{self, variances},
};

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

/// All columns, two of which have a value in each row.
const FIELDS: &str = "required binary sku (STRING); optional binary location (STRING);
    optional int32 good; required int64 quarantined; optional int32 damaged (INTEGER(16, false));
    optional int64 return_pending (INTEGER(64, false));";

/// So many lines in Parquet's columns, and the same in CSV.
fn snapshot(lines: i64) -> (Vec<Cells>, String) {
    let every = |n: i64, step: i64, units: i64| (n % step != 0).then_some(units);
    let good: Vec<_> = (0..lines).map(|n| every(n, 3, n - 7)).collect();
    let damaged: Vec<_> = (0..lines).map(|n| every(n, 5, n % 60_000)).collect();
    // Nothing in a whole row group.
    let return_pending: Vec<_> = (0..lines).map(|n| (n > 9_000).then_some(n)).collect();
    let i32s = |cells: &[Option<i64>]| {
        let cells = cells.iter().map(|cell| cell.map(|units| units as i32));
        Cells::I32(cells.collect())
    };
    let columns = vec![
        Cells::texts((0..lines).map(|n| format!("Größe-{n}"))),
        Cells::texts((0..lines).map(|n| format!("store-{}", n % 40))),
        i32s(&good),
        Cells::I64((0..lines).map(|n| Some(-n)).collect()),
        i32s(&damaged),
        Cells::I64(return_pending.clone()),
    ];
    let mut csv = "sku,location,good,quarantined,damaged,return_pending\n".to_owned();
    let text = |cell: Option<i64>| cell.map_or(String::new(), |units| units.to_string());
    for n in 0..lines {
        let at = n as usize;
        let [good, damaged, pending] =
            [&good, &damaged, &return_pending].map(|cells| text(cells[at]));
        csv += &format!(
            "Größe-{n},store-{},{good},{},{damaged},{pending}\n",
            n % 40,
            -n
        );
    }
    (columns, csv)
}

/// What is in a file, as it is read from a disk.
fn rows(content: &[u8], format: Format) -> Result<Vec<Row>, FileError> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("written");
    file.rewind().expect("rewound");
    let mut rows = files::open_file(file, format)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next_row()? {
        found.push(row);
        assert!(rows.bytes_read() <= content.len() as u64);
    }
    assert_eq!(rows.bytes_read(), content.len() as u64);
    Ok(found)
}

#[test]
fn parquet_says_the_same_as_csv() {
    let (columns, csv) = snapshot(10_000);
    let mut expected = rows(csv.as_bytes(), Format::Csv).expect("reads");
    for row in &mut expected {
        // There is no header row.
        row.line -= 1;
        row.read.as_mut().expect("right").line -= 1;
    }
    let zstd = ZstdLevel::try_new(3).expect("a level");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(zstd),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        for (dictionary, version, group_rows) in [
            (true, WriterVersion::PARQUET_1_0, 3_000),
            (false, WriterVersion::PARQUET_1_0, 4_096),
            (true, WriterVersion::PARQUET_2_0, 100_000),
            (false, WriterVersion::PARQUET_2_0, 4_097),
        ] {
            let properties = WriterProperties::builder()
                .set_compression(compression)
                .set_dictionary_enabled(dictionary)
                .set_writer_version(version)
                .set_data_page_row_count_limit(700)
                .set_write_batch_size(100);
            let properties = match (dictionary, version) {
                (false, WriterVersion::PARQUET_1_0) => properties.set_encoding(Encoding::PLAIN),
                _ => properties,
            };
            let content = parquet_file::file(FIELDS, &columns, group_rows, properties.build());
            let found = rows(&content, Format::Parquet).expect("reads");
            let what = format!("{compression:?}, dictionary {dictionary}, {version:?}");
            assert!(found == expected, "{what}");
            // As it is read from stdin.
            let copied = files::open(std::io::Cursor::new(content), Format::Parquet);
            let first = copied.expect("opens").next_row().expect("reads");
            assert_eq!(first.as_ref(), expected.first(), "{what}");
        }
    }
    let none = parquet_file::file(
        "required binary sku; required binary location; required int32 good;",
        &[
            Cells::texts([""; 0]),
            Cells::texts([""; 0]),
            Cells::I32(Vec::new()),
        ],
        1,
        WriterProperties::default(),
    );
    assert_eq!(rows(&none, Format::Parquet), Ok(Vec::new()));
}

#[test]
fn what_is_wrong_with_a_file_of_parquet_is_named() {
    let texts = || Cells::texts(["A"]);
    let (i32s, i64s) = (|| Cells::I32(vec![Some(7)]), || Cells::I64(vec![Some(7)]));
    let write = |fields: &str, columns: &[Cells]| {
        parquet_file::file(fields, columns, 1_000, WriterProperties::default())
    };
    let cell = "required binary sku (STRING); required binary location;";
    for (more, units, says_so) in [
        (
            "optional int32 god;",
            i32s(),
            "the schema: has the unknown column \"god\"; did you mean `good`?",
        ),
        (
            "optional binary good (STRING);",
            texts(),
            "column `good` is BYTE_ARRAY (UTF8); a whole number",
        ),
        (
            "optional double good;",
            Cells::F64(vec![Some(7.0)]),
            "column `good` is DOUBLE; a whole number",
        ),
        (
            "optional int32 good (DATE);",
            i32s(),
            "column `good` is INT32 (DATE); a whole",
        ),
        (
            "optional int64 damaged (TIMESTAMP(NANOS,true));",
            i64s(),
            "column `damaged` is INT64 (TIMESTAMP); a whole",
        ),
        (
            "optional int64 good (DECIMAL(15,2));",
            i64s(),
            "column `good` is INT64 (DECIMAL of scale 2); a whole",
        ),
    ] {
        let content = write(&format!("{cell} {more}"), &[texts(), texts(), units]);
        let error = rows(&content, Format::Parquet).expect_err(more).0;
        says(&error, &[says_so]);
    }
    for (fields, columns, says_so) in [
        (
            "required int64 sku; required binary location; required int32 good;",
            [i64s(), texts(), i32s()],
            "column `sku` is INT64; a text",
        ),
        (
            "required binary sku (JSON); required binary location; required int32 good;",
            [texts(), texts(), i32s()],
            "column `sku` is BYTE_ARRAY (JSON); a text",
        ),
        (
            "required binary sku; required int32 good; required int32 damaged;",
            [texts(), i32s(), i32s()],
            "the schema: has no column `location`",
        ),
    ] {
        let content = write(fields, &columns);
        let error = rows(&content, Format::Parquet).expect_err(fields).0;
        says(&error, &[says_so]);
    }
    let no_condition = write(cell, &[texts(), texts()]);
    let error = rows(&no_condition, Format::Parquet)
        .expect_err("no condition")
        .0;
    says(&error, &["the schema: has no column of a condition"]);
    let whole = write(
        &format!("{cell} required int64 good (DECIMAL(15,0));"),
        &[texts(), texts(), i64s()],
    );
    let read = rows(&whole, Format::Parquet).expect("reads");
    assert_eq!(read[0].read.as_ref().expect("right").good, Some(7));
    // No program here writes what cannot be read, so the codec's number (1, doubled) is replaced.
    let snappy = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let one = [texts(), texts(), i64s()];
    let fields = format!("{cell} required int64 good;");
    let content = parquet_file::file(&fields, &one, 1, snappy.build());
    let brotli = (0..content.len()).filter(|at| content[*at] == 2).any(|at| {
        let mut content = content.clone();
        content[at] = 8;
        let read = rows(&content, Format::Parquet);
        read.is_err_and(|error| {
            error
                .0
                .contains("`good` is compressed with BROTLI; use ZSTD")
        })
    });
    assert!(brotli);
    // The header of the first page.
    let mut broken = whole.clone();
    broken[4..20].fill(0xff);
    for (content, says_so) in [
        (&b""[..], "no whole one of Parquet"),
        (b"sku,location,good\nA,dc,1\n", "no whole one of Parquet"),
        (&whole[..whole.len() - 1], "cut off"),
        (&whole[..whole.len() / 2], "cut off"),
        (&broken, "cannot read column `sku` from row 1 on"),
    ] {
        let error = rows(content, Format::Parquet).expect_err(says_so).0;
        says(&error, &[says_so]);
    }
}

/// Whatever is wrong with a file, it must never be taken for one with fewer lines: all others
/// would be missing from the snapshot.
#[test]
fn a_damaged_file_of_parquet_is_never_shorter() {
    let (columns, _) = snapshot(60);
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let properties = WriterProperties::builder().set_compression(compression);
        let whole = parquet_file::file(FIELDS, &columns, 40, properties.build());
        for at in 0..whole.len() {
            for flipped in [0x01, 0xff] {
                let mut content = whole.clone();
                content[at] ^= flipped;
                if let Ok(found) = rows(&content, Format::Parquet) {
                    assert_eq!(found.len(), 60, "byte {at} by {flipped:#x}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_is_compared_like_csv_and_its_bad_lines_are_named() {
    let (server, client) = stocked().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let fields = "optional binary sku (STRING); optional binary location;
        optional int64 good (INTEGER(64, false)); optional int32 damaged;";
    let told = |file: &str, more: &[&str]| {
        let base = ["reconcile", file, "--as-of", AS_OF];
        text(&server.run(&[&base, more].concat()))
    };
    let zstd = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    let columns = [
        Cells::texts(["S0", "S1", "S2", "S3", "S4"]),
        Cells::texts(["dc", "dc", "dc", "shop", "shop"]),
        Cells::I64(vec![Some(10), Some(12), Some(110), Some(9), None]),
        Cells::I32(vec![Some(0), None, Some(1), Some(0), Some(0)]),
    ];
    let content = parquet_file::file(fields, &columns, 2, zstd.build());
    fs::write(path("stock.parquet"), &content).expect("written");
    let lines = csv(&[
        "S0,dc,10,0",
        "S1,dc,12,",
        "S2,dc,110,1",
        "S3,shop,9,0",
        "S4,shop,,0",
    ]);
    fs::write(path("stock.csv"), lines).expect("written");
    let [mut parquet, mut csv] = ["stock.parquet", "stock.csv"].map(|name| {
        let (code, told, err) = told(&path(name), &["--json", "--quiet"]);
        assert_eq!(code, Some(7), "{told}{err}");
        serde_json::from_str::<Value>(&told).expect("JSON")
    });
    assert_eq!(parquet["lines"][0]["line"], 3);
    assert_eq!(csv["lines"][0]["line"], 4);
    for told in [&mut parquet, &mut csv] {
        for line in told["lines"].as_array_mut().expect("lines") {
            line["line"].take();
        }
    }
    assert_eq!(parquet["lines"], csv["lines"]);
    assert_eq!(parquet["summary"], csv["summary"]);

    let bad = [
        Cells::Bytes(
            [
                Some(&b"S0"[..]),
                None,
                Some(b"\xff"),
                Some(b"S3"),
                Some(b"S4"),
                Some(b"S5"),
            ]
            .map(|sku| sku.map(<[u8]>::to_vec))
            .to_vec(),
        ),
        Cells::texts(["dc"; 6]),
        Cells::I64(vec![Some(9), Some(1), Some(1), Some(-1), None, Some(9)]),
        Cells::I32(vec![None; 6]),
    ];
    let content = parquet_file::file(fields, &bad, 4, WriterProperties::default());
    fs::write(path("bad.parquet"), &content).expect("written");
    let correct = ["--policy", "correct", "--up-to", "5"];
    let (code, _, err) = told(&path("bad.parquet"), &correct);
    assert_eq!(code, Some(2), "{err}");
    let named = [
        "bad.parquet, line 2: sku: is missing",
        "bad.parquet, line 3: sku: is not UTF-8",
        "bad.parquet, line 4: good: is 18446744073709551615; at most",
        "bad.parquet, line 5: good: is missing",
        "4 lines cannot be read",
        "--skip-bad",
    ];
    says(&err, &named);
    assert_eq!(
        client.ats("S0", 0).await.expect("an answer").items[0].ats,
        20
    );
    let (code, shown, err) = told(
        &path("bad.parquet"),
        &[&correct[..], &["--skip-bad"]].concat(),
    );
    assert_eq!(code, Some(5), "{shown}{err}");
    for sku in ["S0", "S5"] {
        assert_eq!(
            client.ats(sku, 0).await.expect("an answer").items[0].ats,
            19
        );
    }

    fs::write(path("cut.parquet"), &content[..content.len() - 9]).expect("written");
    let (code, _, err) = told(&path("cut.parquet"), &[]);
    assert_eq!(code, Some(2), "{err}");
    says(
        &err,
        &[
            "cut.parquet: the file is no whole one of Parquet",
            "cut off",
        ],
    );
}
