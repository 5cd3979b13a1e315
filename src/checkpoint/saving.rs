//! Bringing what is saved into a file.
//!
//! The sequencer and each shard have an [`Outlet`]. What they put there goes through one bounded
//! channel to [`collect`], which runs on a thread of its own and writes the file. A full channel
//! never makes a writer wait for the disk: it saves no further slices until there is room, and only
//! what has to be saved because it is about to change gathers, up to [`OUTLET_BYTES_MAX`].

use std::{
    collections::VecDeque,
    io,
    path::Path,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use super::{
    Kind, Meta, Totals,
    counting::{Counting, counting},
    format::{FileWriter, Label},
};
use crate::{
    domain::saved::Broken,
    limits::{
        CHECKPOINT_NICENESS, CHECKPOINT_QUEUE_MESSAGES_MAX, CHECKPOINT_REST_FACTOR,
        CHECKPOINT_SECTION_BYTES, CHECKPOINT_SLICE_RESTED_US_MAX, CHECKPOINT_SLICE_US,
        CHECKPOINT_WRITE_EVERY_MS, OUTLET_BYTES_MAX,
    },
};

/// What is on its way into the file.
pub(crate) enum Message {
    /// A section.
    Section(Label, Vec<u8>),
    /// A section that can be put into bytes only once all shards have begun: it holds what they
    /// were still deciding.
    Later(Box<dyn FnOnce() -> (Label, Vec<u8>) + Send>),
    /// One of those that save has saved everything.
    Done,
}

/// How fast slices follow each other: a checkpoint is in no hurry, and those who query and reserve
/// want the processor now.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Option<Instant>,
}

impl Pace {
    /// How long until the next slice; zero: now.
    pub(crate) fn pause(&self) -> Duration {
        self.next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    /// Saves for the time of a slice, or all there is; `save` saves a little, and says if there is
    /// more. Then rests in proportion to the time it took. True if there is more.
    pub(crate) fn slice(&mut self, mut save: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            let more = save();
            let ended = Instant::now();
            let took = ended - started;
            if !more || took >= Duration::from_micros(CHECKPOINT_SLICE_US) {
                let rested = took.min(Duration::from_micros(CHECKPOINT_SLICE_RESTED_US_MAX));
                self.next = Some(ended + rested * CHECKPOINT_REST_FACTOR);
                return more;
            }
        }
    }
}

/// Where one of those that save puts what it has.
pub(crate) struct Outlet {
    channel: Sender<Message>,
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    finished: bool,
}

/// How many messages may wait in an outlet before it takes no further slices.
const WAITING_MAX: usize = 2;

impl Outlet {
    pub(crate) fn new(channel: Sender<Message>) -> Self {
        Self {
            channel,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            finished: false,
        }
    }

    /// Adds what was saved, if it is enough for a section or if it is the last of it.
    pub(crate) fn put(
        &mut self,
        label: Label,
        saved: &mut crate::domain::saved::Output,
        last: bool,
    ) {
        if saved.len() >= CHECKPOINT_SECTION_BYTES || last && !saved.is_empty() {
            let bytes = if last {
                saved.take()
            } else {
                saved.take_part()
            };
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(Message::Section(label, bytes));
        }
        while self.waiting_bytes > OUTLET_BYTES_MAX && self.pass_on(None) {}
    }

    /// Adds what can be put into bytes only later.
    pub(crate) fn put_later(
        &mut self,
        section: impl FnOnce() -> (Label, Vec<u8>) + Send + 'static,
    ) {
        self.waiting.push_back(Message::Later(Box::new(section)));
    }

    /// That was all.
    pub(crate) fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.waiting.push_back(Message::Done);
        }
    }

    /// Hands over what waits, as far as there is room. True if it can take more; if not, it has
    /// waited a moment for room.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() && self.try_pass_on() {}
        if self.waiting.len() > WAITING_MAX || self.finished && !self.waiting.is_empty() {
            self.pass_on(Some(Duration::from_millis(1)));
            return false;
        }
        true
    }

    /// Everything was handed over.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished && self.waiting.is_empty()
    }

    fn try_pass_on(&mut self) -> bool {
        let Some(message) = self.pop() else {
            return false;
        };
        match self.channel.try_send(message) {
            // Nobody takes it any more: the checkpoint was given up. Saving goes on to its end, so
            // that all marks are alike again, and leads nowhere.
            Ok(()) | Err(TrySendError::Disconnected(_)) => true,
            Err(TrySendError::Full(message)) => {
                self.unpop(message);
                false
            }
        }
    }

    /// Hands one over, and waits for room at most so long.
    fn pass_on(&mut self, wait_max: Option<Duration>) -> bool {
        let Some(message) = self.pop() else {
            return false;
        };
        let Some(wait_max) = wait_max else {
            let _ = self.channel.send(message);
            return true;
        };
        match self.channel.send_timeout(message, wait_max) {
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => true,
            Err(SendTimeoutError::Timeout(message)) => {
                self.unpop(message);
                false
            }
        }
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?;
        if let Message::Section(_, bytes) = &message {
            self.waiting_bytes -= bytes.len();
        }
        Some(message)
    }

    fn unpop(&mut self, message: Message) {
        if let Message::Section(_, bytes) = &message {
            self.waiting_bytes += bytes.len();
        }
        self.waiting.push_front(message);
    }
}

