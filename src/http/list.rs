//! Lists in answers: how many bytes they may take.

use serde::Serialize;

use crate::service::ANSWER_BYTES;

/// Ends a list at what fits into one answer, at least one item. Answers after which item it continues, if it does:
/// `next` says whether it goes on after all of them.
pub(super) fn end_early<T: Serialize>(items: &mut Vec<T>, next: Option<i64>, id: impl Fn(&T) -> i64) -> Option<i64> {
    let mut room = ANSWER_BYTES;
    let fitting = items.iter().position(|item| match room.checked_sub(json_length(item)) {
        Some(rest) => {
            room = rest;
            false
        }
        None => true,
    });
    let kept = fitting.map_or(items.len(), |fitting| fitting.max(1));
    if kept >= items.len() {
        return next;
    }
    items.truncate(kept);
    items.last().map(id)
}

/// The bytes that this takes in an answer, with the comma after it.
pub(super) fn json_length(value: &impl Serialize) -> usize {
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
    // What cannot be written fails when the answer is made, and says so there.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}
