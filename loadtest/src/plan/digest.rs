//! One number for all that was planned.

use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::{Change, Op};

/// Grows with each call.
#[derive(Default)]
pub(super) struct Digest(Xxh3);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({})", self.to_hex())
    }
}

impl Digest {
    /// Adds a call. Every list is preceded by its length, so that no two plans look alike.
    pub(super) fn add(&mut self, due: Duration, op: &Op) {
        self.number(due.as_nanos() as u64);
        match op {
            Op::Query { channel, skus } => {
                self.numbers([1, *channel as u64, skus.len() as u64]);
                self.numbers(skus.iter().map(|sku| u64::from(*sku)));
            }
            Op::Reserve(cart) => {
                let lines = cart.lines.len() as u64;
                self.numbers([2, u64::from(cart.order), cart.channel as u64, lines]);
                self.number(cart.fate as u64);
                for line in &cart.lines {
                    self.numbers([u64::from(line.sku), u64::from(line.units)]);
                }
            }
            Op::Confirm(order) => self.numbers([3, u64::from(*order)]),
            Op::Release(order) => self.numbers([4, u64::from(*order)]),
            Op::Ship(order) => self.numbers([5, u64::from(*order)]),
            Op::Return(order) => self.numbers([6, u64::from(*order)]),
            Op::Move { first, moves } => {
                self.numbers([7, *first, moves.len() as u64]);
                for moved in moves {
                    let sold = u64::from(moved.change == Change::Sold);
                    let cell = [u64::from(moved.sku), u64::from(moved.slot)];
                    self.numbers(cell.into_iter().chain([u64::from(moved.units), sold]));
                }
            }
            Op::Probe(number) => self.numbers([8, *number]),
            Op::Replay { first, count } => self.numbers([9, *first as u64, *count as u64]),
        }
    }

    /// 16 hexadecimal digits.
    pub(super) fn to_hex(&self) -> String {
        format!("{:016x}", self.0.digest())
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.number(number);
        }
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }
}