/// What is sent once all shards have begun: gives sections of what is known only then.
pub(crate) type Begun = Box<dyn FnOnce() -> Vec<(Label, Vec<u8>)> + Send>;

/// Why no checkpoint was taken. The state, and the checkpoints before, are as they were.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A file cannot be written.
    #[error("the checkpoint cannot be written: {0}")]
    Io(#[from] io::Error),
    /// What was saved cannot be read: a bug.
    #[error("the checkpoint cannot be understood: {0}")]
    Broken(#[from] Broken),
    /// The log cannot tell what its entry at the position was.
    #[error("the log does not tell what it holds at the checkpoint's position: {0}")]
    Log(String),
    /// Nothing was applied yet.
    #[error("nothing was applied yet, so there is nothing to save")]
    Empty,
    /// The instance keeps none.
    #[error("this instance keeps no checkpoints: `checkpoint.keep` is 0")]
    Off,
    /// The instance is stopping.
    #[error("the instance is stopping")]
    Stopping,
}

/// The channel by which one checkpoint is saved.
pub(crate) fn channel() -> (Sender<Message>, Receiver<Message>) {
    bounded(CHECKPOINT_QUEUE_MESSAGES_MAX)
}

/// Whoever queries and reserves goes before the thread that writes a checkpoint. On Linux this is
/// about the calling thread alone. Where it is not allowed, it does without.
fn be_nice() {
    let _ = rustix::process::setpriority_process(None, CHECKPOINT_NICENESS);
}

/// Writes what comes to `path`, until all of `savers` are done. `count` adds up what is in a
/// section; `meta` is what the checkpoint is of, known by then. Takes all that comes even if it
/// cannot be written, so that nobody waits for it.
pub(crate) fn collect(
    path: &Path,
    messages: &Receiver<Message>,
    savers: usize,
    begun: &Receiver<Begun>,
    meta: &Receiver<Result<Meta, NotTaken>>,
    count: impl Fn(&mut Totals, Kind, &[u8]) -> Result<(), Broken> + Sync,
) -> Result<(Meta, Totals, u64), NotTaken> {
    let write = || {
        // After the other thread has begun, which would have the same niceness.
        let written = counting(&count, |counting| {
            be_nice();
            write_all(path, messages, savers, begun, meta, counting)
        });
        let ((meta, file), totals) = written?;
        let (totals, bytes) = file.finish(totals)?;
        Ok((meta, totals, bytes))
    };
    // On a thread of its own, since who has no privileges cannot take niceness back.
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("checkpoint".into());
        let writing = builder.spawn_scoped(scope, write)?;
        writing.join().expect("writing does not panic")
    })
}

/// Writes all sections but the last.
fn write_all<C: super::counting::Count>(
    path: &Path,
    messages: &Receiver<Message>,
    savers: usize,
    begun: &Receiver<Begun>,
    meta: &Receiver<Result<Meta, NotTaken>>,
    counting: &mut Counting<'_, C>,
) -> Result<(Meta, FileWriter), NotTaken> {
    let mut file = FileWriter::create(path).map_err(NotTaken::from);
    let mut write = |file: &mut Result<FileWriter, NotTaken>, label: Label, payload: Vec<u8>| {
        let Ok(writer) = file else { return };
        if let Err(error) = writer.section(label, &payload) {
            *file = Err(error.into());
        }
        counting.count(label.kind, payload);
        // Whoever has woken up here meanwhile goes on now, and not when this one's time is up.
        std::thread::yield_now();
    };
    let (mut done, mut all_begun) = (0, false);
    let mut later = Vec::new();
    while done < savers {
        match messages.try_recv() {
            Ok(Message::Section(label, payload)) => write(&mut file, label, payload),
            Ok(Message::Later(section)) => later.push(section),
            Ok(Message::Done) => done += 1,
            Err(TryRecvError::Empty) => {
                std::thread::park_timeout(Duration::from_millis(CHECKPOINT_WRITE_EVERY_MS));
            }
            Err(TryRecvError::Disconnected) => return Err(NotTaken::Stopping),
        }
        if !all_begun && let Ok(sections) = begun.try_recv() {
            all_begun = true;
            for (label, payload) in sections() {
                write(&mut file, label, payload);
            }
        }
        if all_begun {
            for section in later.drain(..) {
                let (label, payload) = section();
                write(&mut file, label, payload);
            }
        }
    }
    if !all_begun {
        return Err(NotTaken::Stopping);
    }
    let meta = meta.recv().map_err(|_| NotTaken::Stopping)??;
    write(&mut file, Label::of(Kind::Meta), meta.save());
    Ok((meta, file?))
}
