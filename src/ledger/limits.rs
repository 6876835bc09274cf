//! Figures of the ledger: how long, how often.

pub(super) const SECOND: u64 = 1000;
/// Successful listings without a job before it is called vanished, and how long they must span.
pub(super) const ABSENCES_MIN: u32 = 3;
pub(super) const ABSENCE_SPAN: u64 = 30 * SECOND;
/// How long the backend may take to say more about an end than the exit code of the script.
pub(super) const SETTLE: u64 = 15 * SECOND;
/// Between two looks by name, and how many must find nothing before an intent is given up.
pub(super) const LOOKUP_INTERVAL: u64 = 5 * SECOND;
pub(super) const LOOKUPS_MIN: u32 = 2;
pub(super) const POLL_MIN: u64 = 2 * SECOND;
pub(super) const POLL_MAX: u64 = 180 * SECOND;
pub(super) const BACKOFF_MAX: u64 = 60 * SECOND;
/// Failures in a row after which nothing is submitted until the user says so.
pub(super) const BREAKER_FAILURES: u32 = 5;
