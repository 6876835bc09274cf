//! HTCondor's errors as classes. Pure. The texts are those of the captures in `tests/fixtures/condor/errors.txt`
//! (23.9.6), and what its manual says of the schedd's limits.

use crate::backends::ErrorClass;
use crate::backends::batch::{Answer, Verb};
use crate::backends::errors::{Row, class_of, first};

const WAIT: &str =
    "the schedd of this host does not answer; `condor_q` and `condor_status -schedd` show when it is back";
const DIRECTIVE: &str = "correct the pool's directives; `dcluster render` shows the submit description";
const FEWER: &str = "the site's limit on jobs is reached; fewer jobs fit until some end";
const SETTINGS: &str = "load HTCondor's module, or set CONDOR_CONFIG, in the shell that runs dcluster";

/// First match wins.
const ROWS: &[Row] = {
    use ErrorClass::{Ambiguous, Limit, Permanent, Transient};
    &[
        // Sent, and the answer was lost.
        ("Failed to commit", Ambiguous, WAIT),
        ("CommitTransaction", Ambiguous, WAIT),
        // Limits of the site.
        ("MAX_JOBS_PER_SUBMISSION", Limit, "the site allows fewer jobs in one submission"),
        ("MAX_JOBS_PER_OWNER", Limit, FEWER),
        ("MAX_JOBS_SUBMITTED", Limit, FEWER),
        ("would exceed", Limit, FEWER),
        // Not sent at all.
        ("Failed to connect to", Transient, WAIT),
        ("Can't find address", Transient, WAIT),
        ("Failed to fetch ads", Transient, WAIT),
        ("SECMAN:", Transient, WAIT),
        // Nothing works like this.
        (
            "Cannot allocate a cluster id",
            Permanent,
            "HTCondor takes no jobs of root, nor of who may not submit: be an ordinary user, on a host where condor_submit works",
        ),
        ("CONDOR_CONFIG", Permanent, SETTINGS),
        ("configuration source", Permanent, SETTINGS),
        ("Executable file", Permanent, "the cluster's folder must be readable"),
        ("Failed to open command file", Permanent, "the cluster's folder must be readable"),
        ("Parse error in expression", Permanent, DIRECTIVE),
        ("was unused by condor_submit", Permanent, DIRECTIVE),
        ("accounting_group", Permanent, "give another --account"),
        ("Permission denied", Permanent, "those jobs belong to somebody else, or this user may not use the pool"),
    ]
};

/// Returns the class of a failed command and what to do about it.
pub fn classify(verb: Verb, answer: &Answer) -> (ErrorClass, Option<String>) {
    let row = first(ROWS, |text| answer.stderr.contains(text) || answer.stdout.contains(text));
    let class = match (row, verb) {
        (Some((_, class, _)), _) => class_of(*class, verb),
        // Its own reading of the description, which comes before anything is sent; its last step is to commit.
        (None, Verb::Submit) if answer.stderr.contains("ERROR: ") && !answer.stderr.contains("SECMAN") => {
            ErrorClass::Permanent
        }
        (None, Verb::Submit) => ErrorClass::Ambiguous,
        (None, _) => ErrorClass::Transient,
    };
    (class, row.map(|(_, _, fix)| (*fix).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::errors::{answer, captures};

    #[test]
    fn every_capture_has_its_class() {
        let mut lines = Vec::new();
        for (name, code, text) in captures(include_str!("../../../tests/fixtures/condor/errors.txt")) {
            let verb = match name {
                n if n.contains("rm") => Verb::Cancel,
                n if n.contains("submit") => Verb::Submit,
                _ => Verb::List,
            };
            let (class, fix) = classify(verb, &answer(code, text));
            let fix = fix.map_or("", |_| ", fix");
            lines.push(format!("{name} ({verb:?} {code}): {class:?}{fix}"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r###"
        submit_root (Submit 1): Permanent, fix
        submit_noexe (Submit 1): Permanent, fix
        submit_bad (Submit 1): Permanent, fix
        submit_nofile (Submit 1): Permanent, fix
        rm_unknown (Cancel 1): Transient
        rm_again (Cancel 1): Transient
        rm_badarg (Cancel 1): Transient
        rm_two_one_unknown (Cancel 1): Transient
        down_submit (Submit 1): Transient, fix
        down_q (List 1): Transient, fix
        down_rm (Cancel 1): Transient, fix
        down_analyze (List 1): Transient, fix
        noconf (List 1): Permanent, fix
        submit_too_many (Submit 1): Limit, fix
        hist_bad (List 1): Transient
        "###);
    }

    #[test]
    fn what_no_capture_shows() {
        use ErrorClass::*;
        for (verb, text, class) in [
            (Verb::Submit, "err: ERROR: Failed to commit job submission into the queue.", Ambiguous),
            (Verb::Cancel, "err: ERROR: Failed to commit", Transient),
            (Verb::Submit, "", Ambiguous),
            (Verb::Submit, "err: wrapper: something", Ambiguous),
            (Verb::Submit, "err: ERROR: Something of the site's SUBMIT_REQUIREMENTS", Permanent),
            (Verb::Submit, "err: Number of submitted jobs would exceed MAX_JOBS_PER_OWNER", Limit),
            (Verb::List, "", Transient),
        ] {
            assert_eq!(classify(verb, &answer(1, text)).0, class, "{text}");
        }
    }
}
