//! Counts and durations of gRPC calls: a few atomic additions for each.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use pin_project_lite::pin_project;
use tonic::{
    Code,
    codegen::{Service, http},
};
use tower_layer::Layer;

/// Upper ends of the histogram's buckets, in nanoseconds: 32 µs to 2 s, each twice the one before.
const BUCKETS: usize = 17;
const FIRST_BUCKET_NS: u64 = 32_000;

/// The calls that are told apart, by their path.
const METHODS: [(&str, &str); 30] = [
    ("/sellable.v1.Availability/Get", "Availability/Get"),
    ("/sellable.v1.Availability/Explain", "Availability/Explain"),
    ("/sellable.v1.Feeds/Watch", "Feeds/Watch"),
    ("/sellable.v1.Feeds/GetState", "Feeds/GetState"),
    ("/sellable.v1.Feeds/ReportShown", "Feeds/ReportShown"),
    ("/sellable.v1.Feeds/List", "Feeds/List"),
    (
        "/sellable.v1.Feeds/ListDeadLetters",
        "Feeds/ListDeadLetters",
    ),
    (
        "/sellable.v1.Feeds/RetryDeadLetters",
        "Feeds/RetryDeadLetters",
    ),
    ("/sellable.v1.Movements/Post", "Movements/Post"),
    ("/sellable.v1.Movements/PostStream", "Movements/PostStream"),
    ("/sellable.v1.Rules/Get", "Rules/Get"),
    ("/sellable.v1.Rules/Put", "Rules/Put"),
    ("/sellable.v1.Rules/GetAuthority", "Rules/GetAuthority"),
    ("/sellable.v1.Rules/PutAuthority", "Rules/PutAuthority"),
    ("/sellable.v1.Operations/Status", "Operations/Status"),
    (
        "/sellable.v1.Operations/Checkpoint",
        "Operations/Checkpoint",
    ),
    ("/sellable.v1.Operations/Digest", "Operations/Digest"),
    (
        "/sellable.v1.Operations/ListExceptions",
        "Operations/ListExceptions",
    ),
    ("/sellable.v1.Operations/Resolve", "Operations/Resolve"),
    (
        "/sellable.v1.Reconciliation/Compare",
        "Reconciliation/Compare",
    ),
    (
        "/sellable.v1.Reconciliation/ListReports",
        "Reconciliation/ListReports",
    ),
    (
        "/sellable.v1.Reconciliation/GetReport",
        "Reconciliation/GetReport",
    ),
    (
        "/sellable.v1.Reconciliation/Approve",
        "Reconciliation/Approve",
    ),
    ("/sellable.v1.Reservations/Reserve", "Reservations/Reserve"),
    (
        "/sellable.v1.Reservations/ReserveStream",
        "Reservations/ReserveStream",
    ),
    ("/sellable.v1.Reservations/Confirm", "Reservations/Confirm"),
    ("/sellable.v1.Reservations/Release", "Reservations/Release"),
    ("/sellable.v1.Reservations/Extend", "Reservations/Extend"),
    ("/sellable.v1.Reservations/Get", "Reservations/Get"),
    // Health, reflection, and what does not exist.
    ("", "other"),
];

/// Codes of gRPC: 0 to 16.
const CODES: usize = 17;

/// Counts of all calls. A layer in front of the services; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<[Method; METHODS.len()]>);

/// Counts of the calls of one method.
#[derive(Debug, Default)]
struct Method {
    codes: [AtomicU64; CODES],
    buckets: [AtomicU64; BUCKETS + 1],
    nanoseconds: AtomicU64,
}

/// What was counted of one method.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counted {
    /// `Service/Method`.
    pub(super) method: &'static str,
    /// How often each code was answered, by its name; those that were.
    pub(super) codes: Vec<(&'static str, u64)>,
    /// Upper ends in seconds, and how many fell between it and the one before.
    pub(super) buckets: Vec<(f64, u64)>,
    /// Sum of all durations, in seconds.
    pub(super) seconds: f64,
}

impl Calls {
    /// What was counted so far, of the methods that were called.
    pub(super) fn counted(&self) -> Vec<Counted> {
        let methods = METHODS.iter().zip(self.0.iter());
        methods
            .map(|((_, method), counts)| Counted {
                method,
                codes: counts.codes(),
                buckets: counts.buckets(),
                seconds: counts.nanoseconds.load(Relaxed) as f64 / 1e9,
            })
            .filter(|counted| !counted.codes.is_empty())
            .collect()
    }
}

