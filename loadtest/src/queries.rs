//! What each call asks: `Availability.Get` with SKUs drawn from a list.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
};

use crate::{Failure, proto::GetRequest, random::Random};

/// Most SKUs of one call, by the contract.
pub const SKUS_PER_CALL_MAX: usize = 1_000;
/// Longest SKU, in bytes, by the contract.
pub const SKU_BYTES_MAX: usize = 100;
/// Most SKUs of a list, so that a wrong file does not fill the memory.
pub const SKUS_MAX: usize = 10_000_000;
/// Steepest popularity: beyond it, one SKU would be nearly all.
pub const ZIPF_MAX: f64 = 5.0;

/// How often a SKU that is in the call already is drawn anew before its neighbor is taken.
const REDRAWS_MAX: u32 = 16;
const STREAM: u128 = 0x0A5C;

const _: () = assert!(SKUS_MAX < u32::MAX as usize);

/// Reads the SKUs of a file, or of stdin if it is named `-`.
///
/// # Errors
/// As [`parse_skus`], or if it cannot be read.
pub fn read_skus(file: &str) -> Result<Vec<String>, Failure> {
    if file == "-" {
        return parse_skus(io::stdin().lock(), "stdin");
    }
    let open = File::open(file)
        .map_err(|error| Failure::usage(format!("cannot read the SKUs of {file}: {error}")))?;
    parse_skus(BufReader::new(open), file)
}

/// One SKU a line, the most popular first. Empty lines and repeats of a SKU are passed over.
///
/// # Errors
/// If a line is no SKU, or if there are none or too many.
pub fn parse_skus(input: impl BufRead, name: &str) -> Result<Vec<String>, Failure> {
    let mut skus = Vec::new();
    let mut seen = HashSet::new();
    for (n, line) in input.lines().enumerate() {
        let number = n + 1;
        let line =
            line.map_err(|error| Failure::usage(format!("{name}, line {number}: {error}")))?;
        if line.is_empty() {
            continue;
        }
        if line.len() > SKU_BYTES_MAX {
            return Err(Failure::usage(format!(
                "{name}, line {number}: a SKU has at most {SKU_BYTES_MAX} bytes, this has {}",
                line.len()
            ))
            .hint("the file has one SKU a line and nothing else"));
        }
        if skus.len() == SKUS_MAX {
            return Err(Failure::usage(format!(
                "{name} has more than {SKUS_MAX} SKUs"
            )));
        }
        if seen.insert(line.clone()) {
            skus.push(line);
        }
    }
    if skus.is_empty() {
        return Err(Failure::usage(format!("{name} has no SKUs"))
            .hint("the file has one SKU a line, the most popular first"));
    }
    Ok(skus)
}

/// Draws ranks by Zipf's law: rank r (from 1) has a weight of 1 / r^exponent.
///
/// An alias table (Vose): a draw takes two numbers and one look, however many ranks there are, so
/// that drawing stays small beside sending.
#[derive(Debug)]
pub struct Zipf {
    /// By column: below which number the column itself is taken, else its alias.
    columns: Vec<(u64, u32)>,
}

impl Zipf {
    /// For `count` ranks, at least one and at most [`SKUS_MAX`]. An exponent of 0 draws all alike.
    pub fn new(count: usize, exponent: f64) -> Self {
        assert!((1..=SKUS_MAX).contains(&count), "{count} ranks");
        let mut weights: Vec<f64> = (1..=count).map(|r| (r as f64).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / count as f64;
        for weight in &mut weights {
            *weight /= mean;
        }
        // A column that roundings leave over has a weight of 1, as near as can be told.
        let mut columns: Vec<(u64, u32)> = (0..count as u32).map(|n| (u64::MAX, n)).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..count as u32).partition(|n| weights[*n as usize] < 1.0);
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            let share = weights[low as usize];
            columns[low as usize] = ((share * u64::MAX as f64) as u64, high);
            weights[high as usize] -= 1.0 - share;
            if weights[high as usize] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { columns }
    }

    /// A rank, from 0.
    pub fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len() as u64) as usize;
        let (own_below, alias) = self.columns[column];
        if random.number() < own_below {
            column
        } else {
            alias as usize
        }
    }
}

/// The queries of a run.
#[derive(Debug)]
pub struct Queries {
    channel: String,
    skus: Vec<String>,
    skus_per_call: usize,
    zipf: Zipf,
    random: Random,
    /// By SKU: the call that had it last.
    last_call: Vec<u64>,
    call: u64,
}

