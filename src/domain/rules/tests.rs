//! Documents in, rules or findings out.

use std::sync::Arc;

use super::{Memberships, Rules};
use crate::domain::document::{DocumentError, Warning};
use crate::limits;

pub(super) fn rules(text: &str) -> Rules {
    match Rules::parse(text) {
        Ok((rules, _)) => rules,
        Err(error) => panic!("{error}\nin\n{text}"),
    }
}

fn error(text: &str) -> DocumentError {
    Rules::parse(text).expect_err(text)
}

fn shown(findings: &[Warning]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Locations that a channel sells a SKU from, in order of priority.
pub(super) fn order<'n>(
    rules: &Rules,
    channel: &str,
    sku: &str,
    locations: &[&'n str],
) -> Vec<&'n str> {
    let channel = rules.channel(channel).unwrap();
    let policy = rules.policy(channel, sku);
    let mut found: Vec<(u32, &str)> = locations
        .iter()
        .filter_map(|location| {
            let all = rules.memberships(location);
            let own = all.into_iter().find(|own| own.channel == channel)?;
            own.sells(policy).then_some((own.rank, *location))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, location)| location).collect()
}

const EXAMPLE: &str = include_str!("../../../examples/rules.toml");

#[test]
fn the_example_says_what_its_comments_say() {
    let (rules, warnings) = Rules::parse(EXAMPLE).unwrap();
    assert_eq!(shown(&warnings), [""; 0]);
    let names: Vec<&str> = rules.channels().map(|(_, name)| name).collect();
    assert_eq!(names, ["app", "marketplace", "web"]);

    let mut locations: Vec<String> = (1..=50).map(|n| format!("store-{n:03}")).collect();
    locations.extend(["dc-east".to_owned(), "dc-west".to_owned()]);
    let locations: Vec<&str> = locations.iter().map(String::as_str).collect();
    assert_eq!(
        shown(&rules.warnings(|name| locations.contains(&name))),
        [""; 0]
    );
    assert_eq!(
        shown(&rules.pattern_warnings(locations.iter().copied())),
        [""; 0]
    );

    let web = order(&rules, "web", "SHIRT", &locations);
    let stores = [
        "store-007",
        "store-012",
        "store-001",
        "store-002",
        "store-003",
    ];
    assert_eq!(web[..2], ["dc-east", "dc-west"]);
    assert_eq!(web[2..7], stores);
    assert_eq!(web.len(), 9);
    assert_eq!(
        order(&rules, "web", "SNEAKER-24-BLUE", &locations),
        ["dc-east", "dc-west"]
    );

    let app = order(&rules, "app", "SHIRT", &locations);
    assert_eq!(app.len(), 51);
    assert!(!app.contains(&"store-042"));
    assert_eq!(app[49..], ["dc-east", "dc-west"]);

    let web = rules.channel("web").unwrap();
    assert!(rules.policy(web, "SNEAKER-24-RED-42").paused);
    assert_eq!(
        rules.policy(web, "SNEAKER-24-RED-42").minimum,
        3,
        "one override applies, not two"
    );
    assert_eq!(
        rules.override_key(web, "SNEAKER-24-RED-42"),
        Some("SNEAKER-24-RED-42")
    );
    assert_eq!(
        rules.override_key(web, "SNEAKER-24-RED-43"),
        Some("SNEAKER-24-*")
    );
    assert_eq!(rules.override_key(web, "SHIRT"), None);

    let marketplace = rules.policy(rules.channel("marketplace").unwrap(), "SHIRT");
    assert_eq!(marketplace.ats(100), 60);
    assert_eq!(marketplace.ats(16), 0, "9 is below the minimum of 10");
    assert_eq!(marketplace.ats(5_000), 500);
}

#[test]
fn the_empty_document_is_the_built_in_rules() {
    let (empty, warnings) = Rules::parse("").unwrap();
    assert_eq!(empty, Rules::default());
    assert_eq!(warnings, []);
    assert_eq!(empty.channel_count(), 0);
    assert_eq!(empty.memberships("dc-east"), []);
    assert!(!empty.has_overrides_for("SHIRT"));
}

#[test]
fn documents_are_equal_if_their_text_is() {
    let text = "[channel.web]\nsources = ['a']\n";
    assert_eq!(rules(text), rules(text));
    assert_ne!(rules(text), rules(&format!("# why\n{text}")));
    assert_eq!(rules(text).text(), text);
}

