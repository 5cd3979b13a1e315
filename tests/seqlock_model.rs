//! The one lock-free hand-off, under a model checker that tries every interleaving and every
//! reordering that the memory model allows.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};

    pub(crate) fn pause() {
        loom::thread::yield_now();
    }
}

#[path = "../src/shard/seqlock.rs"]
mod seqlock;

use loom::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use seqlock::SeqLock;

struct Pair {
    lock: SeqLock,
    a: AtomicU64,
    b: AtomicU64,
}

fn pair() -> Arc<Pair> {
    Arc::new(Pair {
        lock: SeqLock::new(),
        a: AtomicU64::new(0),
        b: AtomicU64::new(0),
    })
}

impl Pair {
    fn set(&self, value: u64) {
        self.lock.write(|| {
            self.a.store(value, Ordering::Relaxed);
            self.b.store(value, Ordering::Relaxed);
        });
    }

    fn get(&self) -> (u64, u64) {
        self.lock.read(|| {
            (
                self.a.load(Ordering::Relaxed),
                self.b.load(Ordering::Relaxed),
            )
        })
    }
}

#[test]
fn a_reader_never_sees_half_a_write() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let pair = pair();
        let writer = loom::thread::spawn({
            let pair = Arc::clone(&pair);
            move || {
                pair.set(1);
                pair.set(2);
            }
        });
        let (a, b) = pair.get();
        assert_eq!(a, b);
        let (later, _) = pair.get();
        assert!(later >= a, "a reader went back in time");
        writer.join().unwrap();
    });
}

/// The model can fail: without the lock, it finds a torn read.
#[test]
#[should_panic(expected = "torn")]
fn without_the_lock_a_torn_read_is_found() {
    loom::model(|| {
        let pair = pair();
        let writer = loom::thread::spawn({
            let pair = Arc::clone(&pair);
            move || {
                pair.a.store(1, Ordering::Relaxed);
                pair.b.store(1, Ordering::Relaxed);
            }
        });
        let a = pair.a.load(Ordering::Relaxed);
        let b = pair.b.load(Ordering::Relaxed);
        assert_eq!(a, b, "torn");
        writer.join().unwrap();
    });
}
