//! What requests may hold, for property tests.

use actix_web::http::header::HeaderValue;
use proptest::prelude::*;

/// Anything that arrives as the value of a header, with more of the `telling` bytes than chance would give.
pub(super) fn header_value(telling: &'static [u8]) -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(telling)];
    let fits = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    prop::collection::vec(byte.prop_filter("no header holds it", fits), 0..40)
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}