/// One mistake each: the document, and what is said about it.
#[test]
fn each_error_names_its_place() {
    let table = [
        // Keys.
        (
            "[channels.web]\nsources = ['a']",
            "line 1, column 2: channels: unknown key (did you mean `channel`?); known are `groups` and `channel`",
        ),
        (
            "[channel.web]\nsources = ['a']\nbufer = 2",
            "line 3, column 1: channel.web.bufer: unknown key (did you mean `buffer`?)",
        ),
        (
            "[channel.web]\nsources = ['a']\n[channel.web.override.X]\ncolour = 2",
            "line 4, column 1: channel.web.override.X.colour: unknown key",
        ),
        (
            "[channel.web]\nsources = ['a']\n[channel.web.override.X]\nsources = ['b']",
            "line 4, column 1: channel.web.override.X.sources: an override cannot set `sources`",
        ),
        (
            "\n[channel.web]\nbuffer = 1",
            "line 2, column 10: channel.web: has no `sources`; list the groups and locations it sells from",
        ),
        // Defined twice.
        (
            "[channel.web]\nsources = ['a']\n\n[channel.web]\nbuffer = 1",
            "line 4, column 10: channel.web: the channel `web` is defined twice; first in line 1",
        ),
        (
            "[groups]\ndcs = ['a']\ndcs = ['b']\n[channel.web]\nsources = ['@dcs']",
            "line 3, column 1: groups.dcs: the group `dcs` is defined twice; first in line 2",
        ),
        (
            "[channel.web]\nsources = ['a']\nbuffer = 1\nbuffer = 2",
            "line 4, column 1: channel.web.buffer: `buffer` is defined twice; first in line 3",
        ),
        (
            "[channel.web]\nsources = ['a']\n[channel.web.override.'A*']\npaused = true\n[channel.web.override.\"A*\"]",
            "line 5, column 23: channel.web.override.\"A*\": the override for `A*` is defined twice; first in line 3",
        ),
        // Lists of locations.
        (
            "[groups]\nstores = ['store-*']\n[channel.web]\nsources = [\n  '@stores',\n  '@store',\n]",
            "line 6, column 3: channel.web.sources: there is no group `store` (did you mean `stores`?)",
        ),
        (
            "[channel.web]\nsources = ['a']\nexclude = ['@outlets']",
            "line 3, column 12: channel.web.exclude: there is no group `outlets`",
        ),
        (
            "[groups]\nstores = ['store-*']\n[channel.web]\nsources = ['stores']",
            "line 4, column 12: channel.web.sources: `stores` is a group; write `@stores`",
        ),
        (
            "[groups]\na = ['x']\nb = ['@a']\n[channel.web]\nsources = ['@a', '@b']",
            "line 3, column 6: groups.b: `@a` is a group; groups cannot be members of groups",
        ),
        (
            "[groups]\n'@a' = ['x']",
            "line 2, column 1: groups.\"@a\": the name of a group is written without `@` here",
        ),
        (
            "[channel.web]\nsources = ['a', 'b', 'a']",
            "line 2, column 22: channel.web.sources: `a` is listed twice",
        ),
        (
            "[channel.web]\nsources = ['store-[0-4']",
            "line 2, column 12: channel.web.sources: the pattern `store-[0-4` has a `[` without a `]` after it",
        ),
        (
            "[channel.web]\nsources = ['']",
            "line 2, column 12: channel.web.sources: the location is empty; it is required",
        ),
        (
            "[channel.web]\nsources = [' a']",
            "line 2, column 12: channel.web.sources: the location starts or ends with white space",
        ),
        // Values.
        (
            "[channel.web]\nsources = ['a']\nshare_percent = 101",
            "line 3, column 17: channel.web.share_percent: 101 is out of range; 0 to 100",
        ),
        (
            "[channel.web]\nsources = ['a']\nbuffer_percent = -1",
            "line 3, column 18: channel.web.buffer_percent: -1 is out of range; 0 to 100",
        ),
        (
            "[channel.web]\nsources = ['a']\nbuffer = 1_000_000_001",
            "line 3, column 10: channel.web.buffer: 1000000001 is out of range; 0 to 1000000000",
        ),
        (
            "[channel.web]\nsources = ['a']\nmaximum = 99999999999999999999",
            "line 3, column 11: channel.web.maximum: 99999999999999999999 is out of range; 0 to 1000000000000000",
        ),
        (
            "[channel.web]\nsources = ['a']\nminimum = 6\nmaximum = 5",
            "line 3, column 11: channel.web.minimum: `minimum` (6) is larger than `maximum` (5)",
        ),
        (
            "[channel.web]\nsources = ['a']\nminimum = 6\n[channel.web.override.X]\nmaximum = 5",
            "line 5, column 11: channel.web.override.X.maximum: `minimum` (6) is larger than `maximum` (5)",
        ),
        // Types.
        (
            "[channel.web]\nsources = 'dcs'",
            "line 2, column 11: channel.web.sources: is a text; it must be a list of texts",
        ),
        (
            "[channel.web]\nsources = ['a', 7]",
            "line 2, column 17: channel.web.sources: is a whole number; it must be a list of texts only",
        ),
        (
            "[channel.web]\nsources = ['a']\nbuffer = 1.5",
            "line 3, column 10: channel.web.buffer: is a fraction; it must be a whole number",
        ),
        (
            "[channel.web]\nsources = ['a']\npaused = 'yes'",
            "line 3, column 10: channel.web.paused: is a text; it must be `true` or `false`",
        ),
        (
            "[channel]\nweb = 1979-05-27",
            "line 2, column 7: channel.web: is a date or time; it must be a table",
        ),
        (
            "groups = true",
            "line 1, column 10: groups: is `true` or `false`; it must be a table",
        ),
        (
            "[[channel.web]]\nsources = ['a']",
            "line 1, column 1: channel.web: is a list; it must be a table",
        ),
        // Names.
        (
            "[channel.'']\nsources = ['a']",
            "line 1, column 10: channel.\"\": the name is empty; it is required",
        ),
        (
            "[channel.web]\nsources = ['a']\n[channel.web.override.'SHOE-*-RED']\nbuffer = 1",
            "line 3, column 23: channel.web.override.\"SHOE-*-RED\": a `*` may stand only at the end: an override is for a SKU or a prefix",
        ),
        (
            "[channel.web]\nsources = ['a']\n[channel.web.override.'*']\nbuffer = 1",
            "line 3, column 23: channel.web.override.\"*\": matches every SKU; set the terms of the channel itself instead",
        ),
        // Not TOML.
        (
            "[channel.web]\nsources = ['a']\npaused = yes",
            "line 3, column 10: not TOML: string values must be quoted, expected literal string",
        ),
        (
            "[channel.web]\nsources = ['a'",
            "line 2, column 15: not TOML: unclosed array, expected `]`",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(shown(&error(text).findings), [expected], "in\n{text}");
    }
}

#[test]
fn windows_line_ends_change_nothing() {
    let text = "[channel.web]\r\nsources = ['a']\r\n[channel.web]\r\nbuffer = -1\r\n";
    assert_eq!(
        shown(&error(text).findings),
        [
            "line 3, column 10: channel.web: the channel `web` is defined twice; first in line 1",
            "line 4, column 10: channel.web.buffer: -1 is out of range; 0 to 1000000000",
        ]
    );
}

/// Each of these takes minutes if anything in reading grows with the square of the document.
#[test]
fn the_largest_documents_are_read_in_time() {
    let groups: String = (0..40_000).map(|n| format!("g{n} = []\n")).collect();
    let wrong: String = (0..40_000).map(|n| format!("'@h{n}',")).collect();
    let flood = format!("[groups]\n{groups}[channel.web]\nsources = [{wrong}]\n");
    assert_eq!(error(&flood).omitted, 40_000 - limits::RULES_FINDINGS_MAX);

    let unseen: String = (0..40_000).map(|n| format!("'h{n}',")).collect();
    let unseen = rules(&format!(
        "[groups]\n{groups}[channel.web]\nsources = [{unseen}]\n"
    ));
    assert_eq!(unseen.warnings(|_| false).len(), limits::RULES_FINDINGS_MAX);

    // All but the first are duplicates, and `sources` is missing.
    let twice = "[channel.web]\n".repeat(65_000);
    assert_eq!(error(&twice).omitted, 65_000 - limits::RULES_FINDINGS_MAX);

    let tables = |n: usize| format!("[channel.c{n}]\nsources = ['a']\n");
    let tables: String = (0..10_000).chain(0..10_000).map(tables).collect();
    assert_eq!(error(&tables).findings.len(), limits::RULES_FINDINGS_MAX);

    let keys = format!("[channel.web]\n{}", "buffer = 1\n".repeat(80_000));
    assert_eq!(error(&keys).omitted, 80_000 - limits::RULES_FINDINGS_MAX);
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    for text in [
        format!("{}a = 1", "a.".repeat(limits::RULES_BYTES_MAX / 4)),
        format!("[{}a]", "a.".repeat(limits::RULES_BYTES_MAX / 4)),
        format!("groups = {}", "[".repeat(limits::RULES_BYTES_MAX / 2)),
        format!("groups = {}", "{a=".repeat(limits::RULES_BYTES_MAX / 4)),
    ] {
        assert!(!error(&text).findings.is_empty());
    }
}

#[test]
fn names_keep_their_limits() {
    let long = |bytes_max: usize| "x".repeat(bytes_max + 1);
    let channel = long(limits::CHANNEL_BYTES_MAX);
    let location = long(limits::LOCATION_BYTES_MAX);
    let sku = long(limits::SKU_BYTES_MAX);
    let table = [
        (
            format!("[channel.{channel}]\nsources = ['a']"),
            1,
            "the name has 65 bytes; at most 64",
        ),
        (
            format!("[channel.web]\nsources = ['{location}']"),
            2,
            "the location has 65 bytes; at most 64",
        ),
        (
            format!("[channel.web]\nsources = ['a']\n[channel.web.override.{sku}]\npaused = true"),
            3,
            "the name has 101 bytes; at most 100",
        ),
        (
            format!("[groups]\n{location} = []"),
            2,
            "the name has 65 bytes; at most 64",
        ),
    ];
    for (text, line, message) in table {
        let findings = error(&text).findings;
        assert_eq!(findings.len(), 1, "{text}");
        assert_eq!(
            (findings[0].line, findings[0].message.as_str()),
            (line, message)
        );
    }
}

#[test]
fn there_are_only_so_many_channels_and_bytes() {
    let channels = |n: usize| -> String {
        (0..n)
            .map(|n| format!("[channel.c{n}]\nsources = ['a']\n"))
            .collect()
    };
    assert_eq!(
        rules(&channels(limits::CHANNELS_MAX)).channel_count(),
        limits::CHANNELS_MAX
    );
    assert_eq!(
        error(&channels(limits::CHANNELS_MAX + 1)).to_string(),
        "the rules document has an error:\nline 513, column 10: channel: there are 257 channels; at most 256"
    );

    let full = format!("#{}", " ".repeat(limits::RULES_BYTES_MAX - 1));
    assert_eq!(rules(&full).channel_count(), 0);
    assert_eq!(
        error(&format!("{full} ")).to_string(),
        "the rules document has an error:\nline 1, column 1: the document has 917505 bytes; at most 917504"
    );
}

#[test]
fn all_errors_are_found_in_one_go() {
    let text = "\
[channel.web]
sources = ['@dc', 'a[']
buffer = -1
colour = 'red'
[channel.app]
paused = maybe
share_percent = 200
[channel.app]
maximum = 'many'
[group]
dcs = []
";
    let error = error(text);
    let lines: Vec<u32> = error.findings.iter().map(|finding| finding.line).collect();
    // Line 6 is no TOML, so nothing is said of what may merely be unreadable: the group of line 2
    // and the sources of the app.
    assert_eq!(lines, [2, 3, 4, 6, 7, 8, 9, 10], "{error}");
    assert!(
        error
            .to_string()
            .starts_with("the rules document has 8 errors:\nline 2, ")
    );
}

#[test]
fn a_flood_of_errors_is_cut_and_counted() {
    let keys: String = (0..150).map(|n| format!("k{n} = 1\n")).collect();
    let error = error(&keys);
    assert_eq!((error.findings.len(), error.omitted), (100, 50));
    assert_eq!(error.findings[99].line, 100);
    assert!(error.to_string().ends_with("\nand 50 more"));
}

#[test]
fn warnings_are_about_what_is_allowed_and_odd() {
    let text = "\
[groups]
stores = ['store-*', 'outlet-1']
empty = []
[channel.web]
sources = ['store', 'dc-east']
exclude = ['kiosk-?']
[channel.app]
sources = []
[channel.app.override.X]
[channel.app.override.Y]
exclude = ['@empty', 'dc-west']
";
    let (rules, warnings) = Rules::parse(text).unwrap();
    assert_eq!(
        shown(&warnings),
        [
            "line 2, column 1: groups.stores: no channel uses the group",
            "line 3, column 1: groups.empty: the group is empty",
            "line 8, column 1: channel.app.sources: the list is empty: the channel sells nothing",
            "line 9, column 23: channel.app.override.X: the override changes nothing",
        ]
    );
    let known = ["dc-east", "store-001"];
    assert_eq!(
        shown(&rules.warnings(|name| known.contains(&name))),
        [
            "line 2, column 22: groups.stores: the location `outlet-1` has never been seen",
            "line 5, column 12: channel.web.sources: the location `store` has never been seen (did you mean the group `@stores`?)",
            "line 11, column 22: channel.app.override.Y.exclude: the location `dc-west` has never been seen",
        ]
    );
    assert_eq!(
        shown(&rules.pattern_warnings(known)),
        [
            "line 6, column 12: channel.web.exclude: the pattern `kiosk-?` matches no location seen so far"
        ]
    );
}

#[test]
fn the_first_entry_that_matches_gives_the_priority() {
    let text = "\
[groups]
far = ['z', 'm-*', 'a']
[channel.web]
sources = ['m-9', '@far', 'b-*', 'b-1', 'c']
";
    let locations = ["a", "b-1", "b-0", "c", "d", "m-1", "m-9", "m-0", "z"];
    assert_eq!(
        order(&rules(text), "web", "X", &locations),
        ["m-9", "z", "m-0", "m-1", "a", "b-0", "b-1", "c"]
    );
}

#[test]
fn an_override_replaces_the_exclusions_of_its_channel() {
    let text = "\
[channel.web]
sources = ['*']
exclude = ['b', 'c']
[channel.web.override.NONE]
exclude = []
[channel.web.override.OTHER]
exclude = ['a', 'c']
[channel.web.override.SAME]
buffer = 1
[channel.app]
sources = ['a', 'b']
exclude = ['b']
";
    let rules = rules(text);
    for (sku, expected) in [
        ("X", &["a", "d"][..]),
        ("NONE", &["a", "b", "c", "d"]),
        ("OTHER", &["b", "d"]),
        ("SAME", &["a", "d"]),
    ] {
        assert_eq!(
            order(&rules, "web", sku, &["a", "b", "c", "d"]),
            expected,
            "{sku}"
        );
    }
    // What no SKU of a channel is sold from costs its movements nothing.
    let of_b: Vec<&str> = rules
        .memberships("b")
        .iter()
        .map(|own| rules.channel_name(own.channel))
        .collect();
    assert_eq!(of_b, ["web"]);
}

#[test]
fn a_location_contributes_only_if_the_channel_sells_from_it() {
    let text = "[channel.web]\nsources = ['*']\nexclude = ['b']\nbuffer = 2\n\
                [channel.web.override.X]\nexclude = ['a']\n";
    let rules = rules(text);
    let web = rules.channel("web").unwrap();
    let contribution =
        |location, sku| rules.memberships(location)[0].contribution(rules.policy(web, sku), 10, 3);
    assert_eq!(contribution("a", "Y"), 5);
    assert_eq!(contribution("a", "X"), 0);
    assert_eq!(contribution("b", "X"), 5);
    assert_eq!(contribution("b", "Y"), 0);
}

#[test]
fn memberships_are_found_once_and_kept() {
    let rules = Arc::new(rules("[channel.web]\nsources = ['a', 'b']\n"));
    let mut memberships = Memberships::new(Arc::clone(&rules));
    assert_eq!(memberships.get(7), None);
    assert_eq!(memberships.of(7, "b"), rules.memberships("b"));
    assert_eq!(memberships.get(7), Some(rules.memberships("b").as_slice()));
    assert_eq!(memberships.get(6), None, "not asked for yet");
    assert_eq!(memberships.of(6, "nowhere"), []);
    assert_eq!(memberships.get(6), Some(&[][..]), "asked for, and none");
    assert!(Arc::ptr_eq(memberships.rules(), &rules));
}
