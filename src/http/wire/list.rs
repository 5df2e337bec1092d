//! The size limit of lists in responses.

use serde::Serialize;

use crate::service::lists::ANSWER_BYTES;

/// Truncates a list to the items that fit into one response, but at least one.
///
/// Returns the id after which the list continues: that of the last item if the list was truncated, otherwise `next`.
pub(crate) fn truncate<T: Serialize>(items: &mut Vec<T>, next: Option<i64>, id: impl Fn(&T) -> i64) -> Option<i64> {
    let mut capacity = ANSWER_BYTES;
    let excess = items.iter().position(|item| match capacity.checked_sub(json_length(item)) {
        Some(remaining) => {
            capacity = remaining;
            false
        }
        None => true,
    });
    let length = excess.map_or(items.len(), |first| first.max(1));
    if length >= items.len() {
        return next;
    }
    items.truncate(length);
    items.last().map(id)
}

/// The length of a value as JSON in bytes, including a comma.
pub(crate) fn json_length(value: &impl Serialize) -> usize {
    struct Counter(usize);

    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(1);
    // An error is ignored here, because the response fails with the same error when it is serialized.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}
