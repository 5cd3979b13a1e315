//! The command line with bad files and without a server: exit codes, and what it says.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    process::{Ended, free_port, program, run, run_with_input},
    server::{Server, Setup},
};

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const UNAVAILABLE: i32 = 4;
const PARTIAL: i32 = 5;

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";

fn start() -> Server {
    Setup::new().rules(RULES).start()
}

fn post(server: &Server, dir: &Path, arguments: &[&str]) -> Command {
    let mut words = vec!["post", "--quiet"];
    words.extend(arguments);
    let mut command = server.command(&words);
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// What is told of each bad line: its number, the field and the reason, from the JSON summary.
fn problems(ended: &Ended) -> Vec<(u64, String, String)> {
    let summary: Value = serde_json::from_str(&ended.stdout).expect("a JSON summary");
    let problems = summary["problems"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    problems
        .map(|p| {
            (
                p["line"].as_u64().expect("a line"),
                text(&p["field"]),
                text(&p["reason"]),
            )
        })
        .collect()
}

/// Units that the web may sell of the SKU that the files are about.
fn ats(server: &Server) -> i64 {
    let ended = run(server.command(&["query", "--channel", "web", "GOOD", "--json"]));
    let answer: Value = serde_json::from_str(&ended.stdout).expect("an answer");
    answer["ats"].as_i64().expect("a number")
}

fn good(id: &str) -> String {
    format!(
        r#"{{"type":"received","id":"{id}","source":"wms","occurred_at":"2026-01-02T03:04:05Z","sku":"GOOD","quantity":1,"location":"dc"}}"#
    )
}

/// Bad lines of NDJSON: the field, a part of the reason, and the line.
fn bad_lines() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let with = |from: &str, to: &str| {
        let line = good("bad");
        assert!(line.contains(from), "{from}");
        line.replacen(from, to, 1).into_bytes()
    };
    vec![
        (
            "json",
            "is not UTF-8 (at byte ",
            b"{\"id\":\"\xff\"}".to_vec(),
        ),
        ("json", "is wrong: ", good("bad").as_bytes()[..50].to_vec()),
        ("json", "is wrong: ", b"id,type,sku".to_vec()),
        (
            "json",
            "is an array; an object",
            format!("[{}]", good("bad")).into_bytes(),
        ),
        ("json", "is null; an object", b"null".to_vec()),
        (
            "sku",
            "is there twice",
            with("\"sku\"", "\"sku\":\"X\",\"sku\""),
        ),
        (
            "quantity",
            "is 99999999999999999999, which is beyond 64 bits",
            with(":1,", ":99999999999999999999,"),
        ),
        (
            "quantity",
            "is the text \"1\"; an integer, without quotes",
            with(":1,", ":\"1\","),
        ),
        ("quantity", "is 1.0; an integer", with(":1,", ":1.0,")),
        (
            "quantity",
            "is true or false; an integer",
            with(":1,", ":true,"),
        ),
        (
            "quantity",
            "is 0; a movement moves something",
            with(":1,", ":0,"),
        ),
        (
            "quantity",
            "is -1; only `adjusted` may be negative",
            with(":1,", ":-1,"),
        ),
        (
            "quantity",
            "at most 1000000000 units",
            with(":1,", ":1000000001,"),
        ),
        (
            "quantity",
            "is missing; it is required",
            with("\"quantity\":1,", ""),
        ),
        (
            "sku",
            "is the number 5; a text, in quotes",
            with("\"GOOD\"", "5"),
        ),
        (
            "sku",
            "has 101 bytes; at most 100",
            with("GOOD", &"x".repeat(101)),
        ),
        (
            "locaton",
            "did you mean `location`?",
            with("\"location\"", "\"locaton\""),
        ),
        (
            "order",
            "is no field of `received`",
            with("\"sku\"", "\"order\":\"o\",\"sku\""),
        ),
        (
            "line",
            "is missing; `inbound` needs it",
            with("\"sku\"", "\"inbound\":\"po\",\"sku\""),
        ),
        (
            "location",
            "is no field of `return_refunded`",
            with(
                "\"received\"",
                "\"return_refunded\",\"return\":\"r\",\"line\":\"1\"",
            ),
        ),
        (
            "amount",
            "is 19.99; an integer in the currency's minor unit",
            with("\"sku\"", "\"amount\":19.99,\"sku\""),
        ),
        (
            "type",
            "did you mean `received`?",
            with("\"received\"", "\"Received\""),
        ),
        (
            "occurred_at",
            "without an offset from UTC",
            with("05Z", "05"),
        ),
        ("occurred_at", "is ", with("2026-01", "2026-13")),
        (
            "occurred_at",
            "ahead of the log's time",
            with("2026", "9998"),
        ),
        ("source", "only A-Z a-z 0-9 _ and -", with("wms", "w.m.s")),
        ("type", "is \"sellable.movement.x.v9\"", cloud_event()),
    ]
}

fn cloud_event() -> Vec<u8> {
    br#"{"specversion":"1.0","type":"sellable.movement.x.v9","id":"bad","source":"wms","data":{}}"#
        .to_vec()
}

#[test]
fn bad_lines_are_told_and_kept_and_the_good_ones_applied() {
    let server = start();
    let dir = tempfile::tempdir().expect("a directory");
    let table = bad_lines();
    let (mut file, mut rejects) = (b"\xef\xbb\xbf".to_vec(), Vec::new());
    let mut lines = Vec::new();
    for (number, (_, _, bad)) in table.iter().enumerate() {
        file.extend(format!("{}\n\n", good(&number.to_string())).bytes());
        lines.push(file.iter().filter(|byte| **byte == b'\n').count() as u64 + 1);
        // The last line has no end of its own, which the file of rejects gives it.
        let end = if number + 1 < table.len() { "\r\n" } else { "" };
        for to in [&mut file, &mut rejects] {
            to.extend(bad);
            to.extend(end.bytes());
        }
    }
    rejects.push(b'\n');
    fs::write(dir.path().join("in.ndjson"), &file).expect("written");
    let arguments = ["in.ndjson", "--rejects", "out.ndjson", "--json"];
    let ended = run(post(&server, dir.path(), &arguments));
    assert_eq!(ended.code, Some(PARTIAL), "{ended:?}");
    let told = problems(&ended);
    // So many are told one by one; the others are counted, and in the file.
    assert_eq!(told.len(), 20);
    let in_order = |text: &str, part: &str| text.contains(part);
    // What is found here is told before what the server finds.
    for (line, field, reason) in &told {
        let number = lines.iter().position(|at| at == line).expect("a bad line");
        let (expected, part, _) = &table[number];
        assert_eq!(field.rsplit('.').next(), Some(*expected), "{line} {reason}");
        assert!(in_order(reason, part), "{part:?} is missing in {reason:?}");
        ended.says(PARTIAL, &[&format!("line {line}: invalid: {field}: ")]);
    }
    ended.says(PARTIAL, &["more problems follow"]);
    let mut kept = sorted_lines(&fs::read(dir.path().join("out.ndjson")).expect("rejects"));
    assert_eq!(kept, sorted_lines(&rejects));
    kept.clear();
    let summary: Value = serde_json::from_str(&ended.stdout).expect("a JSON summary");
    assert_eq!(summary["invalid"], table.len());
    assert_eq!(summary["applied"], table.len());
    assert_eq!(ats(&server), table.len() as i64);
    // Posting it again is safe.
    let again = run(post(&server, dir.path(), &["in.ndjson"]));
    assert_eq!(again.code, Some(PARTIAL));
    assert_eq!(ats(&server), table.len() as i64);
}

/// Rejects of the server come after those that are found on the way to it.
fn sorted_lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = bytes
        .split_inclusive(|b| *b == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    lines.sort();
    lines
}

#[test]
fn each_bad_line_alone_is_told_for_people() {
    let server = start();
    let dir = tempfile::tempdir().expect("a directory");
    for (field, reason, bad) in bad_lines() {
        let mut command = post(&server, dir.path(), &["-", "--format", "ndjson"]);
        command.env("LANG", "C");
        let ended = run_with_input(command, &bad);
        ended.says(
            PARTIAL,
            &["line 1: invalid: ", &format!("{field}: "), reason],
        );
        assert!(ended.stdout.contains("invalid"), "{ended:?}");
    }
}

#[test]
fn a_movement_without_end_does_not_hold_up_its_neighbours() {
    let server = start();
    let dir = tempfile::tempdir().expect("a directory");
    // Together larger than any message that the server takes.
    let mut file = String::new();
    for number in 0..20 {
        let endless = good("endless").replace("GOOD", &"x".repeat(900_000));
        file.push_str(&format!("{}\n{endless}\n", good(&number.to_string())));
    }
    fs::write(dir.path().join("in.ndjson"), file).expect("written");
    let ended = run(post(&server, dir.path(), &["in.ndjson"]));
    ended.says(
        PARTIAL,
        &["line 2: invalid: sku: has 900000 bytes; at most 100"],
    );
    assert_eq!(ats(&server), 20);
    // A line that is no line at all ends it, since nothing tells where the next movement starts.
    fs::write(dir.path().join("in.ndjson"), vec![b'x'; 2 << 20]).expect("written");
    run(post(&server, dir.path(), &["in.ndjson"])).says(
        USAGE,
        &[
            "line 1 has more than 1048576 bytes",
            "one movement on each line",
        ],
    );
}

#[test]
fn bad_rows_are_told_and_kept_with_the_header() {
    let server = start();
    let dir = tempfile::tempdir().expect("a directory");
    let header = "id,type,source,occurred_at,sku,quantity,location\n";
    let row = |id: &str, sku: &str, quantity: &str| {
        format!("{id},received,wms,2026-01-02T03:04:05Z,{sku},{quantity},dc\n")
    };
    let bad: Vec<(&str, &str, Vec<u8>)> = vec![
        (
            "sku",
            "is not UTF-8",
            row("b", "?", "1")
                .replace('?', "\u{1}")
                .bytes()
                .map(|b| if b == 1 { 0xff } else { b })
                .collect(),
        ),
        (
            "quantity",
            "is many; an integer",
            row("b", "GOOD", "many").into_bytes(),
        ),
        (
            "quantity",
            "beyond 64 bits",
            row("b", "GOOD", "9223372036854775808").into_bytes(),
        ),
        (
            "quantity",
            "is 1.5; an integer",
            row("b", "GOOD", "1.5").into_bytes(),
        ),
        ("quantity", "is missing", row("b", "GOOD", "").into_bytes()),
        ("sku", "is missing", row("b", "", "1").into_bytes()),
        (
            "row",
            "has 2 fields, and the header has 7",
            b"b,received\n".to_vec(),
        ),
        (
            "row",
            "has 8 fields, and the header has 7",
            b"b,received,wms,2026-01-02T03:04:05Z,GOOD,1,dc,\n".to_vec(),
        ),
        (
            "quantity",
            "is 0; a movement moves something",
            row("b", "GOOD", "0").into_bytes(),
        ),
        ("sku", "white space", row("b", " GOOD", "1").into_bytes()),
    ];
    let (mut file, mut rejects) = (header.as_bytes().to_vec(), Vec::new());
    let mut lines = Vec::new();
    for (number, (_, _, bytes)) in bad.iter().enumerate() {
        // A quoted field over two lines counts as two.
        file.extend(
            row(&format!("\"{number}\n\"\"a\"\"\""), "GOOD", "1")
                .replace("\n\"\"a\"\"", "")
                .bytes(),
        );
        file.extend(b"\n");
        lines.push(file.iter().filter(|byte| **byte == b'\n').count() as u64 + 1);
        file.extend(bytes);
        rejects.extend(bytes);
    }
    fs::write(dir.path().join("in.csv"), &file).expect("written");
    let ended = run(post(
        &server,
        dir.path(),
        &["in.csv", "--rejects", "out.csv", "--json"],
    ));
    assert_eq!(ended.code, Some(PARTIAL), "{ended:?}");
    let told = problems(&ended);
    assert_eq!(told.len(), bad.len(), "{told:?}");
    for ((line, field, reason), ((expected, part, _), at)) in
        told.iter().zip(bad.iter().zip(&lines))
    {
        assert_eq!((line, &**field), (at, *expected), "{reason}");
        assert!(reason.contains(part), "{part:?} is missing in {reason:?}");
    }
    let kept = fs::read(dir.path().join("out.csv")).expect("rejects");
    assert_eq!(kept, [header.as_bytes(), &rejects].concat());
    assert_eq!(ats(&server), bad.len() as i64);
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let server = start();
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("folder.csv")).expect("made");
    let full = "id,type,source,occurred_at,sku,quantity,location";
    for (name, text, said) in [
        (
            "empty.csv",
            "",
            "the file is empty; CSV starts with a header row",
        ),
        (
            "rows.csv",
            "1,received,wms,2026-01-02T03:04:05Z,A,1,dc\n",
            "has the unknown column \"1\"; columns are type, id",
        ),
        (
            "near.csv",
            "id,type,source,occured_at\n",
            "did you mean `occurred_at`?",
        ),
        ("twice.csv", "id,type,id\n", "has the column `id` twice"),
        ("few.csv", "id,type\n", "has no column `occurred_at`"),
        (
            "semicolons.csv",
            &full.replace(',', ";"),
            "has the unknown column",
        ),
    ] {
        fs::write(dir.path().join(name), text).expect("written");
        run(post(&server, dir.path(), &[name])).says(USAGE, &[said]);
    }
    fs::write(dir.path().join("latin1.csv"), b"id,type,\xe9\n").expect("written");
    run(post(&server, dir.path(), &["latin1.csv"])).says(USAGE, &["cannot read the file", "UTF-8"]);
    let next = "name a file of movements, or - to read them from stdin";
    run(post(&server, dir.path(), &["folder.csv"]))
        .says(USAGE, &["folder.csv is a directory", next]);
    run(post(&server, dir.path(), &["missing.csv"]))
        .says(USAGE, &["cannot read missing.csv", "No such file", next]);
    fs::write(dir.path().join("movements.txt"), "").expect("written");
    run(post(&server, dir.path(), &["movements.txt"])).says(
        USAGE,
        &[
            "the form of movements.txt does not follow from its name",
            "say --format ndjson or --format csv",
        ],
    );
    fs::write(dir.path().join("a.ndjson"), good("1")).expect("written");
    run(post(
        &server,
        dir.path(),
        &["a.ndjson", "--rejects", "a.ndjson"],
    ))
    .says(USAGE, &["--rejects names the file that is posted"]);
    run(post(
        &server,
        dir.path(),
        &["a.ndjson", "--rejects", "no/such/place"],
    ))
    .says(1, &["cannot write no/such/place"]);
    assert_eq!(
        fs::read_to_string(dir.path().join("a.ndjson")).expect("kept"),
        good("1")
    );
    // Nothing is no movement, but no mistake either.
    fs::write(dir.path().join("empty.ndjson"), "\n \n").expect("written");
    run(post(&server, dir.path(), &["empty.ndjson"])).says(0, &[]);
}

