//! Requests to one receiver over HTTP/1.1, and what their answers mean (see [`super::body`]).
//!
//! One request at a time, on a connection that is kept. Redirects are not followed, and no proxy is
//! asked: what the settings name is what is spoken to.

use std::{
    collections::HashMap,
    io,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{
    body::{Message, reason, rejected},
    document::Settings,
};
use crate::limits::{WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_RETRY_AFTER_S_MAX};

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of it was taken, but for these SKUs, which are refused for good; and why.
    Taken {
        /// The reasons, by SKU.
        rejected: HashMap<String, String>,
    },
    /// Something in it is refused; and why.
    Refused(String),
    /// It was not taken, as far as is known, whatever was in it.
    Failed(Failure),
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub why: String,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// There is no such receiver any more.
    pub is_gone: bool,
}

impl Failure {
    fn new(why: String) -> Self {
        Self {
            why,
            retry_after: None,
            is_gone: false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    connections: Connections,
    timeout: Duration,
}

#[derive(Debug)]
enum Connections {
    Plain(legacy::Client<HttpConnector, Full<Bytes>>),
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Client {
    /// One for this address.
    ///
    /// # Errors
    /// If it begins with https, and this machine trusts no certificates.
    pub fn new(url: &Uri, timeout: Duration) -> io::Result<Self> {
        let pool = || {
            let mut pool = legacy::Client::builder(TokioExecutor::new());
            pool.pool_max_idle_per_host(1);
            // Else a request is sent again by the client, without the sender knowing.
            pool.retry_canceled_requests(false);
            pool
        };
        let connections = if url.scheme_str() == Some("https") {
            let tls = HttpsConnectorBuilder::new().with_native_roots()?;
            Connections::Tls(pool().build(tls.https_only().enable_http1().build()))
        } else {
            Connections::Plain(pool().build(HttpConnector::new()))
        };
        Ok(Self {
            connections,
            timeout,
        })
    }

    /// Sends a message and waits for the answer, whole, or for the end of its time.
    pub async fn send(&self, settings: &Settings, message: &Message, now: SystemTime) -> Answer {
        let request = request(settings, message, now);
        let asked = async {
            let response = match &self.connections {
                Connections::Plain(client) => client.request(request),
                Connections::Tls(client) => client.request(request),
            };
            let response = response.await.map_err(|error| chain(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, WEBHOOK_ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| {
                let status = head.status.as_u16();
                format!("{status}, but its body cannot be read: {}", chain(&*error))
            });
            Ok::<_, String>((head.status, head.headers, body))
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Err(_) => {
                let why = format!("no answer in {} ms", self.timeout.as_millis());
                Answer::Failed(Failure::new(why))
            }
            Ok(Err(why)) => Answer::Failed(Failure::new(why)),
            // Whether it refuses some is in the body.
            Ok(Ok((status, _, Err(why)))) if status.is_success() => {
                Answer::Failed(Failure::new(why))
            }
            Ok(Ok((status, headers, body))) => {
                let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                meaning(status, &headers, &body, now)
            }
        }
    }
}

fn request(settings: &Settings, message: &Message, now: SystemTime) -> Request<Full<Bytes>> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs() as i64;
    let signature = settings.secrets.sign(&message.id, seconds, &message.body);
    let mut request = Request::post(settings.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("sellable/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(message.body.clone()))
        .expect("the address and these headers are sound");
    let headers = request.headers_mut();
    for (name, value) in &settings.headers {
        headers.insert(name, value.clone());
    }
    for (name, text) in [
        ("webhook-id", message.id.as_str()),
        ("webhook-timestamp", &seconds.to_string()),
        ("webhook-signature", &signature),
    ] {
        let value = HeaderValue::from_str(text).expect("digits, letters and signs");
        headers.insert(name, value);
    }
    request
}

/// What an answer means, as [`super::body`] documents.
fn meaning(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Answer {
    if status.is_success() {
        let rejected = rejected(body);
        return Answer::Taken { rejected };
    }
    let said = reason(status.as_u16(), &String::from_utf8_lossy(body));
    let is_about_content = match status.as_u16() {
        401 | 403 | 404 | 405 | 407 | 408 | 410 | 425 | 429 => false,
        code => (400..500).contains(&code),
    };
    if is_about_content {
        return Answer::Refused(said);
    }
    Answer::Failed(Failure {
        why: said,
        retry_after: retry_after(headers, now),
        is_gone: status == StatusCode::GONE,
    })
}

/// RFC 9110, 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(Duration::from_secs(WEBHOOK_RETRY_AFTER_S_MAX)))
}

/// An error with all that it was caused by: the outermost says next to nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let status = StatusCode::from_u16(status).expect("a status");
        meaning(status, &headers, body.as_bytes(), now)
    }

    fn failure(status: u16, retry_after: Option<&str>) -> Failure {
        match answer(status, retry_after, "said") {
            Answer::Failed(failure) => failure,
            other => panic!("{status}: {other:?}"),
        }
    }

    #[test]
    fn answers_mean_what_is_documented() {
        for status in [200, 201, 202, 204] {
            let rejected = HashMap::new();
            assert_eq!(answer(status, None, "thanks"), Answer::Taken { rejected });
        }
        for status in [400, 406, 409, 413, 415, 422, 451] {
            let said = Answer::Refused(format!("{status}: said"));
            assert_eq!(answer(status, None, "said"), said);
        }
        for status in [
            301, 302, 307, 308, 401, 403, 404, 405, 407, 408, 425, 429, 500, 502, 503, 504,
        ] {
            let failure = failure(status, None);
            assert_eq!(failure, Failure::new(format!("{status}: said")));
        }
        assert!(failure(410, None).is_gone);
    }

    #[test]
    fn a_receiver_says_when_to_come_back() {
        let seconds = |text| {
            let wait = failure(429, Some(text)).retry_after;
            wait.map(|wait| wait.as_secs())
        };
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("86400"), Some(WEBHOOK_RETRY_AFTER_S_MAX));
        // All three forms of a date that RFC 9110 has servers know.
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sun Nov  6 08:50:07 1994"), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "past");
        assert_eq!(seconds("soon"), None);
        assert_eq!(
            failure(503, Some("7")).retry_after,
            Some(Duration::from_secs(7))
        );
    }
}
