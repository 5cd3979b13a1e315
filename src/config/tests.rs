use super::*;

fn from_file(text: &str) -> Result<Loaded, ConfigErrors> {
    load(&Sources {
        file: Some(("sellable.toml", text)),
        ..Sources::default()
    })
}

fn flag(flag: &str, key: &str, value: &str) -> FlagValue {
    FlagValue {
        flag: flag.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn env(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The message of the only error.
fn message(result: Result<Loaded, ConfigErrors>) -> String {
    let errors = result.expect_err("this is wrong");
    assert_eq!(errors.0.len(), 1, "{errors}");
    errors.to_string()
}

#[test]
fn the_printed_document_says_the_defaults() {
    let printed = template();
    let loaded = from_file(&printed).expect("the template is valid");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, Vec::<String>::new());
    for (key, setting) in KEYS.iter().zip(&loaded.settings) {
        assert!(
            matches!(setting.origin, Origin::File { .. }),
            "{} is missing",
            key.name
        );
        assert!(printed.contains(&key.env()), "{} has no variable", key.name);
    }
}

#[test]
fn keys_are_well_formed() {
    for (n, key) in KEYS.iter().enumerate() {
        assert!(key.kind.parse(key.default).is_ok(), "{}", key.name);
        assert!(!key.doc.is_empty() && key.name.split('.').count() <= 2);
        for other in &KEYS[n + 1..] {
            assert_ne!(key.env(), other.env());
            assert!(key.flag.is_none() || key.flag != other.flag);
        }
    }
    assert_eq!(
        Key::find("http.listen").map(Key::env).as_deref(),
        Some("SELLABLE_HTTP_LISTEN")
    );
}

#[test]
fn later_sources_win() {
    let file = "shards = 2\n[trace]\nfilter = \"warn\"\n[ids]\nmax = 5_000\n";
    let loaded = load(&Sources {
        file: Some(("sellable.toml", file)),
        env: env(&[("SELLABLE_SHARDS", "3"), ("SELLABLE_TRACE_FILTER", "error")]),
        flags: vec![
            flag("--shards", "shards", "4"),
            flag("--set", "shards", "5"),
        ],
    })
    .expect("valid");
    assert_eq!(loaded.config.shards, 5);
    assert_eq!(loaded.config.trace_filter, "error");
    assert_eq!(loaded.config.ids_max, 5_000);
    assert_eq!(loaded.config.listen.port(), 7420);
    let origin = |name: &str| {
        let index = KEYS.iter().position(|key| key.name == name).expect("known");
        loaded.settings[index].origin.to_string()
    };
    assert_eq!(origin("shards"), "flag --set");
    assert_eq!(
        origin("trace.filter"),
        "environment variable SELLABLE_TRACE_FILTER"
    );
    assert_eq!(origin("ids.max"), "sellable.toml:5");
    assert_eq!(origin("listen"), "default");
}

#[test]
fn errors_name_the_key_and_the_place() {
    let cases = [
        (
            "shards = 1\n\n[intake]\ngather_wait_u = 5\n",
            "sellable.toml:4: `intake.gather_wait_u` is not known; did you mean `intake.gather_wait_us`?",
        ),
        (
            "gather_wait_us = 5\n",
            "sellable.toml:1: `gather_wait_us` is not known; did you mean `intake.gather_wait_us`?",
        ),
        (
            "colour = 5\n",
            "sellable.toml:1: `colour` is not known; `sellable config` lists every key",
        ),
        (
            "\nshards = \"two\"\n",
            "sellable.toml:2: `shards` is the text \"two\"; it takes a whole number from 0 to 256 (shards)",
        ),
        (
            "shards = 257\n",
            "sellable.toml:1: `shards` is 257; it takes a whole number from 0 to 256 (shards)",
        ),
        (
            "shards = -1\n",
            "sellable.toml:1: `shards` is -1; it takes a whole number from 0 to 256 (shards)",
        ),
        (
            "listen = 7420\n",
            "sellable.toml:1: `listen` is the number 7420; it takes an IP address and port, as 127.0.0.1:7420",
        ),
        (
            "listen = \"localhost\"\n",
            "sellable.toml:1: `listen` is \"localhost\"; it takes an IP address and port, as 127.0.0.1:7420",
        ),
        (
            "[journal]\nsync = \"never\"\n",
            "sellable.toml:2: `journal.sync` is \"never\"; it takes \"always\", \"interval\" or \"os\"",
        ),
        (
            "nats = \"nats://localhost\"\n",
            "sellable.toml:1: `nats` is a section: write [nats] and its keys below",
        ),
        (
            "data_dir = \"\"\n",
            "sellable.toml:1: `data_dir` is \"\"; it takes a path",
        ),
        (
            "[trace]\nformat = [\"text\"]\n",
            "sellable.toml:2: `trace.format` is of type array; it takes \"text\" or \"json\"",
        ),
        (
            "[nats]\nurl = \"http://nats:4222\"\n",
            "sellable.toml:2: `nats.url` has \"http://nats:4222\"; a server is written nats://host:4222 (or tls://, ws://, wss://)",
        ),
    ];
    for (text, wanted) in cases {
        assert_eq!(message(from_file(text)), wanted);
    }
    let broken = message(from_file("shards = 1\nlisten = \n"));
    assert!(
        broken.starts_with("sellable.toml:2: is no TOML: "),
        "{broken}"
    );
}

#[test]
fn errors_name_the_variable_and_the_flag() {
    let result = load(&Sources {
        env: env(&[("SELLABLE_IDS_MAX", "many")]),
        ..Sources::default()
    });
    assert_eq!(
        message(result),
        "environment variable SELLABLE_IDS_MAX: `ids.max` is \"many\"; it takes a whole number from 1000 to 10000000000 (ids)"
    );
    let result = load(&Sources {
        flags: vec![flag("--set", "jurnal.sync", "os")],
        ..Sources::default()
    });
    assert_eq!(
        message(result),
        "flag --set: `jurnal.sync` is not known; did you mean `journal.sync`?"
    );
}

#[test]
fn all_errors_are_reported_at_once() {
    let errors = from_file("shard = 1\nlisten = 3\n[ids]\nmax = 1\n").expect_err("wrong");
    let keys: Vec<&str> = errors.0.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["shard", "listen", "ids.max"]);
}

#[test]
fn keys_are_checked_together() {
    assert_eq!(
        message(from_file("[http]\nlisten = \"127.0.0.1:7420\"\n")),
        "sellable.toml:2: `http.listen` is the same as `listen`; they need two ports"
    );
    let credentials = message(from_file("[nats]\ncredentials_file = \"x.creds\"\n"));
    assert!(credentials.contains("`nats.url` is not"), "{credentials}");
}

#[test]
fn foreign_variables_are_left_alone_and_near_misses_told() {
    let loaded = load(&Sources {
        env: env(&[
            ("SELLABLE_PORT", "tcp://10.0.0.1:7420"),
            ("SELLABLE_SERVICE_HOST", "10.0.0.1"),
            ("SELLABLE_SHARD", "4"),
            ("HOME", "/"),
        ]),
        ..Sources::default()
    })
    .expect("valid");
    assert_eq!(
        loaded.warnings,
        [
            "environment variable SELLABLE_SHARD is not known and has no effect; did you mean SELLABLE_SHARDS?"
        ]
    );
}

#[test]
fn the_engine_and_the_shards_follow() {
    let config = Config::default();
    assert_eq!(config.engine(), Engine::Embedded);
    assert_eq!(
        [0, 1, 2, 16].map(|cores| config.shard_count(cores)),
        [1, 1, 1, 15]
    );
    let loaded = from_file("shards = 7\n[nats]\nurl = \"nats://a:4222,b\"\n").expect("valid");
    assert_eq!(loaded.config.engine(), Engine::JetStream);
    assert_eq!(loaded.config.shard_count(2), 7);
}

#[test]
fn passwords_are_not_shown() {
    let loaded = from_file("[nats]\nurl = \"nats://user:p@ss@a:4222,tls://b\"\n").expect("valid");
    let text = effective_text(&loaded);
    assert!(text.contains("\"nats://***@a:4222,tls://b\""), "{text}");
    assert!(!effective_json(&loaded).to_string().contains("p@ss"));
}
