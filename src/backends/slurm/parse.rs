//! Parses what Slurm's commands print. Pure. Checked on 22.05.8 and 24.11.5; the text formats are the same in
//! both, the JSON ones are not (`design/backends/slurm_sge_oar_condor.md` 1.9).

use crate::backends::batch::{bounded, element};
use crate::backends::{EndedHow, Observation, Observed};
use crate::runtime::ids::NativeId;

/// Format of `squeue -o` that [`listing`] reads. The reason may hold anything and the name comes last: ours
/// have no `|`, and what is not ours is dropped.
pub const SQUEUE_FORMAT: &str = "%i|%T|%L|%N|%r|%j";
/// Fields of `sacct -o` that [`accounting`] reads.
pub const SACCT_FIELDS: &str = "JobID,State,ExitCode,NodeList,JobName";
/// Most elements of one bracketed range that are looked at (Slurm's own limit is MaxArraySize ≤ 4,000,001).
const ELEMENTS_LIMIT: usize = 100_000;
/// Most bytes of a host name kept.
const NODE_LIMIT_BYTES: usize = 255;

/// Returns the id that `sbatch --parsable` printed (`39`, with `-M` `39;cluster`): the last line that is
/// one, for sites wrap `sbatch` in scripts that print banners.
pub fn submitted_id(stdout: &str) -> Option<&str> {
    let ids = stdout.lines().rev().filter_map(|line| {
        let id = line.trim().split(';').next()?;
        (is_number(id) && id.len() <= 10).then_some(id)
    });
    ids.into_iter().next()
}

/// Returns the time, in milliseconds since the epoch, that `sbatch --test-only` names (capture submit_test_only:
/// `sbatch: Job 45 to start at 2026-11-23T14:52:46 using 2 processors …`), printed as UTC.
pub fn expected_start(stderr: &str) -> Option<u64> {
    let (_, rest) = stderr.split_once(" to start at ")?;
    let time: jiff::civil::DateTime = rest.split_whitespace().next()?.parse().ok()?;
    let start = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    u64::try_from(start).ok()
}

/// Returns how many elements an array may have by `scontrol show config`: `MaxArraySize` is one more than
/// the largest index (slurm.conf(5)), and `SchedulerParameters=max_array_tasks=N` may lower it.
pub fn array_limit(config: &str) -> Option<u32> {
    let size: u32 = config_value(config, "MaxArraySize")?.parse().ok()?;
    let tasks = config_value(config, "SchedulerParameters").and_then(|parameters| {
        let mut each = parameters.split(',');
        each.find_map(|p| p.trim().strip_prefix("max_array_tasks=")?.parse().ok())
    });
    Some(size.min(tasks.unwrap_or(u32::MAX)).max(1))
}

/// Returns a value of `scontrol show config`.
pub(super) fn config_value<'a>(config: &'a str, name: &str) -> Option<&'a str> {
    config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Returns what a `squeue` in [`SQUEUE_FORMAT`] says of the jobs of the cluster `id4`.
pub fn listing(id4: &str, stdout: &str) -> Vec<Observation> {
    let lines = stdout.lines().filter_map(|line| {
        let (rest, name) = line.rsplit_once('|')?;
        let mut fields = rest.splitn(5, '|');
        let (id, state, left) = (fields.next()?, fields.next()?, fields.next()?);
        let (node, reason) = (fields.next()?, fields.next()?);
        let observed = state_of(state, reason, None);
        Some(spread(id4, id, name, |name, id| Observation {
            name,
            id,
            seconds_left: (observed == Observed::Running).then(|| seconds(left)).flatten(),
            state: observed.clone(),
            reason: words(state, reason),
            node: node_of(node),
        }))
    });
    lines.flatten().collect()
}

