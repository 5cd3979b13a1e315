//! `sellable serve`, and a handler of the same framework that decides nothing, each as a process of
//! its own.

use std::{fs, net::SocketAddr, path::Path};

use futures::future::join_all;
use rustix::process::Signal;
use sellable::proto::v1::{
    self as pb, availability_client::AvailabilityClient, movements_client::MovementsClient,
    reservations_client::ReservationsClient, reservations_server::ReservationsServer,
    reserve_stream_response::Answer,
};
use tonic::{
    Status,
    service::Routes,
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;

use crate::{
    empty::Empty,
    grpc::{connect, runtime, serve},
    lane::Lane,
    load::Caller,
    process::{Process, tied},
    program::{free_port, without_settings},
    store::{Cell, Ids, LINES, LOCATIONS, Store, UNITS},
    support,
};

/// The argument that makes this program the empty handler; the port comes next.
pub(crate) const EMPTY_NAME: &str = "serve-empty";
/// Movements of one call: the most that is taken.
const POST_MOVEMENTS: usize = 1_000;
/// SKUs of one query: the most that is answered.
const GET_SKUS: usize = 1_000;
const CHANNEL: &str = "web";
/// One channel that sells all there is at every location.
const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";

/// A running server of ours, or the empty handler.
pub(crate) struct Ours {
    _process: Process,
    address: SocketAddr,
    skus: usize,
}

impl Ours {
    /// Starts `sellable serve` with its data below `dir`, as it is but for `journal.sync`.
    pub(crate) async fn start(name: &'static str, dir: &Path, sync: &str) -> Self {
        let dir = dir.join(name.replace([' ', ','], "-"));
        fs::create_dir(&dir).expect("a directory");
        let rules = dir.join("rules.toml");
        fs::write(&rules, RULES).expect("a rules file");
        let [port, http_port] = [free_port(), free_port()];
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_sellable")), "KILL");
        without_settings(&mut command);
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--http-listen", &format!("127.0.0.1:{http_port}")])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--rules")
            .arg(&rules)
            .args(["--set", &format!("journal.sync={sync}")])
            .current_dir(&dir);
        let mut process = Process::start(name, &dir, Signal::KILL, command);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let ask = async || {
            let channel = try_connect(address).await?;
            // Until the log is read and the rules are in force, this is refused.
            let mut availability = AvailabilityClient::new(channel);
            let answer = get(&mut availability, vec!["none".into()]).await;
            answer.map_err(|status| status.to_string())
        };
        process.answer(ask).await;
        Self {
            _process: process,
            address,
            skus: 0,
        }
    }

    /// Starts the empty handler.
    pub(crate) async fn start_empty(dir: &Path) -> Self {
        let port = free_port();
        let this = std::env::current_exe().expect("this program");
        let mut command = tied(&this, "KILL");
        command.args(["--bench", &format!("--{EMPTY_NAME}"), &port.to_string()]);
        let mut process = Process::start("empty handler", dir, Signal::KILL, command);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        process.answer(async || try_connect(address).await).await;
        Self {
            _process: process,
            address,
            skus: 0,
        }
    }

    /// Fills all cells of so many SKUs.
    pub(crate) async fn fill(&mut self, skus: usize) {
        self.skus = skus;
        let channel = connect(self.address, 1).await.remove(0);
        let mut movements = MovementsClient::new(channel);
        let cells: Vec<Cell> = Cell::all(skus).collect();
        for (part, cells) in cells.chunks(POST_MOVEMENTS).enumerate() {
            let received = |(at, cell): (usize, &Cell)| {
                let (sku, location) = cell.names();
                let id = part * POST_MOVEMENTS + at;
                support::received(id as u64, sku, UNITS, location)
            };
            let request = pb::PostRequest {
                movements: cells.iter().enumerate().map(received).collect(),
            };
            let answer = movements.post(request).await.expect("stock").into_inner();
            let applied = pb::Outcome::Applied;
            let all = answer.outcomes.iter().all(|one| one.outcome() == applied);
            assert!(all, "not all stock was taken");
        }
    }

    /// Stores over so many connections; more stores than connections share them.
    pub(crate) async fn stores(&self, stores: usize, connections: usize) -> Vec<OurStore> {
        self.stores_on(&connect(self.address, connections).await, stores)
    }

    /// The same, where stores of a connection share a stream of reservations.
    pub(crate) async fn streamed_stores(&self, stores: usize, connections: usize) -> Vec<OurStore> {
        let channels = connect(self.address, connections).await;
        let mut stores = self.stores_on(&channels, stores);
        for (at, channel) in channels.into_iter().enumerate() {
            let lane = Lane::open(channel, ProstCodec::default()).await;
            for store in stores.iter_mut().skip(at).step_by(connections) {
                store.lane = Some(lane.clone());
            }
        }
        stores
    }

    fn stores_on(&self, channels: &[Channel], stores: usize) -> Vec<OurStore> {
        let store = |channel: &Channel| OurStore {
            reservations: ReservationsClient::new(channel.clone()),
            lane: None,
            availability: AvailabilityClient::new(channel.clone()),
            skus: self.skus,
        };
        channels.iter().cycle().take(stores).map(store).collect()
    }
}