#[test]
fn a_stdin_that_is_closed_is_an_empty_one() {
    let server = start();
    let closed = |arguments: &str| {
        let mut shell = Command::new("sh");
        let program = program();
        let script = format!(
            "exec \"$0\" post - --quiet {arguments} --server {} <&-",
            server.url()
        );
        shell.args(["-c", &script]).arg(program.get_program());
        run(shell)
    };
    closed("--format ndjson").says(0, &[]);
    closed("--format csv").says(USAGE, &["the file is empty; CSV starts with a header row"]);
    closed("").says(USAGE, &["say --format ndjson or --format csv"]);
    let mut query = server.command(&["query", "--channel", "web", "-"]);
    query.stdin(Stdio::null());
    run(query).says(USAGE, &["no SKUs on stdin", "give one a line"]);
    let query = server.command(&["query", "--channel", "web", "-"]);
    run_with_input(query, b"A\n\xff\n").says(USAGE, &["cannot read SKUs from stdin", "UTF-8"]);
}

#[test]
fn without_a_server_every_command_says_how_to_get_one() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("a.ndjson"), good("1")).expect("written");
    fs::write(dir.path().join("rules.toml"), RULES).expect("written");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let commands: [&[&str]; 9] = [
        &["query", "--channel", "web", "A"],
        &["explain", "--channel", "web", "A"],
        &["status"],
        &["status", "--wait", "0"],
        &["exceptions"],
        &["digest"],
        &["rules", "get"],
        &["rules", "put", "rules.toml"],
        &["post", "a.ndjson", "--rejects", "rejects"],
    ];
    for arguments in commands {
        for json in [false, true] {
            let mut command = program();
            command
                .args(arguments)
                .args(["--server", &nobody])
                .current_dir(dir.path());
            if json {
                command.arg("--json");
            }
            let ended = run(command);
            ended.says(
                UNAVAILABLE,
                &[
                    &format!("no server answers at {nobody}"),
                    "refused",
                    "start one with `sellable serve` or `sellable demo`, or name it with --server",
                ],
            );
            if json {
                let error: Value = serde_json::from_str(&ended.stderr).expect("JSON");
                assert_eq!(error["error"]["exit_code"], UNAVAILABLE);
            }
        }
    }
    assert!(!dir.path().join("rejects").exists());
    for address in [
        "https://localhost:7420",
        "http://",
        "local host",
        "http://a b",
    ] {
        let mut command = program();
        command.args(["status", "--server", address]);
        run(command).says(
            USAGE,
            &["is no address of a server", "write it as http://host:7420"],
        );
    }
}

