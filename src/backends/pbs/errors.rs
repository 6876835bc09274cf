//! PBS's errors as classes. Pure. The texts are those of `pbs_messages.c` (OpenPBS 23.06) and of the captures in
//! `tests/fixtures/pbs/errors.txt`; TORQUE wraps the same ones (`qsub: submit error (Unknown queue MSG=…)`).
//!
//! The exit code of a command is the code of its last error modulo 256 (15001 is 153).

use super::parse::submitted_id;
use crate::backends::ErrorClass;
use crate::backends::batch::{Answer, Exit, Verb};
use crate::backends::errors::{Row, class_of, first};

const WAIT: &str = "PBS's server does not answer; `qstat -B` shows when it is back";
const LESS: &str = "ask for less: `qstat -Qf` shows the limits of each queue (resources_max)";
const QUEUE: &str = "give another --queue: `qstat -Q` lists the queues";
const DIRECTIVE: &str = "correct the pool's directives; `dcluster render` shows the script";
const FEWER: &str = "the site's limit on jobs is reached; fewer jobs fit until some end";
const ADMIN: &str = "ask the administrators: the site has rules of its own for jobs (a hook)";

const FILES: &str = "look at the file system that the state folder is on";
const MOM: &str = "could not connect to MOM";

/// First match wins.
const ROWS: &[Row] = {
    use ErrorClass::{Ambiguous, Limit, Permanent, Transient};
    &[
        // Not sent at all.
        ("annot connect to server", Transient, WAIT),
        ("Couldn't connect to cluster", Transient, WAIT),
        ("Connection refused", Transient, WAIT),
        (
            "Unknown Host",
            Transient,
            "set PBS_SERVER or PBS_CONF_FILE, or load PBS's module, in the shell that runs dcluster",
        ),
        (
            "No server specified",
            Transient,
            "set PBS_SERVER or PBS_CONF_FILE, or load PBS's module, in the shell that runs dcluster",
        ),
        ("Server shutting down", Transient, WAIT),
        ("No free connections", Transient, WAIT),
        ("connection table full", Transient, WAIT),
        ("Failed to save job", Transient, WAIT),
        (MOM, Transient, "the node's PBS does not answer; `pbsnodes -l` shows whether it is down"),
        ("Resource busy", Transient, WAIT),
        (
            "Invalid credential",
            Transient,
            "PBS does not trust this host or user just now: ask the administrators if it lasts",
        ),
        ("Expired credential", Transient, "get a new ticket (`kinit`)"),
        // Sent, and the answer was lost or makes no sense.
        ("Batch protocol error", Ambiguous, WAIT),
        ("remature end of message", Ambiguous, WAIT),
        ("End of File", Ambiguous, WAIT),
        ("PBS server internal error", Ambiguous, WAIT),
        ("System error", Ambiguous, WAIT),
        ("imed out", Ambiguous, WAIT),
        ("imeout", Ambiguous, WAIT),
        // Limits of the site.
        ("would exceed", Limit, FEWER),
        ("Maximum number of jobs", Limit, FEWER),
        ("Array job exceeds server or queue size limit", Limit, "the site allows shorter arrays only (max_array_size)"),
        // What a hook says is the site's, and may hold any of the words below.
        ("encountered an exception", Transient, ADMIN),
        ("got an alarm call", Transient, ADMIN),
        // qsub could not read the script, or its own folder.
        ("No space left on device", Transient, FILES),
        ("Disk quota exceeded", Transient, FILES),
        ("Stale file handle", Transient, FILES),
        ("Input/output error", Transient, FILES),
        ("out of memory", Transient, "this host is short of memory"),
        // A shape that will never fit, whatever else is said.
        ("Job violates queue and/or server resource limits", Permanent, LESS),
        ("Job exceeds queue resource limits", Permanent, LESS),
        ("Resource limit exceeds allowable", Permanent, LESS),
        ("Job rejected by all possible destinations", Permanent, LESS),
        ("Unknown queue", Permanent, QUEUE),
        ("No default queue specified", Permanent, "give a --queue: `qstat -Q` lists the queues"),
        ("Access to queue is denied", Permanent, QUEUE),
        (
            "Queue is not enabled",
            Transient,
            "the queue takes no jobs now; wait, or give another --queue: `qstat -Q` lists them",
        ),
        ("Unauthorized Request", Permanent, "this user may not use the queue, or the job belongs to somebody else"),
        ("Access from host not allowed", Permanent, "PBS takes no jobs from this host: run dcluster on a submit host"),
        ("Bad UID for job execution", Permanent, "PBS does not run jobs of this user (of root, by default)"),
        ("Bad GID for job execution", Permanent, "correct the group in the pool's directives"),
        ("Invalid Account", Permanent, "give another --account"),
        ("Unknown resource", Permanent, "the site does not know this resource: correct --constraint or the directives"),
        ("Illegal attribute or resource value", Permanent, DIRECTIVE),
        ("cannot be used with \"select\"", Permanent, DIRECTIVE),
        ("Invalid Job Dependency", Permanent, DIRECTIVE),
        ("node(s) specification error", Permanent, DIRECTIVE),
        ("directive error", Permanent, DIRECTIVE),
        ("illegal -", Permanent, DIRECTIVE),
        ("invalid option", Permanent, DIRECTIVE),
        ("non-rerunable Array Job", Permanent, DIRECTIVE),
        ("jobscript size exceeded", Permanent, "the script is too long for this site: shorten the prologue"),
        ("script contains cr, lf", Permanent, DIRECTIVE),
    ]
};

