//! A real year of a retailer as movements: *Online Retail* (UCI 352), 541,909 invoice lines.
//!
//! ```text
//! cargo run --release --example online_retail -- FILE > movements.ndjson
//! sellable post movements.ndjson
//! ```
//!
//! FILE is the CSV, as it is or compressed with zstd, with the columns Line, InvoiceNo, StockCode,
//! Description, Quantity, InvoiceDate, UnitPrice, CustomerID and Country. `--summary` only counts.
//! How a line becomes movements is told in [`mapping`]; what is not in the data but derived
//! from them (the opening stock) is told by its source.
//!
//! Attribution: Online Retail, Daqing Chen, UCI Machine Learning Repository,
//! doi:10.24432/C5BW33, CC BY 4.0.

#[path = "online_retail/mapping.rs"]
mod mapping;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mapping::{Class, Row};
use sellable::{cli::output, proto::v1 as pb, wire::text::to_json_line};

/// Rows of the whole data set: what the progress bar starts from.
const ROWS: u64 = 541_909;
/// Rows between two steps of the progress bar.
const ROWS_PER_STEP: u64 = 4_096;

/// Turn the invoice lines of Online Retail (UCI 352) into movements, one JSON object a line.
#[derive(Debug, Parser)]
struct Arguments {
    /// The CSV, as it is or compressed with zstd
    #[arg(default_value = mapping::DATA_FILE)]
    file: PathBuf,
    /// Write to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only the first rows
    #[arg(long, value_name = "COUNT", default_value_t = usize::MAX, hide_default_value = true)]
    rows: usize,
    /// Write no movements; print what the rows are
    #[arg(long)]
    summary: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let bar = progress("reading");
    let rows = mapping::read(&arguments.file, arguments.rows, |count| {
        if count.is_multiple_of(ROWS_PER_STEP) {
            bar.set_position(count);
        }
    })?;
    bar.finish_and_clear();
    if arguments.summary {
        print!("{}", summary(&rows));
        return Ok(());
    }
    let written = match &arguments.output {
        Some(path) => write(&rows, File::create(path)?),
        None => write(&rows, std::io::stdout().lock()),
    };
    match written {
        Ok(count) => eprintln!("{count} movements of {} rows", rows.len()),
        // Who reads our output has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn progress(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:32} {percent:>3} %  {eta} left");
    ProgressBar::new(ROWS)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

/// Writes the opening stock, then the movements of each row, in order of the rows.
fn write(rows: &[Row], output: impl Write) -> std::io::Result<u64> {
    let mut output = BufWriter::with_capacity(1 << 20, output);
    let mut count = 0;
    let mut write = |movement: &pb::Movement| {
        let line = to_json_line(movement).map_err(std::io::Error::other)?;
        count += 1;
        writeln!(output, "{line}")
    };
    mapping::opening_stock(rows)
        .iter()
        .try_for_each(&mut write)?;
    let bar = progress("writing");
    bar.set_length(rows.len() as u64);
    for (index, row) in rows.iter().enumerate() {
        row.movements().iter().try_for_each(&mut write)?;
        if (index as u64).is_multiple_of(ROWS_PER_STEP) {
            bar.set_position(index as u64);
        }
    }
    output.flush()?;
    bar.finish_and_clear();
    Ok(count)
}

/// Rows, sum of their quantities, movements.
#[derive(Default, Clone, Copy)]
struct Count {
    rows: usize,
    units: i64,
    movements: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.units += other.units;
        self.movements += other.movements;
    }
}

fn summary(rows: &[Row]) -> String {
    let mut classes: BTreeMap<Class, Count> = BTreeMap::new();
    for row in rows {
        *classes.entry(row.class()).or_default() += Count {
            rows: 1,
            units: row.quantity,
            movements: row.movements().len(),
        };
    }
    let opening = mapping::opening_stock(rows);
    let opening = Count {
        rows: 0,
        units: opening.iter().map(|movement| movement.quantity).sum(),
        movements: opening.len(),
    };
    let mut of_rows = Count::default();
    let mut lines = Vec::new();
    for class in Class::ALL {
        let count = classes.remove(&class).unwrap_or_default();
        lines.push(line(class.name(), class.movements(), count));
        of_rows += count;
    }
    lines.push(line("all rows", "", of_rows));
    lines.push(line("opening stock", "received (derived)", opening));
    let headings = [
        "class",
        "becomes",
        ">rows",
        ">sum of Quantity",
        ">movements",
    ];
    output::table(headings, lines)
}

fn line(class: &str, becomes: &str, count: Count) -> [String; 5] {
    [
        class.to_owned(),
        becomes.to_owned(),
        output::number(count.rows as i128),
        output::number(count.units),
        output::number(count.movements as i128),
    ]
}
