//! What tests of exceptions have in common: movements written in a line, and what a person does.

use std::collections::BTreeSet;

use sellable::{proto::v1 as pb, wire::json};
use serde_json::{Map, Value};
use tonic::{Code, Status};

use super::server::Client;

/// A movement by its kind, id, SKU and units, and its other fields as `name=value`; of source
/// `wms` and some time ago, unless it is said.
pub(crate) fn fact(text: &str) -> pb::Movement {
    let mut words = text.split(' ');
    let mut next = || words.next().unwrap_or_else(|| panic!("too short: {text}"));
    let mut object: Map<String, Value> = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("type", next().into());
    put("id", next().into());
    put("sku", next().into());
    put("quantity", next().parse::<i64>().expect("units").into());
    put("source", "wms".into());
    put("occurred_at", "2026-01-05T08:00:00Z".into());
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        put(name, value.into());
    }
    let line = Value::Object(object).to_string();
    let movement = json::line(line.as_bytes(), None).movement;
    movement.unwrap_or_else(|invalid| panic!("{text}: {invalid}"))
}

pub(crate) fn facts(texts: &[&str]) -> Vec<pb::Movement> {
    texts.iter().map(|text| fact(text)).collect()
}

pub(crate) fn of_kinds(kinds: &[pb::ExceptionKind]) -> pb::ListExceptionsRequest {
    pb::ListExceptionsRequest {
        kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
        ..pb::ListExceptionsRequest::default()
    }
}

impl Client {
    /// The outcome of one movement.
    pub(crate) async fn outcome_of(&self, movement: pb::Movement) -> pb::MovementOutcome {
        let request = pb::PostRequest {
            movements: vec![movement],
        };
        let answer = self.movements().post(request).await.expect("posted");
        answer.into_inner().outcomes.remove(0)
    }

    /// Posts a movement that is parked as this.
    pub(crate) async fn park(&self, text: &str, kind: pb::ExceptionKind) {
        let outcome = self.outcome_of(fact(text)).await;
        assert_eq!(
            outcome.outcome(),
            pb::Outcome::Parked,
            "{text}: {outcome:?}"
        );
        assert_eq!(outcome.parked_as(), kind, "{text}: {outcome:?}");
    }

    /// All that a request asks for, page by page; makes sure of their order, that none is there
    /// twice, and that each page has what it may have.
    pub(crate) async fn exceptions(
        &self,
        mut request: pb::ListExceptionsRequest,
    ) -> Vec<pb::Exception> {
        let mut all: Vec<pb::Exception> = Vec::new();
        loop {
            let page = self.operations().list_exceptions(request.clone()).await;
            let page = page.expect("a page").into_inner();
            let size = match request.page_size {
                0 => 100,
                size => size as usize,
            };
            assert!(page.exceptions.len() <= size);
            let more = !page.next_page_token.is_empty();
            assert!(!more || page.exceptions.len() == size, "a short page");
            all.extend(page.exceptions);
            assert!(page.total >= all.len() as u64);
            if !more {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let place = |e: &pb::Exception| {
            let seen = e.first_seen.as_ref().expect("a time");
            (seen.seconds, seen.nanos, e.exception_id.clone())
        };
        for pair in all.windows(2) {
            assert!(
                place(&pair[0]) < place(&pair[1]),
                "not oldest first: {pair:?}"
            );
        }
        let ids: BTreeSet<&str> = all.iter().map(|e| e.exception_id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "one is there twice");
        all
    }

    /// All open exceptions.
    pub(crate) async fn open(&self) -> Vec<pb::Exception> {
        self.exceptions(pb::ListExceptionsRequest::default()).await
    }

    /// The open parked movement with this id of its source.
    pub(crate) async fn parked(&self, id: &str) -> pb::Exception {
        let mut all = self.open().await;
        all.retain(|exception| exception.id == id);
        assert_eq!(all.len(), 1, "{id}: {all:?}");
        all.remove(0)
    }

    pub(crate) async fn resolve(
        &self,
        request: pb::ResolveRequest,
    ) -> Result<pb::ResolveResponse, Status> {
        let answer = self.operations().resolve(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Position of what was decided, or the code of the refusal.
    pub(crate) async fn decide(
        &self,
        resolution: pb::Resolution,
        exception: &pb::Exception,
    ) -> Result<u64, Code> {
        let answer = self.resolve(resolving(resolution, exception)).await;
        let position = answer.map(|answer| answer.position);
        position.map_err(|status| status.code())
    }

    /// Releases an inspection with a disposition.
    pub(crate) async fn release_with(
        &self,
        disposition: pb::Disposition,
        exception: &pb::Exception,
    ) -> Result<u64, Code> {
        let request = pb::ResolveRequest {
            disposition: disposition.into(),
            ..resolving(pb::Resolution::Release, exception)
        };
        let position = self.resolve(request).await.map(|answer| answer.position);
        position.map_err(|status| status.code())
    }

    /// What a channel named `web` may sell.
    pub(crate) async fn web(&self, sku: &str) -> i64 {
        let request = pb::GetRequest {
            channel: "web".into(),
            skus: vec![sku.into()],
            ..pb::GetRequest::default()
        };
        let answer = self.availability().get(request).await.expect("an answer");
        answer.into_inner().items[0].ats
    }
}

pub(crate) fn resolving(
    resolution: pb::Resolution,
    exception: &pb::Exception,
) -> pb::ResolveRequest {
    pb::ResolveRequest {
        exception_id: exception.exception_id.clone(),
        resolution: resolution.into(),
        actor: "kim".into(),
        note: "looked at it".into(),
        ..pb::ResolveRequest::default()
    }
}

/// The same at another moment: all but the age.
pub(crate) fn ageless(mut exceptions: Vec<pb::Exception>) -> Vec<pb::Exception> {
    for exception in &mut exceptions {
        exception.age_ms = 0;
    }
    exceptions
}
