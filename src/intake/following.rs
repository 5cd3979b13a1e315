//! The task that follows the log, and who runs it: a thread of its own, or, when a few entries have
//! just become readable, the thread that wrote them.
//!
//! To wake a thread, and to change over to it, costs as much as some dozens of reservations. So what
//! is little is applied by who made it durable.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    ptr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle},
};

use futures::{
    future::{AbortHandle, abortable},
    task::AtomicWaker,
};
use tokio::runtime::{Handle, Runtime};

use crate::{
    log::{Attend, Log},
    shard::{
        queue::{lock, try_lock},
        worker::{or_abort, task_or_abort},
    },
};

/// The task, polled by one thread at a time.
struct Following {
    place: Mutex<Place>,
    waking: Arc<Waking>,
    waker: Waker,
    runtime: Handle,
}

struct Place {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
}

/// Wakes the task.
struct Waking {
    /// What has happened that the task has not looked at: [`NOTHING`], [`LOOKED_AFTER`],
    /// [`THREAD_WOKEN`], or both.
    due: AtomicU8,
    thread: AtomicWaker,
}

const NOTHING: u8 = 0;
/// Something that the thread which made it happen looks after.
const LOOKED_AFTER: u8 = 1;
/// Something that the task's own thread was woken for.
const THREAD_WOKEN: u8 = 2;

thread_local! {
    /// Whose task this thread looks after in a moment, so that no other has to be woken for it.
    static LOOKS_AFTER: Cell<*const Waking> = const { Cell::new(ptr::null()) };
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if LOOKS_AFTER.get() == Arc::as_ptr(self) {
            self.due.fetch_or(LOOKED_AFTER, SeqCst);
        } else {
            self.due.fetch_or(THREAD_WOKEN, SeqCst);
            self.thread.wake();
        }
    }
}

/// Starts the thread of the task that follows `log`. The handle ends it, without waiting.
///
/// # Errors
/// If the system has no thread or no runtime for it.
pub(crate) fn start(
    log: &Arc<dyn Log>,
    task: impl Future<Output = ()> + Send + 'static,
) -> io::Result<(AbortHandle, JoinHandle<()>)> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = Ending(Some(runtime.enable_all().build()?));
    let (task, stop) = abortable(task_or_abort(task));
    let waking = Arc::new(Waking {
        due: AtomicU8::new(THREAD_WOKEN),
        thread: AtomicWaker::new(),
    });
    let following = Arc::new(Following {
        place: Mutex::new(Place {
            task: Box::pin(async move {
                // An error means that it was stopped.
                let _ = task.await;
            }),
            has_ended: false,
        }),
        waker: Waker::from(Arc::clone(&waking)),
        waking,
        runtime: runtime.get().handle().clone(),
    });
    let attends: Weak<dyn Attend> = Arc::downgrade(&following) as _;
    log.attended_by(attends);
    let thread = thread::Builder::new().name("follower".into());
    let log = Arc::clone(log);
    let thread = thread.spawn(move || {
        or_abort(|| following.run(runtime.get()));
        // The end of the log waits for the thread that writes it, which may be the one that polled
        // the task to its end: so the log goes here, and after all that holds it.
        drop((following, log));
    })?;
    Ok((stop, thread))
}

impl Following {
    /// Polls the task whenever it was woken and no other thread looks after it, to its end.
    fn run(&self, runtime: &Runtime) {
        runtime.block_on(poll_fn(|context| {
            self.waking.thread.register(context.waker());
            self.poll(&mut lock(&self.place))
        }));
    }

