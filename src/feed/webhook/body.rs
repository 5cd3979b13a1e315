//! What a webhook sends, and what it answers.
//!
//! ```text
//! POST <url>
//! content-type: application/json
//! webhook-id: 0198c5f27d1e7a319c40a1b2c3d4e5f6
//! webhook-timestamp: 1795168800
//! webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=
//!
//! {
//!   "type": "availability.changed",
//!   "timestamp": "2026-11-21T10:00:00.123456Z",
//!   "data": {
//!     "webhook": "market",
//!     "channel": "marketplace",
//!     "after_position": 4711,
//!     "position": 4720,
//!     "log": "jetstream SELLABLE 1795168800000000",
//!     "numbers": [
//!       {"sku": "tee-red-M", "units": 0, "as_of_position": 4718},
//!       {"sku": "tee-red-L", "units": 12, "as_of_position": 4720}
//!     ]
//!   }
//! }
//! ```
//!
//! Headers and signature are those of the Standard Webhooks specification, see
//! [`super::signature`]. `units` are those that the channel may sell now, and not a difference. Who
//! had everything up to `after_position` has everything up to `position` once the message is taken;
//! the two are the same while more waits. `timestamp` is when the message was made, and
//! `webhook-timestamp` when it was sent, in seconds since 1970.
//!
//! Messages come one after the other, and a message may come again, with the same `webhook-id` if it
//! is the same to the byte. A receiver that goes on with a request after the sender has given it up
//! takes, of two numbers of a SKU, the one with the greater `as_of_position`, or of the same the
//! later one.
//!
//! What an answer means:
//!
//! | answer | |
//! |---|---|
//! | 2xx | All is taken; but not what a JSON body `{"rejected": [{"sku": …, "reason": …}]}` names. That is refused for good: a dead letter, to be looked at by people, and never sent again by itself. |
//! | 408, 425, 429, 5xx, none in time, no connection | Tried again until it is taken, with the newest numbers, later and later. `Retry-After` counts (RFC 9110, 10.2.3: seconds or a date). |
//! | 401, 403, 404, 405, 407, 3xx | The endpoint, the secret or the receiver's configuration is wrong, and no number: likewise. Redirects are not followed. |
//! | 410 | The endpoint is gone: it is only probed now and then. |
//! | any other 4xx | Something in the message is refused. A part of it is sent, until the number is found that is not taken even by itself; after some attempts it is a dead letter. |

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::pending::Waiting;
use crate::{limits::DEAD_LETTER_REASON_BYTES_MAX, log::Position};

/// Value of `type`.
pub const TYPE: &str = "availability.changed";

/// A message, the same in each attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Value of `webhook-id`.
    pub id: String,
    /// The JSON.
    pub body: Bytes,
}

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'a>,
}

/// What a message is about.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Data<'a> {
    /// The webhook.
    pub webhook: &'a str,
    /// The channel.
    pub channel: &'a str,
    /// Who had everything up to here …
    pub after_position: Position,
    /// … has everything up to here, once it is taken.
    pub position: Position,
    /// The log that positions are of.
    pub log: &'a str,
    /// The numbers.
    #[serde(serialize_with = "numbers")]
    pub numbers: &'a [Waiting],
}

fn numbers<S: serde::Serializer>(batch: &&[Waiting], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Number<'a> {
        sku: &'a str,
        units: i64,
        as_of_position: Position,
    }
    to.collect_seq(batch.iter().map(|own| Number {
        sku: &own.sku,
        units: own.units,
        as_of_position: own.as_of,
    }))
}

impl Message {
    /// Makes one, of this moment.
    ///
    /// # Panics
    /// Never: all of it can be told in JSON.
    pub fn new(data: Data<'_>, now: jiff::Timestamp) -> Self {
        let envelope = Envelope {
            r#type: TYPE,
            timestamp: format!("{now:.6}"),
            data,
        };
        let body = serde_json::to_vec(&envelope).expect("texts and numbers are JSON");
        // Unlike all others: 128 bits, of which chance gives as many.
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Self {
            id,
            body: body.into(),
        }
    }
}

/// Which numbers a 2xx refuses all the same, and why.
pub fn rejected(body: &[u8]) -> HashMap<String, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        rejected: Vec<Rejected>,
    }
    #[derive(Deserialize)]
    struct Rejected {
        sku: String,
        #[serde(default)]
        reason: String,
    }
    // Whatever else a receiver says with its 2xx is its own.
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    let rejected = answer.map(|answer| answer.rejected).unwrap_or_default();
    rejected
        .into_iter()
        .map(|own| (own.sku, own.reason))
        .collect()
}

/// A reason that fits a dead letter, and one line.
pub fn reason(status: u16, said: &str) -> String {
    let mut reason = format!("{status}: ");
    for char in said.trim().chars() {
        let char = if char.is_control() { ' ' } else { char };
        if reason.len() + char.len_utf8() > DEAD_LETTER_REASON_BYTES_MAX {
            break;
        }
        reason.push(char);
    }
    reason.truncate(reason.trim_end_matches([':', ' ']).len());
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::webhook::pending::Pending;

    #[test]
    fn a_message_says_what_the_documentation_shows() {
        let mut pending = Pending::new(0);
        pending.again("tee-\"red\"-M", 0, 4_718);
        pending.again("tee-ßø-L", 12, 4_720);
        let batch = pending.send(10);
        let data = Data {
            webhook: "market",
            channel: "marketplace",
            after_position: 4_711,
            position: 4_720,
            log: "memory",
            numbers: &batch,
        };
        let now = jiff::Timestamp::from_microsecond(1_795_168_800_000_000).expect("a time");
        let message = Message::new(data, now);
        let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
        let wanted = serde_json::json!({
            "type": "availability.changed",
            "timestamp": "2026-11-20T10:00:00.000000Z",
            "data": {
                "webhook": "market",
                "channel": "marketplace",
                "after_position": 4711,
                "position": 4720,
                "log": "memory",
                "numbers": [
                    {"sku": "tee-\"red\"-M", "units": 0, "as_of_position": 4718},
                    {"sku": "tee-ßø-L", "units": 12, "as_of_position": 4720},
                ],
            },
        });
        assert_eq!(body, wanted);
        assert_ne!(message.id, Message::new(data, now).id);
    }

    #[test]
    fn an_answer_may_refuse_some() {
        let told = |text: &str| {
            let mut told: Vec<_> = rejected(text.as_bytes()).into_iter().collect();
            told.sort();
            told
        };
        let two = r#"{"rejected": [{"sku": "A", "reason": "no such"}, {"sku": "B"}], "ok": 1}"#;
        let (a, b) = (("A".into(), "no such".into()), ("B".into(), String::new()));
        assert_eq!(told(two), [a, b]);
        for other in ["", "ok", "{}", "[]", r#"{"rejected": 3}"#] {
            assert_eq!(told(other), [], "{other}");
        }
    }

    #[test]
    fn reasons_are_short_and_on_one_line() {
        assert_eq!(reason(422, " no\nsuch\tarticle "), "422: no such article");
        assert_eq!(reason(400, ""), "400");
        let long = reason(400, &"ß".repeat(1_000));
        assert!(long.len() <= DEAD_LETTER_REASON_BYTES_MAX, "{}", long.len());
        assert!(long.ends_with('ß'));
    }
}
