//! What the tests of bad input have in common: calls with bytes that no client would send, and
//! the details of refusals.
#![allow(dead_code, reason = "each test uses a part of it")]

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use sellable::{api::RawPostRequest, proto::v1 as pb};
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_types::StatusExt;

/// Carries messages as they are.
#[derive(Debug, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let bytes = from.remaining();
        Ok(Some(from.copy_to_bytes(bytes)))
    }
}

/// Sends these bytes as the request of a call, e.g. of `/sellable.v1.Movements/Post`.
pub(crate) async fn call_raw(
    channel: &Channel,
    path: &'static str,
    request: Vec<u8>,
) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the connection stands");
    let path = PathAndQuery::from_static(path);
    let request = Request::new(Bytes::from(request));
    let answer = client.unary(request, path, BytesCodec).await?;
    Ok(answer.into_inner())
}

/// Posts movements that are encoded, more or less.
pub(crate) async fn post_raw(
    channel: &Channel,
    movements: Vec<Vec<u8>>,
) -> Result<pb::PostResponse, Status> {
    let request = RawPostRequest {
        movements: movements.into_iter().map(Bytes::from).collect(),
    };
    let path = "/sellable.v1.Movements/Post";
    let answer = call_raw(channel, path, request.encode_to_vec()).await?;
    Ok(pb::PostResponse::decode(answer).expect("an answer"))
}

/// Fields and reasons of a refusal's `google.rpc.BadRequest`.
pub(crate) fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let bad_request = details.bad_request().cloned();
    let bad_request = bad_request.unwrap_or_else(|| panic!("no BadRequest in {status:?}"));
    let violations = bad_request.field_violations.into_iter();
    violations
        .map(|violation| (violation.field, violation.description))
        .collect()
}

/// A protobuf field of bytes: its key, its length and they.
pub(crate) fn delimited(field: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 12);
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// A protobuf field of a number.
pub(crate) fn varint(field: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    prost::encoding::encode_key(field, prost::encoding::WireType::Varint, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out
}

/// Asserts that a text says all of this.
#[track_caller]
pub(crate) fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