#[test]
fn what_is_unknown_is_told() {
    let server = start();
    let asked = |arguments: &[&str]| run(server.command(arguments));
    for command in ["query", "explain"] {
        asked(&[command, "--channel", "wep", "A"]).says(
            NOT_FOUND,
            &["there is no channel \"wep\"; the rules have web"],
        );
        asked(&[command, "--channel", "web", &"x".repeat(101)]).says(USAGE, &["101 bytes", "100"]);
    }
    let unknown = asked(&["query", "--channel", "web", "A"]);
    assert!(
        unknown
            .says(NOT_FOUND, &[])
            .stdout
            .contains("no movement ever named it")
    );
    asked(&[
        "query",
        "--channel",
        "web",
        "A",
        "--min-position",
        "999",
        "--timeout",
        "60",
    ])
    .says(
        UNAVAILABLE,
        &["min_position 999 was not reached", "try again"],
    );
    asked(&["rules", "get", "--version", "999"])
        .says(NOT_FOUND, &["version 999 of the rules is not kept"]);
    asked(&["exceptions", "--kind", "odd"]).says(USAGE, &["malformed", "conflicting_duplicate"]);
    asked(&["nonsense"]).says(USAGE, &["nonsense", "--help"]);
    asked(&["query", "A"]).says(USAGE, &["--channel"]);
}
