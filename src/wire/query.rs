//! The messages of `Availability.Get`, as its server has them: a request that is read where its bytes
//! lie, and an answer that is written item by item (see [`super::plain`]). A query of 100 SKUs would
//! otherwise allocate and free 100 strings, which takes longer than to look all of them up
//! (`benches/queries.rs`).

use prost::encoding::{self, WireType};
use smallvec::SmallVec;

use super::{
    plain::{Met, NotPlain, int64_len, put_int64, put_text, text, text_len},
    reader::{DELIMITED, Reader, VARINT, key},
};
use crate::proto::v1 as pb;

/// A `sellable.v1.GetRequest`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// A channel of the rules.
    pub channel: &'a str,
    /// What is asked for, in order.
    pub skus: SmallVec<[&'a str; 16]>,
    /// Also answer by location.
    pub include_locations: bool,
    /// A log position that the answer has to include.
    pub min_position: u64,
}

impl<'a> Query<'a> {
    /// Reads a plain one; `None` if it is not plain.
    pub fn read_plain(bytes: &'a [u8]) -> Option<Self> {
        Self::read(Reader::new(bytes)).ok()
    }

    fn read(mut reader: Reader<'a>) -> Result<Self, NotPlain> {
        const CHANNEL: u32 = key(1, DELIMITED);
        const SKUS: u32 = key(2, DELIMITED);
        const INCLUDE_LOCATIONS: u32 = key(3, VARINT);
        const MIN_POSITION: u32 = key(4, VARINT);

        let mut query = Self::default();
        let mut met = Met::default();
        while !reader.is_done() {
            let key = reader.key()?;
            if key == SKUS {
                query.skus.push(text(&mut reader)?);
                continue;
            }
            met.once(key)?;
            match key {
                CHANNEL => query.channel = text(&mut reader)?,
                INCLUDE_LOCATIONS => query.include_locations = reader.varint()? != 0,
                MIN_POSITION => query.min_position = reader.varint()?,
                _ => return Err(NotPlain),
            }
        }
        Ok(query)
    }
}

impl<'a> From<&'a pb::GetRequest> for Query<'a> {
    fn from(request: &'a pb::GetRequest) -> Self {
        Self {
            channel: &request.channel,
            skus: request.skus.iter().map(String::as_str).collect(),
            include_locations: request.include_locations,
            min_position: request.min_position,
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
    use prost::Message;

    use super::{super::plain::spoiled::spoiled, *};

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
        fn what_prost_writes_is_plain_and_is_read_as_prost_reads_it(request in request()) {
            let bytes = request.encode_to_vec();
            prop_assert_eq!(Query::read_plain(&bytes), Some(Query::from(&request)));
        }

        #[test]
        fn what_is_read_from_any_bytes_is_what_prost_reads(
            bytes in spoiled(request().prop_map(|request| request.encode_to_vec())),
        ) {
            let prosts = pb::GetRequest::decode(&*bytes);
            if let Some(read) = Query::read_plain(&bytes) {
                let prosts = prosts.as_ref().expect("prost takes it, too");
                prop_assert_eq!(read, Query::from(prosts));
            }
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
