//! Connections of callers, each on one of several threads, from its beginning to its end.
//!
//! Each thread has a runtime of its own. There, tasks take turns in the order in which they are
//! woken: of the calls that came in with one read, each is answered before their connection has its
//! turn again, and then all answers leave with one system call. A runtime that shares its tasks
//! among threads lets a connection go before, whenever a call of it is answered: a system call for
//! each answer was half of what its threads did (`benches/reserve.rs`).
//!
//! A new connection goes to the thread that has the fewest, as few callers share many calls.

use std::{
    io::{self, IoSlice},
    net::TcpStream as StdTcpStream,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    thread::JoinHandle,
    time::Duration,
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Sleep, sleep},
};
use tonic::transport::{
    Error,
    server::{Connected, TcpConnectInfo},
};

use crate::limits::{ACCEPT_RETRY_MS, CONNECTION_LINGER_MS, CONNECTIONS_HANDED_OVER_MAX};

/// The threads that serve callers.
#[derive(Debug)]
pub struct Serving {
    accepting: AbortHandle,
    phase: watch::Sender<Phase>,
    /// Nobody holds the other end any more when all threads have ended.
    ended: mpsc::Receiver<Result<(), Error>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serves,
    /// Calls under way end, and no new ones are taken.
    Drains,
    /// Calls under way are cut off.
    Ends,
}

impl Serving {
    /// Serves the connections of `listener` on so many threads of this name. `serve` is called once
    /// on each: it serves the connections that it is given until the future that it is given
    /// resolves, and then until they end. Has to be called within a runtime, which accepts them.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime for it.
    pub fn start<S, F>(
        listener: TcpListener,
        threads: usize,
        name: &str,
        serve: S,
    ) -> io::Result<Self>
    where
        S: Fn(Incoming, Pin<Box<dyn Future<Output = ()> + Send>>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), Error>>,
    {
        let (phase, _) = watch::channel(Phase::Serves);
        let (tell, ended) = mpsc::channel(threads);
        let mut lanes = Vec::with_capacity(threads);
        let mut handles = Vec::with_capacity(threads);
        for number in 0..threads {
            let (lane, handed_over) = mpsc::channel(CONNECTIONS_HANDED_OVER_MAX);
            lanes.push((lane, Arc::<AtomicUsize>::default()));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (serve, tell, phases) = (serve.clone(), tell.clone(), phase.subscribe());
            let work = move || {
                let incoming = Incoming(handed_over);
                let drains = Box::pin(reaches(phases.clone(), Phase::Drains));
                let served = runtime.block_on(async {
                    tokio::select! {
                        served = serve(incoming, drains) => served,
                        () = reaches(phases, Phase::Ends) => Ok(()),
                    }
                });
                // What is left of cut off calls is dropped with the runtime, before this is told.
                drop(runtime);
                let _ = tell.try_send(served);
            };
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            handles.push(thread.spawn(move || crate::shard::worker::or_abort(work))?);
        }
        let accepting = tokio::spawn(accept(listener, lanes)).abort_handle();
        Ok(Self {
            accepting,
            phase,
            ended,
            threads: handles,
        })
    }

    /// Waits until a thread has ended by itself, which none should.
    pub async fn ended(&mut self) -> Result<(), Error> {
        self.ended.recv().await.unwrap_or(Ok(()))
    }

    /// Takes no more calls, and waits until those under way have ended; cuts them off after
    /// `grace`. False if it had to.
    pub async fn drain(&mut self, grace: Duration) -> bool {
        self.accepting.abort();
        self.phase.send_replace(Phase::Drains);
        let all_ended = async { while self.ended.recv().await.is_some() {} };
        let in_time = tokio::time::timeout(grace, all_ended).await.is_ok();
        self.phase.send_replace(Phase::Ends);
        while self.ended.recv().await.is_some() {}
        for thread in self.threads.drain(..) {
            thread
                .join()
                .expect("a thread that panics ends the process");
        }
        in_time
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepting.abort();
        self.phase.send_replace(Phase::Ends);
    }
}

async fn reaches(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the sender is gone, which is the end as well.
    let _ = phases.wait_for(|reached| *reached >= phase).await;
}

/// A thread's queue of new connections, and how many it has open.
type ThreadLane = (mpsc::Sender<Handed>, Arc<AtomicUsize>);

async fn accept(listener: TcpListener, lanes: Vec<ThreadLane>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // One that was given up by its caller, or no file descriptor is left: others end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                continue;
            }
        };
        // It leaves this runtime.
        let stream = match stream.set_nodelay(true).and_then(|()| stream.into_std()) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, %peer, "a connection is lost");
                continue;
            }
        };
        let (lane, open) = lanes
            .iter()
            .min_by_key(|(_, open)| open.load(Relaxed))
            .expect("there is at least one thread");
        let handed = Handed {
            stream,
            open: Open::one_more(open),
        };
        if lane.send(handed).await.is_err() {
            return;
        }
    }
}

/// Counts an open connection for as long as it is there.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn one_more(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A connection on its way to its thread.
#[derive(Debug)]
struct Handed {
    stream: StdTcpStream,
    open: Open,
}

/// New connections of one thread.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Handed>);

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|handed| {
            let Handed { stream, open } = handed?;
            let stream = TcpStream::from_std(stream);
            Some(stream.map(|stream| Connection {
                stream,
                linger: None,
                _open: open,
            }))
        })
    }
}

/// A connection of a caller.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// While it lingers: until when at most.
    linger: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Says that no more comes, and reads what the caller still sends, until it is told. To close a
    /// connection on which something lies unread resets it, and a caller that is reset does not see
    /// its last answers, though they came.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, linger, .. } = &mut *self;
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let longest = Duration::from_millis(CONNECTION_LINGER_MS);
        let linger = linger.get_or_insert_with(|| Box::pin(sleep(longest)));
        // First, since who goes on sending uses up the turns of this task.
        if linger.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unread = [0; 4_096];
        loop {
            let mut into = ReadBuf::new(&mut unread);
            match Pin::new(&mut *stream).poll_read(context, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() => {}
                // The end, or a reset by the caller.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
