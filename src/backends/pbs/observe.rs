//! What `qstat -f` says of jobs, as observations. Pure.
//!
//! A job of ours is known by its name. Elements of an array bear the array's name (TORQUE: with `-INDEX` after it);
//! which element it is says the id.

use super::parse::{Id, Record, Which, elements, seconds};
use crate::backends::batch::{bounded, bounded_to, element};
use crate::backends::{EndedHow, JobRef, Observation, Observed};
use crate::runtime::ids::{JobName, NativeId};
use std::collections::BTreeSet;

/// Most bytes of a host name kept.
const NODE_LIMIT_BYTES: usize = 255;

/// Returns what records of jobs say of the jobs of the cluster `id4`, each element of an array for itself.
///
/// `walltimes` are those that our jobs are asked for with: where PBS says one of them, the worker knows better how much
/// of it is left, for PBS counts it minutes late.
pub(crate) fn jobs(id4: &str, records: &[Record], walltimes: &BTreeSet<u64>) -> Vec<Observation> {
    let mut seen = Vec::new();
    let mut listed = BTreeSet::new();
    for record in records {
        let Some((id, name)) = ours(id4, record).filter(|(id, _)| id.which != Which::Array) else { continue };
        listed.insert((id.number, id.which));
        seen.push(one(name, id.text(id.which), record, id.which, walltimes));
    }
    for record in records {
        let Some((id, _)) = ours(id4, record).filter(|(id, _)| id.which == Which::Array) else { continue };
        let array_name = record.get("Job_Name").unwrap_or_default();
        for (index, state) in of_array(record) {
            let which = Which::Element(index);
            if let Some((name, _)) = element(id4, array_name, index).filter(|_| !listed.contains(&(id.number, which))) {
                let comment = record.get("comment").filter(|words| !words.starts_with("Job Array Began"));
                let reason = bounded(comment.unwrap_or_default());
                let id = NativeId(id.text(which));
                seen.push(Observation { name, id, state, reason, node: None, seconds_left: None });
            }
        }
    }
    seen
}

/// What an array says of elements that are not listed for themselves: the server leaves out those that wait (some
/// clients add them), and all of them while none has begun (`req_stat.c` of OpenPBS 23.06).
fn of_array(record: &Record) -> Vec<(u32, Observed)> {
    let range = |key: &str| elements(record.get(key).unwrap_or_default());
    match record.get("job_state") {
        Some("F") => {
            let over = Observed::Ended { how: EndedHow::Cancelled, exit_code: None };
            range("array_indices_submitted").into_iter().map(|index| (index, over.clone())).collect()
        }
        Some("Q" | "H" | "W" | "T" | "B") => {
            range("array_indices_remaining").into_iter().map(|index| (index, Observed::Pending)).collect()
        }
        None => Vec::new(),
        // Moved to another server (M), or what this version does not know: its elements are somewhere.
        Some(other) => {
            let unknown = Observed::Unknown(bounded(other));
            range("array_indices_submitted").into_iter().map(|index| (index, unknown.clone())).collect()
        }
    }
}

/// Whether a job or array is one of this cluster.
pub(super) fn is_ours(id4: &str, record: &Record) -> bool {
    ours(id4, record).is_some()
}

fn ours<'a>(id4: &str, record: &'a Record) -> Option<(Id<'a>, JobName)> {
    let id = Id::parse(&record.name)?;
    let name = record.get("Job_Name")?;
    let named = match id.which {
        Which::Single | Which::Array => element(id4, name, 0),
        Which::Element(index) => {
            let array = name.strip_suffix(&format!("-{index}")).filter(|array| JobName::parse(id4, array).is_some());
            element(id4, array.unwrap_or(name), index)
        }
    };
    Some((id, named?.0))
}

