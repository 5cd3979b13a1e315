//! `demo`: the service at work, with a made-up retailer.

pub mod catalog;
pub mod generate;
pub mod model;
pub mod random;

#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{
    Context,
    client::{Client, Server},
    exit::{Exit, Failure},
    output,
    post::{
        input::{Batch, Item},
        report::Report,
        send,
    },
    query, serve,
    settings::SettingFlags,
};
use crate::{config::Config, domain::movement::TimeUs, limits, proto::v1 as pb};
use generate::Generator;
use model::Plan;

/// Examples for `sellable demo --help`.
pub const EXAMPLES: &str = "\
Examples:
  sellable demo                          some 600,000 movements, then it keeps serving
  sellable demo --scale 0.05             the same retailer, smaller and sooner
  sellable demo --exit --json            for scripts
  sellable demo --data-dir ./demo-data   keeps what it stored

The data is in a temporary directory that is removed at the end, unless --data-dir names one. The
log is embedded, whatever other settings say, unless --nats is given.";

/// The rules that the demonstration puts in force.
pub const RULES: &str = include_str!("rules.toml");

const READY_WITHIN: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);
/// Articles shown at the end, by their rank in demand; the smallest retailer has the first four.
const SHOWN: [usize; 6] = [0, 4, 25, 150, 1_200, 9_000];

/// Arguments of `sellable demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Size of the retailer; 1 is 20,000 articles and 50 stores
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    scale: f64,
    /// Another seed, another retailer
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after showing the answers
    #[arg(long)]
    exit: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.001..=20.0).contains(&scale) => Ok(scale),
        _ => Err("it takes a number from 0.001 to 20".to_owned()),
    }
}

/// Runs `sellable demo`.
///
/// # Errors
/// If the service does not start, or does not take the movements.
pub fn run(mut args: DemoArgs, context: &Context) -> Result<Exit, Failure> {
    // Whatever a settings file or the environment says, a demonstration keeps away from real data.
    let mut temporary = None;
    if !args.settings.gives("data_dir") {
        let directory = tempfile::Builder::new()
            .prefix("sellable-demo-")
            .tempdir()
            .map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("cannot make a temporary directory: {error}"),
                )
                .hint("name a directory with --data-dir")
            })?;
        let path = directory.path().display().to_string();
        args.settings.preset("demo", "data_dir", path);
        temporary = Some(directory);
    }
    for (key, value) in [
        ("nats.url", ""),
        ("nats.credentials_file", ""),
        ("rules.file", ""),
        ("authority.file", ""),
        ("trace.filter", "warn"),
    ] {
        args.settings.preset("demo", key, value);
    }
    let config = args.settings.load(context)?.config;
    serve::start_tracing(&config)?;
    let demo = Demo {
        // The range leaves a small whole number.
        scale_milli: (args.scale * 1_000.0).round() as u64,
        seed: args.seed,
        exit: args.exit,
        json: context.json,
        server: Server::of(&config),
    };
    let ended = serve::runtime()?.block_on(demo.run(config));
    drop(temporary);
    ended
}

struct Demo {
    scale_milli: u64,
    seed: u64,
    exit: bool,
    json: bool,
    server: Server,
}

impl Demo {
    async fn run(self, config: Config) -> Result<Exit, Failure> {
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = serve::stop_signal()?;
        let mut service = tokio::spawn(serve::service(config, async move {
            tokio::select! {
                () = signal => {}
                _ = stopped => {}
            }
        }));
        let shown = tokio::select! {
            // Stopped by a signal, or it could not start.
            ended = &mut service => return flat(ended).map(|()| Exit::Done),
            shown = self.show() => shown,
        };
        if self.exit || shown.is_err() {
            // It may have ended by itself in the meantime.
            let _ = stop.send(());
            let ended = flat(service.await);
            return shown.and(ended).map(|()| Exit::Done);
        }
        // Held until the end: dropped, it would stop the service.
        let ended = flat(service.await).map(|()| Exit::Done);
        drop(stop);
        ended
    }

    async fn show(&self) -> Result<(), Failure> {
        super::operations::wait_until_ready(&self.server, READY_WITHIN).await?;
        let client = self.server.connect().await?;
        let request = client.request(pb::PutRulesRequest {
            toml: RULES.to_owned(),
            actor: "demo".to_owned(),
            note: "three channels of a made-up retailer".to_owned(),
            ..pb::PutRulesRequest::default()
        });
        client.rules().put(request).await?;
        let plan = Plan::new(self.seed, self.scale_milli, now_us());
        if !self.json {
            output::print(&format!(
                "A retailer with 50 stores, 2 distribution centers and {} articles opens its books.\n\
                 Stock comes in, and five days of trade follow: sales, online orders, damages.\n\n",
                output::number(plan.skus as u64)
            ))?;
        }
        let (report, oversold) = self.post(plan).await?;
        self.answer(&client, plan, &report, &oversold).await
    }

