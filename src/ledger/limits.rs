//! Figures of the ledger, in milliseconds where they are times.

pub(super) const SECOND: u64 = 1000;

/// Successful listings without a job before it is called vanished, and how long they must span: for a job
/// whose script has ended, one that we cancel, and one that accounting may know more about in a while.
pub(super) const ABSENCES_MIN: u32 = 3;
pub(super) const ABSENCE_SPAN_ENDED: u64 = 10 * SECOND;
pub(super) const ABSENCE_SPAN_CANCELLED: u64 = 30 * SECOND;
pub(super) const ABSENCE_SPAN: u64 = 60 * SECOND;
/// How long accounting may fail before an absent job is judged without it.
pub(super) const ACCOUNT_PATIENCE: u64 = 300 * SECOND;
pub(super) const ACCOUNT_PAUSE: u64 = 5 * SECOND;

/// So long a started job must be listed as pending before it counts as requeued: one listing may be stale.
pub(super) const REQUEUE_SPAN: u64 = 10 * SECOND;

/// How long the backend may take to say more about an end than the exit code of the script …
pub(super) const SETTLE: u64 = 15 * SECOND;
/// … and while it does not answer at all.
pub(super) const SETTLE_BLIND: u64 = 120 * SECOND;

/// What a job's script may need to end after its worker.
pub(super) const SCRIPT_SPAN: u64 = 300;
/// How long the exit code of a script that has ended is looked for.
pub(super) const EXIT_CODE_SPAN: u64 = 3 * SECOND;

/// Between two looks by name; how many must find nothing, and over what span, before an intent is given up.
/// A submit command whose server died lives on for seconds: what it still starts must be found by these.
pub(super) const LOOKUP_INTERVAL: u64 = 5 * SECOND;
pub(super) const LOOKUPS_MIN: u32 = 4;
pub(super) const LOOKUP_SPAN: u64 = 20 * SECOND;
/// How long, and how often, we look whether a job whose end rests on weak evidence lives after all.
pub(super) const SUSPECT_SPAN: u64 = 600 * SECOND;
pub(super) const SUSPECT_INTERVAL: u64 = 60 * SECOND;
/// A listing so soon after an end may be older than the end.
pub(super) const STALE_SPAN: u64 = 15 * SECOND;
/// So long intents of a server that may only be frozen count against the maximum.
pub(super) const GHOST_SPAN: u64 = 600 * SECOND;

/// The first pause between listings after something happened; it grows to [`POLL_MAX`].
pub(super) const POLL_MIN: u64 = 2 * SECOND;
pub(super) const POLL_MAX: u64 = 180 * SECOND;
/// Sentinels cost one `open` a job: looked for after a moment, then ever more rarely.
pub(super) const SENTINEL_PAUSE: u64 = SECOND / 20;
pub(super) const SENTINEL_PAUSE_MAX: u64 = 16 * SECOND;

/// Between cancels of the same job.
pub(super) const CANCEL_PAUSE: u64 = 10 * SECOND;
pub(super) const CANCEL_PAUSE_MAX: u64 = 60 * SECOND;

pub(super) const BACKOFF_MAX: u64 = 60 * SECOND;
/// Failures in a row after which nothing is submitted until the user says so …
pub(super) const BREAKER_FAILURES: u32 = 5;
/// … or, where the failure may pass by itself, until this time is over.
pub(super) const BREAKER_REST: u64 = 600 * SECOND;
/// While the loop decides: early ends in a row after which one job at a time is tried, after a pause that
/// doubles from the first figure to the second.
pub(super) const HEAL_FAILURES: u32 = 3;
pub(super) const HEAL_REST: u64 = 60 * SECOND;
pub(super) const HEAL_REST_MAX: u64 = 3600 * SECOND;
/// While the loop decides, the cap grows by a quarter each time this has passed without a refusal.
pub(super) const CAP_GROWS: u64 = 900 * SECOND;
/// A node is avoided for this time after so many early failures within it, if so many jobs were fine elsewhere.
pub(super) const NODE_REST: u64 = 1800 * SECOND;
pub(super) const NODE_FAILURES: usize = 2;
pub(super) const NODE_FINE_ELSEWHERE: usize = 3;
/// More nodes than this are not avoided: then it is the site, or the tasks.
pub(super) const NODES_AVOIDED_MAX: usize = 16;
/// At a limit of the site one more job is tried after this time, later more rarely.
pub(super) const PROBE_PAUSE: u64 = 60 * SECOND;
pub(super) const PROBE_PAUSE_MAX: u64 = 300 * SECOND;
/// Jobs of one node that end early within this time, and were there together, ended for one reason.
pub(super) const FALL_SPAN: u64 = 120 * SECOND;
/// A worker that was here so long has shown that jobs work.
pub(super) const PROVEN_SPAN: u64 = 60 * SECOND;
/// What the server waits beyond the orphan timeout before it takes a silent worker for dead.
pub(super) const ORPHAN_MARGIN: u64 = 30 * SECOND;
