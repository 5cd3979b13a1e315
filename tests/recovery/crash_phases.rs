//! Processes that are killed (SIGKILL) while they take in movements, decide reservations, write
//! checkpoints, trim the log, and change rules; on JetStream two instances, and the NATS server too,
//! while connections to it are cut.
//! Afterwards every acknowledged movement and reservation is there exactly once, and every replica
//! has the same digest, also when it starts from a checkpoint.
//!
//! A short run by default; `SELLABLE_CRASH_KILLS=200 cargo test --release --test recovery
//! crash_phases:: -- --nocapture` is a long one. `SELLABLE_TEST_SEED=…` plays one run again, as far
//! as chance in the operating system lets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use sellable::proto::v1 as pb;
use tonic::Code;

use crate::{
    nats::NatsServer,
    proxy::Proxy,
    server::{CHANNEL, Client, PATIENCE, Server, Setup, movement, patiently, received},
};

/// Kills of each test, unless `SELLABLE_CRASH_KILLS` says.
const KILLS: usize = 15;
const SKUS: [&str; 4] = ["mug", "rug", "kettle", "lamp"];
const LOCATIONS: [&str; 3] = ["dc", "store-1", "store-2"];
/// Longest wait for one answer; then the same is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a process is doing when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
enum Phase {
    Ingest,
    Reserve,
    Checkpoint,
    /// Just after a checkpoint, when the log may be trimmed and old checkpoints are removed.
    Trim,
    Rules,
}

const PHASES: [Phase; 5] = [
    Phase::Ingest,
    Phase::Reserve,
    Phase::Checkpoint,
    Phase::Trim,
    Phase::Rules,
];

/// What callers did and were told, and what they are doing.
struct Load {
    instances: Vec<Client>,
    seed: u64,
    enough: AtomicBool,
    /// Calls under way; of [`Phase::Trim`], checkpoints that were answered.
    under_way: [AtomicUsize; PHASES.len()],
    trims: AtomicU64,
    /// All of them acknowledged.
    posted: Mutex<Vec<Vec<pb::Movement>>>,
    /// Requests, and what was decided.
    reserved: Mutex<Vec<(pb::ReserveRequest, pb::ReserveResponse)>>,
    released: Mutex<Vec<(String, Vec<pb::Allocation>)>>,
    calls: AtomicU64,
    checkpoints: AtomicU64,
    rules: AtomicU64,
}

fn seed() -> u64 {
    let given = std::env::var("SELLABLE_TEST_SEED").ok();
    let given = given.map(|text| text.parse().expect("SELLABLE_TEST_SEED is a number"));
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("SELLABLE_TEST_SEED={seed}");
    seed
}