impl Method {
    fn count(&self, code: usize, nanoseconds: u64) {
        self.codes[code.min(CODES - 1)].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
        self.buckets[bucket_of(nanoseconds)].fetch_add(1, Relaxed);
    }

    fn codes(&self) -> Vec<(&'static str, u64)> {
        let counts = self.codes.iter().map(|count| count.load(Relaxed));
        let named = (0i32..)
            .zip(counts)
            .map(|(code, count)| (name_of(code.into()), count));
        named.filter(|(_, count)| *count > 0).collect()
    }

    fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = (0..BUCKETS as u32).map(|bucket| (FIRST_BUCKET_NS << bucket) as f64 / 1e9);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        ends.chain([f64::INFINITY]).zip(counts).collect()
    }
}

fn bucket_of(nanoseconds: u64) -> usize {
    // How often the first end has to be doubled to reach it.
    let times = nanoseconds.div_ceil(FIRST_BUCKET_NS).max(1);
    (u64::BITS - (times - 1).leading_zeros()).min(BUCKETS as u32) as usize
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting {
            inner,
            calls: self.clone(),
        }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counting<S> {
    inner: S,
    calls: Calls,
}

impl<S, B, R> Service<http::Request<B>> for Counting<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CallUnderWay<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let known = METHODS.iter().position(|(known, _)| *known == path);
        CallUnderWay {
            method: known.unwrap_or(METHODS.len() - 1),
            started: Instant::now(),
            calls: self.calls.clone(),
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// A call under way.
    #[derive(Debug)]
    pub struct CallUnderWay<F> {
        method: usize,
        started: Instant,
        calls: Calls,
        #[pin]
        inner: F,
    }
}

impl<F, R, E> Future for CallUnderWay<F>
where
    F: Future<Output = Result<http::Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.inner.poll(context));
        // A refusal says so in its headers; whatever has none of that went well so far.
        let code = output.as_ref().map_or(Code::Unknown, |response| {
            let status = response.headers().get("grpc-status");
            status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
        });
        let nanoseconds = u64::try_from(this.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        this.calls.0[*this.method].count(code as usize, nanoseconds);
        Poll::Ready(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method that is not listed would be counted as `other`.
    #[test]
    fn every_method_of_the_contract_is_listed() {
        use prost::Message;
        let descriptors = crate::proto::FILE_DESCRIPTOR_SET;
        let descriptors = prost_types::FileDescriptorSet::decode(descriptors).expect("built in");
        let services = descriptors.file.iter().flat_map(|file| &file.service);
        let methods = services.flat_map(|service| {
            let paths = service.method.iter();
            paths.map(|method| format!("/sellable.v1.{}/{}", service.name(), method.name()))
        });
        let mut contract: Vec<String> = methods.collect();
        contract.sort();
        let listed = METHODS.iter().map(|(path, _)| (*path).to_owned());
        let mut listed: Vec<String> = listed.filter(|path| !path.is_empty()).collect();
        listed.sort();
        assert_eq!(listed, contract);
    }

    #[test]
    fn durations_fall_into_their_buckets() {
        for (nanoseconds, bucket) in [
            (0, 0),
            (31_999, 0),
            (32_000, 0),
            (32_001, 1),
            (64_000, 1),
            (64_001, 2),
            (2_097_152_000, 16),
            (2_097_152_001, 17),
            (u64::MAX, 17),
        ] {
            assert_eq!(bucket_of(nanoseconds), bucket, "{nanoseconds} ns");
        }
    }

    #[test]
    fn what_was_counted_is_told() {
        let calls = Calls::default();
        assert!(calls.counted().is_empty());
        calls.0[0].count(0, 40_000);
        calls.0[0].count(5, 1_000);
        let counted = calls.counted();
        assert_eq!(counted.len(), 1);
        assert_eq!(counted[0].method, "Availability/Get");
        assert_eq!(counted[0].codes, [("OK", 1), ("NOT_FOUND", 1)]);
        assert_eq!(counted[0].buckets[..2], [(32e-6, 1), (64e-6, 1)]);
        assert_eq!(counted[0].buckets.last(), Some(&(f64::INFINITY, 0)));
        assert_eq!(counted[0].buckets.len(), BUCKETS + 1);
    }
}