/// Returns what a `sacct -nPX` of [`SACCT_FIELDS`] says of the jobs of the cluster `id4`.
///
/// A job cancelled a moment after it was submitted is called `allocation` until slurmdbd has caught up
/// (seen on 22.05.8): like an empty answer, that is no answer yet.
pub fn accounting(id4: &str, stdout: &str) -> Vec<Observation> {
    let lines = stdout.lines().filter_map(|line| {
        let mut fields = line.splitn(5, '|');
        let (id, state, exit) = (fields.next()?, fields.next()?, fields.next()?);
        let (node, name) = (fields.next()?, fields.next()?);
        let (code, signal) = exit.split_once(':')?;
        let exit = (code.parse().ok()?, signal.parse().ok()?);
        // `CANCELLED by 1001` (capture sacct_P2)
        let word = state.split(' ').next().unwrap_or_default();
        let observed = state_of(word, "", Some(exit));
        let reason = match exit {
            (0, 0) => bounded(state),
            (code, signal) => bounded(&format!("{state}, exit code {code}:{signal}")),
        };
        Some(spread(id4, id, name, |name, id| Observation {
            name,
            id,
            state: observed.clone(),
            reason: reason.clone(),
            node: node_of(node),
            seconds_left: None,
        }))
    });
    lines.flatten().collect()
}

/// One observation for each element of an id: `39`, `71_3`, `71_[6-40%5]`.
fn spread(
    id4: &str,
    id: &str,
    array_name: &str,
    one: impl Fn(crate::runtime::ids::JobName, NativeId) -> Observation,
) -> Vec<Observation> {
    let named = |index, id: String| Some(one(element(id4, array_name, index)?.0, NativeId(id)));
    let Some((array, indexes)) = id.split_once('_') else {
        return named(0, id.to_owned()).filter(|_| is_number(id)).into_iter().collect();
    };
    if !is_number(array) {
        return Vec::new();
    }
    let indexes = elements(indexes).into_iter();
    indexes.filter_map(|index| named(index, format!("{array}_{index}"))).collect()
}

/// Elements of `3`, `[6-40%5]`, `[7-29,34-40]`. Slurm cuts long lists without a mark unless
/// `SLURM_BITSTR_LEN=0` (capture squeue_array_long_list): what cannot be read is left out.
fn elements(text: &str) -> Vec<u32> {
    let inner = text.strip_prefix('[').map_or(text, |t| t.trim_end_matches(']'));
    let inner = inner.split('%').next().unwrap_or_default();
    let ranges = inner.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (last, step) = last.split_once(':').unwrap_or((last, "1"));
        let step: usize = step.parse().ok().filter(|s| *s > 0)?;
        Some((first.parse::<u32>().ok()?..=last.parse().ok()?).step_by(step))
    });
    ranges.flatten().take(ELEMENTS_LIMIT).collect()
}

/// States of squeue(1), "JOB STATE CODES", 22.05 to 24.11; `exit` is sacct's `ExitCode`.
fn state_of(state: &str, reason: &str, exit: Option<(i32, i32)>) -> Observed {
    let how = match state {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "RESV_DEL_HOLD" | "SPECIAL_EXIT"
        | "POWER_UP_NODE" | "EXPEDITING" => {
            return Observed::Pending;
        }
        "RUNNING" | "SUSPENDED" | "COMPLETING" | "RESIZING" | "SIGNALING" | "STAGE_OUT" | "STOPPED" => {
            return Observed::Running;
        }
        // ExitCode 0:53: slurmstepd could not open the output (capture sacct_P2, job `badout`).
        // BadConstraints: a refused submission that stays listed (capture squeue_h_o).
        "FAILED" if exit == Some((0, 53)) || matches!(reason, "JobLaunchFailure" | "BadConstraints") => {
            EndedHow::LaunchFailed
        }
        "COMPLETED" | "FAILED" => EndedHow::Exited,
        "TIMEOUT" | "DEADLINE" => EndedHow::Walltime,
        "CANCELLED" => EndedHow::Cancelled,
        "PREEMPTED" => EndedHow::Preempted,
        "NODE_FAIL" | "BOOT_FAIL" => EndedHow::NodeFailed,
        "OUT_OF_MEMORY" => EndedHow::OutOfMemory,
        "LAUNCH_FAILED" | "RECONFIG_FAIL" => EndedHow::LaunchFailed,
        other => return Observed::Unknown(bounded(other)),
    };
    let exit_code = match (how, state, exit) {
        (EndedHow::Exited, "COMPLETED", None) => Some(0),
        // Killed by a signal: the number a shell gives it.
        (EndedHow::Exited, _, Some((0, signal))) if signal > 0 => Some(128 + signal),
        (EndedHow::Exited, _, Some((code, _))) => Some(code),
        _ => None,
    };
    Observed::Ended { how, exit_code }
}

