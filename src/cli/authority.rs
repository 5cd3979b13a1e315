//! `authority get`, `put` and `check`.

use clap::{Args, Subcommand};

use super::{
    Context,
    document::{self, CheckArgs, Document, GetArgs, PutArgs},
    exit::{Exit, Failure},
};

/// Examples for `sellable authority --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable authority get > authority.toml
  sellable authority check authority.toml
  sellable authority put authority.toml --note 'a new logistics partner'

The document says which source may post which movements, for which locations:
  [source.wms]
  may = [\"received\", \"shipped\", \"transfer_*\"]
  locations = [\"dc-*\"]";

/// Arguments of `sellable authority`.
#[derive(Debug, Args)]
pub struct AuthorityArgs {
    #[command(subcommand)]
    command: AuthorityCommand,
}

#[derive(Debug, Subcommand)]
enum AuthorityCommand {
    /// Print the source authority in force, or an earlier version
    Get(GetArgs),
    /// Put a document in force
    Put(PutArgs),
    /// Check a document, and change nothing
    Check(CheckArgs),
}

/// Runs `sellable authority`.
///
/// # Errors
/// If the document is wrong, or the server cannot answer.
pub async fn run(args: AuthorityArgs, context: &Context) -> Result<Exit, Failure> {
    let authority = Document::Authority;
    match args.command {
        AuthorityCommand::Get(args) => document::get(authority, args, context).await,
        AuthorityCommand::Put(args) => document::put(authority, args, context).await,
        AuthorityCommand::Check(args) => document::check(authority, args, context).await,
    }
}
