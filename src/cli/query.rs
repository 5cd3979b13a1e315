//! `query` and `explain`.

use std::io::BufRead;

use clap::Args;
use serde_json::json;

use super::{
    Context,
    client::Server,
    exit::{Exit, Failure},
    output::{self, json_balances, json_moment, moment, number, span},
};
use crate::{limits, proto::v1 as pb};

/// Examples for `sellable query --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable query --channel web 2412345678901 2012345678908
  sellable query --channel app --locations 2412345678901
  cut -d, -f1 skus.csv | sellable query --channel web - --json

Exits with 3 if the channel or one of the SKUs is unknown.";

/// Examples for `sellable explain --help`.
pub const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sellable explain --channel web 2412345678901
  sellable explain --channel marketplace 2412345678901 --json";

/// Arguments of `sellable query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// A channel of the rules
    #[arg(long, short)]
    channel: String,
    /// SKUs; `-` reads them from stdin, one a line
    #[arg(required = true, value_name = "SKU")]
    skus: Vec<String>,
    /// Also show where the units are
    #[arg(long)]
    locations: bool,
    /// Wait until this log position is applied
    #[arg(long, default_value_t = 0, value_name = "POSITION")]
    min_position: u64,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable query`.
///
/// # Errors
/// If the server cannot answer.
pub async fn run(args: QueryArgs, context: &Context) -> Result<Exit, Failure> {
    let skus = skus(args.skus)?;
    let client = args.server.connect().await?;
    let mut availability = client.availability();
    let mut known = true;
    for (n, chunk) in skus.chunks(limits::QUERY_SKUS_MAX).enumerate() {
        let request = client.request(pb::GetRequest {
            channel: args.channel.clone(),
            skus: chunk.to_vec(),
            include_locations: args.locations,
            min_position: args.min_position,
        });
        let response = availability.get(request).await?.into_inner();
        known &= response.items.iter().all(|item| item.known);
        if context.json {
            print_json(&args.channel, args.locations, &response)?;
        } else {
            let text = table(&response, args.locations);
            let blank = if n == 0 { "" } else { "\n" };
            output::print(&format!("{blank}{text}"))?;
        }
    }
    Ok(if known { Exit::Done } else { Exit::NotFound })
}

fn skus(given: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut skus = Vec::new();
    for sku in given {
        if sku != "-" {
            skus.push(sku);
            continue;
        }
        for line in std::io::stdin().lock().lines() {
            let line = line
                .map_err(|error| Failure::usage(format!("cannot read SKUs from stdin: {error}")))?;
            let line = line.trim();
            if !line.is_empty() {
                skus.push(line.to_owned());
            }
        }
    }
    if skus.is_empty() {
        return Err(Failure::usage("no SKUs on stdin").hint("give one a line"));
    }
    Ok(skus)
}

fn print_json(channel: &str, locations: bool, response: &pb::GetResponse) -> Result<(), Failure> {
    for item in &response.items {
        let mut line = json!({
            "channel": channel,
            "sku": item.sku,
            "ats": item.ats,
            "known": item.known,
            "position": response.position,
            "as_of": json_moment(response.as_of.as_ref()),
            "rules_version": response.rules_version,
        });
        if locations {
            line["locations"] = item
                .locations
                .iter()
                .map(|l| {
                    json!({
                        "location": l.location,
                        "available": l.available,
                        "balances": json_balances(l.balances.as_ref()),
                    })
                })
                .collect();
        }
        output::print_json(&line)?;
    }
    Ok(())
}

/// The answer as a table; the demonstration shows it too.
pub fn table(response: &pb::GetResponse, locations: bool) -> String {
    let mut out = if locations {
        let mut rows = Vec::new();
        for item in &response.items {
            rows.push(location_row(&item.sku, "all", item.ats, None));
            for l in &item.locations {
                rows.push(location_row(
                    "",
                    &l.location,
                    l.available,
                    l.balances.as_ref(),
                ));
            }
        }
        output::table(
            [
                "sku",
                "location",
                ">available",
                ">good",
                ">reserved",
                ">free",
            ],
            rows,
        )
    } else {
        let rows = response
            .items
            .iter()
            .map(|item| [item.sku.clone(), number(item.ats), known(item).to_owned()])
            .collect();
        output::table(["sku", ">may sell", ""], rows)
    };
    out.push_str(&format!(
        "\nposition {}, log time {}, rules version {}\n",
        response.position,
        moment(response.as_of.as_ref()),
        response.rules_version
    ));
    out
}

fn known(item: &pb::SkuAvailability) -> &'static str {
    if item.known {
        ""
    } else {
        "unknown: no movement ever named it"
    }
}

fn location_row(
    sku: &str,
    location: &str,
    available: i64,
    balances: Option<&pb::Balances>,
) -> [String; 6] {
    let balance = |of: fn(&pb::Balances) -> i64| {
        balances.map_or_else(String::new, |balances| number(of(balances)))
    };
    [
        sku.to_owned(),
        location.to_owned(),
        number(available),
        balance(|b| b.good),
        balance(|b| b.reserved),
        balance(|b| b.free),
    ]
}

/// Arguments of `sellable explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A channel of the rules
    #[arg(long, short)]
    channel: String,
    /// The SKU
    sku: String,
    /// Wait until this log position is applied
    #[arg(long, default_value_t = 0, value_name = "POSITION")]
    min_position: u64,
    #[command(flatten)]
    server: Server,
}

