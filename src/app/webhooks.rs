//! Webhooks, as the settings have them.

use std::{path::Path, sync::Arc};

use super::AppError;
use crate::{
    config::{Config, Engine},
    feed::{
        Feeds,
        webhook::{Outside, Settings, Webhooks, document},
    },
};

/// Files and environment of this process.
struct Process;

impl Outside for Process {
    fn file(&self, path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Reads the file that the settings name, and what it names; changes nothing.
pub(super) fn read(config: &Config) -> Result<Vec<Settings>, AppError> {
    let Some(path) = &config.feeds_webhooks_file else {
        return Ok(Vec::new());
    };
    let wrong = |reason: String| AppError::Webhooks {
        path: path.clone(),
        reason,
    };
    let toml = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let (settings, warnings) =
        document::read(&toml, &Process).map_err(|error| wrong(error.to_string()))?;
    for warning in warnings {
        tracing::warn!(path = %path.display(), "{warning}");
    }
    Ok(settings)
}

/// Begins to deliver.
pub(super) fn start(
    feeds: &Arc<Feeds>,
    config: &Config,
    all: Vec<Settings>,
) -> Result<Webhooks, AppError> {
    let alone = config.engine() == Engine::Embedded;
    Webhooks::start(feeds, all, alone).map_err(|error| AppError::Webhooks {
        path: config.feeds_webhooks_file.clone().unwrap_or_default(),
        reason: error.to_string(),
    })
}