fn words(state: &str, reason: &str) -> String {
    match (state, reason) {
        // Slurm has not looked at it yet: there is no more to say.
        ("PENDING", "" | "None") => String::new(),
        (_, "" | "None") => bounded(state),
        (_, reason) => bounded(&format!("{state} {reason}")),
    }
}

/// Empty or `(null)` while pending, `None assigned` in sacct.
fn node_of(node: &str) -> Option<String> {
    let known = !matches!(node, "" | "(null)" | "None assigned" | "n/a");
    known.then(|| bounded(node).chars().take(NODE_LIMIT_BYTES).collect())
}

/// `[days-][[hours:]minutes:]seconds`; `UNLIMITED`, `NOT_SET` and `INVALID` are no number (squeue(1), `%L`).
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let mut total: u64 = 0;
    for part in clock.split(':') {
        total = total.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    days.parse::<u64>().ok()?.checked_mul(86400)?.checked_add(total)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(observations: &[Observation]) -> Vec<String> {
        let line = |o: &Observation| {
            format!("{} {} {:?} {:?} {:?} {:?}", o.name, o.id, o.state, o.reason, o.node, o.seconds_left)
        };
        observations.iter().map(line).collect()
    }

    /// The captures know no names of ours: one stands in for all.
    fn ours(capture: &str, name: &str) -> String {
        let rename = |line: &str| {
            let cut = line.rfind(&format!("|{name}")).unwrap_or(line.len());
            format!("{}|dcabcd-000100\n", &line[..cut])
        };
        capture.lines().map(rename).collect()
    }

    #[test]
    fn ids_of_sbatch() {
        assert_eq!(submitted_id(include_str!("../../../tests/fixtures/slurm/submit_parsable.out")), Some("39"));
        assert_eq!(submitted_id("Welcome 12\n41;bed\nbye\n"), Some("41"));
        assert_eq!(submitted_id("Submitted batch job 37\n"), None);
        assert_eq!(submitted_id(""), None);
        assert_eq!(submitted_id(&"9".repeat(40)), None);
    }

    #[test]
    fn starts_of_test_only() {
        let capture = include_str!("../../../tests/fixtures/slurm/submit_test_only.err");
        assert_eq!(expected_start(capture), Some(1_795_445_566_000));
        assert_eq!(expected_start("sbatch: Job 45 to start at soon"), None);
        assert_eq!(expected_start("allocation failure: Requested node configuration is not available"), None);
    }

    #[test]
    fn limits_of_arrays() {
        let config = include_str!("../../../tests/fixtures/slurm/scontrol_show_config.out");
        assert_eq!(array_limit(config), Some(1001));
        let lowered = "MaxArraySize = 1001\nSchedulerParameters = bf_interval=5,max_array_tasks=20\n";
        assert_eq!(array_limit(lowered), Some(20));
        assert_eq!(array_limit("MaxArraySize = 0"), Some(1));
        assert_eq!(array_limit("slurm_load_ctl_conf error"), None);
    }

    #[test]
    fn a_listing() {
        let text = "7_0|RUNNING|1-00:01:05|n01|None|dcabcd-000003\n\
            7_1|PENDING|1:00:00||ReqNodeNotAvail, UnavailableNodes:n05|dcabcd-000003\n\
            7_[2-3%5]|CANCELLED|1:00:00||a|b|dcabcd-000003\n\
            8|RUNNING|UNLIMITED|n[05-06]|None|dcabcd-000009\n\
            9|FAILED|0:00|n01|RaisedSignal:11(Segmentation fault)|dcabcd-000010\n\
            10|COMPLETED|0:00|n01|None|dcabcd-000011\n\
            11|WARP|0:00|n01|None|dcabcd-000012\n\
            12|RUNNING|0:00|n01|None|dcwxyz-000012\n\
            13|RUNNING|0:00|n01|None|odd|na,me\nCLUSTER: bed\n\n";
        insta::assert_snapshot!(show(&listing("abcd", text)).join("\n"), @r###"
        dcabcd-000003 7_0 Running "RUNNING" Some("n01") Some(86465)
        dcabcd-000004 7_1 Pending "PENDING ReqNodeNotAvail, UnavailableNodes:n05" None None
        dcabcd-000005 7_2 Ended { how: Cancelled, exit_code: None } "CANCELLED a|b" None None
        dcabcd-000006 7_3 Ended { how: Cancelled, exit_code: None } "CANCELLED a|b" None None
        dcabcd-000009 8 Running "RUNNING" Some("n[05-06]") None
        dcabcd-000010 9 Ended { how: Exited, exit_code: None } "FAILED RaisedSignal:11(Segmentation fault)" Some("n01") None
        dcabcd-000011 10 Ended { how: Exited, exit_code: Some(0) } "COMPLETED" Some("n01") None
        dcabcd-000012 11 Unknown("WARP") "WARP" Some("n01") None
        "###);
    }

    #[test]
    fn states_of_a_whole_capture() {
        let text = include_str!("../../../tests/fixtures/slurm/squeue_h_o.out");
        let mut seen: Vec<String> = text
            .lines()
            .map(|line| {
                let f: Vec<_> = line.split('|').collect();
                format!("{} {} → {:?}", f[4], f[6], state_of(f[4], f[6], None))
            })
            .collect();
        seen.sort();
        seen.dedup();
        insta::assert_snapshot!(seen.join("\n"), @r###"
        CANCELLED JobHeldUser → Ended { how: Cancelled, exit_code: None }
        CANCELLED None → Ended { how: Cancelled, exit_code: None }
        CANCELLED PartitionConfig → Ended { how: Cancelled, exit_code: None }
        CANCELLED PartitionNodeLimit → Ended { how: Cancelled, exit_code: None }
        CANCELLED PartitionTimeLimit → Ended { how: Cancelled, exit_code: None }
        CANCELLED Resources → Ended { how: Cancelled, exit_code: None }
        COMPLETED None → Ended { how: Exited, exit_code: Some(0) }
        DEADLINE DeadLine → Ended { how: Walltime, exit_code: None }
        FAILED BadConstraints → Ended { how: LaunchFailed, exit_code: None }
        FAILED JobLaunchFailure → Ended { how: LaunchFailed, exit_code: None }
        FAILED NonZeroExitCode → Ended { how: Exited, exit_code: None }
        PENDING BeginTime → Pending
        PENDING Dependency → Pending
        PENDING JobArrayTaskLimit → Pending
        PENDING JobHeldUser → Pending
        RUNNING None → Running
        "###);
    }

    #[test]
    fn other_states() {
        use EndedHow::*;
        for (capture, how) in [
            (include_str!("../../../tests/fixtures/slurm/cgroup_oom_squeue.out"), OutOfMemory),
            (include_str!("../../../tests/fixtures/slurm/nodefail_squeue.out"), NodeFailed),
        ] {
            let state = capture.split('|').nth(1).unwrap();
            assert_eq!(state_of(state, "", None), Observed::Ended { how, exit_code: None });
        }
        assert_eq!(state_of("TIMEOUT", "", None), Observed::Ended { how: Walltime, exit_code: None });
        assert_eq!(state_of("PREEMPTED", "", None), Observed::Ended { how: Preempted, exit_code: None });
        for capture in [
            include_str!("../../../tests/fixtures/slurm/suspend_state.out"),
            include_str!("../../../tests/fixtures/slurm/squeue_completing.out"),
        ] {
            assert_eq!(state_of(capture.split('|').nth(1).unwrap(), "", None), Observed::Running);
        }
    }

    #[test]
    fn an_accounting() {
        let capture = include_str!("../../../tests/fixtures/slurm/sacct_P2.out");
        // The capture has JobIDRaw and Elapsed too.
        let text: String = capture
            .lines()
            .map(|line| {
                let f: Vec<_> = line.splitn(6, '|').collect();
                format!("{}|{}|{}|n01|dcabcd-000100\n", f[0], f[2], f[3])
            })
            .collect();
        let more = "6_[0-2]|CANCELLED by 0|0:0|None assigned|dcabcd-000020\n\
            1|CANCELLED by 0|0:0|None assigned|allocation\n952|OUT_OF_MEMORY|0:125|n01|dcabcd-000021\n";
        insta::assert_snapshot!(show(&accounting("abcd", &(text + more))).join("\n"), @r###"
        dcabcd-000100 928 Ended { how: Exited, exit_code: Some(0) } "COMPLETED" Some("n01") None
        dcabcd-000100 929 Ended { how: Exited, exit_code: Some(7) } "FAILED, exit code 7:0" Some("n01") None
        dcabcd-000100 930 Ended { how: Exited, exit_code: Some(139) } "FAILED, exit code 0:11" Some("n01") None
        dcabcd-000100 931 Running "RUNNING" Some("n01") None
        dcabcd-000100 933 Ended { how: Cancelled, exit_code: None } "CANCELLED by 1001" Some("n01") None
        dcabcd-000100 934 Running "RUNNING" Some("n01") None
        dcabcd-000100 935 Ended { how: LaunchFailed, exit_code: None } "FAILED, exit code 0:53" Some("n01") None
        dcabcd-000100 936 Ended { how: Exited, exit_code: Some(0) } "COMPLETED" Some("n01") None
        dcabcd-000100 937 Ended { how: Exited, exit_code: Some(2) } "FAILED, exit code 2:0" Some("n01") None
        dcabcd-000101 932_1 Ended { how: Exited, exit_code: Some(1) } "FAILED, exit code 1:0" Some("n01") None
        dcabcd-000102 932_2 Ended { how: Exited, exit_code: Some(2) } "FAILED, exit code 2:0" Some("n01") None
        dcabcd-000103 932_3 Ended { how: Exited, exit_code: Some(0) } "COMPLETED" Some("n01") None
        dcabcd-000104 932_4 Ended { how: Exited, exit_code: Some(1) } "FAILED, exit code 1:0" Some("n01") None
        dcabcd-000105 932_5 Ended { how: Exited, exit_code: Some(2) } "FAILED, exit code 2:0" Some("n01") None
        dcabcd-000106 932_6 Ended { how: Exited, exit_code: Some(0) } "COMPLETED" Some("n01") None
        dcabcd-000020 6_0 Ended { how: Cancelled, exit_code: None } "CANCELLED by 0" None None
        dcabcd-000021 6_1 Ended { how: Cancelled, exit_code: None } "CANCELLED by 0" None None
        dcabcd-000022 6_2 Ended { how: Cancelled, exit_code: None } "CANCELLED by 0" None None
        dcabcd-000021 952 Ended { how: OutOfMemory, exit_code: None } "OUT_OF_MEMORY, exit code 0:125" Some("n01") None
        "###);
    }

    #[test]
    fn cut_and_long_lists() {
        let cut = ours(include_str!("../../../tests/fixtures/slurm/squeue_array_long_list.out"), "x");
        let id = cut.split('|').next().unwrap();
        assert_eq!(elements(id.split_once('_').unwrap().1).len(), 10);
        let whole = include_str!("../../../tests/fixtures/slurm/squeue_array_long_list_bitstr0.out");
        assert!(elements(whole.split_once('_').unwrap().1.split('|').next().unwrap()).len() > 80);
        assert_eq!(elements("[7-29,34-40%5]").len(), 30);
        assert_eq!(elements("[1-9:4]"), [1, 5, 9]);
        assert_eq!(elements("[0-4294967295]").len(), ELEMENTS_LIMIT);
        assert_eq!(elements("x"), [] as [u32; 0]);
    }

    #[test]
    fn times() {
        assert_eq!(seconds("1-02:03:04"), Some(93784));
        assert_eq!(seconds("5:00"), Some(300));
        for text in ["UNLIMITED", "NOT_SET", "INVALID", "", "N/A", "-1:00", "99999999999999999999:0"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            listing("abcd", &text);
            accounting("abcd", &text);
            listing("abcd", &format!("{text}|dcabcd-000001"));
            submitted_id(&text);
            array_limit(&text);
        }
    }
}
