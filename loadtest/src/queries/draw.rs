//! What each call asks: `Availability.Get` with SKUs drawn from a list.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
};

use crate::{
    Failure,
    proto::GetRequest,
    random::Random,
    zipf::{RANKS_MAX as SKUS_MAX, Zipf},
};

/// Most SKUs of one call, by the contract.
pub const SKUS_PER_CALL_MAX: usize = 1_000;
/// Longest SKU, in bytes, by the contract.
pub const SKU_BYTES_MAX: usize = 100;

/// How often a SKU that is in the call already is drawn anew before its neighbor is taken.
const REDRAWS_MAX: u32 = 16;
const STREAM: u128 = 0x0A5C;

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
