use super::*;

fn lines(seen: &[Observation]) -> String {
    let line = |o: &Observation| {
        let node = o.node.as_deref().unwrap_or("-");
        let left = o.seconds_left.map_or_else(String::new, |left| format!(" {left} s left"));
        format!("{} {} {:?} {node}{left} {:?}\n", o.name, o.id.0, o.state, o.reason)
    };
    seen.iter().map(line).collect()
}

/// One job, as `condor_q` prints it.
fn one(attributes: &str) -> String {
    format!("[\n{{\"ClusterId\": 7, \"ProcId\": 2, \"JobBatchName\": \"dcabcd-000003\", {attributes}}}\n]\n")
}

fn queued(attributes: &str) -> (Observed, String, bool) {
    let mut listing = listing("abcd", &one(attributes)).unwrap();
    let seen = listing.seen.remove(0);
    (seen.state, seen.reason, !listing.stuck.is_empty())
}

#[test]
fn the_id_is_found_among_banners_and_warnings() {
    for (stdout, id) in [
        ("5.0 - 5.4\n", Some("5")),
        ("Welcome 12 - 14 jobs\n5.0 - 5.0\nBye - bye\n", Some("5")),
        ("Submitting job(s).....\n5 job(s) submitted to cluster 31.\n", Some("31")),
        ("5.0 - 6.0\n", None),
        ("", None),
        ("Submitting job(s)\n", None),
        ("99999999999.0 - 99999999999.0\n", None),
    ] {
        assert_eq!(submitted_cluster(stdout), id, "{stdout}");
    }
}

