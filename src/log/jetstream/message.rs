//! From a message of the stream to an entry. Runs once per message, so it looks only at what an
//! entry needs.

use std::{collections::HashMap, sync::Arc};

use async_nats::{HeaderMap, Message};

use crate::{
    domain::movement::TimeUs,
    limits,
    log::{Entry, Lane, MediaType, Position},
};

/// Subject of external producers, up to the source.
pub(super) const MOVEMENTS: &str = "movements.";
/// Subject of the instances' own records, up to the instance.
pub(super) const RECORDS: &str = "sellable.records.";
/// Where every message that a consumer delivers says to be acknowledged. Nobody else can put it
/// there: the server sets the reply subject anew. A stored message may, however, carry a status
/// line, so the status alone does not tell the server's words from a producer's.
const ACK: &str = "$JS.ACK.";

/// Place and time of a delivered message; `None` if it is not one.
pub(super) fn delivered(message: &Message) -> Option<(Position, TimeUs)> {
    let reply = message.reply.as_ref()?.strip_prefix(ACK)?.as_bytes();
    // Either `stream.consumer.deliveries.position.number.time.pending`, or the same after
    // `domain.account`, with perhaps more to follow.
    let tokens = 1 + reply.iter().filter(|byte| **byte == b'.').count();
    let mut rest = reply.split(|byte| *byte == b'.');
    let position = number(rest.nth(if tokens >= 9 { 5 } else { 3 })?)?;
    let nanos = number(rest.nth(1)?)?.cast_signed();
    Some((position, nanos / 1_000))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Makes entries of messages; keeps the names of the producers it has met.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    sources: HashMap<Box<str>, Arc<str>>,
    /// The one met last: messages of one producer often come in a row.
    last: Option<Arc<str>>,
}

impl Decoder {
    pub(super) fn entry(&mut self, position: Position, time_us: TimeUs, message: Message) -> Entry {
        let lane = if message.subject.starts_with(RECORDS) {
            Lane::Record
        } else {
            // What else the stream may hold is nobody's record, so it must pass intake's checks.
            let subject = message.subject.as_str();
            let source = subject.strip_prefix(MOVEMENTS).unwrap_or(subject);
            Lane::Producer {
                source: self.source(source),
                media_type: media_type(message.headers.as_ref()),
            }
        };
        Entry {
            position,
            time_us,
            lane,
            payload: message.payload,
        }
    }

    fn source(&mut self, name: &str) -> Arc<str> {
        match &self.last {
            Some(last) if **last == *name => return last.clone(),
            _ => {}
        }
        let source = match self.sources.get(name) {
            Some(source) => source.clone(),
            None => {
                if self.sources.len() >= limits::SOURCES_CACHED_MAX {
                    self.sources.clear();
                }
                let source: Arc<str> = name.into();
                self.sources.insert(name.into(), source.clone());
                source
            }
        };
        self.last = Some(source.clone());
        source
    }
}

fn media_type(headers: Option<&HeaderMap>) -> MediaType {
    let Some(headers) = headers else {
        return MediaType::Unstated;
    };
    // Names of NATS headers are case-sensitive, but people are not.
    let value = headers
        .iter()
        .find(|(name, _)| {
            let name: &str = name.as_ref();
            name.eq_ignore_ascii_case("content-type")
        })
        .and_then(|(_, values)| values.first());
    let Some(value) = value else {
        return MediaType::Unstated;
    };
    // Parameters, as in `application/json; charset=utf-8`, say nothing that matters here.
    let name = value.as_str().split(';').next().unwrap_or_default().trim();
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    if name.is_empty() {
        MediaType::Unstated
    } else if is("application/protobuf") || is("application/x-protobuf") {
        MediaType::Protobuf
    } else if is("application/json")
        || is("application/cloudevents+json")
        || is("application/cloudevents-batch+json")
    {
        MediaType::Json
    } else {
        MediaType::Other(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, reply: &str, content_type: Option<&str>) -> Message {
        let headers = content_type.map(|value| {
            let mut headers = HeaderMap::new();
            headers.insert("Content-Type", value);
            headers
        });
        Message {
            subject: subject.into(),
            reply: Some(reply.into()),
            payload: "x".into(),
            headers,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn place_and_time_come_from_every_form_of_the_reply_subject() {
        for reply in [
            "$JS.ACK.S.c.1.42.7.1700000000123456789.3",
            "$JS.ACK._.hash.S.c.1.42.7.1700000000123456789.3",
            "$JS.ACK.hub.hash.S.c.1.42.7.1700000000123456789.3.token",
        ] {
            let place = delivered(&message("movements.pos", reply, None));
            assert_eq!(place, Some((42, 1_700_000_000_123_456)), "{reply}");
        }
        assert_eq!(delivered(&message("movements.pos", "$JS.FC.x", None)), None);
        assert_eq!(
            delivered(&message("movements.pos", "$JS.ACK.S", None)),
            None
        );
    }

    #[test]
    fn the_subject_names_the_lane() {
        let mut decoder = Decoder::default();
        let mut source = |subject| match decoder.entry(1, 0, message(subject, "", None)).lane {
            Lane::Record => None,
            Lane::Producer { source, .. } => Some(source.to_string()),
        };
        assert_eq!(source("sellable.records.ab"), None);
        assert_eq!(source("movements.pos"), Some("pos".into()));
        assert_eq!(source("movements.a.b"), Some("a.b".into()));
        assert_eq!(source("other.subject"), Some("other.subject".into()));
    }

    #[test]
    fn the_header_names_the_media_type() {
        let of = |value| media_type(message("movements.a", "", value).headers.as_ref());
        assert_eq!(of(None), MediaType::Unstated);
        assert_eq!(of(Some("application/x-protobuf")), MediaType::Protobuf);
        assert_eq!(of(Some("Application/JSON; charset=utf-8")), MediaType::Json);
        assert_eq!(of(Some("text/csv")), MediaType::Other("text/csv".into()));
    }
}
