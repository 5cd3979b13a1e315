//! Reads a scenario: a Markdown file with a few sentences, the channel rules and one table. What it
//! cannot make sense of is an error with its line, so that nothing in a table is there for show.

use std::{
    collections::BTreeSet,
    fmt::{Display, Write},
};

use jiff::{civil::DateTime, tz::TimeZone};
use sellable::{
    domain::{balances::Account, movement::TimeUs, rules::Rules},
    proto::v1::{self as pb, command::Command as Pb},
    wire::{command, json, movement::from_proto},
};
use serde_json::{Map, Value};

/// The log's time before the first row.
const BEGIN: &str = "2026-01-05 08:00";

/// A file.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its path, for people.
    pub(crate) path: String,
    /// Channel rules.
    pub(crate) rules: String,
    /// All its events are facts, and whatever the order they arrive in, the end is the same.
    pub(crate) any_order: bool,
    pub(crate) begin_us: TimeUs,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// What a column says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Column {
    Event,
    Sku,
    Quantity,
    Where,
    Document,
    Id,
    Source,
    /// For people only.
    Note,
    Outcome,
    /// What a channel may sell of a SKU.
    Ats(String, String),
    /// A balance, at a location, of a SKU.
    Balance(Account, String, String),
    Exceptions,
}

/// One event, and how things stand after it.
#[derive(Debug)]
pub(crate) struct Row {
    /// Of the file.
    pub(crate) line: usize,
    pub(crate) cells: Vec<String>,
    pub(crate) event: Event,
}

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Fact(Box<pb::Movement>),
    Command(Box<pb::Command>),
    Clock(TimeUs),
    /// A person decides about the parked movement of this id.
    Decide(pb::Resolution, pb::Disposition, String),
}

const ANY_ORDER: &str = "The order of these events does not matter.";
const ONE_ORDER: &str = "The order of these events matters: ";
const COLUMNS: [(&str, Column); 10] = [
    ("event", Column::Event),
    ("SKU", Column::Sku),
    ("qty", Column::Quantity),
    ("where", Column::Where),
    ("document", Column::Document),
    ("id", Column::Id),
    ("source", Column::Source),
    ("note", Column::Note),
    ("outcome", Column::Outcome),
    ("open exceptions", Column::Exceptions),
];
/// Without them, a table would say little.
const REQUIRED: [&str; 7] = [
    "event",
    "SKU",
    "qty",
    "where",
    "document",
    "outcome",
    "open exceptions",
];
const ACCOUNTS: [Account; 7] = [
    Account::Good,
    Account::Quarantined,
    Account::Damaged,
    Account::ReturnPending,
    Account::Reserved,
    Account::InTransit,
    Account::ReturnExpected,
];

