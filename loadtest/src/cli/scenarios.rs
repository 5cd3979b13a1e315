//! `sellable-loadtest scenarios`: what comes with the program.

use clap::Args;
use serde_json::json;

use super::{Exit, print};
use crate::{
    Failure,
    scenario::{
        Scenario,
        builtin::{self, BUILT_IN},
    },
};

/// Which ones.
#[derive(Debug, Clone, Args)]
pub(super) struct ScenariosArgs {
    /// Print this one, as a file to begin with
    name: Option<String>,
}

/// Lists them, or prints one.
pub(super) fn run(args: &ScenariosArgs, json: bool) -> Result<Exit, Failure> {
    if let Some(name) = &args.name {
        let found = BUILT_IN.iter().find(|(built_in, _)| built_in == name);
        return match found {
            Some((_, text)) => print(text).map(|()| Exit::Done),
            // It is not there, and the message says which are.
            None => builtin::load(name).map(|_| Exit::Done),
        };
    }
    let scenarios: Vec<Scenario> = BUILT_IN
        .iter()
        .map(|(name, text)| Scenario::parse(text, name))
        .collect::<Result<_, _>>()?;
    for scenario in scenarios {
        let seconds = scenario.seconds();
        print(&match json {
            true => {
                json!({
                    "name": scenario.name,
                    "summary": scenario.summary,
                    "seconds": seconds,
                })
                .to_string()
                    + "\n"
            }
            false => format!(
                "{:<18} {seconds:>4} s  {}\n",
                scenario.name, scenario.summary
            ),
        })?;
    }
    Ok(Exit::Done)
}
