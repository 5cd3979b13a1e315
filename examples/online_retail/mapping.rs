//! From a retailer's invoice lines to movements.
//!
//! | invoice line | movements |
//! |---|---|
//! | not goods: postage, fees, vouchers, samples | none |
//! | cancellation (its invoice number starts with C) | `received`, with the credit note as `reference` |
//! | negative quantity | `adjusted` by as much: damaged, lost, miscounted |
//! | positive quantity, no price, no customer | `adjusted` by as much: found |
//! | the rest: a sale | `reserved`, then `shipped`, of the order line (invoice, line) |
//!
//! The first row that fits counts. The data hold no receipts, so that each SKU starts with as much
//! *opening stock* as keeps it from ever falling below zero: derived, not data, and labelled by
//! its source, [`OPENING_STOCK`].

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use prost_types::Timestamp;
use sellable::proto::v1::{self as pb, movement::Kind};
use serde::Deserialize;

/// Where the data are expected beside a checkout of this project.
pub(crate) const DATA_FILE: &str =
    "../shared/data/online-retail/online_retail_2010-12_2011-12.csv.zst";
/// The one place the goods lie at.
pub(crate) const LOCATION: &str = "uk-warehouse";
/// The one channel that sells them.
pub(crate) const CHANNEL: &str = "web";
/// Source of what the order system tells: reservations.
pub(crate) const ORDERS: &str = "orders";
/// Source of what the warehouse tells: shipments, returns, adjustments.
pub(crate) const WAREHOUSE: &str = "warehouse";
/// Source of the stock that must have been there before the first row. Derived.
pub(crate) const OPENING_STOCK: &str = "opening-stock";

/// Longest reason of an adjustment that the contract takes, in bytes.
const REASON_BYTES_MAX: usize = sellable::limits::REASON_BYTES_MAX;

/// An invoice line.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its number in the file, from 1.
    pub(crate) line: u32,
    /// `C…` is a cancellation.
    pub(crate) invoice: String,
    /// The stock code in capitals: the data write some of them both ways.
    pub(crate) sku: String,
    /// Of an adjustment: a note of the staff.
    pub(crate) description: String,
    /// Never zero.
    pub(crate) quantity: i64,
    /// Seconds since 1970. The data state minutes and no zone; they are read as UTC.
    pub(crate) seconds: i64,
    /// The unit price is zero.
    pub(crate) is_free: bool,
    /// A customer is named.
    pub(crate) has_customer: bool,
}

/// What an invoice line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Postage, fees, vouchers, discounts, samples.
    NotGoods,
    /// Sold goods came back, or a sale was called off.
    Cancellation,
    /// Found to be fewer.
    AdjustOut,
    /// Found to be more.
    AdjustIn,
    /// Sold.
    Sale,
}

impl Class {
    /// All of them, in the order in which they are looked for.
    pub(crate) const ALL: [Self; 5] = [
        Self::NotGoods,
        Self::Cancellation,
        Self::AdjustOut,
        Self::AdjustIn,
        Self::Sale,
    ];

    /// As a table shows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotGoods => "not goods",
            Self::Cancellation => "cancellation",
            Self::AdjustOut => "adjusted down",
            Self::AdjustIn => "adjusted up",
            Self::Sale => "sale",
        }
    }

    /// The movements it becomes.
    pub(crate) fn movements(self) -> &'static str {
        match self {
            Self::NotGoods => "none",
            Self::Cancellation => "received",
            Self::AdjustOut | Self::AdjustIn => "adjusted",
            Self::Sale => "reserved, shipped",
        }
    }
}

/// The columns as they stand in the file.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Columns<'a> {
    line: u32,
    invoice_no: &'a str,
    stock_code: &'a str,
    description: &'a str,
    quantity: i64,
    invoice_date: &'a str,
    unit_price: &'a str,
    #[serde(rename = "CustomerID")]
    customer: &'a str,
}

/// Reads at most `rows_max` rows of a file, compressed with zstd if its name says so. `progress`
/// is called with the number of rows so far.
///
/// # Errors
/// If it is not there or not what it should be; says where.
pub(crate) fn read(
    path: &Path,
    rows_max: usize,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Row>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(|error| at(&error))?;
    let bytes: Box<dyn std::io::Read> = if path.extension().is_some_and(|end| end == "zst") {
        Box::new(zstd::Decoder::new(file).map_err(|error| at(&error))?)
    } else {
        Box::new(BufReader::new(file))
    };
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|error| at(&error))?.clone();
    let mut record = csv::StringRecord::new();
    let mut rows = Vec::new();
    while rows.len() < rows_max
        && reader
            .read_record(&mut record)
            .map_err(|error| at(&error))?
    {
        let columns: Columns<'_> = record
            .deserialize(Some(&header))
            .map_err(|error| at(&error))?;
        rows.push(Row::new(&columns).map_err(|error| at(&error))?);
        progress(rows.len() as u64);
    }
    Ok(rows)
}

