//! `feeds`: how they stand, dead letters, read-back.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output::{self, json_moment, moment, number},
};
use crate::{limits::FEED_SKUS_MAX, proto::v1 as pb};

/// Examples for `sellable feeds --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable feeds                                       how all feeds stand
  sellable feeds status --channel web --json
  sellable feeds shown shown.csv --channel web         what a marketplace shows: SKU,UNITS a line
  sellable feeds dead-letters shop                     what a webhook refused for good
  sellable feeds retry shop                            try that again

`shown` exits with 7 if something differs that is not on its way.";

/// Arguments of `sellable feeds`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FeedsArgs {
    #[command(subcommand)]
    command: Option<FeedsCommand>,
    #[command(flatten)]
    status: StatusArgs,
}

#[derive(Debug, Subcommand)]
enum FeedsCommand {
    /// How fresh channels and deliveries are
    Status(StatusArgs),
    /// Compare what a marketplace shows with what was published, and deliver once more what differs
    Shown(ShownArgs),
    /// What a webhook refused for good
    DeadLetters {
        /// The webhook
        webhook: String,
        #[command(flatten)]
        server: Server,
    },
    /// Try dead letters again
    Retry {
        /// The webhook
        webhook: String,
        /// Only these SKUs; none: all
        skus: Vec<String>,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Only this channel
    #[arg(long, default_value = "")]
    channel: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct ShownArgs {
    /// File with SKU,UNITS a line; - reads stdin
    file: PathBuf,
    /// The channel
    #[arg(long)]
    channel: String,
    /// How long the marketplace takes to apply what it accepted, e.g. 30s
    #[arg(long, default_value = "0s", value_name = "TIME")]
    settle: jiff::SignedDuration,
    /// Deliver nothing again
    #[arg(long)]
    report_only: bool,
    /// Who reports
    #[arg(long, default_value = "")]
    actor: String,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable feeds`.
///
/// # Errors
/// If the server cannot answer, or the input is wrong.
pub async fn run(args: FeedsArgs, context: &Context) -> Result<Exit, Failure> {
    match args.command {
        None => status(args.status, context).await,
        Some(FeedsCommand::Status(args)) => status(args, context).await,
        Some(FeedsCommand::Shown(args)) => shown(args, context).await,
        Some(FeedsCommand::DeadLetters { webhook, server }) => {
            dead_letters(webhook, &server, context).await
        }
        Some(FeedsCommand::Retry {
            webhook,
            skus,
            server,
        }) => retry(webhook, skus, &server, context).await,
    }
}

async fn status(args: StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let request = client.request(pb::ListFeedsRequest {
        channel: args.channel,
    });
    let feeds = client.feeds().list(request).await?.into_inner();
    if context.json {
        output::print_json(&json!({
            "log": feeds.log,
            "feeds": feeds.feeds.iter().map(feed_json).collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Done);
    }
    if feeds.feeds.is_empty() {
        output::print(
            "there are no channels; put rules in force with `sellable rules put FILE`\n",
        )?;
        return Ok(Exit::Done);
    }
    output::print(&feeds_text(&feeds.feeds))?;
    Ok(Exit::Done)
}

fn feeds_text(feeds: &[pb::FeedStatus]) -> String {
    let channels = feeds.iter().map(|feed| {
        let (occurred, logged) = (
            feed.occurred_to_published.unwrap_or_default(),
            feed.logged_to_published.unwrap_or_default(),
        );
        [
            feed.channel.clone(),
            number(feed.position),
            number(feed.published),
            time(logged.p50_us, logged.count),
            time(logged.p99_us, logged.count),
            time(occurred.p99_us, occurred.count),
            number(feed.shown_different),
        ]
    });
    let mut text = output::table(
        [
            "channel",
            ">position",
            ">published",
            ">logged p50",
            ">p99",
            ">occurred p99",
            ">shown different",
        ],
        channels.collect(),
    );
    let deliveries = feeds.iter().flat_map(|feed| {
        feed.deliveries.iter().map(|own| {
            let logged = own.logged_to_delivered.unwrap_or_default();
            [
                feed.channel.clone(),
                way(own),
                own.state().as_str_name().to_ascii_lowercase(),
                number(own.subscribers),
                number(own.numbers),
                number(own.conflated),
                number(own.waiting),
                time(logged.p50_us, logged.count),
                time(logged.p99_us, logged.count),
                number(own.dead_letters),
                own.last_error.clone(),
            ]
        })
    });
    text.push('\n');
    text += &output::table(
        [
            "channel",
            "delivered by",
            "state",
            ">receivers",
            ">numbers",
            ">conflated",
            ">waiting",
            ">logged p50",
            ">p99",
            ">dead letters",
            "last error",
        ],
        deliveries.collect(),
    );
    text
}

fn way(own: &pb::DeliveryStatus) -> String {
    let way = own.way().as_str_name().to_ascii_lowercase();
    match own.name.as_str() {
        "" => way,
        name => format!("{way} {name}"),
    }
}

/// A time in its largest unit; `-` if none was measured.
pub(super) fn time(us: u64, count: u64) -> String {
    match us {
        _ if count == 0 => "-".to_owned(),
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => output::span((us / 1_000) as i64),
    }
}

fn freshness_json(own: Option<&pb::Freshness>) -> Value {
    let own = own.copied().unwrap_or_default();
    json!({ "count": own.count, "p50_us": own.p50_us, "p99_us": own.p99_us, "max_us": own.max_us })
}

pub(super) fn feed_json(feed: &pb::FeedStatus) -> Value {
    let delivery = |own: &pb::DeliveryStatus| {
        json!({
            "way": own.way().as_str_name().to_ascii_lowercase(),
            "name": own.name,
            "state": own.state().as_str_name().to_ascii_lowercase(),
            "subscribers": own.subscribers,
            "position": own.position,
            "waiting": own.waiting,
            "messages": own.messages,
            "numbers": own.numbers,
            "conflated": own.conflated,
            "failures": own.failures,
            "dead_letters": own.dead_letters,
            "last_error": own.last_error,
            "occurred_to_delivered": freshness_json(own.occurred_to_delivered.as_ref()),
            "logged_to_delivered": freshness_json(own.logged_to_delivered.as_ref()),
        })
    };
    json!({
        "channel": feed.channel,
        "position": feed.position,
        "resume_from": feed.resume_from,
        "published": feed.published,
        "kept": feed.kept,
        "shown_different": feed.shown_different,
        "occurred_to_published": freshness_json(feed.occurred_to_published.as_ref()),
        "logged_to_published": freshness_json(feed.logged_to_published.as_ref()),
        "deliveries": feed.deliveries.iter().map(delivery).collect::<Vec<_>>(),
    })
}

async fn dead_letters(
    webhook: String,
    server: &Server,
    context: &Context,
) -> Result<Exit, Failure> {
    let client = server.connect().await?;
    let request = client.request(pb::ListDeadLettersRequest { webhook });
    let answer = client
        .feeds()
        .list_dead_letters(request)
        .await?
        .into_inner();
    if context.json {
        for own in &answer.dead_letters {
            output::print_json(&json!({
                "sku": own.sku,
                "units": own.units,
                "reason": own.reason,
                "given_up_at": json_moment(own.given_up_at.as_ref()),
                "position": own.position,
            }))?;
        }
        return Ok(Exit::Done);
    }
    if answer.dead_letters.is_empty() {
        output::print("none\n")?;
        return Ok(Exit::Done);
    }
    let row = |own: &pb::DeadLetter| {
        [
            own.sku.clone(),
            number(own.units),
            moment(own.given_up_at.as_ref()),
            own.reason.clone(),
        ]
    };
    output::print(&output::table(
        ["sku", ">units", "given up at", "reason"],
        answer.dead_letters.iter().map(row).collect(),
    ))?;
    Ok(Exit::Done)
}

async fn retry(
    webhook: String,
    skus: Vec<String>,
    server: &Server,
    context: &Context,
) -> Result<Exit, Failure> {
    let client = server.connect().await?;
    let request = client.request(pb::RetryDeadLettersRequest { webhook, skus });
    let retried = client.feeds().retry_dead_letters(request).await?;
    let retried = retried.into_inner().retried;
    if context.json {
        output::print_json(&json!({ "retried": retried }))?;
    } else {
        output::print(&format!("{} are tried again\n", number(retried)))?;
    }
    Ok(Exit::Done)
}

async fn shown(args: ShownArgs, context: &Context) -> Result<Exit, Failure> {
    let settle_ms = u64::try_from(args.settle.as_millis())
        .map_err(|_| Failure::usage("--settle is negative; write it as 30s"))?;
    // What changes while the file is read is on its way.
    let read_at = crate::wire::movement::timestamp(crate::instance::now_us());
    let shown = read_shown(&args.file)?;
    let client = args.server.connect().await?;
    let mut all = pb::ReportShownResponse::default();
    for part in shown.chunks(FEED_SKUS_MAX) {
        let request = client.request(pb::ReportShownRequest {
            channel: args.channel.clone(),
            shown: part.to_vec(),
            read_at: Some(read_at),
            settle_ms,
            report_only: args.report_only,
            actor: args.actor.clone(),
        });
        let answer = client.feeds().report_shown(request).await?.into_inner();
        all.matched += answer.matched;
        all.differences.extend(answer.differences);
        all.in_flight.extend(answer.in_flight);
        all.unknown_skus.extend(answer.unknown_skus);
        all.republished += answer.republished;
        all.position = all.position.max(answer.position);
    }
    if context.json {
        output::print_json(&shown_json(&all))?;
    } else {
        output::print(&shown_text(&all))?;
    }
    Ok(match all.differences.is_empty() {
        true => Exit::Done,
        false => Exit::Variance,
    })
}

fn shown_json(all: &pb::ReportShownResponse) -> Value {
    let differences = |all: &[pb::ShownDifference]| {
        all.iter()
            .map(|own| json!({ "sku": own.sku, "shown": own.shown, "published": own.published }))
            .collect::<Vec<_>>()
    };
    json!({
        "matched": all.matched,
        "differences": differences(&all.differences),
        "in_flight": differences(&all.in_flight),
        "unknown_skus": all.unknown_skus,
        "republished": all.republished,
        "position": all.position,
    })
}

fn shown_text(all: &pb::ReportShownResponse) -> String {
    let mut text = output::pairs(vec![
        ("matched", number(all.matched)),
        ("different", number(all.differences.len() as u64)),
        ("on their way", number(all.in_flight.len() as u64)),
        ("unknown SKUs", number(all.unknown_skus.len() as u64)),
        ("delivered again", number(all.republished)),
    ]);
    if !all.differences.is_empty() {
        let row =
            |own: &pb::ShownDifference| [own.sku.clone(), number(own.shown), number(own.published)];
        text.push('\n');
        text += &output::table(
            ["sku", ">shown", ">published"],
            all.differences.iter().map(row).collect(),
        );
    }
    text
}

/// Reads SKU,UNITS lines.
fn read_shown(file: &std::path::Path) -> Result<Vec<pb::PublishedNumber>, Failure> {
    let name = file.display();
    let failed = |why: String| Failure::usage(format!("{name}: {why}"));
    let input: Box<dyn std::io::Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| failed(error.to_string()))?)
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(input);
    let mut shown = std::collections::BTreeMap::new();
    for (at, record) in reader.records().enumerate() {
        let record = record.map_err(|error| failed(error.to_string()))?;
        let (sku, units) = match (record.get(0), record.get(1), record.len()) {
            (Some(sku), Some(units), 2) => (sku, units),
            _ => {
                return Err(failed(format!("line {}: is not SKU,UNITS", at + 1)));
            }
        };
        if at == 0 && (sku, units) == ("sku", "units") {
            continue;
        }
        let units: i64 = units
            .parse()
            .map_err(|_| failed(format!("line {}: {units:?} is no number of units", at + 1)))?;
        if shown.insert(sku.to_owned(), units).is_some() {
            return Err(failed(format!("line {}: {sku:?} is there twice", at + 1)));
        }
    }
    let number = |(sku, units)| pb::PublishedNumber { sku, units };
    Ok(shown.into_iter().map(number).collect())
}
