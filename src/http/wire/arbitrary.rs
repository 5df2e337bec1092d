//! Generators of request data for property tests.

use actix_web::http::header::HeaderValue;
use proptest::prelude::*;

/// Arbitrary header values, in which the bytes in `special` are more frequent than others.
pub(crate) fn header_value(special: &'static [u8]) -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(special)];
    let fits = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    prop::collection::vec(byte.prop_filter("not allowed in a header", fits), 0..40)
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}
