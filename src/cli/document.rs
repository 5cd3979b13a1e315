//! What `rules` and `authority` have in common: to read, check and put a document.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use tonic::{Code, Status};

use super::{
    Context,
    client::{Client, Server},
    exit::{Exit, Failure},
    output::{self, json_moment, moment},
    rules::changes_json,
};
use crate::{
    domain::{
        authority::Authority,
        document::{DocumentError, Finding, Warning},
        rules::Rules,
    },
    limits,
    proto::v1 as pb,
};

/// A document that a server keeps in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// Channel rules.
    Rules,
    /// Source authority.
    Authority,
}

impl Document {
    fn command(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Authority => "authority",
        }
    }

    /// What it means that none was put in force.
    fn absence(self) -> &'static str {
        match self {
            Self::Rules => "No rules have been put in force: there are no channels.",
            Self::Authority => {
                "No source authority has been put in force: every source may post everything."
            }
        }
    }

    fn parse(self, text: &str) -> Result<Vec<Warning>, DocumentError> {
        match self {
            Self::Rules => Rules::parse(text).map(|(_, warnings)| warnings),
            Self::Authority => Authority::parse(text).map(|(_, warnings)| warnings),
        }
    }

    async fn get(self, client: &Client, version: u64) -> Result<pb::GetRulesResponse, Status> {
        let request = client.request(pb::GetRulesRequest { version });
        let mut rules = client.rules();
        let response = match self {
            Self::Rules => rules.get(request).await,
            Self::Authority => rules.get_authority(request).await,
        };
        response.map(tonic::Response::into_inner)
    }

    async fn put(
        self,
        client: &Client,
        request: pb::PutRulesRequest,
    ) -> Result<pb::PutRulesResponse, Status> {
        let request = client.request(request);
        let mut rules = client.rules();
        let response = match self {
            Self::Rules => rules.put(request).await,
            Self::Authority => rules.put_authority(request).await,
        };
        response.map(tonic::Response::into_inner)
    }
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// This version instead of the one in force
    #[arg(long, default_value_t = 0)]
    version: u64,
    #[command(flatten)]
    server: Server,
}

/// Arguments of `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The document (TOML); `-` reads stdin
    pub file: PathBuf,
    /// Refuse unless this version is in force
    #[arg(long, value_name = "VERSION")]
    expect: Option<u64>,
    /// Why; kept with the version
    #[arg(long, default_value = "")]
    note: String,
    /// Who; kept with the version
    #[arg(long, env = "USER", default_value = "")]
    actor: String,
    /// Where to.
    #[command(flatten)]
    pub server: Server,
}

impl PutArgs {
    /// The call that puts the document in force.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn request(&self) -> Result<pb::PutRulesRequest, Failure> {
        Ok(pb::PutRulesRequest {
            toml: read(&self.file)?,
            expected_version: self.expect,
            actor: self.actor.clone(),
            note: self.note.clone(),
            ..pb::PutRulesRequest::default()
        })
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The document (TOML); `-` reads stdin
    file: PathBuf,
    /// Ask no server; it would also warn of locations that it has never seen
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    server: Server,
}

/// Prints a document.
///
/// # Errors
/// If the server cannot answer.
pub async fn get(document: Document, args: GetArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let found = document.get(&client, args.version).await?;
    if context.json {
        output::print_json(&json!({
            "version": found.version,
            "toml": found.toml,
            "put_at": json_moment(found.put_at.as_ref()),
            "actor": found.actor,
            "note": found.note,
        }))?;
        return Ok(Exit::Done);
    }
    // To stderr, so that stdout is the document and nothing else.
    match found.version {
        0 => eprintln!("{}", document.absence()),
        version => eprintln!(
            "Version {version}, put at {} by {}: {}",
            moment(found.put_at.as_ref()),
            or_dash(&found.actor),
            or_dash(&found.note)
        ),
    }
    output::print(&found.toml)?;
    Ok(Exit::Done)
}

/// Puts a document in force.
///
/// # Errors
/// If the document is wrong, or the server cannot answer.
pub async fn put(document: Document, args: PutArgs, context: &Context) -> Result<Exit, Failure> {
    let response = send(document, &args.file, args.request()?, &args.server).await?;
    let text = || {
        let version = response.version;
        let outcome = if response.changed {
            format!("Version {version} is in force.\n")
        } else {
            format!("The document is the one in force already (version {version}).\n")
        };
        warnings_text(&response) + &outcome
    };
    print(document, &response, text, context)
}

