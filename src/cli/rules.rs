//! `rules get`, `put`, `check` and `diff`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Context,
    client::Server,
    document::{self, CheckArgs, Document, GetArgs, PutArgs},
    exit::{Exit, Failure},
    output::{self, number},
};
use crate::proto::v1 as pb;

/// Examples for `sellable rules --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable rules get > rules.toml
  sellable rules check rules.toml
  sellable rules diff rules.toml                       what would change, by how much
  sellable rules put rules.toml --note 'Black Friday'";

/// Arguments of `sellable rules`.
#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: RulesCommand,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Print the rules in force, or an earlier version
    Get(GetArgs),
    /// Put a document in force
    Put {
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        put: PutArgs,
    },
    /// Check a document, and change nothing
    Check(CheckArgs),
    /// Say which SKUs a document would change, and by how much
    Diff {
        /// The document (TOML); `-` reads stdin
        file: PathBuf,
        #[command(flatten)]
        server: Server,
    },
}

/// Runs `sellable rules`.
///
/// # Errors
/// If the document is wrong, or the server cannot answer.
pub async fn run(args: RulesArgs, context: &Context) -> Result<Exit, Failure> {
    let rules = Document::Rules;
    match args.command {
        RulesCommand::Get(args) => document::get(rules, args, context).await,
        RulesCommand::Put {
            dry_run: false,
            put,
        } => document::put(rules, put, context).await,
        RulesCommand::Put { put, .. } => {
            let request = put.request()?;
            compare(put.file, request, &put.server, context).await
        }
        RulesCommand::Check(args) => document::check(rules, args, context).await,
        RulesCommand::Diff { file, server } => {
            let request = pb::PutRulesRequest {
                toml: document::read(&file)?,
                ..pb::PutRulesRequest::default()
            };
            compare(file, request, &server, context).await
        }
    }
}

async fn compare(
    file: PathBuf,
    request: pb::PutRulesRequest,
    server: &Server,
    context: &Context,
) -> Result<Exit, Failure> {
    let request = pb::PutRulesRequest {
        dry_run: true,
        ..request
    };
    let response = document::send(Document::Rules, &file, request, server).await?;
    let text = || document::warnings_text(&response) + &changes_text(&response);
    document::print(Document::Rules, &response, text, context)
}

fn changes_text(response: &pb::PutRulesResponse) -> String {
    if response.changes.is_empty() {
        return "No channel would sell anything else than now.\n".to_owned();
    }
    let rows = response
        .changes
        .iter()
        .map(|change| {
            [
                change.channel.clone(),
                number(change.skus_changed),
                number(change.skus_to_zero),
                number(change.skus_from_zero),
                number(change.skus_published),
                number(change.units_before),
                number(change.units_after),
            ]
        })
        .collect();
    let mut out = output::table(
        [
            "channel",
            ">skus changed",
            ">to zero",
            ">from zero",
            ">pushed",
            ">units before",
            ">units after",
        ],
        rows,
    );
    for change in response.changes.iter().filter(|c| !c.largest.is_empty()) {
        let rows = change
            .largest
            .iter()
            .map(|sku| {
                [
                    sku.sku.clone(),
                    number(sku.before),
                    number(sku.after),
                    number(i128::from(sku.after) - i128::from(sku.before)),
                ]
            })
            .collect();
        out.push_str(&format!("\nLargest changes of {}:\n\n", change.channel));
        out.push_str(&output::table(
            ["sku", ">before", ">after", ">change"],
            rows,
        ));
    }
    out.push_str("\nNothing has been changed.\n");
    out
}

/// What would change, as JSON.
pub fn changes_json(changes: &[pb::ChannelChange]) -> serde_json::Value {
    changes
        .iter()
        .map(|change| {
            json!({
                "channel": change.channel,
                "skus_changed": change.skus_changed,
                "skus_to_zero": change.skus_to_zero,
                "skus_from_zero": change.skus_from_zero,
                "skus_published": change.skus_published,
                "units_before": change.units_before,
                "units_after": change.units_after,
                "largest": change.largest.iter().map(|sku| json!({
                    "sku": sku.sku,
                    "before": sku.before,
                    "after": sku.after,
                })).collect::<Vec<_>>(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_what_would_change() {
        let mut response = pb::PutRulesResponse::default();
        assert!(changes_text(&response).starts_with("No channel"));
        response.changes.push(pb::ChannelChange {
            channel: "web".to_owned(),
            skus_changed: 1,
            units_before: 1_200,
            units_after: 200,
            largest: vec![pb::SkuChange {
                sku: "A".to_owned(),
                before: 1_200,
                after: 200,
            }],
            ..pb::ChannelChange::default()
        });
        let text = changes_text(&response);
        assert!(text.contains("-1,000"), "{text}");
        assert!(text.ends_with("\nNothing has been changed.\n"), "{text}");
    }
}