/// Reads a file, or says what is wrong with it, with its line.
pub(crate) fn parse(path: &str, text: &str) -> Result<Scenario, String> {
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines().map(str::trim_end)).collect();
    let wrong = |line: usize, what: &dyn Display| format!("{path}:{line}: {what}");
    if !lines
        .first()
        .is_some_and(|(_, first)| first.starts_with("# "))
    {
        return Err(wrong(1, &"a scenario begins with its title, \"# …\""));
    }
    let orders: Vec<&str> = lines
        .iter()
        .map(|(_, line)| *line)
        .filter(|line| *line == ANY_ORDER || line.starts_with(ONE_ORDER))
        .collect();
    let [order] = orders[..] else {
        let what = format!("one line says {ANY_ORDER:?}, or {ONE_ORDER:?} and why");
        return Err(wrong(1, &what));
    };
    let rules = rules(&lines).map_err(|(line, what)| wrong(line, &what))?;
    let table: Vec<(usize, &str)> = lines
        .iter()
        .copied()
        .filter(|(_, line)| line.trim_start().starts_with('|'))
        .collect();
    let in_one_piece = table.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
    let [(head_line, head), (ruler_line, ruler), rows @ ..] = &table[..] else {
        return Err(wrong(1, &"there is no table"));
    };
    if !in_one_piece {
        return Err(wrong(*head_line, &"there is more than one table"));
    }
    let is_ruler = |cell: &String| !cell.is_empty() && cell.chars().all(|c| "-:".contains(c));
    if !cells(ruler).iter().all(is_ruler) {
        return Err(wrong(*ruler_line, &"a line like |---|---| is missing"));
    }
    if rows.is_empty() {
        return Err(wrong(*head_line, &"the table has no events"));
    }
    let head = cells(head);
    let sku_column = head.iter().position(|name| name == "SKU");
    let skus: BTreeSet<String> = rows
        .iter()
        .filter_map(|(_, row)| cells(row).get(sku_column?).cloned())
        .flat_map(|cell| several(&cell))
        .collect();
    let columns = columns(&head, &skus).map_err(|what| wrong(*head_line, &what))?;

    let begin_us = time(BEGIN).expect("a time");
    let mut now_us = begin_us;
    let mut parsed: Vec<Row> = Vec::new();
    for (line, text) in rows {
        let mut cells = cells(text);
        for (column, cell) in columns.iter().zip(&mut cells) {
            if *column == Column::Exceptions {
                *cell = in_order(cell.split(", ").map(str::to_owned).collect());
            }
        }
        let row = Reading {
            columns: &columns,
            cells: &cells,
            number: parsed.len() + 1,
            now_us,
        };
        let event = row.event().map_err(|what| wrong(*line, &what))?;
        if let Event::Clock(us) = event {
            now_us = us;
        }
        parsed.push(Row {
            line: *line,
            cells,
            event,
        });
    }
    let any_order = order == ANY_ORDER;
    if any_order && let Some(row) = parsed.iter().find(|row| !row.is_fact(&columns)) {
        let what = "this is no fact, or the first to arrive counts, so that the order matters";
        return Err(wrong(row.line, &what));
    }
    Ok(Scenario {
        path: path.to_owned(),
        rules,
        any_order,
        begin_us,
        columns,
        rows: parsed,
    })
}

/// The one block of rules.
fn rules(lines: &[(usize, &str)]) -> Result<String, (usize, String)> {
    let fences: Vec<(usize, &str)> = lines
        .iter()
        .copied()
        .filter(|(_, line)| line.starts_with("```"))
        .collect();
    let [(from, "```toml"), (to, "```")] = fences[..] else {
        return Err((
            1,
            "there is one block of channel rules, ```toml … ```".into(),
        ));
    };
    let toml = lines[from..to - 1]
        .iter()
        .fold(String::new(), |toml, (_, line)| toml + line + "\n");
    match Rules::parse(&toml) {
        Ok((rules, _)) if rules.channels().next().is_some() => Ok(toml),
        Ok(_) => Err((from, "the rules have no channel".into())),
        Err(error) => Err((from, error.to_string())),
    }
}

