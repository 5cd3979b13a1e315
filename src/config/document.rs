//! Prints the settings: the documented template, and the values in force.

use serde_json::json;

use super::{Engine, KEYS, Key, Loaded};

const PREAMBLE: &str = "\
# Settings of Sellable: every key, with its default.
#
# A value is taken from the last of these that gives it: the default, this file, the environment
# variable, a flag (`--set key=value`, or the key's own flag). `sellable config --effective` prints
# the values in force and where each was given.
";

/// A complete, commented `sellable.toml`, which says what the defaults say.
pub fn template() -> String {
    let mut out = PREAMBLE.to_owned();
    let mut section = "";
    // Keys without a section have to come first in TOML.
    let (top, rest): (Vec<&Key>, Vec<&Key>) = KEYS.iter().partition(|key| !key.name.contains('.'));
    for key in top.into_iter().chain(rest) {
        let (own_section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        out.push('\n');
        if own_section != section {
            section = own_section;
            out.push_str(&format!("[{section}]\n\n"));
        }
        for line in key.doc {
            out.push_str(&format!("# {}\n", line.trim()));
        }
        out.push_str(&format!("# Takes {}.\n", key.kind));
        match key.flag {
            Some(flag) => out.push_str(&format!("# {} or --{flag}\n", key.env())),
            None => out.push_str(&format!("# {}\n", key.env())),
        }
        out.push_str(&format!("{name} = {}\n", key.default_value()));
    }
    out
}

/// The values in force and where each was given, for people.
pub fn effective_text(loaded: &Loaded) -> String {
    let lines: Vec<(String, String)> = KEYS
        .iter()
        .zip(&loaded.settings)
        .map(|(key, setting)| {
            (
                format!("{} = {}", key.name, setting.value.redacted()),
                setting.origin.to_string(),
            )
        })
        .collect();
    let width = lines.iter().map(|(left, _)| left.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut out = String::new();
    for (left, origin) in lines {
        out.push_str(&format!("{left:width$}  # {origin}\n"));
    }
    let engine = match loaded.config.engine() {
        Engine::Embedded => "embedded, since `nats.url` is not set",
        Engine::JetStream => "JetStream, since `nats.url` is set",
    };
    out.push_str(&format!("\n# The log is {engine}.\n"));
    out
}

/// Every key with its documentation, its value in force and where that was given.
pub fn effective_json(loaded: &Loaded) -> serde_json::Value {
    KEYS.iter()
        .zip(&loaded.settings)
        .map(|(key, setting)| {
            json!({
                "key": key.name,
                "value": setting.value.redacted().to_json(),
                "origin": setting.origin.to_string(),
                "default": key.default_value().to_json(),
                "env": key.env(),
                "flag": key.flag.map(|flag| format!("--{flag}")),
                "takes": key.kind.to_string(),
                "doc": key.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "),
            })
        })
        .collect()
}
