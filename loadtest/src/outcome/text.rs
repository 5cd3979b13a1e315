//! The run on a terminal.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::Outcome;
use crate::words::{milliseconds, number};

/// Most examples of one check that are shown.
const EXAMPLES_MAX: usize = 3;

impl Outcome {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let setup = &self.setup;
        // `write!` into a string cannot fail.
        let _ = writeln!(out, "{}: {}\n", self.scenario.name, self.scenario.summary);
        let _ = writeln!(
            out,
            "server   {}, version {}, {} log, shards {}",
            setup.server, setup.server_version, setup.log_engine, setup.shards
        );
        let catalogue = &self.scenario.catalogue;
        let _ = writeln!(
            out,
            "stock    {} SKUs at {} centres and {} of {} stores each",
            number(u64::from(catalogue.skus)),
            catalogue.centres,
            catalogue.stores_per_sku,
            catalogue.stores
        );
        let _ = writeln!(
            out,
            "load     {} s, {} calls, connections {}, in flight at most {}, seed {}, plan {}",
            number(self.scenario.seconds()),
            number(self.sent),
            setup.connections,
            number(setup.in_flight_max as u64),
            setup.seed,
            self.plan_digest
        );
        let busy = self.busy.to_text();
        if !busy.is_empty() {
            let _ = writeln!(out, "busy     {busy}, on the mean");
        }
        let _ = writeln!(out, "from     {}, {}\n", setup.host, setup.started_at);
        let _ = writeln!(out, "{}\n", self.kinds_table());
        out.push_str("Milliseconds, counted from when each call was due.\n");
        self.write_carts(&mut out);
        let _ = writeln!(out, "\n{}", self.checks_table());
        self.write_end(&mut out);
        out
    }

    fn kinds_table(&self) -> Table {
        let mut table = new_table(&[
            "",
            "DUE",
            "PER S",
            "FAILED",
            "DROPPED",
            "P50",
            "P90",
            "P99",
            "P99.9",
            "P99.99",
            "MAX",
            "SENT AFTER",
        ]);
        for kind in &self.kinds {
            let ms = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), milliseconds);
            let latency = &kind.latency_ns;
            let cells = [
                number(kind.due),
                number(kind.rate_reached.round() as u64),
                number(kind.failed),
                number(kind.dropped),
                ms(latency.p50),
                ms(latency.p90),
                ms(latency.p99),
                ms(latency.p99_9),
                ms(latency.p99_99),
                ms(latency.max),
                ms(kind.send_delay_ns.p99),
            ];
            let name = Cell::new(kind.kind.name());
            let cells = cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right));
            table.add_row(std::iter::once(name).chain(cells));
        }
        table
    }

    fn write_carts(&self, out: &mut String) {
        let carts = &self.carts;
        if carts.decided > 0 {
            let _ = writeln!(
                out,
                "Carts: {} decided, {} granted, {} refused; {} units granted, {} of them given back; {} there at the start.",
                number(carts.decided),
                number(carts.granted),
                number(carts.decided - carts.granted),
                number(carts.units_granted),
                number(carts.units_given_back),
                number(carts.units_at_start)
            );
        }
        let over: u64 = self.kinds.iter().map(|kind| kind.passed_over).sum();
        if over > 0 {
            let _ = writeln!(
                out,
                "{} calls had nothing to be about: their cart was refused, or failed.",
                number(over)
            );
        }
        if self.held_back > 0 {
            let _ = writeln!(
                out,
                "{} calls were held back by the limit of calls in flight; their time counts.",
                number(self.held_back)
            );
        }
    }

    fn checks_table(&self) -> Table {
        let mut table = new_table(&["CHECKED", "TIMES", "WRONG"]);
        for check in &self.checks {
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(&check.what),
                right(number(check.checked)),
                right(number(check.wrong)),
            ]);
        }
        table
    }

    fn write_end(&self, out: &mut String) {
        for check in self.checks.iter().filter(|check| !check.note.is_empty()) {
            let _ = writeln!(out, "\nnote: {}: {}", check.what, check.note);
        }
        let word = self.judgement.verdict.to_string().to_uppercase();
        let _ = writeln!(out, "\n{word}: {}", self.judgement.headline);
        for reason in &self.judgement.reasons {
            let _ = writeln!(out, "- {reason}");
        }
        if !self.judgement.advice.is_empty() {
            let _ = writeln!(out, "\nWhat was in the way, and what to do:");
        }
        for advice in &self.judgement.advice {
            let _ = writeln!(out, "- {advice}");
        }
        for check in self.checks.iter().filter(|check| check.wrong > 0) {
            for example in check.examples.iter().take(EXAMPLES_MAX) {
                let _ = writeln!(out, "  {example}");
            }
        }
    }
}

/// A table without lines, its header in capitals.
pub(crate) fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    let last = header.len() - 1;
    table.set_header(header.iter().enumerate().map(|(n, name)| {
        let cell = Cell::new(name);
        match n {
            0 => cell,
            _ => cell.set_alignment(CellAlignment::Right),
        }
    }));
    for n in 0..=last {
        if let Some(column) = table.column_mut(n) {
            // The first column begins at the margin, the last one ends with its text.
            column.set_padding((0, if n == last { 0 } else { 2 }));
        }
    }
    table
}