fn cells(row: &str) -> Vec<String> {
    let row = row.trim();
    let row = row.strip_prefix('|').unwrap_or(row);
    let row = row.strip_suffix('|').unwrap_or(row);
    row.split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// `A + B` is two.
fn several(cell: &str) -> Vec<String> {
    let parts = cell.split(" + ").map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Exceptions as a cell lists them.
pub(crate) fn in_order(mut exceptions: Vec<String>) -> String {
    exceptions.sort_unstable();
    exceptions.join(", ")
}

fn columns(head: &[String], skus: &BTreeSet<String>) -> Result<Vec<Column>, String> {
    let columns: Vec<Column> = head
        .iter()
        .map(|name| column(name, skus))
        .collect::<Result<_, _>>()?;
    for (place, name) in head.iter().enumerate() {
        if head[..place].contains(name) {
            return Err(format!("two columns are named {name:?}"));
        }
    }
    for name in REQUIRED {
        if !head.iter().any(|column| column == name) {
            return Err(format!("there is no column {name:?}"));
        }
    }
    if !columns
        .iter()
        .any(|column| matches!(column, Column::Ats(..)))
    {
        return Err("there is no column \"ATS <channel>\"".into());
    }
    Ok(columns)
}

fn column(name: &str, skus: &BTreeSet<String>) -> Result<Column, String> {
    let known = COLUMNS.iter().find(|(known, _)| *known == name);
    if let Some((_, column)) = known {
        return Ok(column.clone());
    }
    let words: Vec<&str> = name.split(' ').collect();
    let [what, place, ref sku @ ..] = words[..] else {
        return Err(format!("there are no columns named {name:?}"));
    };
    let sku = match (sku, skus.len()) {
        ([], 1) => skus.first().expect("there is one").clone(),
        ([], _) => return Err(format!("{name:?} does not say of which SKU")),
        ([sku], _) if skus.contains(*sku) => (*sku).to_owned(),
        _ => return Err(format!("{name:?} names a SKU that no event does")),
    };
    if what == "ATS" {
        return Ok(Column::Ats(place.into(), sku));
    }
    let account = ACCOUNTS.into_iter().find(|account| account.name() == what);
    match account {
        Some(account) => Ok(Column::Balance(account, place.into(), sku)),
        None => Err(format!("there are no columns named {name:?}")),
    }
}

fn time(text: &str) -> Result<TimeUs, String> {
    let time = DateTime::strptime("%Y-%m-%d %H:%M", text)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map_err(|_| format!("{text:?} is no time like {BEGIN:?}"))?;
    Ok(time.timestamp().as_microsecond())
}

/// As a text format has it.
fn rfc3339(text: &str) -> Result<String, String> {
    time(text)?;
    Ok(format!("{}:00Z", text.replace(' ', "T")))
}

impl Column {
    /// Whether its cells are compared with what is found.
    pub(crate) fn is_checked(&self) -> bool {
        matches!(
            self,
            Column::Outcome | Column::Ats(..) | Column::Balance(..) | Column::Exceptions
        )
    }
}

impl Row {
    /// Whether it has the same effect wherever it comes among others.
    fn is_fact(&self, columns: &[Column]) -> bool {
        let outcome = columns.iter().position(|column| *column == Column::Outcome);
        let outcome = &self.cells[outcome.expect("it is required")];
        match self.event {
            Event::Fact(_) => !outcome.contains("conflicting_duplicate"),
            Event::Clock(_) => true,
            Event::Command(_) | Event::Decide(..) => false,
        }
    }
}

/// A row that is being read.
struct Reading<'r> {
    columns: &'r [Column],
    cells: &'r [String],
    number: usize,
    now_us: TimeUs,
}

impl Reading<'_> {
    fn cell(&self, column: &Column) -> &str {
        let place = self.columns.iter().position(|known| known == column);
        place.map_or("", |place| &self.cells[place])
    }

    fn event(&self) -> Result<Event, String> {
        if self.cells.len() != self.columns.len() {
            let (cells, columns) = (self.cells.len(), self.columns.len());
            return Err(format!(
                "the row has {cells} cells, and the table {columns}"
            ));
        }
        for (column, cell) in self.columns.iter().zip(self.cells) {
            let number = matches!(column, Column::Ats(..) | Column::Balance(..));
            if number && cell != "unknown" && cell.parse::<i64>().is_err() {
                return Err(format!("{cell:?} under {column:?} is no number of units"));
            }
            if column.is_checked() && cell.is_empty() {
                return Err(format!("nothing is said under {column:?}"));
            }
        }
        let event = self.cell(&Column::Event);
        let (kind, detail) = event.split_once(' ').unwrap_or((event, ""));
        match kind {
            "clock" => {
                self.has_no(&[
                    Column::Sku,
                    Column::Quantity,
                    Column::Where,
                    Column::Document,
                ])?;
                let us = time(detail)?;
                if us < self.now_us {
                    return Err("the clock goes back".into());
                }
                Ok(Event::Clock(us))
            }
            "person:" => self.decision(detail),
            "request:" => self.command(detail),
            _ => self.fact(kind, detail),
        }
    }

    fn has_no(&self, columns: &[Column]) -> Result<(), String> {
        let given = columns.iter().find(|column| !self.cell(column).is_empty());
        given.map_or(Ok(()), |column| {
            Err(format!("this event has nothing under {column:?}"))
        })
    }

    fn decision(&self, detail: &str) -> Result<Event, String> {
        self.has_no(&[Column::Sku, Column::Quantity, Column::Where])?;
        let (what, disposition) = detail.split_once(' ').unwrap_or((detail, ""));
        let resolution = match what {
            "acknowledge" => pb::Resolution::Acknowledge,
            "release" => pb::Resolution::Release,
            "discard" => pb::Resolution::Discard,
            _ => return Err(format!("a person cannot {what:?}")),
        };
        let name = format!("DISPOSITION_{}", disposition.to_uppercase());
        let disposition = match disposition {
            "" => pb::Disposition::Unspecified,
            _ => pb::Disposition::from_str_name(&name)
                .ok_or_else(|| format!("{disposition:?} is no disposition"))?,
        };
        let parked = self.cell(&Column::Document);
        if parked.is_empty() {
            return Err("the id of a parked movement is missing under document".into());
        }
        Ok(Event::Decide(resolution, disposition, parked.to_owned()))
    }

    fn id(&self) -> String {
        match self.cell(&Column::Id) {
            "" => format!("row-{}", self.number),
            id => id.to_owned(),
        }
    }

    fn quantity(&self, cell: &str) -> Result<i64, String> {
        let quantity = cell.replace('−', "-").parse();
        quantity.map_err(|_| format!("{cell:?} is no quantity"))
    }

    fn command(&self, detail: &str) -> Result<Event, String> {
        let document = self.cell(&Column::Document);
        let (what, channel) = detail.split_once(' ').unwrap_or((detail, ""));
        let (document, minutes) = match document.split_once(" for ") {
            None => (document, None),
            Some((document, minutes)) => {
                let minutes = minutes.strip_suffix(" min").and_then(|m| m.parse().ok());
                let minutes: i64 = minutes.ok_or("a time to live is like \"for 30 min\"")?;
                (document, Some(minutes))
            }
        };
        let time_to_live = minutes.map(|minutes| prost_types::Duration {
            seconds: minutes * 60,
            nanos: 0,
        });
        let (id, reservation) = (self.id(), document.to_owned());
        let command = match what {
            "reserve" => Pb::Reserve(pb::ReserveRequest {
                id: reservation,
                channel: channel.to_owned(),
                lines: self.lines()?,
                time_to_live,
                ..pb::ReserveRequest::default()
            }),
            _ if !channel.is_empty() => return Err(format!("{channel:?} has no meaning here")),
            "confirm" => Pb::Confirm(pb::ConfirmRequest { id, reservation }),
            "release" => Pb::Release(pb::ReleaseRequest {
                id,
                reservation,
                lines: Vec::new(),
            }),
            "extend" => Pb::Extend(pb::ExtendRequest {
                id,
                reservation,
                time_to_live,
            }),
            _ => return Err(format!("nobody can request {what:?}")),
        };
        if what != "reserve" {
            self.has_no(&[Column::Sku, Column::Quantity, Column::Where])?;
        }
        if matches!(what, "confirm" | "release") && minutes.is_some() {
            return Err(format!("{what} has no time to live"));
        }
        let command = pb::Command {
            command: Some(command),
        };
        command::check(&command).map_err(|invalid| invalid.to_string())?;
        Ok(Event::Command(Box::new(command)))
    }

    /// One for each SKU of the row.
    fn lines(&self) -> Result<Vec<pb::ReserveLine>, String> {
        let skus = several(self.cell(&Column::Sku));
        let quantities = several(self.cell(&Column::Quantity));
        if skus.len() != quantities.len() {
            return Err("there are not as many quantities as SKUs".into());
        }
        let line = |(sku, quantity): (String, &String)| {
            Ok(pb::ReserveLine {
                sku,
                quantity: self.quantity(quantity)?,
                location: self.cell(&Column::Where).to_owned(),
                ..pb::ReserveLine::default()
            })
        };
        skus.into_iter().zip(&quantities).map(line).collect()
    }

    /// By way of the text format of movements, which knows the fields of each kind.
    fn fact(&self, kind: &str, detail: &str) -> Result<Event, String> {
        let mut object = Map::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                object.insert(name.to_owned(), value.into());
            }
        };
        put("type", kind);
        put("id", &self.id());
        put(
            "source",
            match self.cell(&Column::Source) {
                "" => source_of(kind),
                source => source,
            },
        );
        put("sku", self.cell(&Column::Sku));
        match self.cell(&Column::Where).split_once(" → ") {
            Some((from, to)) => {
                put("from", from);
                put("to", to);
            }
            None => put("location", self.cell(&Column::Where)),
        }
        let mut document = self.cell(&Column::Document);
        for (word, name) in [(" by ", "eta"), (" until ", "expires_at")] {
            if let Some((rest, time)) = document.split_once(word) {
                put(name, &rfc3339(time)?);
                document = rest;
            }
        }
        if let Some((rest, of)) = document.split_once(" of ") {
            let (order, line) = of.split_once('/').ok_or("an order is like W-1/1")?;
            put("order", order);
            put("order_line", line);
            document = rest;
        }
        if !document.is_empty() {
            let (number, line) = document.split_once('/').ok_or("a document is like W-1/1")?;
            put(document_of(kind), number);
            put("line", line);
        }
        let mut occurred_us = self.now_us;
        let mut detail = detail;
        if let Some((rest, text)) = format!(" {detail}").split_once(" at ") {
            occurred_us = time(text)?;
            detail = &detail[..rest.len().saturating_sub(1)];
        }
        let (first, rest) = detail.split_once(' ').unwrap_or((detail, ""));
        match kind {
            "received" | "transfer_received" => put("condition", detail),
            "issued" => {
                put("reason", first);
                put("condition", rest);
            }
            "reclassified" => {
                let (from, to) = detail.split_once(" → ").ok_or("from → to is missing")?;
                put("from", from);
                put("to", to);
            }
            "adjusted" => put("reason", detail),
            "counted" => {}
            "reserved" => put("channel", detail),
            "return_inspected" => put("disposition", detail),
            _ if !detail.is_empty() => return Err(format!("{detail:?} has no meaning here")),
            _ => {}
        }
        let occurred_at = jiff::Timestamp::from_microsecond(occurred_us).expect("a time");
        put("occurred_at", &occurred_at.to_string());
        let quantity = self.quantity(self.cell(&Column::Quantity))?;
        // A count has its units in the field of the condition.
        let field = if kind == "counted" {
            detail
        } else {
            "quantity"
        };
        object.insert(field.into(), quantity.into());
        let line = Value::Object(object).to_string();
        let movement = json::line(line.as_bytes(), None).movement;
        let movement = movement.map_err(|invalid| invalid.to_string())?;
        from_proto(&movement)
            .and_then(|movement| movement.check(self.now_us))
            .map_err(|invalid| invalid.to_string())?;
        Ok(Event::Fact(Box::new(movement)))
    }
}

