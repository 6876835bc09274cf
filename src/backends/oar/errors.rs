//! OAR's errors as classes. Pure. The texts are those of OAR 2.5.9 (`oarsub`, `oardel`, `oarstat`, `OAR/IO.pm`) and of
//! the captures in `tests/fixtures/oar/errors.txt`.

use super::parse;
use crate::backends::ErrorClass;
use crate::backends::batch::{Answer, Exit, Verb};
use crate::backends::errors::{Row, class_of, first};

const WAIT: &str = "OAR's server or its database does not answer; `oarstat` shows when it is back";
const DIRECTIVE: &str = "correct the pool's directives; `dcluster render` shows the script";
const LESS: &str = "ask for less: `oarnodes` shows what the nodes have; or another --constraint, --nodelist, --queue";
const FEWER: &str = "the site's limit on jobs is reached; fewer jobs fit until some end";

/// First match wins.
const ROWS: &[Row] = {
    use ErrorClass::{Ambiguous, Limit, Permanent, Transient};
    &[
        // "Job is killed", it goes on, and that is not true (capture almighty_down_sub).
        ("Cannot connect to executor", Ambiguous, WAIT),
        ("DB connection error", Transient, WAIT),
        ("Could not connect to the socket", Transient, WAIT),
        (
            "are not allowed to submit jobs",
            Permanent,
            "bring the cluster up as an ordinary user: OAR takes no jobs of root",
        ),
        ("does not exist", Permanent, "give another --queue, or a property that `oarnodes` shows"),
        ("not enough resources", Permanent, LESS),
        ("Bad resource request", Permanent, LESS),
        ("Cannot recognize", Permanent, DIRECTIVE),
        ("Not able to scan file line", Permanent, DIRECTIVE),
        ("Cannot open the file", Permanent, "the cluster's folder must be readable"),
        ("Unknown option", Permanent, DIRECTIVE),
        ("Usage: ", Permanent, DIRECTIVE),
        ("Bad syntax", Permanent, DIRECTIVE),
        ("Invalid", Permanent, DIRECTIVE),
        ("bad character", Permanent, DIRECTIVE),
        ("maximum number of", Limit, FEWER),
        ("too many jobs", Limit, FEWER),
        ("jobs limit", Limit, FEWER),
    ]
};

/// Returns the class of a failed command and what to do about it.
pub fn classify(verb: Verb, answer: &Answer) -> (ErrorClass, Option<String>) {
    let says = |text: &str| answer.stderr.contains(text) || answer.stdout.contains(text);
    let row = first(ROWS, says);
    let class = match (row, verb, answer.exit) {
        // It has made a job and then failed.
        (_, Verb::Submit, _) if !parse::submitted_ids(&answer.stdout).is_empty() => ErrorClass::Ambiguous,
        (Some((_, class, _)), ..) => class_of(*class, verb),
        // An admission rule of the site said no (254), or what it let through could not be.
        (None, Verb::Submit, Exit::Code(254)) => ErrorClass::Permanent,
        (None, Verb::Submit, _) if answer.stderr.contains("[ADMISSION RULE]") || says("OAR_JOB_ID=-") => {
            ErrorClass::Permanent
        }
        // Such as "OAR_JOB_ID=" and nothing, when the database refused one of many insertions. Codes alone say little:
        // a site's wrapper may fail after oarsub has done its work.
        (None, Verb::Submit, _) => ErrorClass::Ambiguous,
        (None, ..) => ErrorClass::Transient,
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
        for (name, code, text) in captures(include_str!("../../../tests/fixtures/oar/errors.txt")) {
            let verb = match name {
                n if n.contains("del") => Verb::Cancel,
                n if n.contains("stat") || n.contains("nodes") => Verb::List,
                _ => Verb::Submit,
            };
            let (class, fix) = classify(verb, &answer(code, text));
            let fix = fix.map_or("", |_| ", fix");
            lines.push(format!("{name} ({verb:?} {code}): {class:?}{fix}"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r###"
        submit_root (Submit 254): Permanent, fix
        submit_stdin (Submit 5): Permanent, fix
        submit_nofile (Submit 12): Permanent, fix
        submit_bad_directive (Submit 12): Permanent, fix
        submit_bad_queue (Submit 248): Permanent, fix
        submit_bad_option (Submit 1): Permanent, fix
        submit_bad_property (Submit 8): Permanent, fix
        submit_bad_resource (Submit 8): Permanent, fix
        submit_too_many (Submit 8): Permanent, fix
        submit_bad_walltime (Submit 255): Permanent, fix
        submit_mem_too (Submit 8): Permanent, fix
        del_unknown (Cancel 1): Transient
        del_many (Cancel 6): Transient
        del_again (Cancel 6): Transient
        del_otheruser (Cancel 1): Transient
        almighty_down_sub (Submit 9): Ambiguous, fix
        almighty_down_del (Cancel 2): Transient, fix
        db_down_stat (List 25): Transient, fix
        db_down_nodes (List 25): Transient, fix
        "###);
    }

    #[test]
    fn what_no_capture_shows() {
        use ErrorClass::*;
        for (verb, code, text, class) in [
            (Verb::Submit, 1, "err: [ADMISSION RULE] no jobs of students at night", Permanent),
            (Verb::Submit, 1, "err: [ADMISSION RULE] you have reached the maximum number of jobs", Limit),
            (
                Verb::Submit,
                8,
                "out: OAR_JOB_ID=\nerr: [ERROR] Oarsub failed, please verify your request syntax.",
                Ambiguous,
            ),
            (Verb::Submit, 3, "err: wrapper: something", Ambiguous),
            (Verb::Submit, 1, "err: Simple array job submission is used", Ambiguous),
            (Verb::Submit, 254, "err: no jobs of students at night", Permanent),
            (Verb::Submit, 1, "out: OAR_JOB_ID=7\nerr: wrapper: cannot write my log", Ambiguous),
            (Verb::List, 1, "", Transient),
            (Verb::Cancel, 1, "", Transient),
        ] {
            assert_eq!(classify(verb, &answer(code, text)).0, class, "{text}");
        }
        let killed = Answer { exit: Exit::Signal(9), stdout: String::new(), stderr: String::new() };
        assert_eq!(classify(Verb::Submit, &killed).0, Ambiguous);
    }
}
