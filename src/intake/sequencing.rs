//! The sequencer at work: on a thread of its own, or, if there is little to do and nothing before it,
//! on that of the task that follows the log; see [`crate::shard::queue`].

use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    decode::{Asked, Decoded},
    sequencer::{Sequencer, State, Step, Stopped},
};
use crate::{
    checkpoint::saving::Pace,
    limits::{AT_ONCE_LINES_MAX, CHECKPOINT_REST_LOOK_US},
    shard::{
        queue::{self, ShardQueue, Unfinished},
        worker::or_abort,
    },
};

/// A sequencer at work. Whoever has it goes on with the log, so it is locked.
pub(crate) struct Sequencing {
    pub(crate) sequencer: Sequencer,
    pub(crate) state: State,
}

/// Hands over to the sequencer what was decoded, in the order of the log. Others may give it
/// steps, too, but only one task may have this.
pub(crate) struct SequencerQueue {
    sequencing: Arc<Mutex<Sequencing>>,
    steps: mpsc::Sender<Step>,
    unfinished: Unfinished,
}

impl SequencerQueue {
    /// Has the step done after all that was handed over before: at once, if that is little, and
    /// nothing is before it anywhere. Waits if the queue is full.
    ///
    /// # Errors
    /// If nobody takes steps any more.
    pub(crate) async fn hand_over(&self, decoded: Decoded) -> Result<(), Stopped> {
        let step = Step::Decoded(decoded);
        let Some(step) = self.do_at_once(step)? else {
            return Ok(());
        };
        self.unfinished.begin();
        self.steps.send(step).await.map_err(|_| Stopped)
    }

    /// Gives the step back if it has to wait, or may take long.
    fn do_at_once(&self, step: Step) -> Result<Option<Step>, Stopped> {
        if !step.is_little() || !self.unfinished.are_none() {
            return Ok(Some(step));
        }
        let Some(mut sequencing) = queue::try_lock(&self.sequencing) else {
            return Ok(Some(step));
        };
        let Sequencing { sequencer, state } = &mut *sequencing;
        // A queue that is full would have to be waited for, which a task must not do.
        if !sequencer.shards.iter().all(ShardQueue::is_idle) {
            return Ok(Some(step));
        }
        sequencer.step(state, step).map(|()| None)
    }

    /// Resolves when nobody takes steps any more.
    pub(crate) async fn closed(&self) {
        self.steps.closed().await;
    }
}

impl Step {
    /// Whether it is little to do, for the sequencer and for the shards.
    fn is_little(&self) -> bool {
        match self {
            Self::Decoded(Decoded::Commands(_, commands)) => {
                // Of a command about a reservation that was made before, the shard's queue counts
                // the lines.
                commands.iter().map(Asked::lines).sum::<usize>() <= AT_ONCE_LINES_MAX
            }
            Self::Decoded(Decoded::Facts(facts)) => facts.items.len() <= AT_ONCE_LINES_MAX,
            _ => false,
        }
    }
}

impl Sequencing {
    /// Starts the thread that takes what is not done at once, until no more steps can come, or a
    /// shard has ended. It saves while there is nothing to do, and a little after each step.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(crate) fn start(
        self,
        steps: mpsc::Sender<Step>,
        next_steps: mpsc::Receiver<Step>,
    ) -> std::io::Result<(SequencerQueue, JoinHandle<()>)> {
        let queue = SequencerQueue {
            sequencing: Arc::new(Mutex::new(self)),
            steps,
            unfinished: Unfinished::default(),
        };
        let (sequencing, unfinished) = (Arc::clone(&queue.sequencing), queue.unfinished.clone());
        let thread = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || or_abort(|| run(&sequencing, &unfinished, next_steps)))?;
        Ok((queue, thread))
    }
}

fn run(sequencing: &Mutex<Sequencing>, unfinished: &Unfinished, mut steps: mpsc::Receiver<Step>) {
    let mut pace = Pace::default();
    loop {
        // Only a step that is taken here begins to save.
        let saves = queue::lock(sequencing).state.saving.is_some();
        let step = if saves {
            match steps.try_recv() {
                Ok(step) => Some(step),
                Err(TryRecvError::Empty) => {
                    let look = Duration::from_micros(CHECKPOINT_REST_LOOK_US);
                    std::thread::park_timeout(pace.pause().min(look));
                    None
                }
                Err(TryRecvError::Disconnected) => return,
            }
        } else {
            match steps.blocking_recv() {
                Some(step) => Some(step),
                None => return,
            }
        };
        let mut sequencing = queue::lock(sequencing);
        let Sequencing { sequencer, state } = &mut *sequencing;
        if let Some(step) = step {
            let is_decoded = matches!(step, Step::Decoded(_));
            if sequencer.step(state, step).is_err() {
                return;
            }
            if is_decoded {
                unfinished.finish();
            }
        }
        if state.saving.is_some() && pace.pause().is_zero() {
            pace.slice(|| sequencer.save_slice(state));
        }
    }
}