/// Who reports it, unless a table says otherwise.
fn source_of(kind: &str) -> &'static str {
    match kind {
        "issued" => "pos",
        "return_refunded" => "finance",
        "reserved" | "released" | "reassigned" | "inbound_expected" | "inbound_cancelled" => "oms",
        _ if kind.starts_with("return_") => "returns",
        _ => "wms",
    }
}

/// The field that a document's number goes into.
fn document_of(kind: &str) -> &'static str {
    match kind {
        "received" | "inbound_expected" | "inbound_cancelled" => "inbound",
        _ if kind.starts_with("transfer_") => "transfer",
        _ if kind.starts_with("return_") => "return",
        _ => "order",
    }
}

/// What is not as it should be in a row, for people; empty if all is well.
pub(crate) fn differences(scenario: &Scenario, row: &Row, found: &[String]) -> String {
    let mut text = String::new();
    for ((column, expected), found) in scenario.columns.iter().zip(&row.cells).zip(found) {
        if !column.is_checked() || expected == found {
            continue;
        }
        let name = match column {
            Column::Outcome => "outcome".to_owned(),
            Column::Exceptions => "open exceptions".to_owned(),
            Column::Ats(channel, sku) => format!("ATS {channel} {sku}"),
            Column::Balance(account, at, sku) => format!("{} {at} {sku}", account.name()),
            _ => continue,
        };
        let indent = " ".repeat(name.len());
        let _ = writeln!(text, "    {name}  expected: {expected}");
        let _ = writeln!(text, "    {indent}  found:    {found}");
    }
    if text.is_empty() {
        return text;
    }
    let place = scenario.columns.iter().position(|c| *c == Column::Event);
    let event = &row.cells[place.expect("it is required")];
    format!(
        "{}:{}: after {event:?}\n{text}    as found  | {} |\n",
        scenario.path,
        row.line,
        found.join(" | ")
    )
}
