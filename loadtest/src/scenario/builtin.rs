//! The scenarios that come with the program.

use std::path::Path;

use super::Scenario;
use crate::Failure;

/// Names and texts.
pub const BUILT_IN: [(&str, &str); 6] = [
    (
        "steady_day",
        include_str!("../../scenarios/steady_day.toml"),
    ),
    ("peak_ramp", include_str!("../../scenarios/peak_ramp.toml")),
    (
        "flash_sale",
        include_str!("../../scenarios/flash_sale.toml"),
    ),
    (
        "black_friday",
        include_str!("../../scenarios/black_friday.toml"),
    ),
    (
        "marketplace_storm",
        include_str!("../../scenarios/marketplace_storm.toml"),
    ),
    ("replay", include_str!("../../scenarios/replay.toml")),
];

/// The recording of the built-in scenario `replay`.
pub const RECORDING: &str = include_str!("../../scenarios/replay.ndjson");

/// A scenario by its name, or from a file.
///
/// # Errors
/// If there is none, or it is wrong.
pub fn load(name: &str) -> Result<Scenario, Failure> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Scenario::parse(text, name);
    }
    if !name.ends_with(".toml") && !Path::new(name).exists() {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        return Err(
            Failure::usage(format!("there is no scenario {name:?}")).hint(format!(
                "give the path of a .toml file, or one of {}",
                names.join(", ")
            )),
        );
    }
    let text = std::fs::read_to_string(name)
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    let mut scenario = Scenario::parse(&text, name)?;
    if let (Some(replay), Some(folder)) = (&mut scenario.replay, Path::new(name).parent())
        && !replay.file.is_empty()
    {
        replay.file = folder.join(&replay.file).display().to_string();
    }
    Ok(scenario)
}
