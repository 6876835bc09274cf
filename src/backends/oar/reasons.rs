//! Why a job waits: the words of OAR's states and of its schedulers' messages in plain English. Pure. Words of OAR
//! 2.5.9 (`oar_meta_sched`, `schedulers/`), which [`super::parse`] puts behind the state.

use crate::backends::reasons::Meaning;

/// A row: text in the reason, meaning, fix, never.
type Row = (&'static str, &'static str, Option<&'static str>, bool);

const FREE: Option<&str> = Some("ask for less per job, or wait: `oarnodes -s` shows which nodes are there");

/// First match wins: what says most comes first.
const ROWS: &[Row] = &[
    (
        "Hold",
        "somebody holds it, or `oarsub` was ended half way",
        Some("`oarresume ID` lets it go, `oardel ID` ends it"),
        true,
    ),
    ("will never run", "it can never run", Some("correct the pool's directives (-t)"), true),
    ("does not exist", "its container is not there", Some("correct the pool's directives (-t inner=ID)"), true),
    ("is yet to", "its container has not started", None, false),
    ("due to dependency", "it waits for another job", None, false),
    ("no enough Tokens", "the site's tokens are in use", None, false),
    ("no enough matching resources", "too few of the resources it wants are free", FREE, false),
    ("not responding correctly", "nodes did not answer when it was to start", Some("ask the administrators"), false),
    ("quota", "a quota of the site may be in use", None, false),
    ("toLaunch", "it is being started", None, false),
    ("toAckReservation", "its reservation is not confirmed yet", None, false),
    ("Waiting", "it waits for its turn and for free resources", FREE, false),
    ("Suspended", "it is suspended", Some("`oarresume ID`, or ask the administrators"), false),
];

/// Returns what a reason means, as [`super::parse`] gives it: the state, then a message.
pub fn meaning(reason: &str) -> Option<Meaning> {
    // Where the quota is not used up the scheduler says so.
    let reason = reason.replace("quota_ok", "");
    let (_, meaning, fix, never) = ROWS.iter().find(|(text, ..)| {
        // A state is the first word.
        match text.starts_with(char::is_uppercase) || text.starts_with("to") {
            true => reason.split(' ').next() == Some(*text),
            false => reason.to_lowercase().contains(&text.to_lowercase()),
        }
    })?;
    Some(Meaning { meaning, fix: *fix, never: *never })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_reasons_are_known() {
        for (reason, words, never) in [
            ("Hold", "somebody holds it", true),
            ("Waiting", "its turn", false),
            ("Waiting (Karma=0.000,quota_ok)", "its turn", false),
            ("Waiting Cannot determine scheduling time due to dependency with the job 7", "another job", false),
            ("Waiting No enough matching resources (no_matching_slot)", "too few", false),
            ("Waiting Job will never run (deadline=1), setting it to error", "never", true),
            ("toLaunch", "being started", false),
            ("Suspended", "suspended", false),
        ] {
            let meaning = meaning(reason).unwrap_or_else(|| panic!("{reason}"));
            assert!(meaning.meaning.contains(words) && meaning.never == never, "{reason} {meaning:?}");
            assert!(!never || meaning.fix.is_some(), "{reason}");
        }
        for unknown in ["", "Running", "Terminated, wait status 0", "stars are wrong"] {
            assert_eq!(meaning(unknown), None, "{unknown}");
        }
    }
}
