//! A recording: movements as NDJSON, one a line, as `sellable post` takes them.
//!
//! A line is read by the contract's own description: fields of the kind stand beside the common
//! ones, and a value of an enum is its name without the prefix in lower case. So a kind that is
//! added to the contract can be replayed without a change here.

use std::{collections::HashMap, io::BufRead, time::Duration};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use crate::{
    Failure,
    proto::{Disposition, Movement, movement},
};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
/// Most movements of a recording; it is held in memory.
const MOVEMENTS_MAX: usize = 10_000_000;

/// Movements in order of when they occurred.
#[derive(Debug, Default)]
pub struct Recording {
    movements: Vec<Movement>,
}

impl Recording {
    /// Reads a recording; `prefix` is put before every SKU, movement and document, so that it can
    /// be replayed again and again, and nothing that was there before is touched.
    ///
    /// # Errors
    /// If a line is no movement; the line and the field are named.
    pub fn read(input: impl BufRead, name: &str, prefix: &str) -> Result<Self, Failure> {
        let contract = Contract::new()?;
        let mut movements = Vec::new();
        for (n, line) in input.lines().enumerate() {
            let bad = |what: String| {
                Failure::usage(format!("{name}, line {}: {what}", n + 1))
                    .hint("one movement a line, as `sellable post` takes them")
            };
            let line = line.map_err(|error| bad(error.to_string()))?;
            if line.trim().is_empty() {
                continue;
            }
            if movements.len() == MOVEMENTS_MAX {
                return Err(bad(format!("more than {MOVEMENTS_MAX} movements")));
            }
            let mut movement = contract.movement(&line).map_err(bad)?;
            rename(&mut movement, prefix);
            movements.push(movement);
        }
        if movements.is_empty() {
            return Err(Failure::usage(format!("{name} has no movements")));
        }
        movements.sort_by_key(occurred);
        Ok(Self { movements })
    }

    /// The movements.
    pub fn movements(&self) -> &[Movement] {
        &self.movements
    }

    /// How long after the first one the n-th occurred; none after the last.
    pub fn offset(&self, n: usize) -> Option<Duration> {
        let (seconds, nanos) = occurred(self.movements.get(n)?);
        let (first, first_nanos) = occurred(&self.movements[0]);
        let ns = i128::from(seconds - first) * 1_000_000_000 + i128::from(nanos - first_nanos);
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
    }
}

fn occurred(movement: &Movement) -> (i64, i32) {
    let at = movement.occurred_at.unwrap_or_default();
    (at.seconds, at.nanos)
}