    fn poll(&self, place: &mut Place) -> Poll<()> {
        if !place.has_ended {
            // What happens from here on is for the next time.
            self.waking.due.store(NOTHING, SeqCst);
            let task = place.task.as_mut();
            let polled = task.poll(&mut Context::from_waker(&self.waker));
            place.has_ended = polled.is_ready();
        }
        match place.has_ended {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Attend for Following {
    fn attend(&self, publish: &mut dyn FnMut()) {
        if self.waking.due.load(SeqCst) != NOTHING {
            // Its thread is about to look, and there may be more for it than this.
            return publish();
        }
        LOOKS_AFTER.set(Arc::as_ptr(&self.waking));
        publish();
        LOOKS_AFTER.set(ptr::null());
        // Nothing, or what its thread was woken for.
        if self.waking.due.load(SeqCst) != LOOKED_AFTER {
            return;
        }
        let has_ended = try_lock(&self.place).map(|mut place| {
            let _entered = self.runtime.enter();
            self.poll(&mut place).is_ready()
        });
        // It has ended, or is being polled, and that may have been before.
        if has_ended != Some(false) {
            self.waking.thread.wake();
        }
    }
}

/// A runtime that ends without waiting: it may look up a name meanwhile, and it may be dropped where
/// nothing may be waited for.
struct Ending(Option<Runtime>);

impl Ending {
    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken only when dropped")
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::mpsc, time::Duration};

    use bytes::Bytes;

    use super::*;
    use crate::{
        limits::ATTENDED_BYTES_MAX,
        log::embedded::{EmbeddedLog, Options},
    };

    const PATIENCE: Duration = Duration::from_secs(60);

    fn log(dir: &Path) -> Arc<dyn Log> {
        Arc::new(EmbeddedLog::open(Options::new(dir)).expect("it opens"))
    }

    /// Tells of each entry its size, and on which thread it was taken.
    async fn tell(log: Arc<dyn Log>, taken: mpsc::Sender<(usize, String)>) {
        let mut reader = log.reader(1).await.expect("a reader");
        loop {
            let entries = reader.next(100).await.expect("entries");
            let thread = thread::current().name().expect("a name").to_owned();
            for entry in entries {
                let told = (entry.payload.len(), thread.clone());
                taken.send(told).expect("it is waited for");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_little_is_taken_by_who_wrote_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log(dir.path());
        let (taken, told) = mpsc::channel();
        let (stop, thread) = start(&log, tell(Arc::clone(&log), taken)).expect("a thread");
        let write = async |bytes: usize| {
            let record = Bytes::from(vec![7; bytes]);
            log.append(record).await.expect("appended");
            let (taken, thread) = told.recv_timeout(PATIENCE).expect("it is taken");
            assert_eq!(taken, bytes);
            thread
        };
        // Its thread may be on its way still, from the start or from a large one.
        while write(100).await != "log-writer" {}
        assert_eq!(write(ATTENDED_BYTES_MAX).await, "follower");
        while write(100).await != "log-writer" {}
        stop.abort();
        thread.join().expect("it ends");
    }

    /// The end of the log waits for the thread that writes, which must not be the one that ends it.
    #[test]
    fn a_task_that_holds_the_log_last_may_end_on_the_thread_that_writes() {
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        let mut threads = Vec::new();
        for round in 1..=10 {
            let log = log(dir.path());
            let (ended, told) = mpsc::channel();
            let (_stop, thread) = start(&log, {
                let log = Arc::clone(&log);
                async move {
                    let mut reader = log.reader(round).await.expect("a reader");
                    reader.next(1).await.expect("an entry");
                    let name = thread::current().name().expect("a name").to_owned();
                    ended.send(name).expect("it is waited for");
                }
            })
            .expect("a thread");
            // Its thread waits by then, nearly always.
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
            let sent = log.send(
                Bytes::from_static(b"1"),
                Box::new(|error| panic!("{error}")),
            );
            runtime.block_on(sent);
            drop(log);
            threads.push(told.recv_timeout(PATIENCE).expect("it ends"));
            thread.join().expect("it ends");
        }
        assert!(
            threads.iter().any(|thread| thread == "log-writer"),
            "{threads:?}"
        );
    }
}