fn one(name: JobName, id: String, record: &Record, which: Which, walltimes: &BTreeSet<u64>) -> Observation {
    let letter = record.get("job_state").unwrap_or_default();
    // Of an element that waits it may be the array's.
    let comment = record.get("comment").filter(|words| !words.starts_with("Job Array Began")).unwrap_or_default();
    // TORQUE: exit_status.
    let status = record.get("Exit_status").or_else(|| record.get("exit_status")).and_then(|s| s.trim().parse().ok());
    let state = match letter {
        "Q" | "H" | "W" | "T" => Observed::Pending,
        "R" | "S" | "U" | "E" => Observed::Running,
        // An element that is over while its array is not shows what its array does, with the exit status of any other
        // element (captures qstat_array_after_subdel_json, qstat_subjob_killed_json).
        "X" => ended(None, true, comment),
        "F" | "C" => {
            let borrowed = matches!(which, Which::Element(_)) && record.get("array_id").is_none() && letter == "F";
            ended(status.filter(|_| !borrowed), ran(record), comment)
        }
        other => Observed::Unknown(bounded(other)),
    };
    let reason = match &state {
        Observed::Pending if comment.is_empty() => match letter {
            "H" => format!("held: Hold_Types = {}", record.get("Hold_Types").unwrap_or("?")),
            "W" => "waits for its start time".to_owned(),
            _ => String::new(),
        },
        Observed::Pending | Observed::Unknown(_) => comment.to_owned(),
        Observed::Running => if letter == "S" || letter == "U" { "suspended" } else { "" }.to_owned(),
        Observed::Ended { .. } => match (status, comment) {
            (Some(status), "") => format!("Exit_status {status}"),
            (Some(status), comment) => format!("Exit_status {status}: {comment}"),
            (None, comment) => comment.to_owned(),
        },
    };
    Observation {
        name,
        id: NativeId(id),
        seconds_left: (state == Observed::Running).then(|| left(record, walltimes)).flatten(),
        state,
        reason: bounded(&reason),
        node: record.get("exec_host").and_then(node),
    }
}

/// Whether a job that is over had started.
fn ran(record: &Record) -> bool {
    record.get("stime").is_some() || record.get("start_time").is_some() || record.get("session_id").is_some()
}

/// What `Exit_status` means (PBS Professional's administrator's guide, "Job Exit Codes"; `job.h` of OpenPBS 23.06;
/// capture exit_status_table): 0 to 255 is the script's, 256 + n is a signal that PBS sent, below 0 is PBS itself.
fn ended(status: Option<i32>, ran: bool, comment: &str) -> Observed {
    // The comment knows who ended it, where the status is that of the last signal of any kind.
    let said = [
        ("exceeded resource walltime", EndedHow::Walltime),
        ("exceeded resource cput", EndedHow::Walltime),
        ("exceeded resource mem", EndedHow::OutOfMemory),
        ("exceeded resource vmem", EndedHow::OutOfMemory),
        ("terminated", EndedHow::Cancelled),
    ];
    let said = said.into_iter().find(|(words, _)| comment.contains(words)).map(|(_, how)| how);
    let how = match status {
        Some(-29 | -28) => EndedHow::Walltime,
        Some(-27 | -26) => EndedHow::OutOfMemory,
        // MOM itself had gone, or the node it spoke for.
        Some(-4 | -5 | -6 | -20) => EndedHow::NodeFailed,
        Some(-25 | -24) => said.unwrap_or(EndedHow::Exited),
        Some(code) if code < 0 => said.unwrap_or(EndedHow::LaunchFailed),
        Some(code) if code > 255 => said.unwrap_or(EndedHow::Cancelled),
        Some(_) => said.unwrap_or(EndedHow::Exited),
        // It never ran: deleted in the queue, or its dependency cannot be satisfied (capture qstat_f_depfail).
        None if !ran => EndedHow::Cancelled,
        None => said.unwrap_or(EndedHow::Exited),
    };
    let code = status.filter(|code| how == EndedHow::Exited && (0..256).contains(code));
    Observed::Ended { how, exit_code: code }
}

