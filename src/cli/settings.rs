//! Flags for settings, derived from the table of keys, and the command that prints them.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{
    Context,
    exit::{Exit, Failure},
    output,
};
use crate::config::{self, FlagValue, KEYS, Loaded, Sources};

/// File that is read if it is there and no other is named.
pub const FILE_DEFAULT: &str = "sellable.toml";

/// Examples for `sellable config --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable config > sellable.toml            a commented file to start from
  sellable config --effective                what is in force here, and from where
  SELLABLE_SHARDS=4 sellable config --effective --json";

/// Flags that give settings: `--config`, `--set`, and one for each key that has its own.
#[derive(Debug, Clone, Default)]
pub struct SettingFlags {
    file: Option<PathBuf>,
    given: Vec<FlagValue>,
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        // `--set` comes first, so that a key's own flag wins over it.
        for (key, value) in matches
            .get_many::<(String, String)>("set")
            .into_iter()
            .flatten()
        {
            self.given.push(FlagValue {
                flag: "--set".to_owned(),
                key: key.clone(),
                value: value.clone(),
            });
        }
        for key in KEYS {
            let Some(flag) = key.flag else { continue };
            if let Some(value) = matches.get_one::<String>(key.name) {
                self.given.push(FlagValue {
                    flag: format!("--{flag}"),
                    key: key.name.to_owned(),
                    value: value.clone(),
                });
            }
        }
        Ok(())
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let mut command = command
            .next_help_heading("Settings")
            .arg(
                Arg::new("config")
                    .long("config")
                    .env("SELLABLE_CONFIG")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("Settings file; without it, sellable.toml if it is there"),
            )
            .arg(
                Arg::new("set")
                    .long("set")
                    .value_name("KEY=VALUE")
                    .action(clap::ArgAction::Append)
                    .value_parser(key_value)
                    .help("Any setting by its key; `sellable config` lists them"),
            );
        for key in KEYS {
            let Some(flag) = key.flag else { continue };
            let lines: Vec<&str> = key.doc.iter().map(|line| line.trim()).collect();
            let doc = lines.join(" ");
            let sentence = doc.split_once(". ").map_or(doc.as_str(), |(one, _)| one);
            command = command.arg(
                Arg::new(key.name)
                    .long(flag)
                    .value_name("VALUE")
                    .help(format!(
                        "{} [{}]",
                        sentence.trim_end_matches('.'),
                        key.env()
                    )),
            );
        }
        command.next_help_heading(None::<&str>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write it as key=value, e.g. journal.sync=os".to_owned()),
    }
}

impl SettingFlags {
    /// Lets a command set a key that the user has not given by a flag.
    pub fn preset(&mut self, flag: &str, key: &str, value: impl Into<String>) {
        let preset = FlagValue {
            flag: flag.to_owned(),
            key: key.to_owned(),
            value: value.into(),
        };
        // Of two flags the later counts.
        self.given.insert(0, preset);
    }

    /// True if a flag gives this key.
    pub fn gives(&self, key: &str) -> bool {
        self.given.iter().any(|given| given.key == key)
    }

    /// Merges file, environment and flags. Warnings go to stderr.
    ///
    /// # Errors
    /// If the file cannot be read, or anything in the settings is wrong.
    pub fn load(&self, context: &Context) -> Result<Loaded, Failure> {
        let default = Path::new(FILE_DEFAULT);
        let path = match &self.file {
            Some(path) => Some(path.as_path()),
            None => default.exists().then_some(default),
        };
        let name = path.map(|path| path.display().to_string());
        let text = match path {
            None => None,
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!(
                    "cannot read the settings in {}: {error}",
                    path.display()
                ))
                .hint("`sellable config` prints a file to start from")
            })?),
        };
        let loaded = config::load(&Sources {
            file: name.as_deref().zip(text.as_deref()),
            env: context.env.clone(),
            flags: self.given.clone(),
        })
        .map_err(|errors| Failure {
            details: errors.0.iter().map(ToString::to_string).collect(),
            ..Failure::usage(match errors.0.len() {
                1 => "a setting is wrong".to_owned(),
                many => format!("{many} settings are wrong"),
            })
            .hint("`sellable config` documents every key")
        })?;
        for warning in &loaded.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(loaded)
    }
}

/// Arguments of `sellable config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print the values in force and where each was given
    #[arg(long)]
    effective: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Runs `sellable config`.
///
/// # Errors
/// If the settings are wrong.
pub fn run(args: ConfigArgs, context: &Context) -> Result<Exit, Failure> {
    match (args.effective, context.json) {
        (false, false) => output::print(&config::template())?,
        (true, false) => output::print(&config::effective_text(&args.settings.load(context)?))?,
        (_, true) => output::print_json(&config::effective_json(&args.settings.load(context)?))?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> SettingFlags {
        let command = SettingFlags::augment_args(Command::new("test"));
        let matches = command.get_matches_from(line.split(' '));
        SettingFlags::from_arg_matches(&matches).expect("they parse")
    }

    #[test]
    fn own_flags_win_over_set() {
        let mut flags = parse("test --shards 3 --set shards=4 --set http.listen=[::1]:80");
        flags.preset("--exit", "shards", "9");
        let loaded = config::load(&Sources {
            flags: flags.given.clone(),
            ..Sources::default()
        })
        .expect("valid");
        assert_eq!(loaded.config.shards, 3);
        assert_eq!(loaded.config.http_listen.port(), 80);
        assert!(flags.gives("shards") && !flags.gives("listen"));
    }
}
