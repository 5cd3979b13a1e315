//! `exceptions`: list them, and say what is to become of them.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output::{self, json_moment, json_original, kind_name, moment, number, span},
};
use crate::{
    domain::exceptions::{ParkedKind, StateKind},
    proto::v1 as pb,
};

/// Examples for `sellable exceptions --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable exceptions
  sellable exceptions --kind oversold --location store-7
  sellable exceptions --kind conflicting_duplicate --all --json | jq -r .id
  sellable exceptions ack 3f1c… --note 'asked the store to count'
  sellable exceptions release 9a02… --disposition restock
  sellable exceptions discard 77be… --note 'sent twice by mistake'";

/// Most exceptions in one answer of the server.
const PAGE_MAX: u32 = 1_000;

/// Arguments of `sellable exceptions`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ExceptionsArgs {
    #[command(subcommand)]
    command: Option<ExceptionsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum ExceptionsCommand {
    /// Note that you have seen one; it stays open until the facts fit
    #[command(visible_alias = "acknowledge")]
    Ack(ResolveArgs),
    /// Apply a parked movement after all
    Release {
        /// What becomes of the units of an inspection that has no disposition
        #[arg(long, value_enum)]
        disposition: Option<Disposition>,
        #[command(flatten)]
        resolve: ResolveArgs,
    },
    /// Never apply a parked movement
    Discard(ResolveArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only of this kind; may be given several times
    #[arg(long, value_parser = kind_of, value_name = "KIND")]
    kind: Vec<pb::ExceptionKind>,
    /// Only about this SKU
    #[arg(long, default_value = "", hide_default_value = true)]
    sku: String,
    /// Only about this location
    #[arg(long, default_value = "", hide_default_value = true)]
    location: String,
    /// Only parked movements of this source
    #[arg(long, default_value = "", hide_default_value = true)]
    source: String,
    /// Only what nobody has acknowledged
    #[arg(long)]
    new: bool,
    /// At most so many
    #[arg(long, default_value_t = 100, conflicts_with = "all")]
    limit: u32,
    /// However many there are
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct ResolveArgs {
    /// The exception, as the list names it
    exception: String,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Who decides
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    actor: String,
    #[command(flatten)]
    server: Server,
}

/// Dispositions, as they are written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Disposition {
    Restock,
    Refurbish,
    Quarantine,
    #[value(name = "vendor_return")]
    VendorReturn,
    Liquidate,
    Scrap,
}

impl From<Disposition> for pb::Disposition {
    fn from(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Restock => pb::Disposition::Restock,
            Disposition::Refurbish => pb::Disposition::Refurbish,
            Disposition::Quarantine => pb::Disposition::Quarantine,
            Disposition::VendorReturn => pb::Disposition::VendorReturn,
            Disposition::Liquidate => pb::Disposition::Liquidate,
            Disposition::Scrap => pb::Disposition::Scrap,
        }
    }
}

/// A kind by its name; `-` is as good as `_`.
fn kind_of(name: &str) -> Result<pb::ExceptionKind, String> {
    let plain = name.replace('-', "_");
    let names = || {
        let parked = ParkedKind::ALL.iter().map(|kind| kind.name());
        parked.chain(StateKind::ALL.iter().map(|kind| kind.name()))
    };
    pb::ExceptionKind::from_str_name(&format!("EXCEPTION_KIND_{}", plain.to_ascii_uppercase()))
        .filter(|kind| *kind != pb::ExceptionKind::Unspecified)
        .ok_or_else(|| {
            format!(
                "no such kind; there are {}",
                names().collect::<Vec<_>>().join(", ")
            )
        })
}

/// Runs `sellable exceptions`.
///
/// # Errors
/// If the server cannot answer, or the exception cannot be resolved like this.
pub async fn run(args: ExceptionsArgs, context: &Context) -> Result<Exit, Failure> {
    let unspecified = pb::Disposition::Unspecified;
    match args.command {
        None => list(args.list, context).await,
        Some(ExceptionsCommand::Ack(args)) => {
            resolve(args, pb::Resolution::Acknowledge, unspecified, context).await
        }
        Some(ExceptionsCommand::Discard(args)) => {
            resolve(args, pb::Resolution::Discard, unspecified, context).await
        }
        Some(ExceptionsCommand::Release {
            disposition,
            resolve: args,
        }) => {
            let disposition = disposition.map_or(unspecified, pb::Disposition::from);
            resolve(args, pb::Resolution::Release, disposition, context).await
        }
    }
}

