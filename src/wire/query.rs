//! The messages of `Availability.Get`, as its server has them: the SKUs of a request in one piece
//! of text, and an answer that is written item by item. A query of 100 SKUs would otherwise
//! allocate and free 100 strings, which takes longer than to look all of them up
//! (`benches/queries.rs`).

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use super::reserve::{int64_len, put_int64, put_text, text_len};
use crate::proto::v1 as pb;

/// A `sellable.v1.GetRequest`.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// A channel of the rules.
    pub channel: String,
    /// What is asked for, in order.
    pub skus: Skus,
    /// Also answer by location.
    pub include_locations: bool,
    /// A log position that the answer has to include.
    pub min_position: u64,
}

/// Names of SKUs, one behind the other.
#[derive(Debug, Clone, Default)]
pub struct Skus {
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// Where the next one is read.
    one: String,
}

impl Skus {
    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let sku = &self.text[begin..*end as usize];
            begin = *end as usize;
            sku
        })
    }

    /// Bytes of all of them together.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    fn push(&mut self) {
        self.text.push_str(&self.one);
        // Messages are far smaller than 4 GiB.
        self.ends.push(self.text.len() as u32);
    }
}

impl Message for Query {
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let named = |field: &'static str| {
            move |mut error: DecodeError| {
                error.push("GetRequest", field);
                error
            }
        };
        match tag {
            1 => encoding::string::merge(wire_type, &mut self.channel, buf, context)
                .map_err(named("channel")),
            2 => {
                encoding::string::merge(wire_type, &mut self.skus.one, buf, context)
                    .map_err(named("skus"))?;
                self.skus.push();
                Ok(())
            }
            3 => encoding::bool::merge(wire_type, &mut self.include_locations, buf, context)
                .map_err(named("include_locations")),
            4 => encoding::uint64::merge(wire_type, &mut self.min_position, buf, context)
                .map_err(named("min_position")),
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    // Only servers use it, so it is read and never written; what it says here is true all the same.

    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.to_proto().encode_raw(buf);
    }

    fn encoded_len(&self) -> usize {
        self.to_proto().encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Query {
    fn to_proto(&self) -> pb::GetRequest {
        pb::GetRequest {
            channel: self.channel.clone(),
            skus: self.skus.iter().map(str::to_owned).collect(),
            include_locations: self.include_locations,
            min_position: self.min_position,
        }
    }
}

/// Bytes of an answer's item, but for its SKU, at most.
pub const ITEM_BYTES_MAX: usize = 24;

/// Appends one item of a `sellable.v1.GetResponse`, without locations. `None`: no movement ever
/// named the SKU.
#[inline]
pub fn put_item(sku: &str, ats: Option<i64>, to: &mut Vec<u8>) {
    let (units, known) = (ats.unwrap_or(0), ats.is_some());
    let bytes = text_len(sku) + int64_len(units) + 2 * usize::from(known);
    encoding::encode_key(1, WireType::LengthDelimited, to);
    encoding::encode_varint(bytes as u64, to);
    put_text(1, sku, to);
    put_int64(2, units, to);
    if known {
        encoding::encode_key(3, WireType::Varint, to);
        to.push(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> impl Strategy<Value = pb::GetRequest> {
        let skus = prop::collection::vec("\\PC{0,40}", 0..50);
        (".{0,20}", skus, any::<bool>(), any::<u64>()).prop_map(
            |(channel, skus, include_locations, min_position)| pb::GetRequest {
                channel,
                skus,
                include_locations,
                min_position,
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_prost_reads_it(request in request()) {
            let query = Query::decode(&*request.encode_to_vec()).expect("it is sound");
            prop_assert_eq!(query.to_proto(), request);
            prop_assert_eq!(query.skus.bytes(), query.skus.iter().map(str::len).sum::<usize>());
        }

        #[test]
        fn what_prost_refuses_is_refused_with_the_same_words(
            request in request(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = request.encode_to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let ours = Query::decode(&*bytes);
            let prosts = pb::GetRequest::decode(&*bytes);
            prop_assert_eq!(
                ours.map(|query| query.to_proto()).map_err(|error| error.to_string()),
                prosts.map_err(|error| error.to_string())
            );
        }

        #[test]
        fn an_item_is_written_as_prost_writes_it(
            items in prop::collection::vec(("\\PC{0,100}", prop::option::of(any::<i64>())), 0..50),
        ) {
            let mut written = Vec::new();
            for (sku, ats) in &items {
                let before = written.len();
                put_item(sku, *ats, &mut written);
                prop_assert!(written.len() - before <= sku.len() + ITEM_BYTES_MAX);
            }
            let item = |(sku, ats): (String, Option<i64>)| pb::SkuAvailability {
                sku,
                ats: ats.unwrap_or(0),
                known: ats.is_some(),
                locations: Vec::new(),
            };
            let response = pb::GetResponse {
                items: items.into_iter().map(item).collect(),
                ..pb::GetResponse::default()
            };
            prop_assert_eq!(written, response.encode_to_vec());
        }
    }
}
