//! Random documents, against a slow and obvious reading of what they mean.

use proptest::prelude::*;

use super::tests::{order, rules};
use super::{Membership, Rules};
use crate::domain::document::Pattern;

/// A document with overrides by exact SKU and by prefix over a small alphabet, so that they meet.
fn overrides() -> impl Strategy<Value = std::collections::BTreeMap<String, i64>> {
    prop::collection::btree_map("[abé]{1,3}\\*?", 1..1_000i64, 0..10)
}

/// A list of entries over a small alphabet, without repeats.
fn entries(groups: &'static str) -> impl Strategy<Value = Vec<String>> {
    let entry = if groups.is_empty() {
        "[abc]{1,2}|[abc]?[*?]|[ab]"
    } else {
        groups
    };
    prop::collection::btree_set(entry, 0..6)
        .prop_map(|set| set.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

/// Entries with the groups written out, in order.
fn flat(entries: &[String], groups: &[(&str, &Vec<String>)]) -> Vec<String> {
    let mut flat = Vec::new();
    for entry in entries {
        match entry.strip_prefix('@') {
            Some(name) => {
                let group = groups.iter().find(|(own, _)| *own == name).unwrap();
                flat.extend(group.1.iter().cloned());
            }
            None => flat.push(entry.clone()),
        }
    }
    flat
}

fn position(flat: &[String], location: &str) -> Option<usize> {
    flat.iter().position(|entry| {
        Pattern::is_meant(entry) && Pattern::parse(entry).unwrap().matches(location)
            || entry == location
    })
}

proptest! {
    #[test]
    fn one_override_applies_the_exact_or_the_longest(
        overrides in overrides(),
        sku in "[abé]{1,4}",
    ) {
        let mut text = "[channel.web]\nsources = ['x']\n[channel.app]\nsources = ['x']\n".to_owned();
        for (key, buffer) in &overrides {
            text += &format!("[channel.web.override.'{key}']\nbuffer = {buffer}\n");
        }
        let rules = rules(&text);
        let fits = |key: &String| {
            key.strip_suffix('*').map_or(*key == sku, |prefix| sku.starts_with(prefix))
        };
        let winner = overrides
            .keys()
            .filter(|key| fits(key))
            .max_by_key(|key| (!key.ends_with('*'), key.len()));
        let web = rules.channel("web").unwrap();
        let app = rules.channel("app").unwrap();
        prop_assert_eq!(rules.override_key(web, &sku), winner.map(String::as_str));
        prop_assert_eq!(rules.policy(web, &sku).buffer, winner.map_or(0, |key| overrides[key]));
        prop_assert_eq!(rules.policy(app, &sku), rules.base_policy(app));
        prop_assert_eq!(rules.has_overrides_for(&sku), winner.is_some());
    }

    #[test]
    fn priority_and_exclusion_agree_with_their_definition(
        g in entries(""),
        h in entries(""),
        sources in entries("@[gh]|[abc]{1,2}|[ab]?[*?]"),
        exclude in entries("@[gh]|[abc]{1,2}"),
        other in prop::option::of(entries("@[gh]|[abc]{1,2}|[*]")),
    ) {
        let mut text = format!(
            "[groups]\ng = {g:?}\nh = {h:?}\n[channel.web]\nsources = {sources:?}\nexclude = {exclude:?}\n"
        );
        if let Some(other) = &other {
            text += &format!("[channel.web.override.X]\nexclude = {other:?}\n");
        }
        let rules = rules(&text);
        let web = rules.channel("web").unwrap();
        let groups = [("g", &g), ("h", &h)];
        let sources = flat(&sources, &groups);
        let base = flat(&exclude, &groups);
        let of_x = other.map_or_else(|| base.clone(), |other| flat(&other, &groups));

        let names = ["a", "b", "c", "aa", "ab", "bc", "ca", "cc", "abc"];
        for (sku, excluded) in [("X", of_x), ("Y", base)] {
            let mut expected: Vec<(usize, &str)> = names
                .iter()
                .filter(|name| position(&excluded, name).is_none())
                .filter_map(|name| Some((position(&sources, name)?, *name)))
                .collect();
            expected.sort_unstable();
            let expected: Vec<&str> = expected.into_iter().map(|(_, name)| name).collect();
            prop_assert_eq!(order(&rules, "web", sku, &names), expected, "{} of\n{}", sku, text);
        }
        // A member that no policy sells from would cost movements for nothing.
        for name in names {
            let policies = [rules.policy(web, "X"), rules.policy(web, "Y")];
            let idle = |own: &Membership| !policies.iter().any(|policy| own.sells(policy));
            prop_assert!(!rules.memberships(name).iter().any(idle));
        }
    }

    #[test]
    fn no_document_makes_parsing_panic(
        lines in prop::collection::vec(
            prop_oneof![
                Just("[groups]".to_owned()),
                Just("[channel.web]".to_owned()),
                Just("[[channel.web]]".to_owned()),
                Just("[channel.web.override.'A*']".to_owned()),
                Just("channel.web.buffer = 1".to_owned()),
                Just("sources = ['@dcs', 'x*', ['y']]".to_owned()),
                Just("override = { 'é*' = { buffer = 0x10 } }".to_owned()),
                Just("x = \"\"\"".to_owned()),
                "(buffer|minimum|maximum|paused|dcs|exclude) ?= ?[-0-9a-z\\['\"{}]{0,6}",
                ".{0,30}",
            ],
            0..12,
        ),
    ) {
        let text = lines.join("\n");
        match Rules::parse(&text) {
            Ok((rules, warnings)) => {
                prop_assert_eq!(rules.text(), &text);
                prop_assert!(warnings.iter().all(|own| own.line >= 1 && own.column >= 1));
                rules.memberships("x");
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