async fn resolve(
    args: ResolveArgs,
    resolution: pb::Resolution,
    disposition: pb::Disposition,
    context: &Context,
) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let request = client.request(pb::ResolveRequest {
        exception_id: args.exception,
        resolution: resolution.into(),
        actor: args.actor,
        note: args.note,
        disposition: disposition.into(),
    });
    let resolved = client.operations().resolve(request).await?.into_inner();
    if context.json {
        output::print_json(&json!({ "position": resolved.position }))?;
    } else {
        let done = match resolution {
            pb::Resolution::Release => "Released: it is in the books",
            pb::Resolution::Discard => "Discarded",
            _ => "Acknowledged",
        };
        output::print(&format!("{done} (position {}).\n", resolved.position))?;
    }
    Ok(Exit::Done)
}

async fn list(args: ListArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let mut operations = client.operations();
    let mut left = if args.all { u32::MAX } else { args.limit };
    let mut rows = Vec::new();
    let mut page_token = String::new();
    let mut total = 0;
    while left > 0 {
        let request = client.request(pb::ListExceptionsRequest {
            kinds: args.kind.iter().map(|kind| (*kind).into()).collect(),
            page_size: left.min(PAGE_MAX),
            page_token,
            sku: args.sku.clone(),
            location: args.location.clone(),
            source: args.source.clone(),
            unacknowledged_only: args.new,
        });
        let page = operations.list_exceptions(request).await?.into_inner();
        total = page.total;
        left = left.saturating_sub(u32::try_from(page.exceptions.len()).unwrap_or(u32::MAX));
        for exception in &page.exceptions {
            if context.json {
                output::print_json(&as_json(exception))?;
            } else {
                rows.push(row(exception));
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if !context.json {
        output::print(&text(rows, total, !page_token.is_empty()))?;
    }
    Ok(Exit::Done)
}

fn text(rows: Vec<[String; 5]>, total: u64, more: bool) -> String {
    if rows.is_empty() {
        return match total {
            0 => "No open exceptions.\n".to_owned(),
            total => format!(
                "None of these; {} open exceptions of the kind.\n",
                number(total)
            ),
        };
    }
    let mut text = output::table(["first seen", ">age", "kind", "what", "exception"], rows);
    text.push_str(&match more {
        true => "\nThere are more; --all shows them.\n".to_owned(),
        false => format!("\n{} open exceptions of the kind.\n", number(total)),
    });
    text
}

fn row(exception: &pb::Exception) -> [String; 5] {
    let mut what = exception.reason.clone();
    if !exception.source.is_empty() || !exception.id.is_empty() {
        let pb::Exception { source, id, .. } = exception;
        let times = match exception.occurrences {
            0 | 1 => String::new(),
            many => format!(", {} times", number(many)),
        };
        what = format!("{source} {id}{times}: {what}");
    }
    if let Some(seen) = &exception.acknowledgement {
        let pb::Acknowledgement { actor, note, .. } = seen;
        what = format!("{what} [seen by {actor}: {note}]");
    }
    [
        moment(exception.first_seen.as_ref()),
        span(exception.age_ms),
        kind_name(exception.kind),
        what,
        exception.exception_id.clone(),
    ]
}

fn as_json(exception: &pb::Exception) -> serde_json::Value {
    let acknowledgement = exception.acknowledgement.as_ref().map(|seen| {
        json!({ "actor": seen.actor, "at": json_moment(seen.at.as_ref()), "note": seen.note })
    });
    let mut value = json!({
        "exception_id": exception.exception_id,
        "kind": kind_name(exception.kind),
        "first_seen": json_moment(exception.first_seen.as_ref()),
        "age_ms": exception.age_ms,
        "reason": exception.reason,
        "acknowledgement": acknowledgement,
    });
    let more = if exception.occurrences > 0 {
        json!({
            "position": exception.position,
            "index": exception.index,
            "source": exception.source,
            "id": exception.id,
            "occurrences": exception.occurrences,
            "content_type": exception.content_type,
            "original": json_original(exception),
        })
    } else {
        json!({
            "sku": exception.sku,
            "location": exception.location,
            "document": exception.document,
            "line": exception.line,
            "units": exception.units,
        })
    };
    if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
        value.extend(more.clone());
    }
    value
}
