//! The invariants of ARCHITECTURE.md that a test can hold up: what may depend on what, and that
//! the domain is pure. Each ban names what to do instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders of `src` and the modules of this crate that they may use.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("domain", &["domain", "limits"]),
    ("wire", &["wire", "domain", "limits", "log", "proto"]),
    ("log", &["log", "domain", "limits"]),
    ("checkpoint", &["checkpoint", "domain", "limits", "log"]),
    (
        "shard",
        &["shard", "checkpoint", "domain", "limits", "log", "sync"],
    ),
    (
        "intake",
        &[
            "intake",
            "shard",
            "checkpoint",
            "wire",
            "domain",
            "limits",
            "log",
            "proto",
        ],
    ),
    (
        "api",
        &[
            "api",
            "feed",
            "reconcile",
            "instance",
            "intake",
            "shard",
            "wire",
            "domain",
            "limits",
            "log",
            "proto",
        ],
    ),
    (
        "reconcile",
        &[
            "reconcile",
            "instance",
            "intake",
            "wire",
            "domain",
            "limits",
            "log",
            "proto",
        ],
    ),
    (
        "feed",
        &[
            "feed", "instance", "intake", "shard", "wire", "domain", "limits", "log", "proto",
        ],
    ),
    (
        "ops",
        &["ops", "api", "feed", "instance", "domain", "proto"],
    ),
];

/// What the domain may use beside itself, and why it is pure.
const DOMAIN_CRATES: [&str; 9] = [
    "std",
    "core",
    "hashbrown",   // tables
    "slab",        // tables by number
    "smallvec",    // short lists without an allocation
    "xxhash_rust", // stable hashes
    "toml",        // the rules document
    "serde",       // the rules document
    "proptest",    // its tests
];

/// What makes a state machine impure, and what to use instead.
const DOMAIN_BANS: [(&str, &str); 16] = [
    ("async ", "effects are data; whoever runs them may be async"),
    (".await", "effects are data; whoever runs them may be async"),
    ("std::time", "time is the record's time"),
    ("SystemTime", "time is the record's time"),
    ("Instant::", "time is the record's time"),
    ("std::fs", "the caller reads, the domain parses"),
    ("std::io", "the caller reads, the domain parses"),
    ("std::net", "the caller reads, the domain parses"),
    ("std::env", "settings are parameters"),
    ("std::thread", "one writer for each ledger"),
    ("RandomState", "a hasher without random keys"),
    ("rand::", "commands carry what is random"),
    ("f32", "integers: all replicas must round alike"),
    ("f64", "integers: all replicas must round alike"),
    ("println!", "return it"),
    ("tracing::", "return it"),
];

const FILE_LINES_MAX: usize = 800;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty(), "nothing to look at in {folder}");
    files
}

/// The code without comments, line by line.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part == "tests" || part.ends_with("tests.rs") || part == "conformance.rs"
    })
}

/// What follows each `crate::` in a line.
fn crate_uses(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, _)| {
        let rest = &line[at + "crate::".len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// Modules named at the first level of `use crate::{ … }`.
fn grouped_uses(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (at, start) in text.match_indices("use crate::{") {
        let (mut depth, mut word) = (1, String::new());
        for c in text[at + start.len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && (c.is_alphanumeric() || c == '_') {
                word.push(c);
                continue;
            }
            if !word.is_empty() && (depth == 2 || matches!(c, ':' | ',' | '}')) {
                modules.push(std::mem::take(&mut word));
            }
            // The rest of a path belongs to the module just named.
            if depth == 0 {
                break;
            }
        }
    }
    modules
}

#[test]
fn arrows_point_down() {
    for (folder, may_use) in MAY_USE {
        for (path, text) in sources(&format!("src/{folder}")) {
            for (number, line) in code(&text) {
                for module in crate_uses(line).filter(|module| !module.is_empty()) {
                    assert!(
                        may_use.contains(&module),
                        "{}:{number}: {folder} may not use `{module}`, only {may_use:?}",
                        path.display()
                    );
                }
            }
            let all = [
                "api",
                "app",
                "checkpoint",
                "cli",
                "config",
                "instance",
                "intake",
                "ops",
                "reconcile",
                "shard",
            ];
            for module in grouped_uses(&text) {
                let ours = all.contains(&module.as_str());
                assert!(
                    !ours || may_use.contains(&module.as_str()),
                    "{}: {folder} may not use `{module}`, only {may_use:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_domain_is_pure() {
    for (path, text) in sources("src/domain") {
        for (number, line) in code(&text) {
            let place = format!("{}:{number}", path.display());
            for (ban, instead) in DOMAIN_BANS {
                assert!(
                    !line.contains(ban),
                    "{place}: `{ban}` in the domain: {instead}"
                );
            }
            let used = line.trim().strip_prefix("use ");
            let used = used.map(|used| used.split("::").next().unwrap_or("").trim());
            if let Some(used) = used.filter(|used| !matches!(*used, "crate" | "super" | "self")) {
                let module = used.trim_end_matches(';');
                let own = text.contains(&format!("mod {module};"));
                assert!(
                    own || DOMAIN_CRATES.contains(&module),
                    "{place}: the domain may not use the crate `{module}`"
                );
            }
        }
    }
}

/// The tests above can fail.
#[test]
fn a_breach_is_noticed() {
    assert_eq!(
        crate_uses("use crate::shard::View; x(crate::api::y)").collect::<Vec<_>>(),
        ["shard", "api"]
    );
    let grouped = grouped_uses(
        "use crate::{\n    domain::{keys::Keyer, rules},\n    api,\n    log::Log,\n};",
    );
    for module in ["domain", "api", "log"] {
        assert!(grouped.iter().any(|used| used == module), "{grouped:?}");
    }
    assert!(
        DOMAIN_BANS
            .iter()
            .any(|(ban, _)| "let now = Instant::now();".contains(ban))
    );
}

#[test]
fn files_are_short() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines: split it by what it is about",
            path.display()
        );
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let block = line.contains("unsafe {") && !line.trim_start().starts_with("//");
            let near = lines[at.saturating_sub(4)..=at].join("\n");
            assert!(
                !block || near.contains("SAFETY") || is_test(&path),
                "{}:{}: an unsafe block without a reason",
                path.display(),
                at + 1
            );
        }
    }
}
