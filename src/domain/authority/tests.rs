//! Documents in, answers or findings out.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Authority, Permissions};
use crate::domain::document::{DocumentError, Pattern, Warning};
use crate::domain::movement::KIND_NAMES;
use crate::limits;

fn authority(text: &str) -> Authority {
    match Authority::parse(text) {
        Ok((authority, _)) => authority,
        Err(error) => panic!("{error}\nin\n{text}"),
    }
}

fn error(text: &str) -> DocumentError {
    Authority::parse(text).expect_err(text)
}

fn shown(findings: &[Warning]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

fn number(kind: &str) -> u8 {
    let at = KIND_NAMES.iter().position(|name| *name == kind);
    u8::try_from(at.expect(kind)).unwrap()
}

#[test]
fn the_example_says_what_its_comments_say() {
    let text = include_str!("../../../examples/authority.toml");
    let (authority, warnings) = Authority::parse(text).unwrap();
    assert_eq!(shown(&warnings), [""; 0]);
    assert!(!authority.is_open());
    let known = ["dc-east", "dc-west", "3pl-north"];
    let stores = (1..=50).map(|n| format!("store-{n:03}"));
    let locations: Vec<String> = known.map(String::from).into_iter().chain(stores).collect();
    let is_known = |name: &str| locations.iter().any(|own| own == name);
    let names = locations.iter().map(String::as_str);
    assert_eq!(shown(&authority.warnings(is_known)), [""; 0]);
    assert_eq!(shown(&authority.pattern_warnings(names)), [""; 0]);

    for (source, kind, location, expected) in [
        ("oms", "reserved", Some("store-042"), true),
        ("oms", "released", None, true),
        ("oms", "inbound_cancelled", None, true),
        ("oms", "shipped", Some("dc-east"), false),
        ("wms", "shipped", Some("dc-east"), true),
        ("wms", "transfer_closed", None, true),
        ("wms", "transfer_shipped", Some("dc-west"), true),
        ("wms", "shipped", Some("3pl-north"), false),
        ("wms", "reserved", Some("dc-east"), false),
        ("pos", "issued", Some("store-042"), true),
        ("pos", "issued", Some("dc-east"), false),
        ("pos", "shipped", Some("store-003"), true),
        ("pos", "shipped", Some("store-042"), false),
        ("returns", "return_inspected", Some("store-042"), true),
        ("returns", "return_inspected", Some("dc-east"), false),
        ("returns", "return_refunded", None, false),
        ("finance", "return_refunded", None, true),
        ("finance", "adjusted", Some("dc-east"), true),
        ("partner-3pl", "received", Some("3pl-north"), true),
        ("partner-3pl", "received", Some("dc-east"), false),
        ("erp", "received", Some("dc-east"), false),
    ] {
        let allowed = authority.may(source, number(kind), location);
        assert_eq!(allowed, expected, "{source} {kind} {location:?}");
    }
}

#[test]
fn the_empty_document_allows_everything() {
    let (empty, warnings) = Authority::parse("").unwrap();
    assert_eq!(empty, Authority::default());
    assert!(empty.is_open() && Authority::default().is_open());
    assert_eq!(
        shown(&warnings),
        ["line 1, column 1: source: none is named: every source may post everything"]
    );
    for kind in 0..20 {
        assert!(empty.may("anybody", kind, Some("anywhere")));
        assert!(empty.may("anybody", kind, None));
    }
}

#[test]
fn one_named_source_shuts_out_all_others() {
    let authority = authority("[source.wms]\nmay = ['*']\n");
    for kind in 0..20 {
        assert!(authority.may("wms", kind, Some("anywhere")));
        assert!(authority.may("wms", kind, None));
        assert!(!authority.may("pos", kind, Some("anywhere")));
        assert!(!authority.may("WMS", kind, None), "names differ by case");
    }
}

#[test]
fn what_any_grant_allows_is_allowed() {
    let authority = authority(
        "\
[groups]
stores = ['store-*', 'outlet-1']
[[source.pos]]
may = ['issued']
locations = ['@stores']
[[source.pos]]
may = ['received', 'released']
locations = ['dc-east', 'outlet-*']
[[source.pos]]
may = ['return_refunded']
locations = []
",
    );
    for (kind, location, expected) in [
        ("issued", Some("store-1"), true),
        ("issued", Some("outlet-1"), true),
        ("issued", Some("outlet-2"), false),
        ("issued", Some("dc-east"), false),
        ("received", Some("store-1"), false),
        ("received", Some("outlet-1"), true),
        ("received", Some("dc-east"), true),
        // A location that is not named cannot be wrong.
        ("released", None, true),
        ("released", Some("store-1"), false),
        ("return_refunded", None, true),
        ("return_cancelled", None, false),
    ] {
        let allowed = authority.may("pos", number(kind), location);
        assert_eq!(allowed, expected, "{kind} {location:?}");
    }
}

#[test]
fn a_refusal_says_what_is_missing() {
    let authority = authority(
        "[source.pos]\nmay = ['issued']\nlocations = ['store-*']\n[source.finance]\nmay = []\n",
    );
    for (source, kind, location, expected) in [
        (
            "pos",
            "issued",
            Some("dc-east"),
            "the source authority lets `pos` post `issued`, but not for the location `dc-east`",
        ),
        (
            "pos",
            "shipped",
            Some("store-1"),
            "the source authority does not let `pos` post `shipped`",
        ),
        (
            "finance",
            "return_refunded",
            None,
            "the source authority does not let `finance` post `return_refunded`",
        ),
        (
            "erp",
            "received",
            Some("dc-east"),
            "the source authority does not name the source `erp`",
        ),
    ] {
        assert!(!authority.may(source, number(kind), location));
        assert_eq!(authority.refusal(source, number(kind), location), expected);
    }
}

#[test]
fn documents_are_equal_if_their_text_is() {
    let text = "[source.wms]\nmay = ['*']\n";
    assert_eq!(authority(text), authority(text));
    assert_ne!(authority(text), authority(&format!("# why\n{text}")));
    assert_eq!(authority(text).text(), text);
}

const KINDS: &str = "received, issued, reclassified, adjusted, counted, reserved, released, reassigned, \
                     picked, packed, shipped, inbound_expected, inbound_cancelled, \
                     transfer_shipped, transfer_received, transfer_closed, return_authorized, \
                     return_cancelled, return_received, return_inspected, return_refunded";

/// One mistake each: the document, and what is said about it.
#[test]
fn each_error_names_its_place() {
    let table = [
        // Keys.
        (
            "[sources.wms]\nmay = ['*']",
            "line 1, column 2: sources: unknown key (did you mean `source`?); known are `groups` and `source`",
        ),
        (
            "[source.wms]\nmay = ['*']\nlocation = ['a']",
            "line 3, column 1: source.wms.location: unknown key (did you mean `locations`?); known are `may` and `locations`",
        ),
        (
            "[[source.wms]]\nmay = ['*']\n[[source.wms]]\nmay = ['*']\ngrant = 1",
            "line 5, column 1: source.wms.grant: unknown key; known are `may` and `locations`",
        ),
        (
            "\n[source.wms]\nlocations = ['a']",
            "line 2, column 9: source.wms: has no `may`; list the kinds of movements that it may post",
        ),
        (
            "[[source.wms]]\nmay = ['*']\n[[source.wms]]\nlocations = ['a']",
            "line 3, column 1: source.wms: has no `may`; list the kinds of movements that it may post",
        ),
        // Defined twice.
        (
            "[source.pos]\nmay = ['issued']\n\n[source.pos]\nmay = ['shipped']",
            "line 4, column 9: source.pos: the source `pos` is defined twice; first in line 1; if it has several grants, write each as `[[source.pos]]`",
        ),
        (
            "[[source.pos]]\nmay = ['issued']\n[source.pos]\nmay = ['shipped']",
            "line 3, column 9: source.pos: the source `pos` is defined twice; first in line 1; if it has several grants, write each as `[[source.pos]]`",
        ),
        (
            "[source.pos]\nmay = ['issued']\n[[source.pos]]\nmay = ['shipped']",
            "line 3, column 10: source.pos: the source `pos` is defined twice; first in line 1; if it has several grants, write each as `[[source.pos]]`",
        ),
        (
            "[source.pos]\nmay = ['issued']\nmay = ['shipped']",
            "line 3, column 1: source.pos.may: `may` is defined twice; first in line 2",
        ),
        (
            "[[source.pos]]\nmay = ['issued']\n[[source.pos]]\nmay = ['shipped']\nmay = ['packed']",
            "line 5, column 1: source.pos.may: `may` is defined twice; first in line 4",
        ),
        (
            "[groups]\ndcs = ['a']\ndcs = ['b']\n[source.wms]\nmay = ['*']\nlocations = ['@dcs']",
            "line 3, column 1: groups.dcs: the group `dcs` is defined twice; first in line 2",
        ),
        // Kinds.
        (
            "[source.wms]\nmay = [\n  'received',\n  'shiped',\n]",
            "line 4, column 3: source.wms.may: there is no kind of movement `shiped` (did you mean `shipped`?)",
        ),
        (
            "[source.wms]\nmay = ['shipped', 'picked', 'shipped']",
            "line 2, column 29: source.wms.may: `shipped` is listed twice",
        ),
        (
            "[source.wms]\nmay = ['transfer_[']",
            "line 2, column 8: source.wms.may: the pattern `transfer_[` has a `[` without a `]` after it",
        ),
        // Lists of locations.
        (
            "[groups]\nstores = ['store-*']\n[source.pos]\nmay = ['*']\nlocations = ['@stores', '@store']",
            "line 5, column 25: source.pos.locations: there is no group `store` (did you mean `stores`?)",
        ),
        (
            "[groups]\nstores = ['store-*']\n[source.pos]\nmay = ['*']\nlocations = ['@stores', 'stores']",
            "line 5, column 25: source.pos.locations: `stores` is a group; write `@stores`",
        ),
        (
            "[source.wms]\nmay = ['*']\nlocations = ['dc-[9-0]']",
            "line 3, column 14: source.wms.locations: the pattern `dc-[9-0]` has the range `9-0`, which is backwards",
        ),
        (
            "[source.wms]\nmay = ['*']\nlocations = [' a']",
            "line 3, column 14: source.wms.locations: the location starts or ends with white space",
        ),
        // Types.
        (
            "[source.wms]\nmay = 'received'",
            "line 2, column 7: source.wms.may: is a text; it must be a list of texts",
        ),
        (
            "[source.wms]\nmay = ['received', 7]",
            "line 2, column 20: source.wms.may: is a whole number; it must be a list of texts only",
        ),
        (
            "[source.wms]\nmay = ['*']\nlocations = true",
            "line 3, column 13: source.wms.locations: is `true` or `false`; it must be a list of texts",
        ),
        (
            "[source]\nwms = ['received']",
            "line 2, column 8: source.wms: is a text; it must be a table",
        ),
        (
            "source = 'wms'",
            "line 1, column 10: source: is a text; it must be a table",
        ),
        // Names.
        (
            "[source.'pos till']\nmay = ['*']",
            "line 1, column 9: source.\"pos till\": the name has ' '; only A-Z a-z 0-9 _ and - (it is a token of a NATS subject)",
        ),
        (
            "[source.'']\nmay = ['*']",
            "line 1, column 9: source.\"\": the name is empty; it is required",
        ),
        // Not TOML.
        (
            "[source.wms]\nmay = [received]",
            "line 2, column 8: not TOML: string values must be quoted, expected literal string",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(shown(&error(text).findings), [expected], "in\n{text}");
    }
    // What is not close to any kind: all of them.
    for (kind, message) in [
        ("sold", "there is no kind of movement `sold`"),
        ("@stock", "there is no kind of movement `@stock`"),
        ("xfer_*", "the pattern `xfer_*` matches no kind of movement"),
    ] {
        let text = format!("[source.wms]\nmay = ['{kind}']");
        let expected = format!("line 2, column 8: source.wms.may: {message}; known are {KINDS}");
        assert_eq!(shown(&error(&text).findings), [expected]);
    }
}

#[test]
fn all_errors_are_found_in_one_go() {
    let text = "\
[source.wms]
may = ['shiped', 'picked']
locations = ['@dcs']
[source.pos]
locations = ['a[']
[rules]
";
    assert_eq!(
        error(text).to_string(),
        "the authority document has 5 errors:\n\
         line 2, column 8: source.wms.may: there is no kind of movement `shiped` (did you mean `shipped`?)\n\
         line 3, column 14: source.wms.locations: there is no group `dcs`\n\
         line 4, column 9: source.pos: has no `may`; list the kinds of movements that it may post\n\
         line 5, column 14: source.pos.locations: the pattern `a[` has a `[` without a `]` after it\n\
         line 6, column 2: rules: unknown key; known are `groups` and `source`"
    );
}

#[test]
fn warnings_are_about_what_is_allowed_and_odd() {
    let text = "\
[groups]
stores = ['store-*', 'outlet-1']
none = []
[source]
erp = []
[source.finance]
may = []
[source.wms]
may = ['*']
locations = []
[source.pos]
may = ['issued']
locations = ['store', 'kiosk-?', '@none']
";
    let (authority, warnings) = Authority::parse(text).unwrap();
    assert_eq!(
        shown(&warnings),
        [
            "line 2, column 1: groups.stores: no source uses the group",
            "line 3, column 1: groups.none: the group is empty",
            "line 5, column 1: source.erp: has no grant: it may post nothing",
            "line 7, column 1: source.finance.may: the list is empty: no movement is allowed",
            "line 10, column 1: source.wms.locations: the list is empty: only movements that name no location are allowed",
        ]
    );
    let known = ["outlet-1", "store-001"];
    assert_eq!(
        shown(&authority.warnings(|name| known.contains(&name))),
        [
            "line 13, column 14: source.pos.locations: the location `store` has never been seen (did you mean the group `@stores`?)"
        ]
    );
    assert_eq!(
        shown(&authority.pattern_warnings(known)),
        [
            "line 13, column 23: source.pos.locations: the pattern `kiosk-?` matches no location seen so far"
        ]
    );
}

#[test]
fn there_are_only_so_many_sources_and_bytes() {
    let sources = |n: usize| -> String {
        (0..n)
            .map(|n| format!("[source.s{n}]\nmay = []\n"))
            .collect()
    };
    let most = authority(&sources(limits::AUTHORITY_SOURCES_MAX));
    assert!(!most.is_open());
    assert_eq!(
        error(&sources(limits::AUTHORITY_SOURCES_MAX + 1)).to_string(),
        "the authority document has an error:\nline 2001, column 9: source: there are 1001 sources; at most 1000"
    );
    let name = "s".repeat(limits::SOURCE_BYTES_MAX + 1);
    assert_eq!(
        error(&format!("[source.{name}]\nmay = []")).findings[0].message,
        "the name has 65 bytes; at most 64"
    );
    let full = format!("#{}", " ".repeat(limits::RULES_BYTES_MAX - 1));
    assert!(authority(&full).is_open());
    assert_eq!(
        error(&format!("{full} ")).to_string(),
        "the authority document has an error:\nline 1, column 1: the document has 917505 bytes; at most 917504"
    );
}

/// Takes minutes if anything in reading grows with the square of the document.
#[test]
fn the_largest_documents_are_read_in_time() {
    let wrong: String = (0..80_000).map(|n| format!("'h{n}',")).collect();
    let flood = error(&format!("[source.wms]\nmay = [{wrong}]\n"));
    assert_eq!(flood.omitted, 80_000 - limits::RULES_FINDINGS_MAX);

    let grants = "[[source.wms]]\nmay=[]\n".repeat(40_000);
    assert!(!authority(&grants).is_open());

    let twice = "[source.wms]\nmay=[]\n".repeat(40_000);
    assert_eq!(error(&twice).omitted, 39_999 - limits::RULES_FINDINGS_MAX);
}

/// Grants of one source: kinds and locations as written.
type Grants = Vec<(Vec<String>, Option<Vec<String>>)>;

fn list(entry: &'static str) -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(entry, 0..5).prop_map(|set| set.into_iter().collect())
}

fn grants() -> impl Strategy<Value = Grants> {
    let kinds = list("received|shipped|released|return_refunded|re\\*|\\*ed|transfer_\\*|\\?icked");
    let grant = (kinds, prop::option::of(list("@g|[abc]{1,2}|[ab]\\*|\\?")));
    prop::collection::vec(grant, 1..4)
}

fn matches(entry: &str, name: &str) -> bool {
    Pattern::is_meant(entry) && Pattern::parse(entry).unwrap().matches(name) || entry == name
}

/// The obvious definition.
fn may_slowly(grants: &Grants, group: &[String], kind: &str, location: Option<&str>) -> bool {
    let at = |entries: &Vec<String>, location: &str| {
        entries.iter().any(|entry| match entry.as_str() {
            "@g" => group.iter().any(|member| matches(member, location)),
            entry => matches(entry, location),
        })
    };
    grants.iter().any(|(kinds, locations)| {
        let here = match (locations, location) {
            (Some(locations), Some(location)) => at(locations, location),
            _ => true,
        };
        here && kinds.iter().any(|entry| matches(entry, kind))
    })
}

proptest! {
    #[test]
    fn the_check_and_what_is_kept_agree_with_their_definition(
        wms in grants(),
        pos in grants(),
        group in list("[abc]{1,2}|[bc]\\*"),
        asked in prop::collection::vec((0..3usize, 0..20u8, prop::option::of(0..6usize)), 1..60),
    ) {
        let mut text = format!("[groups]\ng = {group:?}\n");
        for (name, grants) in [("wms", &wms), ("pos", &pos)] {
            for (kinds, locations) in grants {
                text += &format!("[[source.{name}]]\nmay = {kinds:?}\n");
                if let Some(locations) = locations {
                    text += &format!("locations = {locations:?}\n");
                }
            }
        }
        let authority = Arc::new(authority(&text));
        let mut permissions = Permissions::new(Arc::clone(&authority));
        let sources = [("wms", Some(&wms)), ("pos", Some(&pos)), ("erp", None)];
        let locations = ["a", "b", "aa", "ab", "ca", "d"];
        for (source, kind, location) in asked {
            let (name, grants) = sources[source];
            let place = location.map(|at| locations[at]);
            let expected = grants.is_some_and(|grants| {
                may_slowly(grants, &group, KIND_NAMES[usize::from(kind)], place)
            });
            let asked = format!("{name} {kind} {place:?} of\n{text}");
            prop_assert_eq!(authority.may(name, kind, place), expected, "{}", asked);
            // Numbers with gaps, out of order, and the same for a source and a location.
            let number = |at: usize| 7 * (5 - at as u32);
            let numbered = location.map(|at| (number(at), locations[at]));
            let kept = permissions.may(number(source), name, numbered, kind);
            prop_assert_eq!(kept, expected, "{}", asked);
        }
    }

    #[test]
    fn no_document_makes_parsing_panic(
        lines in prop::collection::vec(
            prop_oneof![
                Just("[groups]".to_owned()),
                Just("[source.wms]".to_owned()),
                Just("[[source.wms]]".to_owned()),
                Just("source.pos = [{ may = ['*'] }, 7]".to_owned()),
                Just("may = ['shipped', 'x*', ['y']]".to_owned()),
                Just("x = \"\"\"".to_owned()),
                "(may|locations|dcs|grant) ?= ?[-0-9a-z\\['\"{}@]{0,6}",
                ".{0,30}",
            ],
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        match Authority::parse(&text) {
            Ok((authority, warnings)) => {
                prop_assert_eq!(authority.text(), &text);
                prop_assert!(warnings.iter().all(|own| own.line >= 1 && own.column >= 1));
                authority.may("wms", 0, Some("x"));
            }
            Err(error) => {
                prop_assert!(!error.findings.is_empty());
                let last = text.split('\n').count() as u32;
                for own in &error.findings {
                    prop_assert!((1..=last).contains(&own.line) && own.column >= 1, "{}", own);
                    prop_assert!(!own.message.is_empty());
                }
            }
        }
    }
}