impl Load {
    fn random(&self, caller: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ caller.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Asks one instance after the other until one answers: whoever is killed meanwhile, what was
    /// asked is asked again with the same id.
    async fn insist<T, F: Future<Output = Result<tonic::Response<T>, tonic::Status>>>(
        &self,
        phase: Phase,
        random: &mut StdRng,
        mut ask: impl FnMut(Client) -> F,
    ) -> Option<T> {
        let started = Instant::now();
        loop {
            let instance = random.random_range(0..self.instances.len());
            self.under_way[phase as usize].fetch_add(1, SeqCst);
            let call = ask(self.instances[instance].clone());
            let answer = tokio::time::timeout(ANSWER_MAX, call).await;
            self.under_way[phase as usize].fetch_sub(1, SeqCst);
            self.calls.fetch_add(1, SeqCst);
            match answer {
                Ok(Ok(answer)) => return Some(answer.into_inner()),
                Ok(Err(status)) if is_unknown(&status) => {}
                // A checkpoint is under way already, or was not worth it.
                Ok(Err(_)) if phase == Phase::Checkpoint => return None,
                Ok(Err(status)) => panic!("refused while {phase:?}: {status}"),
                Err(_) => {}
            }
            assert!(started.elapsed() < PATIENCE, "{phase:?} is never answered");
            tokio::time::sleep(Duration::from_millis(random.random_range(1..20))).await;
        }
    }

    async fn post(self: Arc<Self>, caller: u64) {
        let mut random = self.random(caller);
        for number in 0.. {
            if self.enough.load(SeqCst) {
                return;
            }
            let mut batch: Vec<pb::Movement> = (0..random.random_range(1..30))
                .map(|n| {
                    let sku = SKUS[random.random_range(0..SKUS.len())];
                    let location = LOCATIONS[random.random_range(0..LOCATIONS.len())];
                    let id = format!("m-{caller}-{number}-{n}");
                    received(&id, sku, random.random_range(1..4), location)
                })
                .collect();
            batch.push(counted(&format!("c-{caller}-{number}"), &mut random));
            let answer = self
                .insist(Phase::Ingest, &mut random, |to| {
                    let movements = batch.clone();
                    async move { to.movements().post(pb::PostRequest { movements }).await }
                })
                .await;
            let answer = answer.expect("it insists");
            assert_eq!(answer.outcomes.len(), batch.len());
            for outcome in answer.outcomes {
                assert_eq!(outcome.outcome(), pb::Outcome::Applied, "{outcome:?}");
            }
            self.posted.lock().expect("no panic").push(batch);
            // Stock is to be short now and then.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..8))).await;
        }
    }

    async fn reserve(self: Arc<Self>, caller: u64) {
        let mut random = self.random(caller);
        for number in 0.. {
            if self.enough.load(SeqCst) {
                return;
            }
            let id = format!("r-{caller}-{number}");
            let lines = (0..random.random_range(1..4))
                .map(|_| pb::ReserveLine {
                    sku: SKUS[random.random_range(0..SKUS.len())].into(),
                    quantity: random.random_range(1..60),
                    ..pb::ReserveLine::default()
                })
                .collect();
            let request = pb::ReserveRequest {
                id: id.clone(),
                channel: CHANNEL.into(),
                lines,
                allow_split: random.random(),
                ..pb::ReserveRequest::default()
            };
            let answer = self
                .insist(Phase::Reserve, &mut random, |to| {
                    let request = request.clone();
                    async move { to.reservations().reserve(request).await }
                })
                .await;
            let answer = answer.expect("it insists");
            let granted = answer.granted;
            self.reserved
                .lock()
                .expect("no panic")
                .push((request, answer));
            if granted && random.random_ratio(1, 3) {
                let request = pb::ReleaseRequest {
                    id: format!("release-{id}"),
                    reservation: id.clone(),
                    lines: vec![],
                };
                let answer = self
                    .insist(Phase::Reserve, &mut random, |to| {
                        let request = request.clone();
                        async move { to.reservations().release(request).await }
                    })
                    .await;
                let released = answer.expect("it insists").released;
                self.released.lock().expect("no panic").push((id, released));
            }
        }
    }

    async fn checkpoint(self: Arc<Self>, caller: u64) {
        let mut random = self.random(caller);
        while !self.enough.load(SeqCst) {
            let answer = self
                .insist(Phase::Checkpoint, &mut random, |to| async move {
                    let request = pb::CheckpointRequest::default();
                    to.operations().checkpoint(request).await
                })
                .await;
            if answer.is_some() {
                self.checkpoints.fetch_add(1, SeqCst);
                self.trims.fetch_add(1, SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        }
    }

    async fn change_rules(self: Arc<Self>, caller: u64) {
        let mut random = self.random(caller);
        while !self.enough.load(SeqCst) {
            let toml = rules(random.random_range(0..3));
            let answer = self
                .insist(Phase::Rules, &mut random, |to| {
                    let request = pb::PutRulesRequest {
                        toml: toml.clone(),
                        ..pb::PutRulesRequest::default()
                    };
                    async move { to.rules().put(request).await }
                })
                .await;
            answer.expect("it insists");
            self.rules.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(random.random_range(10..60))).await;
        }
    }

    /// Whether everything that a run is about happened at least once.
    fn has_seen_all(&self) -> bool {
        let decided = |granted| {
            let reserved = self.reserved.lock().expect("no panic");
            reserved.iter().any(|(_, answer)| answer.granted == granted)
        };
        let checkpoints = self.checkpoints.load(SeqCst);
        checkpoints > 0 && self.rules.load(SeqCst) > 0 && decided(true) && decided(false)
    }

    /// Waits until something of this phase is under way.
    async fn wait_for(&self, phase: Phase) {
        let (started, before) = (Instant::now(), self.trims.load(SeqCst));
        loop {
            let now = match phase {
                Phase::Trim => self.trims.load(SeqCst) > before,
                _ => self.under_way[phase as usize].load(SeqCst) > 0,
            };
            if now {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{phase:?} does not go on");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// A count of a SKU that is only counted, as of any time.
fn counted(id: &str, random: &mut StdRng) -> pb::Movement {
    let counted = pb::movement::Kind::Counted(pb::Counted {
        location: LOCATIONS[random.random_range(0..LOCATIONS.len())].into(),
        as_of: Some(prost_types::Timestamp {
            seconds: 1_600_000_000 + random.random_range(0..1_000),
            nanos: 0,
        }),
        good: Some(random.random_range(0..100)),
        damaged: random.random::<bool>().then_some(3),
        ..pb::Counted::default()
    });
    movement(id, "only-counted", 0, counted)
}

/// Whether something happened is not known.
fn is_unknown(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

fn rules(buffer: i64) -> String {
    format!("[channel.{CHANNEL}]\nsources = [\"*\"]\nbuffer = {buffer}\n")
}

/// The processes, and how they were killed.
struct Processes {
    servers: Vec<Server>,
    nats: Option<NatsServer>,
    /// What the instances take for the NATS server.
    cable: Option<Proxy>,
    kills: BTreeMap<Phase, usize>,
    nats_kills: usize,
    ready_ms: Vec<u128>,
}

impl Processes {
    async fn start(shards: &[usize], nats: Option<NatsServer>, trim: bool) -> Self {
        let cable = match &nats {
            Some(nats) => Some(Proxy::to(nats.port()).await),
            None => None,
        };
        let setup = |shards: &usize| {
            let setup = Setup::new()
                .shards(*shards)
                .set("checkpoint.every_records", 100)
                .set("checkpoint.keep", 2)
                .set("checkpoint.trim", trim);
            match &cable {
                Some(cable) => setup.nats(&cable.nats_url()),
                None => setup.set("journal.sync", "always"),
            }
        };
        Self {
            servers: shards.iter().map(|shards| setup(shards).start()).collect(),
            nats,
            cable,
            kills: BTreeMap::new(),
            nats_kills: 0,
            ready_ms: Vec::new(),
        }
    }

    async fn kill(&mut self, phase: Phase, load: &Load, random: &mut StdRng) {
        load.wait_for(phase).await;
        // Now and then in the middle of a write, or between it and the answer.
        let moment = Duration::from_micros(random.random_range(0..4_000));
        tokio::time::sleep(moment).await;
        let victim = random.random_range(0..self.servers.len());
        for server in &mut self.servers {
            assert_eq!(server.has_ended(), None, "an instance ended by itself");
        }
        self.servers[victim].kill();
        *self.kills.entry(phase).or_default() += 1;
        // Sometimes what a process says is cut off, and nobody dies of it.
        if let Some(cable) = self.cable.as_ref().filter(|_| random.random_ratio(1, 3)) {
            cable.cut();
        }
        let nats_too = self.nats.is_some() && random.random_ratio(1, 5);
        tokio::task::block_in_place(|| {
            if let Some(nats) = self.nats.as_mut().filter(|_| nats_too) {
                nats.restart();
                self.nats_kills += 1;
            }
            let started = Instant::now();
            self.servers[victim].restart();
            self.ready_ms.push(started.elapsed().as_millis());
        });
    }

    /// What every instance holds, at one position.
    async fn digests(&self) -> (u64, BTreeSet<String>) {
        patiently(async {
            loop {
                let (mut positions, mut digests) = (BTreeSet::new(), BTreeSet::new());
                for server in &self.servers {
                    let digest = server.connect().await.digest(0).await;
                    positions.insert(digest.position);
                    digests.insert(digest.digest);
                }
                if positions.len() == 1 {
                    return (positions.pop_first().expect("one"), digests);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

impl Processes {
    /// The first position of the stream; of a journal, once its process has ended.
    async fn log_begins_at(&self) -> u64 {
        use sellable::log::{
            Log,
            embedded::{self, EmbeddedLog},
            jetstream::{self, JetStreamLog},
        };
        let log: Arc<dyn Log> = match &self.nats {
            Some(nats) => {
                let options = jetstream::Options::new(nats.url());
                Arc::new(JetStreamLog::open(options).await.expect("it opens"))
            }
            None => {
                let options = embedded::Options::new(self.servers[0].journal_dir());
                Arc::new(EmbeddedLog::open(options).expect("it opens"))
            }
        };
        log.bounds().await.expect("it has bounds").first
    }
}

/// Sums of a run.
struct Figures {
    kills: BTreeMap<Phase, usize>,
    nats_kills: usize,
    cut: usize,
    calls: u64,
    movements: usize,
    reservations: usize,
    granted: usize,
    released: usize,
    checkpoints: u64,
    rules: u64,
    trimmed_below: u64,
    ready_ms: Vec<u128>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ready = self.ready_ms.clone();
        ready.sort_unstable();
        let (median, most) = (ready[ready.len() / 2], ready[ready.len() - 1]);
        write!(
            f,
            "kills={:?} nats_kills={} connections_cut={} calls={} acknowledged_movements={} reservations={} \
             granted={} released={} checkpoints={} rules={} log_begins_at={} lost=0 doubled=0 \
             ready_after_ms: median={median} most={most}",
            self.kills,
            self.nats_kills,
            self.cut,
            self.calls,
            self.movements,
            self.reservations,
            self.granted,
            self.released,
            self.checkpoints,
            self.rules,
            self.trimmed_below,
        )
    }
}

async fn survives(engine: &str, shards: &[usize], nats: Option<NatsServer>, trim: bool) {
    let kills = std::env::var("SELLABLE_CRASH_KILLS").ok();
    let kills = kills.map_or(KILLS, |text| text.parse().expect("a number"));
    let mut processes = Processes::start(shards, nats, trim).await;
    let mut instances = Vec::new();
    for server in &processes.servers {
        instances.push(server.connect().await);
    }
    let load = Arc::new(Load {
        instances,
        seed: seed(),
        enough: AtomicBool::new(false),
        under_way: Default::default(),
        trims: AtomicU64::new(0),
        posted: Mutex::default(),
        reserved: Mutex::default(),
        released: Mutex::default(),
        calls: AtomicU64::new(0),
        checkpoints: AtomicU64::new(0),
        rules: AtomicU64::new(0),
    });
    let put = pb::PutRulesRequest {
        toml: rules(0),
        ..pb::PutRulesRequest::default()
    };
    let put = load.instances[0].rules().put(put).await;
    let position = put.expect("rules are put").into_inner().version;
    for instance in &load.instances {
        instance.digest(position).await;
    }
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..2 {
        callers.spawn(Arc::clone(&load).post(caller));
    }
    for caller in 2..6 {
        callers.spawn(Arc::clone(&load).reserve(caller));
    }
    callers.spawn(Arc::clone(&load).checkpoint(6));
    callers.spawn(Arc::clone(&load).change_rules(7));
    let mut random = load.random(8);
    for kill in 0..kills {
        let phase = PHASES[kill % PHASES.len()];
        patiently(processes.kill(phase, &load, &mut random)).await;
    }
    // A machine may be so slow that the kills were over before all of it had happened.
    patiently(async {
        while !(load.has_seen_all() && (!trim || processes.log_begins_at().await > 1)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    load.enough.store(true, SeqCst);
    patiently(async {
        while let Some(ended) = callers.join_next().await {
            ended.expect("no caller panics");
        }
    })
    .await;
    let figures = examine(&load, &mut processes).await;
    println!("crash {engine} ({} instances): {figures}", shards.len());
    assert!(PHASES.iter().all(|phase| figures.kills.contains_key(phase)));
    assert!(figures.granted > 0 && figures.granted < figures.reservations);
    assert!(figures.checkpoints > 0 && figures.rules > 0);
    assert_eq!(trim, figures.trimmed_below > 1, "the log was trimmed");
}

/// Makes sure that everything acknowledged is there, exactly once, and on every replica.
async fn examine(load: &Load, processes: &mut Processes) -> Figures {
    let posted = load.posted.lock().expect("no panic").clone();
    let reserved = load.reserved.lock().expect("no panic").clone();
    let released = load.released.lock().expect("no panic").clone();
    let movements: usize = posted.iter().map(Vec::len).sum();

    // Once as it stands, and once more after all were killed and started from a checkpoint.
    let (position, digests) = processes.digests().await;
    assert_eq!(
        digests.len(),
        1,
        "replicas differ at {position}: {digests:?}"
    );
    for server in &mut processes.servers {
        server.kill();
        server.restart();
    }
    let (again, restarted) = processes.digests().await;
    if again == position {
        assert_eq!(restarted, digests, "another digest from a checkpoint");
    }

    for server in &processes.servers {
        let client = server.connect().await;
        let status = client.status().await;
        assert_eq!(status.movements_applied, movements as u64, "applied");
        assert_eq!(status.movements_parked, 0, "parked");
        let mut expected: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
        for movement in posted.iter().flatten() {
            let Some(pb::movement::Kind::Received(received)) = &movement.kind else {
                // Counts are of a SKU of their own; the digests tell of them.
                continue;
            };
            let cell = expected.entry((&movement.sku, &received.location));
            cell.or_default().0 += movement.quantity;
        }
        for part in reserved.iter().flat_map(|(_, answer)| &answer.allocations) {
            let cell = expected.entry((&part.sku, &part.location));
            cell.or_default().1 += part.quantity;
        }
        for part in released.iter().flat_map(|(_, parts)| parts) {
            let cell = expected.entry((&part.sku, &part.location));
            cell.or_default().1 -= part.quantity;
        }
        let shown = shelves(&client).await;
        for ((sku, location), units) in &expected {
            let cell = (sku.to_string(), location.to_string());
            let found = shown.get(&cell).copied().unwrap_or_default();
            assert_eq!(found, *units, "{sku} at {location}: good and reserved");
            assert!(found.0 >= found.1, "{sku} at {location} is oversold");
        }
        for (request, answer) in &reserved {
            let get = pb::GetReservationRequest {
                id: request.id.clone(),
                min_position: 0,
            };
            let found = client.reservations().get(get).await;
            let found = found.expect("it is remembered").into_inner();
            let is_released = released.iter().any(|(id, _)| *id == request.id);
            let state = match (answer.granted, is_released) {
                (false, _) => pb::ReservationState::Refused,
                (true, true) => pb::ReservationState::Closed,
                (true, false) => pb::ReservationState::Active,
            };
            assert_eq!(found.state(), state, "{}", request.id);
            assert_eq!(found.decided_position, answer.position);
        }
        // All are known still: whatever is sent again is a repeat.
        for movements in posted.chunks(20) {
            let movements: Vec<_> = movements.concat();
            let answer = client.post(movements).await;
            assert!(answer.outcomes.iter().all(|outcome| outcome.duplicate));
        }
    }
    if processes.nats.is_none() {
        processes.servers[0].stop();
    }
    let trimmed_below = processes.log_begins_at().await;
    Figures {
        kills: processes.kills.clone(),
        nats_kills: processes.nats_kills,
        cut: processes.cable.as_ref().map_or(0, Proxy::cut_so_far),
        calls: load.calls.load(SeqCst),
        movements,
        granted: reserved.iter().filter(|(_, answer)| answer.granted).count(),
        reservations: reserved.len(),
        released: released.len(),
        checkpoints: load.checkpoints.load(SeqCst),
        rules: load.rules.load(SeqCst),
        trimmed_below,
        ready_ms: processes.ready_ms.clone(),
    }
}

/// Good and reserved units of every cell.
async fn shelves(client: &Client) -> BTreeMap<(String, String), (i64, i64)> {
    let mut shelves = BTreeMap::new();
    for sku in SKUS {
        let request = pb::ExplainRequest {
            channel: CHANNEL.into(),
            sku: sku.into(),
            min_position: 0,
        };
        let shown = client.availability().explain(request).await;
        for term in shown.expect("it explains").into_inner().locations {
            let balances = term.balances.expect("it has balances");
            shelves.insert(
                (sku.to_owned(), term.location),
                (balances.good, balances.reserved),
            );
        }
    }
    shelves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_survives_kills_in_every_phase() {
    survives("embedded", &[3], None, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_on_one_stream_survive_kills_in_every_phase() {
    let nats = NatsServer::start();
    survives("jetstream", &[1, 2], Some(nats), false).await;
}

/// Alone on its stream, so that it may trim it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_trims_its_stream_survives_kills_in_every_phase() {
    let nats = NatsServer::start();
    survives("jetstream, trimming", &[2], Some(nats), true).await;
}
