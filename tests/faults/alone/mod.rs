//! Fault tests that measure times, or whose load requires both cores. Another test beside them would change the result.

mod change_log;
mod deep_lists;
mod flood;
pub mod full_disk;
mod guesses;
mod kill;
mod large_accounts;
mod mail_timing;
mod restart;
mod search;
mod timing;