/// Runs `sellable explain`.
///
/// # Errors
/// If the server cannot answer.
pub async fn explain(args: ExplainArgs, context: &Context) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let request = client.request(pb::ExplainRequest {
        channel: args.channel,
        sku: args.sku,
        min_position: args.min_position,
    });
    let response = client.availability().explain(request).await?.into_inner();
    if context.json {
        output::print_json(&explain_json(&response))?;
    } else {
        output::print(&explain_text(&response))?;
    }
    Ok(if response.known {
        Exit::Done
    } else {
        Exit::NotFound
    })
}

/// The explanation for people.
pub fn explain_text(response: &pb::ExplainResponse) -> String {
    let mut out = format!(
        "Channel {} may sell {} of SKU {}.\n\n",
        response.channel,
        number(response.ats),
        response.sku
    );
    if !response.known {
        out.push_str("The SKU is unknown: no movement ever named it.\n\n");
    }
    if !response.locations.is_empty() {
        let rows = response.locations.iter().map(term_row).collect();
        out.push_str(&output::table(
            [
                ">priority",
                "location",
                ">good",
                ">reserved",
                ">free",
                ">buffer",
                ">available",
            ],
            rows,
        ));
        out.push_str("\navailable = free - buffer, not below 0; free = good - reserved\n\n");
    }
    let mut rows = vec![("sum", number(response.sum))];
    if let Some(terms) = &response.terms {
        if terms.buffer > 0 || terms.buffer_percent > 0 {
            let buffer = format!(
                "{} units or {} % of good at each location, whichever is more",
                number(terms.buffer),
                terms.buffer_percent
            );
            rows.push(("buffer", buffer));
        }
        rows.push(("share", format!("{} %", terms.share_percent)));
        if terms.minimum > 0 {
            rows.push(("minimum", format!("{}, or nothing", number(terms.minimum))));
        }
        if let Some(maximum) = terms.maximum {
            rows.push(("maximum", number(maximum)));
        }
        if terms.paused {
            rows.push(("paused", "yes".to_owned()));
        }
        if !terms.override_by.is_empty() {
            rows.push(("override", terms.override_by.clone()));
        }
    }
    rows.push(("may sell", number(response.ats)));
    out.push_str(&output::pairs(rows));
    if !response.steps.is_empty() {
        out.push('\n');
        for (n, step) in response.steps.iter().enumerate() {
            out.push_str(&format!("{}. {step}\n", n + 1));
        }
    }
    let behind = match response.lag_positions {
        0 => "nothing behind the log".to_owned(),
        lag => format!("{} positions behind the log", number(lag)),
    };
    out.push_str(&format!(
        "\nposition {}, {behind}, log time {} ({} ago), rules version {}\n",
        response.position,
        moment(response.as_of.as_ref()),
        span(response.age_ms),
        response.rules_version
    ));
    out
}

