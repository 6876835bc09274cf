//! The pure decision whether a server may be taken for gone.

use super::{LeaseState, ServerState};

/// How long a lease must stand still before it counts as abandoned without other evidence.
pub const TTL_SECONDS: u64 = 60;

/// What this host knows of a server process. "Connection refused" is no evidence.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Evidence {
    /// The process ran on this host.
    pub same_host: bool,
    /// The host's boot id is the one the process wrote.
    pub same_boot: Option<bool>,
    /// Its pid counts in our pid namespace.
    pub same_pid_namespace: bool,
    /// A process with its pid and its start time exists.
    pub pid_alive_with_same_start: Option<bool>,
    /// Nobody holds the `lock` file; only where `statfs` says that the file system is local.
    pub flock_free: Option<bool>,
    /// The batch system's accounting says that the job the server ran in has ended.
    pub job_ended: Option<bool>,
}

/// What was observed before a take-over.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The lease, with what is known of its holder.
    pub lease: Option<(&'a LeaseState, Evidence)>,
    /// What is known of the claimer of an epoch newer than the lease's, if there is one.
    pub claimer: Option<Evidence>,
    /// How long, on our own boot clock, neither the beat nor the newest claim has changed.
    pub unchanged_for_seconds: u64,
    /// Whether either did change while we looked.
    pub seen_changing: bool,
}

/// Why a take-over needs no waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// No server ever ran here.
    Fresh,
    /// The server stopped by its own will.
    Closed,
    /// Nobody holds the lock of a local file system.
    LockFree,
    /// Its host was booted since.
    Rebooted,
    /// Its process is gone.
    ProcessGone,
    /// The job it ran in has ended.
    JobEnded,
    /// The beat stood still for [`TTL_SECONDS`].
    Silent,
}

/// The decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Claim the next epoch.
    Now(Reason),
    /// Look again; after this many seconds without change the answer is [`Verdict::Now`].
    Wait {
        /// Seconds that are missing.
        seconds: u64,
    },
    /// The beat moves: join that server instead.
    Alive,
}

/// Decides whether the next epoch may be claimed. `up --take-over` need not ask: it is always safe.
pub fn may_take_over(situation: &Situation<'_>) -> Verdict {
    let holder = situation.lease.map(|(lease, evidence)| {
        if lease.state == ServerState::Closed {
            return Some(Reason::Closed);
        }
        proof_of_death(&evidence)
    });
    let claimer = situation.claimer.map(|evidence| proof_of_death(&evidence));
    // Both must be gone: a dead claimer says nothing of the holder that it never replaced.
    let reason = match (holder, claimer) {
        (None, None) => Some(Reason::Fresh),
        (Some(reason), None) | (None, Some(reason)) => reason,
        (Some(holder), Some(claimer)) => holder.and(claimer),
    };
    match reason {
        Some(reason) => Verdict::Now(reason),
        None if situation.unchanged_for_seconds >= TTL_SECONDS => Verdict::Now(Reason::Silent),
        None if situation.seen_changing => Verdict::Alive,
        None => Verdict::Wait { seconds: TTL_SECONDS - situation.unchanged_for_seconds },
    }
}

