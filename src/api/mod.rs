//! The gRPC services: the public contract in front of an instance.

mod availability;
mod feeds;
mod movements;
mod operations;
mod reconciliation;
mod reservations;
mod reserve_stream;
mod rules;
pub mod serving;
mod status;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::{
    domain::movement::TimeUs,
    feed::Feeds,
    instance::{Instance, now_us},
    limits::COMPARISONS_MAX,
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{
            self as pb, operations_server::OperationsServer,
            reconciliation_server::ReconciliationServer, rules_server::RulesServer,
        },
    },
};

/// Servers whose messages are not those of [`crate::proto`]: `Movements` with [`RawPostRequest`]s,
/// `Feeds` with updates that are [`Encoded`](crate::wire::Encoded), and `Availability` and
/// `Reservations` that take and give encoded messages to query and to reserve.
mod raw {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/raw/sellable.v1.rs"));
}

/// A `sellable.v1.PostRequest` whose movements are still encoded.
///
/// On the wire, a repeated message and repeated bytes are the same.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RawPostRequest {
    /// Encoded `Movement`s.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub movements: Vec<Bytes>,
}

/// How the services answer.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a query waits for its `min_position`.
    pub min_position_wait_max: Duration,
    /// Largest message that is taken, in bytes.
    pub message_bytes_max: usize,
    /// How snapshots are compared.
    pub reconcile: crate::reconcile::Options,
}

/// All services of an instance, health and reflection included.
///
/// # Panics
/// If the descriptors that were built in are broken.
pub fn routes(
    instance: &Arc<Instance>,
    feeds: &Arc<Feeds>,
    options: Options,
    health: HealthServer<impl Health>,
) -> Routes {
    let service = Service {
        instance: Arc::clone(instance),
        feeds: Arc::clone(feeds),
        options,
        comparisons: Arc::new(Semaphore::new(COMPARISONS_MAX)),
    };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = "the descriptors are built in";
    let bytes_max = options.message_bytes_max;
    let movements = raw::movements_server::MovementsServer::new(service.clone())
        .max_decoding_message_size(bytes_max);
    let availability = raw::availability_server::AvailabilityServer::new(service.clone())
        .max_decoding_message_size(bytes_max);
    let feeds =
        raw::feeds_server::FeedsServer::new(service.clone()).max_decoding_message_size(bytes_max);
    let rules = RulesServer::new(service.clone()).max_decoding_message_size(bytes_max);
    let reservations = raw::reservations_server::ReservationsServer::new(service.clone())
        .max_decoding_message_size(bytes_max);
    let reconciliation =
        ReconciliationServer::new(service.clone()).max_decoding_message_size(bytes_max);
    Routes::new(movements)
        .add_service(availability)
        .add_service(reservations)
        .add_service(rules)
        .add_service(reconciliation)
        .add_service(feeds)
        .add_service(OperationsServer::new(service))
        .add_service(health)
        .add_service(reflection().build_v1().expect(broken))
        // Older clients, grpcurl and Python's among them, ask for this version.
        .add_service(reflection().build_v1alpha().expect(broken))
}

/// Implements all services.
#[derive(Clone)]
struct Service {
    instance: Arc<Instance>,
    feeds: Arc<Feeds>,
    options: Options,
    /// One for each snapshot that may still be compared at once.
    comparisons: Arc<Semaphore>,
}

impl Service {
    /// Refuses queries until the instance has caught up, and waits for `min_position`.
    async fn wait_for(&self, min_position: u64) -> Result<(), tonic::Status> {
        if !self.instance.ready() {
            return Err(status::not_ready(&self.instance));
        }
        let progress = self.instance.view().progress();
        if progress.position() >= min_position {
            return Ok(());
        }
        let wait_max = self.options.min_position_wait_max;
        tokio::time::timeout(wait_max, progress.wait_for(min_position))
            .await
            .map_err(|_| status::position_not_reached(min_position, progress.position(), wait_max))
    }
}

/// The log's time, as it is sent; none before the first record.
fn log_time(time_us: TimeUs) -> Option<prost_types::Timestamp> {
    (time_us > 0).then(|| crate::wire::movement::timestamp(time_us))
}

fn balances(balances: &crate::domain::balances::Balances) -> pb::Balances {
    let [
        good,
        quarantined,
        damaged,
        return_pending,
        reserved,
        in_transit,
        return_expected,
    ] = balances.0;
    pb::Balances {
        good,
        quarantined,
        damaged,
        return_pending,
        reserved,
        in_transit,
        return_expected,
        on_hand: balances.on_hand(),
        free: balances.free(),
    }
}
