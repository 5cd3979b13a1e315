//! The program and the server, each as a process of its own.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// A few seconds of everything.
pub(crate) const DAY: &str = r#"
name = "day"
summary = "Everything, in little"

[catalogue]
skus = 200
centres = 2
stores = 4
stores_per_sku = 2
centre_units = 20

[shopping]
zipf = 1.2
skus_per_query = [1, 10]
cart_lines = [1, 4]
think_ms = [5, 200]
pack_ms = [5, 200]
abandon_seconds = 1

[movements]
batch = 5

[watchers]
per_channel = 1

[[phase]]
name = "warm"
seconds = 1
warm_up = true
queries = 50
reserves = 20

[[phase]]
name = "day"
seconds = 2
queries = { from = 50, to = 200 }
reserves = 100
movements = 200
returns = 20
probes = 20
"#;

/// The server: the one that `SELLABLE_TEST_SERVER` names, or else the one beside this program, which a
/// test run of the workspace has just built, or else one that is built now.
pub(crate) fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_sellable-loadtest")).with_file_name("sellable");
        match std::env::var_os("SELLABLE_TEST_SERVER") {
            Some(server) => server.into(),
            None if beside.exists() => beside,
            None => build(),
        }
    })
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new(env!("CARGO"))
        // With all members, as a test run of the workspace is: or dependencies would be built anew
        // for the features of one of them.
        .args(["build", "--workspace", "--bin", "sellable"])
        .args(["--message-format", "json"])
        .current_dir(&workspace)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(built.status.success(), "the server is not built");
    // Where it lies is for cargo to say: the target directory may be anywhere.
    let said = String::from_utf8(built.stdout).expect("text");
    let messages = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut files = messages.filter_map(|message| Some(message["executable"].as_str()?.to_owned()));
    PathBuf::from(files.next_back().expect("cargo names what it built"))
}

/// Runs the program to its end.
pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sellable-loadtest"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be run")
}

/// Runs a scenario against a server of its own; it has to hold.
pub(crate) fn outcome_of(scenario: &str, more: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("day.toml");
    std::fs::write(&file, scenario).expect("a file");
    let (file, binary) = (
        file.to_str().expect("text"),
        server().to_str().expect("text"),
    );
    let base = ["run", file, "--json", "--server-binary", binary];
    let ended = loadtest(&[&base, more].concat());
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let outcome: Value = serde_json::from_slice(&ended.stdout).expect(&said);
    assert_eq!(ended.status.code(), Some(0), "{}", outcome["reasons"]);
    outcome
}

/// What came of one kind of call.
pub(crate) fn kind<'a>(outcome: &'a Value, name: &str) -> &'a Value {
    let kinds = outcome["kinds"].as_array().expect("kinds");
    let found = kinds.iter().find(|kind| kind["kind"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {kinds:?}"))
}