fn proof_of_death(evidence: &Evidence) -> Option<Reason> {
    let alive = evidence.same_host
        && evidence.same_boot == Some(true)
        && evidence.same_pid_namespace
        && evidence.pid_alive_with_same_start == Some(true);
    // A server that has just won takes the lock a moment later; until then a rival can hold it.
    if evidence.flock_free == Some(true) && !alive {
        return Some(Reason::LockFree);
    }
    if evidence.job_ended == Some(true) {
        return Some(Reason::JobEnded);
    }
    match (evidence.same_host, evidence.same_boot) {
        (true, Some(false)) => Some(Reason::Rebooted),
        (true, Some(true)) if evidence.same_pid_namespace && evidence.pid_alive_with_same_start == Some(false) => {
            Some(Reason::ProcessGone)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::lease::Holder;

    fn lease(state: ServerState) -> LeaseState {
        LeaseState {
            epoch: 1,
            holder: Holder {
                nonce: [1; 16],
                host: "a".into(),
                boot: "b".into(),
                pid: 1,
                pid_namespace: 2,
                pid_start: 3,
            },
            beat: 1,
            state,
            durable: 0,
        }
    }

    const GONE: Evidence = Evidence {
        same_host: true,
        same_boot: Some(true),
        same_pid_namespace: true,
        pid_alive_with_same_start: Some(false),
        flock_free: None,
        job_ended: None,
    };

    fn decide(
        lease: Option<(&LeaseState, Evidence)>,
        claimer: Option<Evidence>,
        unchanged_for_seconds: u64,
        seen_changing: bool,
    ) -> Verdict {
        may_take_over(&Situation { lease, claimer, unchanged_for_seconds, seen_changing })
    }

    #[test]
    fn evidence_lets_us_start_at_once() {
        let serving = lease(ServerState::Serving);
        let with = |evidence| decide(Some((&serving, evidence)), None, 0, false);
        let wait = Verdict::Wait { seconds: 60 };
        assert_eq!(with(Evidence::default()), wait);
        assert_eq!(with(GONE), Verdict::Now(Reason::ProcessGone));
        // Each condition of "process gone" is needed.
        for weaker in [
            Evidence { same_host: false, ..GONE },
            Evidence { same_boot: None, ..GONE },
            Evidence { same_pid_namespace: false, ..GONE },
            Evidence { pid_alive_with_same_start: None, ..GONE },
            Evidence { pid_alive_with_same_start: Some(true), ..GONE },
        ] {
            assert_eq!(with(weaker), wait, "{weaker:?}");
        }
        let rebooted = Evidence { same_boot: Some(false), ..GONE };
        assert_eq!(with(rebooted), Verdict::Now(Reason::Rebooted));
        let elsewhere = Evidence { same_host: false, ..rebooted };
        assert_eq!(with(elsewhere), wait);
        let free = Evidence { flock_free: Some(true), ..Evidence::default() };
        assert_eq!(with(free), Verdict::Now(Reason::LockFree));
        let alive = Evidence { pid_alive_with_same_start: Some(true), flock_free: Some(true), ..GONE };
        assert_eq!(with(alive), wait);
        let held = Evidence { flock_free: Some(false), ..Evidence::default() };
        assert_eq!(with(held), wait);
        let ended = Evidence { job_ended: Some(true), ..Evidence::default() };
        assert_eq!(with(ended), Verdict::Now(Reason::JobEnded));
        let closed = lease(ServerState::Closed);
        let verdict = decide(Some((&closed, Evidence::default())), None, 0, false);
        assert_eq!(verdict, Verdict::Now(Reason::Closed));
        assert_eq!(decide(None, None, 0, false), Verdict::Now(Reason::Fresh));
    }

    #[test]
    fn without_evidence_only_a_still_beat_counts() {
        let serving = lease(ServerState::Serving);
        let with = |seconds, moved| decide(Some((&serving, Evidence::default())), None, seconds, moved);
        assert_eq!(with(59, false), Verdict::Wait { seconds: 1 });
        assert_eq!(with(59, true), Verdict::Alive);
        assert_eq!(with(60, true), Verdict::Now(Reason::Silent));
        assert_eq!(with(60, false), Verdict::Now(Reason::Silent));
    }

    #[test]
    fn a_claimer_who_never_reached_the_lease_is_waited_out() {
        let serving = lease(ServerState::Serving);
        let dead = Some((&serving, GONE));
        let unknown = Evidence::default();
        let wait = Verdict::Wait { seconds: 60 };
        assert_eq!(decide(dead, Some(unknown), 0, false), wait);
        assert_eq!(decide(Some((&serving, unknown)), Some(GONE), 0, false), wait);
        assert_eq!(decide(None, Some(unknown), 0, false), wait);
        let now = Verdict::Now(Reason::ProcessGone);
        assert_eq!(decide(dead, Some(GONE), 0, false), now);
        assert_eq!(decide(None, Some(GONE), 0, false), now);
    }
}