/// Checks a document, and changes nothing.
///
/// # Errors
/// If the document is wrong, or the server cannot answer.
pub async fn check(
    document: Document,
    args: CheckArgs,
    context: &Context,
) -> Result<Exit, Failure> {
    let toml = read(&args.file)?;
    let response = if args.offline {
        check_here(document, &args.file, &toml)?
    } else {
        let request = pb::PutRulesRequest {
            toml,
            validate_only: true,
            ..pb::PutRulesRequest::default()
        };
        send(document, &args.file, request, &args.server).await?
    };
    let text = || warnings_text(&response) + "The document is valid.\n";
    print(document, &response, text, context)
}

/// Checks a document by the same code as the server.
fn check_here(
    document: Document,
    file: &Path,
    text: &str,
) -> Result<pb::PutRulesResponse, Failure> {
    match document.parse(text) {
        Ok(warnings) => Ok(pb::PutRulesResponse {
            warnings: warnings.iter().map(ToString::to_string).collect(),
            ..pb::PutRulesResponse::default()
        }),
        Err(error) => {
            let place = |finding: &Finding| format!("{}: {finding}", file.display());
            let mut details: Vec<String> = error.findings.iter().map(place).collect();
            if error.omitted > 0 {
                details.push(format!("and {} more", error.omitted));
            }
            Err(Failure {
                details,
                ..Failure::usage(format!("the {} document is wrong", error.document))
            })
        }
    }
}

/// Reads a document; `-` is stdin.
///
/// # Errors
/// If it cannot be read, or is too large.
pub fn read(file: &Path) -> Result<String, Failure> {
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
            "{name} has more than {} bytes, which a document may not",
            limits::RULES_BYTES_MAX
        ))
        .hint("name groups of locations by patterns, and SKUs by prefixes")),
        Ok(_) => Ok(text),
    }
}

/// Sends a document to a server.
///
/// # Errors
/// If the document is wrong, or the server cannot answer.
pub async fn send(
    document: Document,
    file: &Path,
    request: pb::PutRulesRequest,
    server: &Server,
) -> Result<pb::PutRulesResponse, Failure> {
    let client = server.connect().await?;
    let sent = document.put(&client, request).await;
    sent.map_err(|status| {
        let command = document.command();
        let code = status.code();
        let failure = Failure::from(status);
        if code == Code::Aborted {
            failure.hint(format!(
                "somebody else was faster: look with `sellable {command} get`"
            ))
        } else if failure.exit == Exit::Usage && failure.hint.is_empty() {
            failure.hint(format!(
                "correct {} and check it with `sellable {command} check`",
                file.display()
            ))
        } else {
            failure
        }
    })
}

/// Prints what a server, or the check here, said.
///
/// # Errors
/// If stdout cannot be written to.
pub fn print(
    document: Document,
    response: &pb::PutRulesResponse,
    text: impl FnOnce() -> String,
    context: &Context,
) -> Result<Exit, Failure> {
    if context.json {
        let mut out = json!({
            "version": response.version,
            "changed": response.changed,
            "warnings": response.warnings,
        });
        if document == Document::Rules {
            out["changes"] = changes_json(&response.changes);
        }
        output::print_json(&out)?;
    } else {
        output::print(&text())?;
    }
    Ok(Exit::Done)
}

/// The warnings, one in a line.
pub fn warnings_text(response: &pb::PutRulesResponse) -> String {
    let warnings = response.warnings.iter();
    warnings
        .map(|warning| format!("warning: {warning}\n"))
        .collect()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_the_file_and_the_line() {
        for (document, file, text, wrong) in [
            (
                Document::Rules,
                "rules.toml",
                "[channel.web]\nsources = [\"dc\"]\nbufer = 2\n",
                "rules.toml: line 3, column 1: channel.web.bufer: unknown key",
            ),
            (
                Document::Authority,
                "authority.toml",
                "[source.wms]\nmay = [\"shiped\"]\n",
                "authority.toml: line 2, column 8: source.wms.may: there is no kind",
            ),
        ] {
            let failure = check_here(document, Path::new(file), text).expect_err("it is wrong");
            assert_eq!(failure.exit, Exit::Usage);
            assert_eq!(failure.details.len(), 1, "{failure:?}");
            assert!(failure.details[0].starts_with(wrong), "{failure:?}");
            assert!(failure.message.contains(document.command()), "{failure:?}");
        }
    }

    #[test]
    fn what_opens_everything_is_warned_of() {
        let path = Path::new("authority.toml");
        let response = check_here(Document::Authority, path, "# nothing\n").expect("valid");
        assert!(
            warnings_text(&response).starts_with("warning: line 1"),
            "{response:?}"
        );
    }
}
