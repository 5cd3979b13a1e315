//! A relay on loopback, whose connections can be cut like a cable.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Passes bytes on to another port, until it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// Connections made before this changes are cut.
    cuts: watch::Sender<u64>,
    cut: Arc<AtomicUsize>,
}

impl Proxy {
    /// One to this port. It ends with the runtime.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (cuts, _) = watch::channel(0);
        let cut = Arc::<AtomicUsize>::default();
        tokio::spawn({
            let (cuts, cut) = (cuts.clone(), Arc::clone(&cut));
            async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let (mut cuts, cut) = (cuts.subscribe(), Arc::clone(&cut));
                    tokio::spawn(async move {
                        let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else {
                            return;
                        };
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            _ = cuts.changed() => {
                                cut.fetch_add(1, SeqCst);
                            }
                        }
                    });
                }
            }
        });
        Self { address, cuts, cut }
    }

    /// Where NATS seems to be.
    pub(crate) fn nats_url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Cuts all connections, in the middle of whatever they are saying. New ones can be made.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections that were cut so far.
    pub(crate) fn cut_so_far(&self) -> usize {
        self.cut.load(SeqCst)
    }
}
