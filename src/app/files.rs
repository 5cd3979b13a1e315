//! Documents that come from files: put in force at the start, and again on SIGHUP.

use std::path::{Path, PathBuf};

use super::AppError;
use crate::{
    config::Config,
    domain::{
        authority::Authority,
        document::{DocumentError, Warning},
        rules::Rules,
    },
    instance::Instance,
    proto::v1 as pb,
};

/// A document that a file may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// Channel rules.
    Rules,
    /// Source authority.
    Authority,
}

impl Document {
    /// The setting that names its file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Rules => "rules.file",
            Self::Authority => "authority.file",
        }
    }

    /// The command that checks it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Rules => "sellable rules check FILE",
            Self::Authority => "sellable authority check FILE",
        }
    }
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rules => "rules",
            Self::Authority => "grants of source authority",
        })
    }
}

/// The files that the settings name. Authority comes first: who may post is decided before
/// anybody is served.
#[derive(Debug)]
pub(super) struct Files(Vec<File>);

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        let files = [
            (Document::Authority, &config.authority_file),
            (Document::Rules, &config.rules_file),
        ];
        let named = |(document, path): (Document, &Option<PathBuf>)| {
            let path = path.clone()?;
            Some(File { document, path })
        };
        Self(files.into_iter().filter_map(named).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &File> {
        self.0.iter()
    }

    /// Reads them all, and changes nothing.
    pub(super) fn check(&self) -> Result<(), AppError> {
        for file in self.all() {
            match file.document {
                Document::Rules => drop(file.read(Rules::parse)?),
                Document::Authority => drop(file.read(Authority::parse)?),
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct File {
    document: Document,
    path: PathBuf,
}

impl File {
    pub(super) fn document(&self) -> Document {
        self.document
    }

    /// Puts what it says now in force, if that is anything new.
    pub(super) async fn put(&self, instance: &Instance) -> Result<(), AppError> {
        let actor = self.document.key().to_owned();
        let put = match self.document {
            Document::Rules => {
                let (toml, rules) = self.read(Rules::parse)?;
                if *instance.view().rulebook().in_force().rules == rules {
                    self.nothing_new();
                    return Ok(());
                }
                let put = pb::RulesPut {
                    toml,
                    actor,
                    ..pb::RulesPut::default()
                };
                instance.put_rules(put).await
            }
            Document::Authority => {
                let (toml, authority) = self.read(Authority::parse)?;
                if *instance.authority().authority == authority {
                    self.nothing_new();
                    return Ok(());
                }
                let put = pb::AuthorityPut {
                    toml,
                    actor,
                    ..pb::AuthorityPut::default()
                };
                instance.put_authority(put).await
            }
        };
        let version = put.map_err(|error| AppError::NotPut {
            document: self.document,
            error,
        })?;
        tracing::info!(path = %self.path(), version, "{} put in force", self.document);
        Ok(())
    }

    fn nothing_new(&self) {
        tracing::info!(path = %self.path(), "the {} in force are those of the file", self.document);
    }

    fn path(&self) -> std::path::Display<'_> {
        Path::display(&self.path)
    }

    /// The text, and what `parse` makes of it. Warnings go to the program's own log.
    fn read<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<(T, Vec<Warning>), DocumentError>,
    ) -> Result<(String, T), AppError> {
        let wrong = |reason: String| AppError::Document {
            document: self.document,
            path: self.path.clone(),
            reason,
        };
        let toml = std::fs::read_to_string(&self.path).map_err(|error| wrong(error.to_string()))?;
        let (parsed, warnings) = parse(&toml).map_err(|error| wrong(error.to_string()))?;
        for warning in warnings {
            tracing::warn!(path = %self.path(), "{warning}");
        }
        Ok((toml, parsed))
    }
}