fn term_row(term: &pb::LocationTerm) -> [String; 7] {
    let balances = term.balances.unwrap_or_default();
    let (priority, buffer) = if term.sells {
        (term.priority.to_string(), number(term.buffer_withheld))
    } else {
        ("does not sell".to_owned(), "-".to_owned())
    };
    [
        priority,
        term.location.clone(),
        number(balances.good),
        number(balances.reserved),
        number(balances.free),
        buffer,
        number(term.available),
    ]
}

fn explain_json(response: &pb::ExplainResponse) -> serde_json::Value {
    json!({
        "channel": response.channel,
        "sku": response.sku,
        "ats": response.ats,
        "known": response.known,
        "locations": response.locations.iter().map(|term| json!({
            "location": term.location,
            "sells": term.sells,
            "priority": term.priority,
            "balances": json_balances(term.balances.as_ref()),
            "buffer_withheld": term.buffer_withheld,
            "available": term.available,
        })).collect::<Vec<_>>(),
        "sum": response.sum,
        "terms": response.terms.as_ref().map(|terms| json!({
            "buffer": terms.buffer,
            "buffer_percent": terms.buffer_percent,
            "share_percent": terms.share_percent,
            "minimum": terms.minimum,
            "maximum": terms.maximum,
            "paused": terms.paused,
            "override_by": terms.override_by,
        })),
        "steps": response.steps,
        "rules_version": response.rules_version,
        "position": response.position,
        "as_of": json_moment(response.as_of.as_ref()),
        "age_ms": response.age_ms,
        "lag_positions": response.lag_positions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> pb::ExplainResponse {
        let term =
            |location: &str, sells, priority, good, reserved, buffer, available| pb::LocationTerm {
                location: location.to_owned(),
                sells,
                priority,
                balances: Some(pb::Balances {
                    good,
                    reserved,
                    on_hand: good,
                    free: good - reserved,
                    ..pb::Balances::default()
                }),
                buffer_withheld: buffer,
                available,
            };
        pb::ExplainResponse {
            channel: "web".to_owned(),
            sku: "A".to_owned(),
            ats: 1_000,
            known: true,
            locations: vec![
                term("dc-east", true, 1, 2_010, 4, 2, 2_004),
                term("store-001", false, 0, 3, 0, 0, 0),
            ],
            sum: 2_004,
            terms: Some(pb::ChannelTerms {
                buffer: 2,
                share_percent: 100,
                maximum: Some(1_000),
                ..pb::ChannelTerms::default()
            }),
            steps: vec!["2004 is above the maximum of 1000".to_owned()],
            rules_version: 7,
            position: 12,
            age_ms: 61_000,
            ..pb::ExplainResponse::default()
        }
    }

    #[test]
    fn an_explanation_can_be_recomputed_by_hand() {
        let text = explain_text(&example());
        let expected = "\
Channel web may sell 1,000 of SKU A.

     PRIORITY  LOCATION    GOOD  RESERVED   FREE  BUFFER  AVAILABLE
            1  dc-east    2,010         4  2,006       2      2,004
does not sell  store-001      3         0      3       -          0

available = free - buffer, not below 0; free = good - reserved

sum       2,004
buffer    2 units or 0 % of good at each location, whichever is more
share     100 %
maximum   1,000
may sell  1,000

1. 2004 is above the maximum of 1000

position 12, nothing behind the log, log time - (1 min 1 s ago), rules version 7
";
        assert_eq!(text, expected);
        assert_eq!(explain_json(&example())["terms"]["maximum"], 1_000);
    }
}