async fn try_connect(address: SocketAddr) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let channel = endpoint.expect("an address").connect().await;
    channel.map_err(|error| error.to_string())
}

async fn get(
    availability: &mut AvailabilityClient<Channel>,
    skus: Vec<String>,
) -> Result<i64, Status> {
    let request = pb::GetRequest {
        channel: CHANNEL.into(),
        skus,
        ..pb::GetRequest::default()
    };
    let answer = availability.get(request).await?.into_inner();
    Ok(answer.items.iter().map(|item| item.ats).sum())
}

/// A connection, or a part in one.
pub(crate) struct OurStore {
    reservations: ReservationsClient<Channel>,
    lane: Option<Lane<pb::ReserveRequest, pb::ReserveStreamResponse>>,
    availability: AvailabilityClient<Channel>,
    skus: usize,
}

impl OurStore {
    async fn reserve_all(&mut self, id: &str, lines: Vec<pb::ReserveLine>) -> bool {
        let request = request(id, lines);
        let Some(lane) = &self.lane else {
            let answer = self.reservations.reserve(request).await;
            return answer.expect("an answer").into_inner().granted;
        };
        granted(lane.call(request).await)
    }
}

fn line(cell: Cell, quantity: i64) -> pb::ReserveLine {
    let (sku, location) = cell.names();
    pb::ReserveLine {
        line: String::new(),
        sku,
        quantity,
        location,
    }
}

impl Store for OurStore {
    async fn reserve(&mut self, id: &str, cell: Cell, units: i64) -> bool {
        self.reserve_all(id, vec![line(cell, units)]).await
    }

    async fn reserve_lines(&mut self, id: &str, cells: &[Cell]) -> bool {
        let lines = cells.iter().map(|cell| line(*cell, 1)).collect();
        self.reserve_all(id, lines).await
    }

    async fn cart(&mut self, skus: &[usize]) -> i64 {
        let skus = skus.iter().map(|sku| support::sku(*sku)).collect();
        let units = get(&mut self.availability, skus).await;
        units.expect("an answer")
    }

    async fn reserved(&mut self) -> i64 {
        let skus: Vec<usize> = (0..self.skus).collect();
        let mut free = 0;
        for skus in skus.chunks(GET_SKUS) {
            free += self.cart(skus).await;
        }
        (self.skus * LOCATIONS) as i64 * UNITS - free
    }
}

/// Reserves one line many times at once on a shared stream, all of one cell.
pub(crate) struct Streamed {
    store: OurStore,
    ids: Ids,
}

impl Streamed {
    /// As many callers as there are stores.
    pub(crate) fn callers(stores: Vec<OurStore>, run: usize) -> Vec<Self> {
        let caller = |(at, store)| Self {
            store,
            ids: Ids::new(run, at),
        };
        stores.into_iter().enumerate().map(caller).collect()
    }
}

impl Caller for Streamed {
    async fn call(&mut self) -> u64 {
        let lane = self.store.lane.as_ref().expect("a stream");
        let calls = (0..LINES).map(|_| {
            let id = self.ids.next();
            let request = request(&id, vec![line(Cell::HOT, 1)]);
            async { granted(lane.call(request).await) }
        });
        let calls: Vec<_> = calls.collect();
        let granted = join_all(calls).await;
        assert!(granted.into_iter().all(|granted| granted), "enough");
        LINES as u64
    }
}

fn request(id: &str, lines: Vec<pb::ReserveLine>) -> pb::ReserveRequest {
    pb::ReserveRequest {
        id: id.into(),
        channel: CHANNEL.into(),
        lines,
        ..pb::ReserveRequest::default()
    }
}

fn granted(answer: pb::ReserveStreamResponse) -> bool {
    match answer.answer {
        Some(Answer::Response(response)) => response.granted,
        other => panic!("{other:?}"),
    }
}

/// Serves the empty handler until it is killed.
pub(crate) fn serve_empty(port: usize) {
    let port = u16::try_from(port).expect("a port");
    let (_, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(ReservationsServer::new(Empty)).add_service(health);
    runtime("server").block_on(async {
        serve!(Server::builder(), routes, port);
        std::future::pending::<()>().await;
    });
}