#[test]
fn a_queue() {
    let listing = listing("abcd", include_str!("../../../../tests/fixtures/condor/q.json")).unwrap();
    insta::assert_snapshot!(lines(&listing.seen), @r###"
    dcabcd-000001 15.0 Ended { how: Preempted, exit_code: None } vm "User requested the job to vacate"
    dcabcd-000002 15.1 Running vm 3589 s left ""
    dcabcd-000003 16.0 Pending - "no match found"
    dcabcd-000004 17.0 Pending - "held: submitted on hold at user's request"
    dcabcd-000007 20.0 Running vm 3591 s left ""
    "###);
    assert_eq!(listing.stuck, [NativeId("15.0".into())]);
}

#[test]
fn a_history() {
    let seen = history("abcd", include_str!("../../../../tests/fixtures/condor/history.json")).unwrap();
    insta::assert_snapshot!(lines(&seen), @r###"
    dcabcd-000007 20.0 Ended { how: NodeFailed, exit_code: None } vm "Job disconnected too long: JobLeaseDuration (20 seconds) expired"
    dcabcd-000001 15.0 Ended { how: Preempted, exit_code: None } vm "User requested the job to vacate"
    dcabcd-000006 19.0 Ended { how: Walltime, exit_code: None } vm "held: The job exceeded allowed job duration of 00:04"
    dcabcd-000005 18.0 Ended { how: LaunchFailed, exit_code: None } vm "held: Error from slot1_3@vm: Failed to open '/no/such/x' as standard output: No such file or directory (errno 2)"
    dcabcd-000009 22.0 Ended { how: Exited, exit_code: Some(139) } vm "exit code 139"
    dcabcd-000008 21.0 Ended { how: Exited, exit_code: Some(1) } vm "exit code 1"
    "###);
    assert_eq!(history("zzzz", include_str!("../../../../tests/fixtures/condor/history.json")), Some(Vec::new()));
}

/// Of no job `condor_q` says nothing at all, `condor_history` an empty list.
#[test]
fn nothing_is_no_job_and_half_an_answer_is_none() {
    assert_eq!(listing("abcd", "\n"), Some(Listing::default()));
    assert_eq!(history("abcd", "[\n]\n"), Some(Vec::new()));
    assert_eq!(history("abcd", ""), None, "a history always prints a list");
    let whole = one("\"JobStatus\": 2");
    assert_eq!(listing("abcd", &format!("Welcome\n{whole}\nBye\n")).unwrap().seen.len(), 1);
    for half in [&whole[..whole.len() / 2], "Welcome\n", "[\n{\"ClusterId\": 1\n]\n"] {
        assert_eq!(listing("abcd", half), None, "{half}");
    }
}

/// A held job never starts: only what somebody holds before it has started waits.
#[test]
fn a_held_job_is_over_unless_a_person_holds_it() {
    let held = |code: i64, starts: i64, why: &str| {
        queued(&format!(
            "\"JobStatus\": 5, \"HoldReasonCode\": {code}, \"HoldReason\": \"{why}\", \"NumJobStarts\": {starts}"
        ))
    };
    assert_eq!(held(1, 0, "via condor_hold").0, Observed::Pending);
    assert_eq!(
        held(15, 0, "on hold at user's request"),
        (Observed::Pending, "held: on hold at user's request".into(), false)
    );
    for (code, starts, why, how) in [
        (1, 1, "via condor_hold (by user x)", EndedHow::Cancelled),
        (7, 0, "Failed to open", EndedHow::LaunchFailed),
        (46, 1, "The job exceeded allowed job duration of 00:10", EndedHow::Walltime),
        (47, 1, "The job exceeded allowed execute duration of 00:10", EndedHow::Walltime),
        (34, 1, "Job has gone over cgroup memory limit of 128 megabytes", EndedHow::OutOfMemory),
        (21, 1, "Memory usage exceeded", EndedHow::OutOfMemory),
        (26, 1, "site policy", EndedHow::Cancelled),
        (26, 0, "site policy", EndedHow::LaunchFailed),
        (99, 1, "of a later version", EndedHow::LaunchFailed),
    ] {
        assert_eq!(held(code, starts, why), (ended(how), format!("held: {why}"), true), "{code}");
    }
}

/// HTCondor would start it again.
#[test]
fn a_job_that_lost_its_machine_is_over() {
    let idle = |starts: i64, why: &str| {
        queued(&format!("\"JobStatus\": 1, \"NumJobStarts\": {starts}, \"VacateReason\": \"{why}\", \"ExitCode\": 0"))
    };
    assert_eq!(idle(0, "").0, Observed::Pending);
    let lost = "Job disconnected too long: JobLeaseDuration (20 seconds) expired";
    assert_eq!(idle(1, lost), (ended(EndedHow::NodeFailed), lost.to_owned(), true));
    assert_eq!(idle(1, "User requested the job to vacate").0, ended(EndedHow::Preempted));
}

#[test]
fn a_job_that_is_being_removed_may_still_run() {
    let state = |more: &str| queued(&format!("\"JobStatus\": 3{more}"));
    assert_eq!(state(", \"RemoteHost\": \"slot1_1@vm\""), (Observed::Running, "being removed".into(), false));
    assert_eq!(state("").0, Observed::Pending);
    assert_eq!(queued("\"JobStatus\": 9").0, Observed::Unknown("JobStatus 9".into()));
}

#[test]
fn reasons_of_an_analysis() {
    let told = analysis(include_str!("../../../../tests/fixtures/condor/analyze.out"));
    let text: String = told.iter().map(|(id, words)| format!("{}: {words}\n", id.0)).collect();
    insta::assert_snapshot!(text, @r###"
    23.0: no machine fulfils TARGET.FileSystemDomain == "other"
    24.0: no machine fulfils TARGET.Cpus >= RequestCpus
    25.0: 1 are able to run your job
    26.0: 1 are rejected by your job's requirements
    "###);
}

/// It says that it found none also when it could not ask.
#[test]
fn what_is_not_found_is_removed_unless_nobody_was_asked() {
    let none = "\nCouldn't find/remove all jobs matching constraint (ClusterId == 99999)\n";
    assert_eq!(not_removed(none), Vec::<&str>::new());
    assert_eq!(not_removed("Job 7.1 not found\nJob 7.2 marked for removal\n"), Vec::<&str>::new());
    let down = format!("SECMAN:2007:Failed to end classad message.{none}");
    assert_eq!(not_removed(&down), ["SECMAN:2007:Failed to end classad message."]);
}

#[test]
fn processes_are_named_in_ranges() {
    let ids = ["7.3", "9.0", "7.1", "7.2", "7.5", "7.2", "odd"].map(|id| NativeId(id.to_owned()));
    assert_eq!(
        constraint(ids.iter()),
        "(ClusterId == 7 && ((ProcId >= 1 && ProcId <= 3) || ProcId == 5)) || (ClusterId == 9 && (ProcId == 0))"
    );
    assert_eq!(constraint([].iter()), "");
}

#[test]
fn versions() {
    let told =
        "$CondorVersion: 23.9.6 2026-07-12 PackageID: 23.9.6+dfsg-2.1+b10 $\n$CondorPlatform: X86_64-Debian_13 $\n";
    assert_eq!(version(told), "HTCondor 23.9.6");
    assert_eq!(version("?"), "");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in ".{0,200}", number in proptest::num::i64::ANY, status in -1i64..9, process in proptest::num::u32::ANY) {
        submitted_cluster(&text);
        not_removed(&text);
        version(&text);
        listing("abcd", &text);
        history("abcd", &text);
        analysis(&format!("The Requirements expression for job {text}.{number} reduces to these conditions:\n[{text}] 0 {text}"));
        let quoted = serde_json::to_string(&text).unwrap();
        let ad = format!(
            "[\n{{\"ClusterId\": {number}, \"ProcId\": {process}, \"JobBatchName\": \"dcabcd-000001\", \"JobStatus\": {status}, \
             \"NumJobStarts\": {number}, \"HoldReasonCode\": {number}, \"HoldReason\": {quoted}, \"RemoteHost\": {quoted}, \
             \"AllowedJobDuration\": {number}, \"JobCurrentStartDate\": {number}, \"ServerTime\": -1, \"ExitBySignal\": true, \
             \"ExitSignal\": {number}, \"RemoveReason\": {quoted}}}\n]\n"
        );
        proptest::prop_assert!(listing("abcd", &ad).is_some());
        proptest::prop_assert!(history("abcd", &ad).is_some());
        constraint([NativeId(format!("{process}.{process}")), NativeId(format!("{process}.{}", process.wrapping_add(1)))].iter());
    }
}
