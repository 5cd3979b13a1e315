//! Merges what the file, the environment and the flags say.

use std::{collections::BTreeMap, fmt};

use toml::de::{DeTable, DeValue};

use super::{Config, ENV_PREFIX, KEYS, Key, Value};

/// Where settings come from, besides the defaults.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// Name and text of `sellable.toml`.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment; other variables than `SELLABLE_...` are not looked at.
    pub env: BTreeMap<String, String>,
    /// Flags, in the order given; of two for one key the later counts.
    pub flags: Vec<FlagValue>,
}

/// A setting given by a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// The flag as the user knows it, e.g. `--listen` or `--set`.
    pub flag: String,
    /// The key's dotted name; of `--set`, as given.
    pub key: String,
    /// The value as given.
    pub value: String,
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In the file.
    File {
        /// Its name.
        name: String,
        /// Line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Env(String),
    /// By this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Env(variable) => write!(f, "environment variable {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was given.
    pub origin: Origin,
    /// The key, as given; empty if the file cannot be read at all.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            key,
            problem,
        } = self;
        if key.is_empty() {
            write!(f, "{origin}: {problem}")
        } else {
            write!(f, "{origin}: `{key}` {problem}")
        }
    }
}

/// Everything that is wrong with the settings, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(
    /// One or more.
    pub Vec<ConfigError>,
);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// One setting after merging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value in force.
    pub value: Value,
    /// Where it was given.
    pub origin: Origin,
}

/// Settings after merging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Typed.
    pub config: Config,
    /// One for each of [`KEYS`], in that order.
    pub settings: Vec<Setting>,
    /// Worth a look, but no reason not to start.
    pub warnings: Vec<String>,
}