fn left(record: &Record, walltimes: &BTreeSet<u64>) -> Option<u64> {
    let limit = seconds(record.get("Resource_List.walltime")?)?;
    let used = record.get("resources_used.walltime").and_then(seconds).unwrap_or(0);
    (!walltimes.contains(&limit)).then(|| limit.saturating_sub(used))
}

/// Hosts of `n1/0*2+n2/1`, each once.
fn node(exec_host: &str) -> Option<String> {
    let hosts = exec_host.split('+').filter_map(|part| part.split('/').next().filter(|host| !host.is_empty()));
    let hosts: Vec<_> = hosts.collect::<BTreeSet<_>>().into_iter().collect();
    (!hosts.is_empty()).then(|| bounded_to(&hosts.join(","), NODE_LIMIT_BYTES))
}

/// Those observations that are of these jobs, under the ids by which we know them: a number may be given anew when a
/// server is set up again, a name is not.
pub(super) fn of(jobs: &[JobRef], observations: Vec<Observation>) -> Vec<Observation> {
    let observations = observations.into_iter();
    let known = observations.filter_map(|mut seen| {
        let job = jobs.iter().find(|job| job.name == seen.name)?;
        if let Some(id) = &job.id {
            let same = Id::parse(&id.0).zip(Id::parse(&seen.id.0)).is_some_and(|(ours, theirs)| ours.same(&theirs));
            if !same {
                return None;
            }
            seen.id = id.clone();
        }
        Some(seen)
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse::records;
    use super::*;
    use crate::runtime::ids::JobSeq;

    fn observe(text: &str) -> Vec<Observation> {
        jobs("abcd", &records("Job Id", text), &BTreeSet::new())
    }

    fn show(observations: &[Observation]) -> String {
        let line = |o: &Observation| {
            format!("{} {} {:?} {:?} {:?} {:?}\n", o.name, o.id, o.state, o.reason, o.node, o.seconds_left)
        };
        observations.iter().map(line).collect()
    }

    /// A capture knows no names of ours.
    fn ours(capture: &str, name: &str) -> String {
        capture.replace(&format!("Job_Name = {name}\n"), "Job_Name = dcabcd-000007\n")
    }

    fn ended_as(lines: &str) -> (EndedHow, Option<i32>) {
        let text = format!("Job Id: 5.a\n    Job_Name = dcabcd-000001\n    job_state = F\n    stime = x\n{lines}");
        match observe(&text).remove(0).state {
            Observed::Ended { how, exit_code } => (how, exit_code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn captures_of_jobs() {
        let running = ours(include_str!("../../../tests/fixtures/pbs/qstat_f_running.out"), "fulljob");
        let finished = include_str!("../../../tests/fixtures/pbs/qstat_E_multi_f_unk.out");
        let finished = ours(&ours(finished, "ex0"), "ex3");
        insta::assert_snapshot!(show(&observe(&(running + &finished))), @r###"
        dcabcd-000007 0.pbsvm Running "" Some("pbsvm") Some(600)
        dcabcd-000007 24.pbsvm Ended { how: Exited, exit_code: Some(0) } "Exit_status 0: Job run at Mon Nov 23 at 14:56 on (pbsvm:ncpus=1) and finished" Some("pbsvm") None
        dcabcd-000007 25.pbsvm Ended { how: Exited, exit_code: Some(3) } "Exit_status 3: Job run at Mon Nov 23 at 14:56 on (pbsvm:ncpus=1) and failed" Some("pbsvm") None
        "###);
    }

    /// Elements that wait: in the list by themselves, or only in what the array says.
    #[test]
    fn elements_of_an_array() {
        let array = ours(include_str!("../../../tests/fixtures/pbs/qstat_array_f.out"), "arr");
        let waiting = ours(include_str!("../../../tests/fixtures/pbs/qstat_array_sub_q.out"), "arr");
        insta::assert_snapshot!(show(&observe(&(array.clone() + &waiting))), @r###"
        dcabcd-000016 22[9].pbsvm Pending "" None None
        dcabcd-000015 22[8].pbsvm Pending "" None None
        "###);
        let queued = "Job Id: 9[].a\n    Job_Name = dcabcd-000002\n    job_state = Q\n    \
            comment = Not Running: Queue not started.\n    array_indices_submitted = 0-1\n    array_indices_remaining = 0-1\n";
        insta::assert_snapshot!(show(&observe(queued)), @r###"
        dcabcd-000002 9[0].a Pending "Not Running: Queue not started." None None
        dcabcd-000003 9[1].a Pending "Not Running: Queue not started." None None
        "###);
        let over = queued.replace("job_state = Q", "job_state = F").replace("remaining = 0-1", "remaining = -");
        let all = observe(&over);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|o| o.state == Observed::Ended { how: EndedHow::Cancelled, exit_code: None }));
    }

    /// Moved to another server: nobody knows how it does there.
    #[test]
    fn elements_of_an_array_that_was_moved_are_not_gone() {
        let moved =
            "Job Id: 9[].a\n    Job_Name = dcabcd-000002\n    job_state = M\n    array_indices_submitted = 0-1\n";
        insta::assert_snapshot!(show(&observe(moved)), @r###"
        dcabcd-000002 9[0].a Unknown("M") "" None None
        dcabcd-000003 9[1].a Unknown("M") "" None None
        "###);
    }

    /// What an element that is over says of its exit is another's, while its array is not over.
    #[test]
    fn an_element_shows_the_exit_status_of_its_array() {
        let text = "Job Id: 22[0].a\n    Job_Name = dcabcd-000001\n    job_state = X\n    comment = Subjob finished\n    Exit_status = 1\n";
        assert_eq!(observe(text)[0].state, Observed::Ended { how: EndedHow::Exited, exit_code: None });
        let own = text.replace("job_state = X", "job_state = F\n    stime = x\n    array_id = 22[].a");
        assert_eq!(observe(&own)[0].state, Observed::Ended { how: EndedHow::Exited, exit_code: Some(1) });
    }

    #[test]
    fn exit_271_is_a_job_that_was_cancelled() {
        assert_eq!(ended_as("    Exit_status = 271\n"), (EndedHow::Cancelled, None));
        assert_eq!(ended_as("    Exit_status = 265\n"), (EndedHow::Cancelled, None));
        // A second qdel re-sends TERM: the script may even end with 0 (captures qdel_twice, qdel_termdie).
        let comment = "    comment = Job run at Mon Nov 23 at 14:56 on (n1:ncpus=1) and terminated by me@a\n";
        assert_eq!(ended_as(&format!("    Exit_status = 0\n{comment}")), (EndedHow::Cancelled, None));
    }

    #[test]
    fn exit_statuses_below_0_are_of_pbs_itself() {
        use EndedHow::*;
        for (status, how) in [
            (-1, LaunchFailed),
            (-2, LaunchFailed),
            (-4, NodeFailed),
            (-10, LaunchFailed),
            (-17, LaunchFailed),
            (-20, NodeFailed),
            (-21, LaunchFailed),
            (-24, Exited),
            (-26, OutOfMemory),
            (-27, OutOfMemory),
            (-28, Walltime),
            (-29, Walltime),
        ] {
            assert_eq!(ended_as(&format!("    Exit_status = {status}\n")), (how, None), "{status}");
        }
        for code in [0, 3, 127, 137, 255] {
            assert_eq!(ended_as(&format!("    Exit_status = {code}\n")), (Exited, Some(code)));
        }
    }

    /// TORQUE's walltime leaves 271; USR1 before leaves 266 (capture exit_status_table).
    #[test]
    fn a_walltime_that_is_over() {
        let words = "    comment = Job run at Mon Nov 23 at 14:56 on (n1:ncpus=1) and exceeded resource walltime\n";
        assert_eq!(ended_as(&format!("    Exit_status = 271\n{words}")), (EndedHow::Walltime, None));
        assert_eq!(ended_as(&format!("    Exit_status = -29\n{words}")), (EndedHow::Walltime, None));
    }

    #[test]
    fn finished_without_a_status_never_ran() {
        let text = "Job Id: 47.a\n    Job_Name = dcabcd-000001\n    job_state = F\n    substate = 92\n";
        assert_eq!(observe(text)[0].state, Observed::Ended { how: EndedHow::Cancelled, exit_code: None });
    }

    #[test]
    fn the_comment_is_the_reason() {
        let text = "Job Id: 2.a\n    Job_Name = dcabcd-000001\n    job_state = Q\n    \
            comment = Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 16 T: 16)\n";
        let job = observe(text).remove(0);
        assert_eq!(job.reason, "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 16 T: 16)");
        let held = "Job Id: 2.a\n    Job_Name = dcabcd-000001\n    job_state = H\n    Hold_Types = u\n";
        assert_eq!(observe(held)[0].reason, "held: Hold_Types = u");
        let new = "Job Id: 2.a\n    Job_Name = dcabcd-000001\n    job_state = Q\n";
        assert_eq!(observe(new)[0].reason, "");
    }

    #[test]
    fn states() {
        let state = |letter: &str| {
            let text = format!("Job Id: 2.a\n    Job_Name = dcabcd-000001\n    job_state = {letter}\n");
            observe(&text).remove(0).state
        };
        for letter in ["Q", "H", "W", "T"] {
            assert_eq!(state(letter), Observed::Pending, "{letter}");
        }
        for letter in ["R", "S", "U", "E"] {
            assert_eq!(state(letter), Observed::Running, "{letter}");
        }
        assert_eq!(state("M"), Observed::Unknown("M".to_owned()));
        assert_eq!(state(""), Observed::Unknown(String::new()));
    }

    #[test]
    fn torque() {
        let text = "Job Id: 7[1].a\n    Job_Name = dcabcd-000005-1\n    job_state = C\n    exit_status = 3\n    start_time = x\n\
            Job Id: 7[0].a\n    Job_Name = dcabcd-000005-0\n    job_state = R\n    exec_host = n1/3+n1/2\n    \
            Resource_List.walltime = 01:00:00\n    resources_used.walltime = 00:10:00\n";
        insta::assert_snapshot!(show(&observe(text)), @r###"
        dcabcd-000006 7[1].a Ended { how: Exited, exit_code: Some(3) } "Exit_status 3" None None
        dcabcd-000005 7[0].a Running "" Some("n1") Some(3000)
        "###);
    }

    #[test]
    fn the_time_that_is_left_is_said_where_the_worker_does_not_know() {
        let text = "Job Id: 2.a\n    Job_Name = dcabcd-000001\n    job_state = R\n    \
            Resource_List.walltime = 01:00:00\n    resources_used.walltime = 00:10:00\n";
        let left = |asked| jobs("abcd", &records("Job Id", text), &BTreeSet::from(asked))[0].seconds_left;
        assert_eq!((left([60, 90]), left([60, 3600])), (Some(3000), None));
    }

    #[test]
    fn jobs_of_others_and_reused_numbers_are_not_ours() {
        let text = "Job Id: 2.a\n    Job_Name = dcwxyz-000001\n    job_state = R\n\
            Job Id: 3.a.example.org\n    Job_Name = dcabcd-000001\n    job_state = R\n\
            Job Id: 4.a\n    Job_Name = dcabcd-000002\n    job_state = R\nJob Id: 5.a\n    job_state = R\n";
        let seen = observe(text);
        assert_eq!(seen.len(), 2);
        let job = |seq, id: &str| JobRef { name: JobName::new("abcd", JobSeq(seq)), id: Some(NativeId(id.to_owned())) };
        let of_them = of(&[job(1, "3.a"), job(2, "5.a")], seen);
        assert_eq!(of_them.iter().map(|o| o.id.0.as_str()).collect::<Vec<_>>(), ["3.a"]);
    }
}