    async fn post(&self, plan: Plan) -> Result<(Report, Vec<(usize, String)>), Failure> {
        let (sender, receiver) = mpsc::channel(8);
        let generating = tokio::task::spawn_blocking(move || generate_batches(plan, &sender));
        let mut report = Report::new(Some(plan.movements_estimate()), self.json).without_problems();
        send::send(&self.server, receiver, &mut report, PATIENCE).await?;
        report.finish()?;
        let oversold = generating
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("the generator ended: {error}")))?;
        Ok((report, oversold))
    }

    async fn answer(
        &self,
        client: &Client,
        plan: Plan,
        report: &Report,
        oversold: &[(usize, String)],
    ) -> Result<(), Failure> {
        let mut articles: Vec<usize> = SHOWN.into_iter().filter(|rank| *rank < plan.skus).collect();
        articles.extend(oversold.first().map(|(article, _)| *article));
        let skus: Vec<String> = articles.iter().map(|n| catalog::sku(*n)).collect();
        let mut answers = Vec::new();
        for channel in ["web", "app", "marketplace"] {
            let request = client.request(pb::GetRequest {
                channel: channel.to_owned(),
                skus: skus.clone(),
                ..pb::GetRequest::default()
            });
            answers.push(client.availability().get(request).await?.into_inner());
        }
        let sold = |channel: usize, n: usize| {
            let item = answers[channel].items.get(n);
            item.map_or(0, |item| item.ats)
        };
        if self.json {
            let shown: Vec<_> = articles
                .iter()
                .zip(&skus)
                .enumerate()
                .map(|(n, (article, sku))| {
                    json!({
                        "sku": sku,
                        "title": catalog::title(*article),
                        "web": sold(0, n),
                        "app": sold(1, n),
                        "marketplace": sold(2, n),
                    })
                })
                .collect();
            return output::print_json(&json!({
                "server": self.server.server,
                "posted": report.to_json(),
                "answers": shown,
            }));
        }
        let rows = articles
            .iter()
            .zip(&skus)
            .enumerate()
            .map(|(n, (article, sku))| {
                [
                    sku.clone(),
                    catalog::title(*article),
                    output::number(sold(0, n)),
                    output::number(sold(1, n)),
                    output::number(sold(2, n)),
                ]
            })
            .collect();
        let mut out = format!("{}\nWhat each channel may sell now:\n\n", report.to_text());
        out.push_str(&output::table(
            ["sku", "article", ">web", ">app", ">marketplace"],
            rows,
        ));
        let request = client.request(pb::ExplainRequest {
            channel: "marketplace".to_owned(),
            sku: skus[2].clone(),
            ..pb::ExplainRequest::default()
        });
        let mut explained = client.availability().explain(request).await?.into_inner();
        // Fifty stores would fill the screen, and none of them sells on the marketplace.
        explained.locations.retain(|term| term.sells);
        out.push_str("\nAnd why, for one of them:\n\n");
        out.push_str(&query::explain_text(&explained));
        if !self.exit {
            out.push_str(&self.commands(&skus, oversold));
        }
        output::print(&out)
    }

    fn commands(&self, skus: &[String], oversold: &[(usize, String)]) -> String {
        let server = match self.server.server.as_str() {
            "http://127.0.0.1:7420" => String::new(),
            other => format!(" --server {other}"),
        };
        let mut out = format!(
            "\nTry, in another terminal:\n\n\
             \x20 sellable query --channel web {} {}{server}\n\
             \x20 sellable query --channel app --locations {}{server}\n\
             \x20 sellable explain --channel app {}{server}\n",
            skus[0], skus[1], skus[3], skus[2]
        );
        if let (Some((_, store)), Some(sku)) = (oversold.first(), skus.last()) {
            out.push_str(&format!(
                "  sellable explain --channel web {sku}{server}   # oversold at {store}\n"
            ));
        }
        out.push_str(&format!(
            "  sellable exceptions{server}\n  \
               sellable rules get{server} > rules.toml   # change it, then:\n  \
               sellable rules diff rules.toml{server}\n  \
               sellable status{server}\n  \
               sellable digest{server}\n\n\
             Serving on {} until Ctrl-C.\n",
            self.server.server
        ));
        out
    }
}

/// Hands the movements over in batches; in the end, what is oversold.
fn generate_batches(
    plan: Plan,
    sender: &mpsc::Sender<Result<Batch, Failure>>,
) -> Vec<(usize, String)> {
    let mut generator = Generator::new(plan);
    let mut progress = 0;
    loop {
        let items: Vec<Item> = generator
            .by_ref()
            .take(limits::BATCH_MOVEMENTS_MAX)
            .map(|movement| {
                progress += 1;
                Item {
                    line: progress,
                    raw: Vec::new(),
                    movement,
                }
            })
            .collect();
        let batch = Batch {
            items,
            progress,
            ..Batch::default()
        };
        // A closed channel: posting has failed, and says why itself.
        if batch.items.is_empty() || sender.blocking_send(Ok(batch)).is_err() {
            return generator.oversold();
        }
    }
}

fn flat(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|error| {
        Err(Failure::new(
            Exit::Failed,
            format!("the service ended unexpectedly: {error}"),
        ))
    })
}

fn now_us() -> TimeUs {
    jiff::Timestamp::now().as_microsecond()
}