/// Returns the class of a failed command and what to do about it.
pub fn classify(verb: Verb, answer: &Answer) -> (ErrorClass, Option<String>) {
    // A wrapper, or a signal that came late: what has an id may exist.
    if verb == Verb::Submit && submitted_id(&answer.stdout).is_some() {
        return (ErrorClass::Ambiguous, None);
    }
    // 32 is a hook's no (15136), in the site's own words: the server has answered.
    let hook = verb == Verb::Submit && answer.exit == Exit::Code(32);
    let row = first(ROWS, |text| answer.stderr.contains(text));
    if let Some((_, class, fix)) = row.filter(|(_, class, _)| !(hook && *class == ErrorClass::Ambiguous)) {
        let class = match (class, verb) {
            // The id may be of a job that another user has by now, or the listing is not ours to see: later.
            (ErrorClass::Permanent, Verb::List | Verb::Account) => ErrorClass::Transient,
            (class, _) => class_of(*class, verb),
        };
        return (class, Some((*fix).to_owned()));
    }
    let class = match (verb, answer.exit) {
        // 1 and 2 are qsub's own reading of options and script.
        (Verb::Submit, Exit::Code(1 | 2)) if answer.stderr.contains("qsub: ") => ErrorClass::Permanent,
        _ if hook => return (ErrorClass::Permanent, Some(ADMIN.to_owned())),
        (Verb::Submit, _) => ErrorClass::Ambiguous,
        _ => ErrorClass::Transient,
    };
    (class, None)
}

/// Whether a command did what it could, and complained of single jobs only: that they are not known, or over, or just
/// ending. Several ids: it goes on after such an error, and the last one is its exit code (captures qstat_many_x,
/// qdel_many). The codes are not the same in TORQUE, so the texts count.
pub(super) fn of_single_jobs(answer: &Answer) -> bool {
    let Exit::Code(code) = answer.exit else { return false };
    let of_a_job = |line: &&str| {
        [
            "Unknown Job Id",
            "Job has finished",
            "Request invalid for state of job",
            "Request invalid for finished array subjob",
            "invalid state for job",
        ]
        .iter()
        .any(|words| line.contains(words))
    };
    let errors = answer.stderr.lines().filter(|line| line.starts_with("qstat: ") || line.starts_with("qdel: "));
    let (known, others): (Vec<_>, Vec<_>) = errors.partition(of_a_job);
    code == 0 || !known.is_empty() && others.is_empty() && !lost(&answer.stderr)
}

/// Whether a command failed for the node of one job alone.
pub(super) fn of_a_node(stderr: &str) -> bool {
    stderr.contains(MOM)
}

fn lost(stderr: &str) -> bool {
    stderr.contains("onnect") || stderr.contains("errno=")
}