impl Row {
    fn new(columns: &Columns<'_>) -> Result<Self, String> {
        let time: jiff::civil::DateTime = columns
            .invoice_date
            .parse()
            .map_err(|error| format!("line {}: {error}", columns.line))?;
        let time = time
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map_err(|error| format!("line {}: {error}", columns.line))?;
        Ok(Self {
            line: columns.line,
            invoice: columns.invoice_no.to_owned(),
            sku: columns.stock_code.to_uppercase(),
            description: columns.description.to_owned(),
            quantity: columns.quantity,
            seconds: time.timestamp().as_second(),
            is_free: columns
                .unit_price
                .bytes()
                .all(|byte| matches!(byte, b'0' | b'.')),
            has_customer: !columns.customer.is_empty(),
        })
    }

    /// What it is.
    pub(crate) fn class(&self) -> Class {
        if !is_goods(&self.sku) {
            Class::NotGoods
        } else if self.invoice.starts_with('C') {
            Class::Cancellation
        } else if self.quantity < 0 {
            Class::AdjustOut
        } else if self.is_free && !self.has_customer {
            Class::AdjustIn
        } else {
            Class::Sale
        }
    }

    /// What it adds to the stock; negative if it takes.
    pub(crate) fn change(&self) -> i64 {
        match self.class() {
            Class::NotGoods => 0,
            Class::Cancellation => self.quantity.abs(),
            Class::AdjustOut | Class::AdjustIn => self.quantity,
            Class::Sale => -self.quantity,
        }
    }

    /// Its movements, in the order in which they happened.
    pub(crate) fn movements(&self) -> Vec<pb::Movement> {
        let location = || LOCATION.to_owned();
        // Lines of one invoice share its number, and even (invoice, SKU) is not unique.
        let (order, line) = (self.invoice.clone(), self.line.to_string());
        match self.class() {
            Class::NotGoods => Vec::new(),
            Class::Cancellation => {
                let kind = Kind::Received(pb::Received {
                    location: location(),
                    condition: pb::Condition::Good.into(),
                    ..pb::Received::default()
                });
                let mut movement = self.movement(WAREHOUSE, "", self.quantity.abs(), kind);
                movement.reference = order;
                vec![movement]
            }
            Class::AdjustOut | Class::AdjustIn => {
                let kind = Kind::Adjusted(pb::Adjusted {
                    location: location(),
                    condition: pb::Condition::Good.into(),
                    reason: reason(&self.description),
                });
                vec![self.movement(WAREHOUSE, "", self.quantity, kind)]
            }
            Class::Sale => {
                let reserved = Kind::Reserved(pb::Reserved {
                    order: order.clone(),
                    line: line.clone(),
                    location: location(),
                    channel: CHANNEL.into(),
                    expires_at: None,
                });
                let shipped = Kind::Shipped(pb::Shipped {
                    order,
                    line,
                    location: location(),
                });
                vec![
                    self.movement(ORDERS, "-reserve", self.quantity, reserved),
                    self.movement(WAREHOUSE, "-ship", self.quantity, shipped),
                ]
            }
        }
    }

    fn movement(&self, source: &str, suffix: &str, quantity: i64, kind: Kind) -> pb::Movement {
        pb::Movement {
            id: format!("{}-{}{suffix}", self.invoice, self.line),
            source: source.into(),
            occurred_at: Some(at(self.seconds)),
            sku: self.sku.clone(),
            quantity,
            kind: Some(kind),
            ..pb::Movement::default()
        }
    }
}

/// Five digits and perhaps letters, or one of the retailer's own series. All else is a service.
fn is_goods(sku: &str) -> bool {
    let bytes = sku.as_bytes();
    let numbered = bytes.len() >= 5
        && bytes[..5].iter().all(u8::is_ascii_digit)
        && bytes[5..].iter().all(u8::is_ascii_uppercase);
    numbered || sku.starts_with("DCGS") || sku == "PADS"
}

/// The staff's note, as far as it fits.
fn reason(note: &str) -> String {
    let mut reason = String::new();
    for char in note.chars().filter(|char| !char.is_control()) {
        if reason.len() + char.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        reason.push(char);
    }
    match reason.trim() {
        "" => "no note".into(),
        reason => reason.into(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// What must have been in stock before the first row, so that no balance ever falls below zero:
/// for each SKU its deepest fall, as one `received` at the time of the first row.
pub(crate) fn opening_stock(rows: &[Row]) -> Vec<pb::Movement> {
    let Some(first) = rows.first() else {
        return Vec::new();
    };
    // Balance so far, and the lowest it has been.
    let mut balances: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.class() != Class::NotGoods) {
        let (balance, lowest) = balances.entry(&row.sku).or_default();
        *balance += row.change();
        *lowest = (*lowest).min(*balance);
    }
    let missing = balances.into_iter().filter(|(_, (_, lowest))| *lowest < 0);
    missing
        .map(|(sku, (_, lowest))| pb::Movement {
            id: format!("opening-{sku}"),
            source: OPENING_STOCK.into(),
            occurred_at: Some(at(first.seconds)),
            sku: sku.into(),
            quantity: -lowest,
            reference: "derived: the least stock with which no balance falls below zero".into(),
            kind: Some(Kind::Received(pb::Received {
                location: LOCATION.into(),
                condition: pb::Condition::Good.into(),
                ..pb::Received::default()
            })),
            ..pb::Movement::default()
        })
        .collect()
}