/// Merges and checks.
///
/// # Errors
/// Everything that is wrong, each with its key and where it was given.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigErrors> {
    let mut merge = Merge {
        settings: KEYS
            .iter()
            .map(|key| Setting {
                value: key.default_value(),
                origin: Origin::Default,
            })
            .collect(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    if let Some((name, text)) = sources.file {
        merge.file(name, text);
    }
    merge.env(&sources.env);
    merge.flags(&sources.flags);
    if merge.errors.is_empty() {
        merge.check_together();
    }
    if !merge.errors.is_empty() {
        return Err(ConfigErrors(merge.errors));
    }
    Ok(Loaded {
        config: Config::from_values(merge.settings.iter().map(|s| &s.value)),
        settings: merge.settings,
        warnings: merge.warnings,
    })
}

struct Merge {
    settings: Vec<Setting>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Merge {
    fn wrong(&mut self, origin: Origin, key: &str, problem: impl Into<String>) {
        self.errors.push(ConfigError {
            origin,
            key: key.to_owned(),
            problem: problem.into(),
        });
    }

    fn put(&mut self, index: usize, origin: Origin, value: Result<Value, String>) {
        match value {
            Ok(value) => self.settings[index] = Setting { value, origin },
            Err(problem) => self.wrong(origin, KEYS[index].name, problem),
        }
    }

    fn file(&mut self, name: &str, text: &str) {
        let lines = Lines { name, text };
        match DeTable::parse(text) {
            Ok(table) => self.table(&lines, "", table.get_ref()),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                self.wrong(
                    lines.origin(at),
                    "",
                    format!("is no TOML: {}", error.message()),
                );
            }
        }
    }

    fn table(&mut self, lines: &Lines<'_>, prefix: &str, table: &DeTable<'_>) {
        // The parser's table is sorted by name; errors read better in the order of the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                _ => format!("{prefix}.{}", key.get_ref()),
            };
            let origin = lines.origin(key.span().start);
            let known = KEYS.iter().position(|k| k.name == name);
            match (known, value.get_ref()) {
                (Some(index), value) => {
                    let value = from_toml(&KEYS[index], value);
                    self.put(index, origin, value);
                }
                (None, DeValue::Table(inner)) if !inner.is_empty() || is_section(&name) => {
                    self.table(lines, &name, inner);
                }
                (None, _) if is_section(&name) => {
                    self.wrong(
                        origin,
                        &name,
                        format!("is a section: write [{name}] and its keys below"),
                    );
                }
                (None, _) => self.wrong(origin, &name, unknown(&name)),
            }
        }
    }

    fn env(&mut self, env: &BTreeMap<String, String>) {
        for (index, key) in KEYS.iter().enumerate() {
            let variable = key.env();
            if let Some(text) = env.get(&variable) {
                self.put(index, Origin::Env(variable), key.kind.parse(text));
            }
        }
        // Unknown variables are no errors: container platforms add SELLABLE_PORT and the like for
        // a service of this name. One that is almost a key's is worth a word.
        let names: Vec<String> = KEYS.iter().map(Key::env).collect();
        for variable in env.keys().filter(|name| name.starts_with(ENV_PREFIX)) {
            if names.contains(variable) {
                continue;
            }
            if let Some(near) = nearest(variable, names.iter().map(String::as_str), 2) {
                self.warnings.push(format!(
                    "environment variable {variable} is not known and has no effect; did you mean {near}?"
                ));
            }
        }
    }

    fn flags(&mut self, flags: &[FlagValue]) {
        for given in flags {
            let origin = Origin::Flag(given.flag.clone());
            match KEYS.iter().position(|key| key.name == given.key) {
                Some(index) => self.put(index, origin, KEYS[index].kind.parse(&given.value)),
                None => self.wrong(origin, &given.key, unknown(&given.key)),
            }
        }
    }

    /// What only several keys together show to be wrong.
    fn check_together(&mut self) {
        let config = Config::from_values(self.settings.iter().map(|s| &s.value));
        if config.listen == config.http_listen && config.listen.port() != 0 {
            self.wrong_key(
                "http.listen",
                "is the same as `listen`; they need two ports",
            );
        }
        if config.nats_credentials_file.is_some() && config.nats_url.is_none() {
            self.wrong_key(
                "nats.credentials_file",
                "is set, but `nats.url` is not: the log would be embedded, and NATS not used",
            );
        }
        if config.reconciliation_enabled && config.nats_url.is_none() {
            self.wrong_key(
                "reconciliation.enabled",
                "is true, but `nats.url` is not set: there is no object store to take snapshots from",
            );
        }
        let bad_server = config.nats_url.as_deref().and_then(|servers| {
            let schemes = ["nats://", "tls://", "ws://", "wss://"];
            servers
                .split(',')
                .map(str::trim)
                .find(|server| {
                    server.is_empty()
                        || server.contains("://") && !schemes.iter().any(|s| server.starts_with(s))
                })
                .map(str::to_owned)
        });
        if let Some(server) = bad_server {
            self.wrong_key(
                "nats.url",
                &format!(
                    "has {}; a server is written nats://host:4222 (or tls://, ws://, wss://)",
                    Value::Text(server).redacted()
                ),
            );
        }
        if config.nats_replicas.is_multiple_of(2) {
            self.warnings.push(format!(
                "`nats.replicas` is {}: an even number of copies survives no more failures than one less",
                config.nats_replicas
            ));
        }
    }

    fn wrong_key(&mut self, name: &str, problem: &str) {
        let index = KEYS
            .iter()
            .position(|key| key.name == name)
            .expect("the checks name keys of the table");
        let origin = self.settings[index].origin.clone();
        self.wrong(origin, name, problem);
    }
}

struct Lines<'a> {
    name: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Origin::File {
            name: self.name.to_owned(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        }
    }
}

fn from_toml(key: &Key, value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => match key.kind {
            // A number in quotes is no number: better to say so than to guess.
            super::Kind::Integer { .. } | super::Kind::Bool => {
                Err(format!("is the text {text:?}; it takes {}", key.kind))
            }
            _ => key.kind.check(Value::Text(text.to_string())),
        },
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => key.kind.check_integer(number),
            Err(_) => Err(format!("is {}; it takes {}", number.as_str(), key.kind)),
        },
        DeValue::Boolean(truth) => key.kind.check(Value::Bool(*truth)),
        other => Err(format!(
            "is of type {}; it takes {}",
            other.type_str(),
            key.kind
        )),
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .split_once('.')
            .is_some_and(|(section, _)| section == name)
    })
}

fn unknown(name: &str) -> String {
    let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    let near = KEYS
        .iter()
        .find(|key| last(key.name) == name)
        .map(|key| key.name)
        .or_else(|| nearest(name, KEYS.iter().map(|key| key.name), 3));
    match near {
        Some(near) => format!("is not known; did you mean `{near}`?"),
        None => "is not known; `sellable config` lists every key".to_owned(),
    }
}

/// The candidate that at most so many typing mistakes turn into `name`.
fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
    distance_max: usize,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
