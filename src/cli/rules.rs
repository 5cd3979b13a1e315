//! `rules get`, `put`, `check` and `diff`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Context,
    client::{Client, Server},
    exit::{Exit, Failure},
    output::{self, json_moment, moment, number},
};
use crate::{
    domain::rules::{Finding, Rules},
    limits,
    proto::v1 as pb,
};

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
    Get {
        /// This version instead of the one in force
        #[arg(long, default_value_t = 0)]
        version: u64,
        #[command(flatten)]
        server: Server,
    },
    /// Put a document in force
    Put {
        /// The document (TOML); `-` reads stdin
        file: PathBuf,
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Refuse unless this version is in force
        #[arg(long, value_name = "VERSION")]
        expect: Option<u64>,
        /// Why; kept with the version
        #[arg(long, default_value = "")]
        note: String,
        /// Who; kept with the version
        #[arg(long, env = "USER", default_value = "")]
        actor: String,
        #[command(flatten)]
        server: Server,
    },
    /// Check a document, and change nothing
    Check {
        /// The document (TOML); `-` reads stdin
        file: PathBuf,
        /// Ask no server; it would also warn of locations that it has never seen
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        server: Server,
    },
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
    match args.command {
        RulesCommand::Get { version, server } => get(version, &server, context).await,
        RulesCommand::Put {
            file,
            dry_run,
            expect,
            note,
            actor,
            server,
        } => {
            let request = pb::PutRulesRequest {
                toml: read(&file)?,
                dry_run,
                expected_version: expect,
                actor,
                note,
                ..pb::PutRulesRequest::default()
            };
            put(&file, request, &server.connect().await?, context).await
        }
        RulesCommand::Check {
            file,
            offline: true,
            ..
        } => check(&file, &read(&file)?, context),
        RulesCommand::Check { file, server, .. } => {
            let request = pb::PutRulesRequest {
                toml: read(&file)?,
                validate_only: true,
                ..pb::PutRulesRequest::default()
            };
            put(&file, request, &server.connect().await?, context).await
        }
        RulesCommand::Diff { file, server } => {
            let request = pb::PutRulesRequest {
                toml: read(&file)?,
                dry_run: true,
                ..pb::PutRulesRequest::default()
            };
            put(&file, request, &server.connect().await?, context).await
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    // One byte more than allowed tells that there is too much.
    let limit = limits::RULES_BYTES_MAX as u64 + 1;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    let name = file.display();
    match read {
        Err(error) => Err(Failure::usage(format!("cannot read {name}: {error}"))),
        Ok(bytes) if bytes > limits::RULES_BYTES_MAX => Err(Failure::usage(format!(
            "{name} has more than {} bytes, which rules may not",
            limits::RULES_BYTES_MAX
        ))
        .hint("name groups of locations by patterns, and SKUs by prefixes")),
        Ok(_) => Ok(text),
    }
}

/// Checks a document here, by the same code as the server.
fn check(file: &Path, text: &str, context: &Context) -> Result<Exit, Failure> {
    let warnings = match Rules::parse(text) {
        Ok((_, warnings)) => warnings,
        Err(error) => {
            let place = |finding: &Finding| format!("{}: {finding}", file.display());
            let mut details: Vec<String> = error.findings.iter().map(place).collect();
            if error.omitted > 0 {
                details.push(format!("and {} more", error.omitted));
            }
            return Err(Failure {
                details,
                ..Failure::usage("the rules are wrong")
            });
        }
    };
    let warnings = warnings.iter().map(ToString::to_string).collect();
    let response = pb::PutRulesResponse {
        warnings,
        ..pb::PutRulesResponse::default()
    };
    if context.json {
        output::print_json(&put_json(&response))?;
    } else {
        output::print(&valid_text(&response))?;
    }
    Ok(Exit::Done)
}

fn valid_text(response: &pb::PutRulesResponse) -> String {
    let mut out = warnings_text(response);
    out.push_str("The document is valid.\n");
    out
}

fn warnings_text(response: &pb::PutRulesResponse) -> String {
    let warnings = response.warnings.iter();
    warnings
        .map(|warning| format!("warning: {warning}\n"))
        .collect()
}

async fn get(version: u64, server: &Server, context: &Context) -> Result<Exit, Failure> {
    let client = server.connect().await?;
    let request = client.request(pb::GetRulesRequest { version });
    let rules = client.rules().get(request).await?.into_inner();
    if context.json {
        output::print_json(&json!({
            "version": rules.version,
            "toml": rules.toml,
            "put_at": json_moment(rules.put_at.as_ref()),
            "actor": rules.actor,
            "note": rules.note,
        }))?;
        return Ok(Exit::Done);
    }
    // To stderr, so that stdout is the document and nothing else.
    match rules.version {
        0 => eprintln!("No rules have been put in force: there are no channels."),
        version => eprintln!(
            "Version {version}, put at {} by {}: {}",
            moment(rules.put_at.as_ref()),
            or_dash(&rules.actor),
            or_dash(&rules.note)
        ),
    }
    output::print(&rules.toml)?;
    Ok(Exit::Done)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

async fn put(
    file: &Path,
    request: pb::PutRulesRequest,
    client: &Client,
    context: &Context,
) -> Result<Exit, Failure> {
    let (checked, compared) = (request.validate_only, request.dry_run);
    let response = client
        .rules()
        .put(client.request(request))
        .await
        .map_err(|status| {
            let failure = Failure::from(status);
            if failure.exit == Exit::Usage && failure.hint.is_empty() {
                failure.hint(format!(
                    "correct {} and check it with `sellable rules check`",
                    file.display()
                ))
            } else {
                failure
            }
        })?
        .into_inner();
    if context.json {
        output::print_json(&put_json(&response))?;
        return Ok(Exit::Done);
    }
    if checked {
        output::print(&valid_text(&response))?;
        return Ok(Exit::Done);
    }
    let mut out = warnings_text(&response);
    if compared {
        out.push_str(&changes_text(&response));
    } else if response.changed {
        out.push_str(&format!("Version {} is in force.\n", response.version));
    } else {
        out.push_str(&format!(
            "The document is the one in force already (version {}).\n",
            response.version
        ));
    }
    output::print(&out)?;
    Ok(Exit::Done)
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

fn put_json(response: &pb::PutRulesResponse) -> serde_json::Value {
    json!({
        "version": response.version,
        "changed": response.changed,
        "warnings": response.warnings,
        "changes": response.changes.iter().map(|change| json!({
            "channel": change.channel,
            "skus_changed": change.skus_changed,
            "skus_to_zero": change.skus_to_zero,
            "skus_from_zero": change.skus_from_zero,
            "units_before": change.units_before,
            "units_after": change.units_after,
            "largest": change.largest.iter().map(|sku| json!({
                "sku": sku.sku,
                "before": sku.before,
                "after": sku.after,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context {
        json: false,
        env: std::collections::BTreeMap::new(),
    };

    #[test]
    fn findings_name_the_file_and_the_line() {
        let file = Path::new("rules.toml");
        let text = "[channel.web]\nsources = [\"dc\"]\nbufer = 2\n";
        let failure = check(file, text, &CONTEXT).expect_err("a key is wrong");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.details[0].starts_with("rules.toml:"), "{failure:?}");
        assert!(failure.details[0].contains("bufer"), "{failure:?}");
    }

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
