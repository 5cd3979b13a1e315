//! A receiver of webhooks, on loopback: checks all that it gets with another implementation of the
//! signature, and answers as it is told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use tokio::{net::TcpListener, task::JoinHandle};

/// What the receiver and the sender know.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Takes it.
    Take,
    /// Takes nothing, and answers with a status, and a `Retry-After`.
    Refuse(u16, Option<String>),
    /// Answers nothing, and takes nothing.
    Stall,
    /// Takes it, and answers nothing: the sender cannot know.
    TakeAndStall,
    /// Takes it long after the sender has given up.
    TakeLate,
}

/// What it has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What it shows: units, and the position of the number.
    pub(crate) shown: BTreeMap<String, (i64, u64)>,
    /// Everything up to here was told.
    pub(crate) position: u64,
    pub(crate) requests: usize,
    /// Requests whose `webhook-id` had come before.
    pub(crate) repeats: usize,
    ids: BTreeMap<String, Bytes>,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
    acts: VecDeque<Act>,
    /// What is done once `acts` are.
    otherwise: Option<Act>,
    /// SKUs that it does not want.
    refused_skus: BTreeSet<String>,
}

impl Seen {
    /// The units that it shows.
    pub(crate) fn units(&self) -> BTreeMap<String, i64> {
        let shown = self.shown.iter();
        shown
            .map(|(sku, (units, _))| (sku.clone(), *units))
            .collect()
    }

    fn take(&mut self, body: &serde_json::Value) {
        let data = &body["data"];
        for number in data["numbers"].as_array().into_iter().flatten() {
            let sku = number["sku"].as_str().unwrap_or_default();
            let units = number["units"].as_i64().unwrap_or(-1);
            let as_of = number["as_of_position"].as_u64().unwrap_or(0);
            // As the contract advises those whose requests may overtake each other.
            let own = self.shown.entry(sku.to_owned()).or_insert((units, as_of));
            if as_of >= own.1 {
                *own = (units, as_of);
            }
        }
        self.position = self.position.max(data["position"].as_u64().unwrap_or(0));
    }
}

/// One that may be stopped and started again on its port. It ends with the runtime.
pub(crate) struct Receiver {
    seen: Arc<Mutex<Seen>>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut receiver = Self {
            seen: Arc::default(),
            address: listener.local_addr().expect("an address"),
            server: None,
        };
        receiver.serve(listener);
        receiver
    }

    fn serve(&mut self, listener: TcpListener) {
        let router = Router::new()
            .route("/in", post(answer))
            .with_state(Arc::clone(&self.seen));
        let served = axum::serve(listener, router);
        self.server = Some(tokio::spawn(async move {
            served.await.expect("it serves");
        }));
    }

    /// Takes no connections any more.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }

    /// Takes connections again, on the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let listener = loop {
            // The socket before is closed once its task has ended.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self.serve(listener);
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics with it")
    }

    /// The next requests are answered like this.
    pub(crate) fn acts(&self, acts: impl IntoIterator<Item = Act>) {
        self.seen().acts.extend(acts);
    }

    /// All requests are answered like this from now on.
    pub(crate) fn always(&self, act: Act) {
        let mut seen = self.seen();
        seen.acts.clear();
        seen.otherwise = Some(act);
    }

    /// Answers 422 to whatever has one of these SKUs.
    pub(crate) fn refuse_skus(&self, skus: &[&str]) {
        self.seen().refused_skus = skus.iter().map(ToString::to_string).collect();
    }

    /// Acts that were not asked for yet.
    pub(crate) fn acts_left(&self) -> usize {
        self.seen().acts.len()
    }

    /// Nothing came that must not.
    #[track_caller]
    pub(crate) fn is_content(&self) {
        assert_eq!(self.seen().wrong, Vec::<String>::new());
    }
}

async fn answer(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let lock = || seen.lock().expect("no test panics with it");
    let (act, body) = {
        let mut own = lock();
        own.requests += 1;
        let body = match check(&headers, &bytes) {
            Ok(body) => body,
            Err(wrong) => {
                own.wrong.push(wrong);
                return StatusCode::BAD_REQUEST.into_response();
            }
        };
        let id = headers["webhook-id"].to_str().unwrap_or_default();
        match own.ids.get(id) {
            Some(before) if *before == bytes => own.repeats += 1,
            Some(_) => own.wrong.push(format!("another message is {id}, too")),
            None => drop(own.ids.insert(id.to_owned(), bytes)),
        }
        let numbers = body["data"]["numbers"].as_array();
        let unwanted = numbers.into_iter().flatten().any(|number| {
            let sku = number["sku"].as_str().unwrap_or_default();
            own.refused_skus.contains(sku)
        });
        let act = own.acts.pop_front().or_else(|| own.otherwise.clone());
        let act = act.unwrap_or(if unwanted {
            Act::Refuse(422, None)
        } else {
            Act::Take
        });
        if matches!(act, Act::Take | Act::TakeAndStall) {
            own.take(&body);
        }
        (act, body)
    };
    match act {
        Act::Take => StatusCode::NO_CONTENT.into_response(),
        Act::Refuse(status, retry_after) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let retry_after = retry_after.map(|text| [("retry-after", text)]);
            (
                status,
                retry_after.map_or_else(HeaderMap::new, |[(name, text)]| {
                    let value = text.parse().expect("a header");
                    HeaderMap::from_iter([(name.parse().expect("a name"), value)])
                }),
                "no such\narticle",
            )
                .into_response()
        }
        Act::TakeLate => {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                seen.lock().expect("no test panics with it").take(&body);
            });
            std::future::pending().await
        }
        Act::Stall | Act::TakeAndStall => std::future::pending().await,
    }
}

/// Whether a request is what the contract says, by the `hmac` and `sha2` crates.
fn check(headers: &HeaderMap, bytes: &Bytes) -> Result<serde_json::Value, String> {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("there is no {name}"))
    };
    if header("content-type")? != "application/json" {
        return Err("it is not said to be JSON".into());
    }
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let sent: u64 = timestamp.parse().map_err(|_| "no time".to_owned())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    if now.expect("after 1970").as_secs().abs_diff(sent) > 300 {
        return Err(format!("it was sent at {sent}"));
    }
    let secret = SECRET.strip_prefix("whsec_").expect("its prefix");
    let secret = BASE64_STANDARD.decode(secret).expect("base64");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).expect("any length");
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(bytes);
    let wanted = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    if header("webhook-signature")? != format!("v1,{wanted}") {
        return Err("the signature is wrong".into());
    }
    let body: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let is_whole = body["type"] == "availability.changed"
        && body["timestamp"].is_string()
        && body["data"]["channel"] == "web"
        && body["data"]["after_position"].as_u64() <= body["data"]["position"].as_u64()
        && body["data"]["numbers"].as_array().is_some_and(|all| {
            let skus = all.iter().filter_map(|number| number["sku"].as_str());
            !all.is_empty() && skus.collect::<BTreeSet<_>>().len() == all.len()
        });
    match is_whole {
        true => Ok(body),
        false => Err(format!("{body}")),
    }
}
