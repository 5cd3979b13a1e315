//! Runs cases, each from a seed of its own, so that one command replays what failed.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}, and not a number")))
}

/// A runner for the case of a seed.
pub(crate) fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: 1,
        max_shrink_iters: 20_000,
        // What fails is printed whole; there is no file to keep beside the tests.
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Checks `cases` of a strategy, or as many as `SELLABLE_MODEL_CASES` says, on as many threads as
/// are asked for. The first has the seed `SELLABLE_MODEL_SEED`, or one that no run had before, and
/// each the one after. What fails is shrunk, and printed with the command that runs it again.
pub(crate) fn run<S>(
    test: &str,
    cases: u64,
    threads: u64,
    strategy: impl Fn() -> S + Sync,
    check: impl Fn(&S::Value) -> Result<(), String> + Sync,
) where
    S: Strategy,
    S::Value: Debug,
{
    let cases = setting("SELLABLE_MODEL_CASES").unwrap_or(cases);
    let first = setting("SELLABLE_MODEL_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.expect("it is after 1970").as_micros() as u64
    });
    let (started, next) = (Instant::now(), AtomicU64::new(0));
    let work = || {
        loop {
            let case = next.fetch_add(1, Relaxed);
            if case >= cases {
                return;
            }
            if case > 0 && case.is_multiple_of(10_000) {
                eprintln!("{test}: {case} of {cases} in {:?}", started.elapsed());
            }
            let seed = first.wrapping_add(case);
            let result = runner(seed).run(&strategy(), |value| {
                check(&value).map_err(TestCaseError::fail)
            });
            match result {
                Ok(()) => {}
                Err(TestError::Fail(reason, value)) => {
                    next.store(cases, Relaxed);
                    panic!(
                        "{reason}\n{value:#?}\nrun it again with\nSELLABLE_MODEL_SEED={seed} \
                         SELLABLE_MODEL_CASES=1 cargo test --test {} {test}",
                        env!("CARGO_CRATE_NAME"),
                    );
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    };
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}
