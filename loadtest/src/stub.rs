//! A server for tests that keeps simple books, and can be made to keep them wrongly.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Request, Response, Status, Streaming,
    transport::server::{Server, TcpIncoming},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    proto::{
        availability_server::{Availability, AvailabilityServer},
        movement::Kind,
        movements_server::{Movements, MovementsServer},
        operations_server::{Operations, OperationsServer},
        reservations_server::{Reservations, ReservationsServer},
        reserve_stream_response::Answer,
        rules_server::{Rules, RulesServer},
        *,
    },
    server::Address,
};

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Right,
    /// Grants every cart.
    Oversells,
    /// Acknowledges every third message of movements and forgets it.
    LosesMovements,
    /// Applies a movement as often as it comes.
    ForgetsIds,
    /// Queries show the balances of the beginning.
    ReadsStale,
    /// Answers to every 10th first reservation do not arrive.
    LosesAnswers,
}

/// A running server; dropping it ends it.
pub(crate) struct Stub {
    pub(crate) address: Address,
    books: Arc<Mutex<Books>>,
    server: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug, Default)]
struct Books {
    position: u64,
    /// By SKU and location: good, reserved.
    cells: BTreeMap<(String, String), (i64, i64)>,
    at_start: BTreeMap<(String, String), (i64, i64)>,
    ids: HashSet<String>,
    carts: HashMap<String, Cart>,
    /// Ids of commands, and of carts that were given back.
    commands: HashSet<String>,
    messages: u64,
    /// Sum of the digests of queries and reservations: their order does not matter.
    asked: u64,
}

#[derive(Debug)]
struct Cart {
    answer: ReserveResponse,
    expires: Option<Instant>,
}

impl Stub {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let books = Arc::new(Mutex::new(Books::default()));
        let service = Service {
            manner,
            books: books.clone(),
        };
        let server = Server::builder()
            .add_service(AvailabilityServer::new(service.clone()))
            .add_service(MovementsServer::new(service.clone()))
            .add_service(ReservationsServer::new(service.clone()))
            .add_service(RulesServer::new(service.clone()))
            .add_service(OperationsServer::new(service))
            .serve_with_incoming(TcpIncoming::from(listener));
        Self {
            address: Address::parse(&format!("127.0.0.1:{port}")).expect("an address"),
            books,
            server: tokio::spawn(async move { server.await.expect("it serves") }),
        }
    }

    /// Digest of all queries and reservations that came, in any order.
    pub(crate) fn digest_of_requests(&self) -> u64 {
        self.books.lock().expect("no panic").asked
    }
}

#[derive(Clone)]
struct Service {
    manner: Manner,
    books: Arc<Mutex<Books>>,
}

impl Service {
    fn books(&self) -> MutexGuard<'_, Books> {
        let mut books = self.books.lock().expect("no panic");
        books.expire();
        books
    }

    fn post_batch(&self, movements: &[Movement]) -> PostResponse {
        let mut books = self.books();
        books.position += 1;
        let reported = movements[0].id.contains("-move-");
        books.messages += u64::from(reported);
        let loses = self.manner == Manner::LosesMovements;
        let lost = loses && reported && books.messages.is_multiple_of(3);
        let outcomes = movements.iter().map(|movement| {
            let duplicate = books.ids.contains(&movement.id);
            if !lost && (!duplicate || self.manner == Manner::ForgetsIds) {
                books.apply(movement);
            }
            if !lost && self.manner != Manner::ForgetsIds {
                books.ids.insert(movement.id.clone());
            }
            MovementOutcome {
                outcome: Outcome::Applied.into(),
                duplicate,
                ..MovementOutcome::default()
            }
        });
        let outcomes = outcomes.collect();
        PostResponse {
            outcomes,
            position: books.position,
            log_time: None,
        }
    }
}

impl Books {
    fn cell(&mut self, sku: &str, location: &str) -> &mut (i64, i64) {
        self.cells
            .entry((sku.to_owned(), location.to_owned()))
            .or_default()
    }