impl Queries {
    /// Each with `skus_per_call` different SKUs, as a cart has them.
    ///
    /// # Errors
    /// If the list has fewer.
    pub fn new(
        channel: String,
        skus: Vec<String>,
        skus_per_call: usize,
        exponent: f64,
        seed: u64,
    ) -> Result<Self, Failure> {
        if skus.len() < skus_per_call {
            return Err(Failure::usage(format!(
                "a call asks for {skus_per_call} different SKUs, and the list has {}",
                skus.len()
            ))
            .hint("give a longer list, or fewer with --skus-per-call"));
        }
        Ok(Self {
            channel,
            skus_per_call,
            zipf: Zipf::new(skus.len(), exponent),
            random: Random::new(seed, STREAM),
            last_call: vec![0; skus.len()],
            call: 0,
            skus,
        })
    }

    /// SKUs in the list.
    pub fn skus(&self) -> usize {
        self.skus.len()
    }

    /// The next query; they have no end.
    pub fn draw(&mut self) -> GetRequest {
        self.call += 1;
        let skus = (0..self.skus_per_call)
            .map(|_| {
                let rank = self.draw_new();
                self.skus[rank].clone()
            })
            .collect();
        GetRequest {
            channel: self.channel.clone(),
            skus,
            ..GetRequest::default()
        }
    }

    /// A SKU that is not yet in this call. Few draws hit one that is; but when a call takes nearly
    /// the whole list, the last ones would take very many, hence the neighbor.
    fn draw_new(&mut self) -> usize {
        let mut rank = self.zipf.draw(&mut self.random);
        for _ in 0..REDRAWS_MAX {
            if self.last_call[rank] != self.call {
                break;
            }
            rank = self.zipf.draw(&mut self.random);
        }
        while self.last_call[rank] == self.call {
            rank = (rank + 1) % self.skus.len();
        }
        self.last_call[rank] = self.call;
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("SKU-{n}")).collect()
    }

    fn drawn(count: usize, exponent: f64, draws: usize) -> Vec<usize> {
        let zipf = Zipf::new(count, exponent);
        let mut random = Random::new(7, STREAM);
        let mut counts = vec![0; count];
        for _ in 0..draws {
            counts[zipf.draw(&mut random)] += 1;
        }
        counts
    }

    /// Within five standard deviations, which a fixed seed either is or is not.
    fn assert_near(count: usize, expected: f64) {
        let off = (count as f64 - expected).abs();
        assert!(
            off < 5.0 * expected.sqrt(),
            "{count}, expected {expected:.0}"
        );
    }

    #[test]
    fn every_rank_is_drawn_as_often_as_its_weight_says() {
        let draws = 400_000;
        for exponent in [0.0, 0.5, 1.0, 1.5] {
            let weights: Vec<f64> = (1..=50).map(|r| f64::from(r).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            for (count, weight) in drawn(50, exponent, draws).into_iter().zip(&weights) {
                assert_near(count, draws as f64 * weight / sum);
            }
        }
    }

    #[test]
    fn one_rank_is_always_drawn() {
        assert_eq!(drawn(1, 1.0, 100), [100]);
    }

    #[test]
    fn calls_have_different_skus_even_if_they_take_the_whole_list() {
        let mut queries =
            Queries::new("web".to_owned(), list(40), 40, 1.0, 3).expect("the list is long enough");
        for _ in 0..50 {
            let query = queries.draw();
            assert_eq!(query.channel, "web");
            assert_eq!(query.skus.iter().collect::<HashSet<_>>().len(), 40);
        }
    }

    #[test]
    fn equal_seeds_ask_the_same_and_others_do_not() {
        let asked = |seed| -> Vec<GetRequest> {
            let mut queries = Queries::new("web".to_owned(), list(1_000), 10, 1.0, seed)
                .expect("the list is long enough");
            (0..20).map(|_| queries.draw()).collect()
        };
        assert_eq!(asked(5), asked(5));
        assert_ne!(asked(5), asked(6));
    }

    #[test]
    fn a_list_that_is_too_short_is_refused() {
        let failure = Queries::new("web".to_owned(), list(3), 4, 0.0, 1).expect_err("too short");
        assert_eq!(
            failure.message,
            "a call asks for 4 different SKUs, and the list has 3"
        );
    }

    #[test]
    fn lists_have_one_sku_a_line() {
        let skus = parse_skus("B\r\nA\n\n# 7\nB\n".as_bytes(), "list").expect("a list");
        assert_eq!(skus, ["B", "A", "# 7"]);
        let failure = parse_skus("\n\n".as_bytes(), "list").expect_err("empty");
        assert_eq!(failure.message, "list has no SKUs");
        let long = format!("A\n{}\n", "x".repeat(101));
        let failure = parse_skus(long.as_bytes(), "list").expect_err("too long");
        assert_eq!(
            failure.message,
            "list, line 2: a SKU has at most 100 bytes, this has 101"
        );
    }
}