/// Whether PBS keeps no history of jobs: it refuses the whole of a query with `-x`, and the exit code is 0 all the same
/// (capture qstat_x_nohist).
pub(super) fn no_history(stderr: &str) -> bool {
    stderr.contains("not configured to maintain job history")
}

/// Whether there is history after all: `-x` was not asked for.
pub(super) fn has_history(stderr: &str) -> bool {
    stderr.contains("use -x or -H")
}

/// Whether a command does not know an option.
pub(super) fn no_such_option(answer: &Answer, letter: char) -> bool {
    let says = |words: String| answer.stderr.contains(&words);
    let unknown = says(format!("invalid option -- '{letter}'")) || says(format!("invalid option -- {letter}"));
    answer.exit != Exit::Code(0) && unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::errors::captures;

    fn answer(code: i32, stderr: &str) -> Answer {
        Answer { exit: Exit::Code(code), stdout: String::new(), stderr: stderr.to_owned() }
    }

    #[test]
    fn every_capture_has_its_class() {
        let mut lines = Vec::new();
        for (name, code, stderr) in captures(include_str!("../../../tests/fixtures/pbs/errors.txt")) {
            let verb = match name {
                n if n.contains("qdel") || n.contains("qsig") => Verb::Cancel,
                n if n.contains("qstat") || n.contains("nodes") || n.contains("qselect") => Verb::List,
                _ => Verb::Submit,
            };
            let answer = answer(code, stderr);
            let (class, fix) = classify(verb, &answer);
            let fix = fix.map_or("", |_| ", fix");
            let single = if of_single_jobs(&answer) { ", of single jobs" } else { "" };
            lines.push(format!("{name} ({verb:?} {code}): {class:?}{fix}{single}"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r###"
        badserver_qstat (List 255): Transient, fix
        badserver_qsub (Submit 160): Transient, fix
        down_pbsnodes (List 1): Transient, fix
        down_qdel (Cancel 162): Transient, fix
        down_qselect (List 162): Transient, fix
        down_qstat (List 255): Transient, fix
        down_qstat_f_json (List 255): Transient, fix
        down_qsub (Submit 162): Transient, fix
        hook_crash (Submit 32): Transient, fix
        hook_reject (Submit 32): Permanent, fix
        hung_qstat (List 124): Transient
        pbsnodes_unknown (List 1): Transient
        qdel_array_again (Cancel 35): Transient, of single jobs
        qdel_badid (Cancel 1): Transient
        qdel_denied (Cancel 159): Permanent, fix
        qdel_exiting (Cancel 168): Transient, of single jobs
        qdel_finished_hist (Cancel 35): Transient, of single jobs
        qdel_finished_nohist (Cancel 153): Transient, of single jobs
        qdel_many (Cancel 153): Transient, of single jobs
        qdel_range_ids (Cancel 153): Transient, of single jobs
        qdel_subjob_bad_index (Cancel 156): Transient
        qdel_subjob_running (Cancel 168): Transient, of single jobs
        qdel_unknown (Cancel 153): Transient, of single jobs
        qsig_finished (Cancel 35): Transient
        qstat_E_multi_f_nox (List 35): Transient, of single jobs
        qstat_badid (List 170): Transient, fix
        qstat_badid2 (List 1): Transient
        qstat_f_1_running (List 2): Transient
        qstat_finished_hist_noX (List 35): Transient, of single jobs
        qstat_finished_nohist (List 153): Transient, of single jobs
        qstat_many (List 35): Transient, of single jobs
        qstat_many_x (List 153): Transient, of single jobs
        qstat_multi_f_unknown_mid (List 153): Transient, of single jobs
        qstat_u_json (List 2): Transient
        qstat_unknown (List 153): Transient, of single jobs
        qsub_acl_queue (Submit 159): Permanent, fix
        qsub_array_bad (Submit 2): Permanent, fix
        qsub_array_list (Submit 2): Permanent, fix
        qsub_array_max (Submit 3): Limit, fix
        qsub_array_single (Submit 2): Permanent, fix
        qsub_bad_directive (Submit 1): Permanent, fix
        qsub_bad_mem (Submit 166): Permanent, fix
        qsub_bad_resource (Submit 187): Permanent, fix
        qsub_bad_walltime (Submit 166): Permanent, fix
        qsub_crlf (Submit 1): Permanent, fix
        qsub_disabled_queue (Submit 173): Transient, fix
        qsub_exceeds_queue_mem (Submit 188): Permanent, fix
        qsub_exceeds_queue_ncpus (Submit 188): Permanent, fix
        qsub_exceeds_queue_walltime (Submit 188): Permanent, fix
        qsub_longname_237 (Submit 2): Permanent
        qsub_max_queued (Submit 38): Limit, fix
        qsub_missing_script (Submit 1): Permanent
        qsub_mixed_l (Submit 5): Permanent, fix
        qsub_name_utf8 (Submit 2): Permanent, fix
        qsub_nonl (Submit 1): Permanent, fix
        qsub_root (Submit 175): Permanent, fix
        qsub_spacename (Submit 2): Permanent, fix
        qsub_unknown_queue (Submit 170): Permanent, fix
        "###);
    }

    #[test]
    fn what_no_capture_shows() {
        use ErrorClass::*;
        for (verb, code, stderr, class) in [
            (Verb::Submit, 183, "qsub: Batch protocol error", Ambiguous),
            (Verb::List, 183, "qstat: Batch protocol error", Transient),
            (Verb::Submit, 1, "", Ambiguous),
            (Verb::Submit, 1, "qsub: opening script file:: Stale file handle", Transient),
            (
                Verb::Submit,
                32,
                "qsub: request rejected as filter hook 'gate' got an alarm call. Please inform Admin",
                Transient,
            ),
            (Verb::Submit, 32, "qsub: rejected: see our policy on timeouts", Permanent),
            (Verb::Submit, 7, "wrapper: something", Ambiguous),
            (Verb::Submit, 170, "qsub: submit error (Unknown queue MSG=cannot locate queue)", Permanent),
            (
                Verb::Submit,
                198,
                "qsub: submit error (Maximum number of jobs already in queue MSG=total number of jobs)",
                Limit,
            ),
            (Verb::Submit, 212, "qsub: Request not allowed: Server shutting down", Transient),
            (Verb::Submit, 2, "qsub:  cannot submit non-rerunable Array Job", Permanent),
            // Seen on OpenPBS 23.06.06 whose MOM was killed.
            (Verb::Cancel, 222, "qdel: Server could not connect to MOM 1016[1].pbsvm", Transient),
            (Verb::List, 159, "qstat: Unauthorized Request  12.a", Transient),
            (Verb::Cancel, 159, "qdel: Unauthorized Request  12.a", Permanent),
        ] {
            assert_eq!(classify(verb, &answer(code, stderr)).0, class, "{stderr}");
        }
        let mut late = answer(143, "Terminated");
        late.stdout = "12.pbsvm\n".to_owned();
        assert_eq!(classify(Verb::Submit, &late).0, Ambiguous, "it has an id");
    }

    /// "Unknown Job Id" of one job says nothing of the others, and a lost server says nothing of any.
    #[test]
    fn an_error_of_one_job_is_not_one_of_all() {
        assert!(of_single_jobs(&answer(153, "Welcome to the site\nqdel: Unknown Job Id 424242.pbsvm\n")));
        assert!(!of_single_jobs(&answer(
            153,
            "Connection refused\nqstat: cannot connect to server a (errno=15010)\nqstat: Unknown Job Id 1.a\n"
        )));
        assert!(!of_single_jobs(&answer(153, "qdel: Unauthorized Request  1.a\nqdel: Unknown Job Id 2.a\n")));
        assert!(of_single_jobs(&answer(
            170,
            "qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE 5.a"
        )));
        assert!(!of_single_jobs(&answer(153, "")));
        assert!(!of_single_jobs(&answer(255, "qstat: cannot connect to server a (errno=15010)")));
    }

    #[test]
    fn history_on_and_off() {
        assert!(no_history("qstat: PBS is not configured to maintain job history 0.pbsvm\n"));
        assert!(has_history("qstat: 23.pbsvm Job has finished, use -x or -H to obtain historical job information\n"));
        assert!(no_such_option(&answer(2, "qstat: invalid option -- 'E'\nusage:"), 'E'));
        assert!(!no_such_option(&answer(2, "qstat: conflicting options.\nusage:"), 'E'));
    }
}