/// Movements of one replay are apart from all others.
fn rename(movement: &mut Movement, prefix: &str) {
    let before = |name: &mut String| {
        if !name.is_empty() {
            name.insert_str(0, &format!("{prefix}-"));
        }
    };
    movement.source = crate::catalogue::SOURCE.to_owned();
    before(&mut movement.id);
    before(&mut movement.sku);
    use movement::Kind::*;
    match &mut movement.kind {
        Some(Received(kind)) => before(&mut kind.inbound),
        Some(Reserved(kind)) => before(&mut kind.order),
        Some(Released(kind)) => before(&mut kind.order),
        Some(Reassigned(kind)) => before(&mut kind.order),
        Some(Picked(kind)) => before(&mut kind.order),
        Some(Packed(kind)) => before(&mut kind.order),
        Some(Shipped(kind)) => before(&mut kind.order),
        Some(InboundExpected(kind)) => before(&mut kind.inbound),
        Some(InboundCancelled(kind)) => before(&mut kind.inbound),
        Some(TransferShipped(kind)) => before(&mut kind.transfer),
        Some(TransferReceived(kind)) => before(&mut kind.transfer),
        Some(TransferClosed(kind)) => before(&mut kind.transfer),
        Some(ReturnAuthorized(kind)) => {
            before(&mut kind.r#return);
            before(&mut kind.order);
        }
        Some(ReturnCancelled(kind)) => before(&mut kind.r#return),
        Some(ReturnReceived(kind)) => before(&mut kind.r#return),
        Some(ReturnInspected(kind)) => before(&mut kind.r#return),
        Some(ReturnRefunded(kind)) => before(&mut kind.r#return),
        Some(Issued(_) | Reclassified(_) | Adjusted(_) | Counted(_)) | None => {}
    }
}

/// Units on hand, in all conditions, that movements have left by SKU and location. None for a SKU
/// of which units alone do not tell: it was counted, or units of it were destroyed after their
/// inspection.
pub fn on_hand<'a>(
    movements: impl Iterator<Item = &'a Movement>,
) -> HashMap<(String, String), Option<i64>> {
    let mut books: HashMap<(String, String), Option<i64>> = HashMap::new();
    let mut untold: Vec<String> = Vec::new();
    for movement in movements {
        let units = movement.quantity;
        let mut change = |location: &str, units: i64| {
            let cell = (movement.sku.clone(), location.to_owned());
            if let Some(on_hand) = books.entry(cell).or_insert(Some(0)) {
                *on_hand += units;
            }
        };
        use movement::Kind::*;
        match &movement.kind {
            Some(Received(kind)) => change(&kind.location, units),
            Some(Issued(kind)) => change(&kind.location, -units),
            Some(Adjusted(kind)) => change(&kind.location, units),
            Some(Shipped(kind)) => change(&kind.location, -units),
            Some(TransferShipped(kind)) => change(&kind.from, -units),
            Some(TransferReceived(kind)) => change(&kind.location, units),
            Some(ReturnReceived(kind)) => change(&kind.location, units),
            Some(ReturnInspected(kind)) if kind.disposition() != Disposition::Scrap => {}
            Some(ReturnInspected(_) | Counted(_)) => untold.push(movement.sku.clone()),
            _ => {}
        }
    }
    for ((sku, _), on_hand) in &mut books {
        if untold.contains(sku) {
            *on_hand = None;
        }
    }
    books
}

/// The contract's description of a movement.
struct Contract {
    movement: MessageDescriptor,
}

impl Contract {
    fn new() -> Result<Self, Failure> {
        let broken = || Failure::failed("the program's own description of movements is broken");
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|_| broken())?;
        let movement = pool.get_message_by_name("sellable.v1.Movement");
        Ok(Self {
            movement: movement.ok_or_else(broken)?,
        })
    }

    fn movement(&self, line: &str) -> Result<Movement, String> {
        let mut fields: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("no JSON object: {error}"))?;
        let kind = match fields.remove("type") {
            Some(Value::String(kind)) => kind,
            _ => return Err("type: it takes the name of a kind, as \"received\"".to_owned()),
        };
        let of_kind = self
            .movement
            .get_field_by_name(&kind)
            .filter(|field| field.containing_oneof().is_some())
            .ok_or_else(|| format!("type: there is no kind {kind:?}"))?;
        let Kind::Message(description) = of_kind.kind() else {
            return Err(format!("type: {kind:?} is no kind"));
        };
        let mut own = Map::new();
        for field in description.fields() {
            if let Some(value) = fields.remove(field.name()) {
                own.insert(field.name().to_owned(), proto_json(&field, value));
            }
        }
        fields.insert(kind, Value::Object(own));
        let message = DynamicMessage::deserialize(self.movement.clone(), Value::Object(fields))
            .map_err(|error| error.to_string())?;
        Movement::decode(message.encode_to_vec().as_slice()).map_err(|error| error.to_string())
    }
}

/// Protobuf's own JSON has the whole names of enum values.
fn proto_json(field: &FieldDescriptor, value: Value) -> Value {
    match (field.kind(), value) {
        (Kind::Enum(kind), Value::String(name)) => {
            let prefix = kind.values().next().map_or_else(String::new, |first| {
                first.name().trim_end_matches("UNSPECIFIED").to_owned()
            });
            Value::String(prefix + &name.to_uppercase())
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests;