    fn apply(&mut self, movement: &Movement) {
        let units = movement.quantity;
        match movement.kind.as_ref().expect("a kind") {
            Kind::Received(kind) => self.cell(&movement.sku, &kind.location).0 += units,
            Kind::Issued(kind) => self.cell(&movement.sku, &kind.location).0 -= units,
            Kind::Shipped(kind) => {
                let cell = self.cell(&movement.sku, &kind.location);
                cell.0 -= units;
                cell.1 -= units;
            }
            // Of units that came back, those count that are on the shelf again.
            Kind::ReturnInspected(kind) => self.cell(&movement.sku, &kind.location).0 += units,
            _ => {}
        }
        if movement.id.contains("-open-") {
            self.at_start.clone_from(&self.cells);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let over: Vec<String> = self
            .carts
            .iter()
            .filter(|(id, cart)| {
                cart.expires.is_some_and(|at| at <= now) && !self.commands.contains(*id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            self.give_back(&id);
        }
    }

    fn give_back(&mut self, id: &str) {
        self.commands.insert(id.to_owned());
        let held = self.carts[id].answer.allocations.clone();
        for given in held {
            self.cell(&given.sku, &given.location).1 -= given.quantity;
        }
    }

    fn decide(&mut self, request: &ReserveRequest, oversells: bool) -> ReserveResponse {
        let (mut allocations, mut short_lines) = (Vec::new(), Vec::new());
        for (n, line) in request.lines.iter().enumerate() {
            let number = (n + 1).to_string();
            let centres = self
                .cells
                .range((line.sku.clone(), String::new())..)
                .take_while(|((sku, _), _)| *sku == line.sku)
                .filter(|((_, location), _)| location.starts_with("lt-dc"));
            let free: Vec<(String, i64)> = centres
                .map(|((_, location), (good, reserved))| (location.clone(), good - reserved))
                .collect();
            let fits = |(_, free): &&(String, i64)| *free >= line.quantity || oversells;
            match free.iter().find(fits) {
                Some((location, _)) => allocations.push(Allocation {
                    line: number,
                    sku: line.sku.clone(),
                    location: location.clone(),
                    quantity: line.quantity,
                }),
                None => short_lines.push(ShortLine {
                    line: number,
                    sku: line.sku.clone(),
                    requested: line.quantity,
                    available: free.iter().map(|(_, free)| *free).max().unwrap_or(0),
                    ..ShortLine::default()
                }),
            }
        }
        let granted = short_lines.is_empty();
        if granted {
            for given in &allocations {
                self.cell(&given.sku, &given.location).1 += given.quantity;
            }
        } else {
            allocations.clear();
        }
        ReserveResponse {
            granted,
            allocations,
            short_lines,
            position: self.position,
            ..ReserveResponse::default()
        }
    }
}

fn balances((good, reserved): (i64, i64)) -> Balances {
    Balances {
        good,
        reserved,
        on_hand: good,
        free: good - reserved,
        ..Balances::default()
    }
}

#[tonic::async_trait]
impl Availability for Service {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        let mut books = self.books();
        if !request.include_locations {
            let digest = xxh3_64(&request.encode_to_vec());
            books.asked = books.asked.wrapping_add(digest);
        }
        let cells = match self.manner {
            Manner::ReadsStale => &books.at_start,
            _ => &books.cells,
        };
        let item = |sku: &String| {
            let of_sku = cells.range((sku.clone(), String::new())..);
            let of_sku = of_sku.take_while(|((name, _), _)| name == sku);
            let locations = of_sku.map(|((_, location), cell)| LocationAvailability {
                location: location.clone(),
                available: (cell.0 - cell.1).max(0),
                balances: Some(balances(*cell)),
            });
            let locations: Vec<_> = locations.collect();
            SkuAvailability {
                sku: sku.clone(),
                ats: locations.iter().map(|at| at.available).sum(),
                known: true,
                locations,
            }
        };
        Ok(Response::new(GetResponse {
            items: request.skus.iter().map(item).collect(),
            position: books.position,
            ..GetResponse::default()
        }))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let sku = request.into_inner().sku;
        let books = self.books();
        let of_sku = books.cells.iter().filter(|((name, _), _)| *name == sku);
        let locations: Vec<LocationTerm> = of_sku
            .map(|((_, location), cell)| LocationTerm {
                location: location.clone(),
                sells: true,
                balances: Some(balances(*cell)),
                available: (cell.0 - cell.1).max(0),
                ..LocationTerm::default()
            })
            .collect();
        let sum = locations.iter().map(|at| at.available).sum();
        Ok(Response::new(ExplainResponse {
            sku,
            ats: sum,
            sum,
            locations,
            terms: Some(ChannelTerms {
                share_percent: 100,
                ..ChannelTerms::default()
            }),
            ..ExplainResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl Movements for Service {
    async fn post(&self, request: Request<PostRequest>) -> Result<Response<PostResponse>, Status> {
        Ok(Response::new(
            self.post_batch(&request.into_inner().movements),
        ))
    }

    type PostStreamStream = Pin<Box<dyn Stream<Item = Result<PostResponse, Status>> + Send>>;

    async fn post_stream(
        &self,
        request: Request<Streaming<PostRequest>>,
    ) -> Result<Response<Self::PostStreamStream>, Status> {
        let service = self.clone();
        let answers = request
            .into_inner()
            .map(move |batch| Ok(service.post_batch(&batch?.movements)));
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Reservations for Service {
    async fn reserve(
        &self,
        request: Request<ReserveRequest>,
    ) -> Result<Response<ReserveResponse>, Status> {
        self.decide(request.into_inner()).await.map(Response::new)
    }

    type ReserveStreamStream =
        Pin<Box<dyn Stream<Item = Result<ReserveStreamResponse, Status>> + Send>>;

    async fn reserve_stream(
        &self,
        request: Request<Streaming<ReserveRequest>>,
    ) -> Result<Response<Self::ReserveStreamStream>, Status> {
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move {
                let response = service.decide(request?).await?;
                Ok(ReserveStreamResponse {
                    answer: Some(Answer::Response(response)),
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn confirm(
        &self,
        request: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        let mut books = self.books();
        let cart = books.carts.get_mut(&request.into_inner().reservation);
        cart.ok_or_else(|| Status::not_found("no such cart"))?
            .expires = None;
        books.position += 1;
        Ok(Response::new(ConfirmResponse {
            position: books.position,
            ..ConfirmResponse::default()
        }))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let request = request.into_inner();
        let mut books = self.books();
        books.position += 1;
        if books.commands.insert(request.id) {
            books.give_back(&request.reservation);
        }
        Ok(Response::new(ReleaseResponse {
            position: books.position,
            ..ReleaseResponse::default()
        }))
    }

    async fn extend(&self, _: Request<ExtendRequest>) -> Result<Response<ExtendResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn get(
        &self,
        request: Request<GetReservationRequest>,
    ) -> Result<Response<Reservation>, Status> {
        let id = request.into_inner().id;
        let books = self.books();
        let state = match books.commands.contains(&id) {
            true => ReservationState::Expired,
            false => ReservationState::Active,
        };
        Ok(Response::new(Reservation {
            id,
            state: state.into(),
            ..Reservation::default()
        }))
    }
}

impl Service {
    async fn decide(&self, request: ReserveRequest) -> Result<ReserveResponse, Status> {
        {
            let mut books = self.books();
            if let Some(cart) = books.carts.get(&request.id) {
                let mut answer = cart.answer.clone();
                answer.duplicate = true;
                return Ok(answer);
            }
            let digest = xxh3_64(&request.encode_to_vec());
            books.asked = books.asked.wrapping_add(digest);
            books.position += 1;
            let answer = books.decide(&request, self.manner == Manner::Oversells);
            let time_to_live = request.time_to_live.unwrap_or_default();
            let expires = Instant::now() + Duration::from_secs(time_to_live.seconds as u64);
            let cart = Cart {
                expires: answer.granted.then_some(expires),
                answer: answer.clone(),
            };
            books.carts.insert(request.id, cart);
            if self.manner != Manner::LosesAnswers || !books.carts.len().is_multiple_of(10) {
                return Ok(answer);
            }
        }
        std::future::pending().await
    }
}

#[tonic::async_trait]
impl Rules for Service {
    async fn get(&self, _: Request<GetRulesRequest>) -> Result<Response<GetRulesResponse>, Status> {
        Ok(Response::new(GetRulesResponse::default()))
    }

    async fn put(&self, _: Request<PutRulesRequest>) -> Result<Response<PutRulesResponse>, Status> {
        Ok(Response::new(PutRulesResponse::default()))
    }

    async fn get_authority(
        &self,
        _: Request<GetRulesRequest>,
    ) -> Result<Response<GetRulesResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn put_authority(
        &self,
        _: Request<PutRulesRequest>,
    ) -> Result<Response<PutRulesResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

#[tonic::async_trait]
impl Operations for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            ready: true,
            log_engine: "embedded".to_owned(),
            ..StatusResponse::default()
        }))
    }

    async fn digest(&self, _: Request<DigestRequest>) -> Result<Response<DigestResponse>, Status> {
        Ok(Response::new(DigestResponse::default()))
    }

    async fn list_exceptions(
        &self,
        _: Request<ListExceptionsRequest>,
    ) -> Result<Response<ListExceptionsResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn resolve(
        &self,
        _: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn checkpoint(
        &self,
        _: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}
