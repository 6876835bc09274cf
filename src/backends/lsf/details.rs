//! Parses what `bjobs -l` and `bhist -l` say of ends. Pure. Lines are folded at 80 columns by a line end and 21
//! blanks, also within words (captures bjobs_l_runlimit, bhist).

use super::parse::{ended, is_id, node_of};
use crate::backends::batch::{bounded, element};
use crate::backends::{EndedHow, Observation, Observed};
use crate::runtime::ids::NativeId;

/// What a folded line goes on with.
const FOLD: &str = "                     ";

/// Returns the ends of jobs of the cluster `id4`; jobs that have not ended are absent. One that has, and is or will be
/// back in the queue, is [`Observed::Unknown`].
pub(crate) fn ends(id4: &str, stdout: &str) -> Vec<Observation> {
    let mut lines: Vec<String> = Vec::new();
    for line in stdout.lines() {
        match (line.strip_prefix(FOLD), lines.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ => lines.push(line.to_owned()),
        }
    }
    let starts: Vec<usize> = (0..lines.len()).filter(|at| id_of(&lines[*at]).is_some()).collect();
    let blocks = starts.iter().enumerate().map(|(n, start)| {
        let end = starts.get(n + 1).copied().unwrap_or(lines.len());
        &lines[*start..end]
    });
    blocks.filter_map(|block| end(id4, block)).collect()
}

/// The end that one job's lines tell; a job that ran twice has two, and the last counts. OpenLava says `Exited` of one
/// that `brequeue` killed, and puts it back into the queue some time after.
fn end(id4: &str, lines: &[String]) -> Option<Observation> {
    let (head, events) = lines.split_first()?;
    let id = id_of(head)?;
    let (job, index) = match id.split_once('[') {
        Some((job, index)) => (job, index.strip_suffix(']')?.parse::<u32>().ok()?),
        None => (id, 0),
    };
    let base = between(head, "Job Name <", ">")?.split('[').next()?;
    let (name, _) = element(id4, base, index.saturating_sub(1)).filter(|_| is_id(job))?;

    let mut facts = Facts::default();
    let mut state = None;
    for (at, line) in events.iter().enumerate() {
        let Some((time, text)) = event(line) else {
            // ` RUNLIMIT` and below it ` 1.0 min of vm`.
            if line.trim_start().starts_with("RUNLIMIT") {
                facts.limit = events.get(at + 1).and_then(|line| minutes(line));
            }
            continue;
        };
        if ["Dispatched ", "Started ", "Starting "].iter().any(|word| text.starts_with(word)) {
            // `Started on <vm>`, `Dispatched 4 Task(s) on Host(s) <4*n03>, …`, `Starting (Pid 12)`.
            let host = between(text, " <", ">").and_then(node_of);
            facts = Facts { node: host.or(facts.node), ran: true, started: time, ..facts };
        } else if text.to_ascii_lowercase().contains("requeued") {
            // `Requeued by user`, `Pending: Job has been requeued`, `Exited; job will be requeued and rerun`.
            state = Some((requeued(), facts.words(text)));
            facts = Facts { limit: facts.limit, ..Facts::default() };
        } else if text.starts_with("Signal <") && between(text, "<", ">").is_some_and(|word| word.contains("REQUEUE")) {
            facts.requeue = true;
        } else if text.starts_with("Signal <KILL> requested by") {
            facts = Facts { killed: Some(text.trim_end_matches(';').to_owned()), requeue: false, ..facts };
        } else if let Some(seen) = facts.outcome(time, text) {
            state = Some((seen, facts.words(text)));
        }
    }
    let (state, reason) = state?;
    Some(Observation {
        name,
        id: NativeId(id.to_owned()),
        state,
        reason: bounded(&reason),
        node: facts.node,
        seconds_left: None,
    })
}

/// `Job <106>, …`; OpenLava 4.0 says `Job Id <106>, …`.
fn id_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("Job Id <").or_else(|| line.strip_prefix("Job <"))?;
    Some(rest.split_once(">, ")?.0)
}

/// What was said before the end.
#[derive(Clone, Default)]
struct Facts {
    node: Option<String>,
    ran: bool,
    started: Option<u64>,
    /// Minutes it may run.
    limit: Option<u64>,
    killed: Option<String>,
    /// Somebody said `brequeue`.
    requeue: bool,
}

fn requeued() -> Observed {
    Observed::Unknown("EXIT, to run again".to_owned())
}

impl Facts {
    /// What people are told: LSF's words without the CPU time.
    fn words(&self, text: &str) -> String {
        let begin = text.split(". The CPU time").next().unwrap_or_default().trim_end_matches([';', '.']);
        let why = text.find("TERM_").filter(|at| *at > begin.len()).map(|at| text[at..].trim_end_matches([';', '.']));
        let parts = [Some(begin), why, self.killed.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    fn outcome(&self, time: Option<u64>, text: &str) -> Option<Observed> {
        let seen = match (text.starts_with("Done successfully"), text.strip_prefix("Exited")) {
            // OpenLava also says so of a script whose shell was killed (capture bhist).
            (true, _) => Observed::Ended { how: EndedHow::Exited, exit_code: None },
            (_, Some(rest)) => {
                let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
                let signal = || rest.strip_prefix(" by signal ").and_then(number).map(|signal: i32| 128 + signal);
                let code = rest.strip_prefix(" with exit code ").and_then(number).or_else(signal);
                ended(code, rest, self.ran)
            }
            _ => return None,
        };
        let times = self.started.zip(time).zip(self.limit);
        let over = times.is_some_and(|((from, to), limit)| (to + YEAR - from) % YEAR >= limit * 60);
        // OpenLava names no reason.
        let how = match seen {
            Observed::Ended { .. } if self.requeue => return Some(requeued()),
            Observed::Ended { how: EndedHow::Exited, .. } if self.killed.is_some() => EndedHow::Cancelled,
            Observed::Ended { how: EndedHow::Exited, .. } if over => EndedHow::Walltime,
            seen => return Some(seen),
        };
        Some(Observed::Ended { how, exit_code: None })
    }
}

/// Time and text of `Mon Nov 23 15:06:41: Exited with exit code 140.`
fn event(line: &str) -> Option<(Option<u64>, &str)> {
    let mut words = line.splitn(5, ' ').filter(|word| !word.is_empty());
    let day = words.next()?;
    matches!(day, "Mon" | "Tue" | "Wed" | "Thu" | "Fri" | "Sat" | "Sun").then_some(())?;
    let (stamp, text) = line.split_once(": ")?;
    Some((second_of_year(stamp), text.trim_start()))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Twelve months of 31 days: good for differences of times that carry no year.
const YEAR: u64 = 12 * 31 * 86400;

fn second_of_year(stamp: &str) -> Option<u64> {
    let words: Vec<&str> = stamp.split_whitespace().collect();
    let [_, month, day, clock, ..] = words[..] else { return None };
    let month = MONTHS.iter().position(|known| *known == month)?;
    let clock =
        clock.split(':').try_fold(0u64, |sum, part| Some(sum * 60 + part.parse::<u64>().ok().filter(|n| *n < 60)?))?;
    let day: u64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    Some((u64::try_from(month).ok()? * 31 + day - 1) * 86400 + clock)
}

/// ` 10.0 min of vm`
fn minutes(line: &str) -> Option<u64> {
    let (number, rest) = line.trim_start().split_once(' ')?;
    let whole = number.split('.').next()?;
    rest.trim_start().starts_with("min").then(|| whole.parse().ok())?
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> Vec<String> {
        let line = |o: &Observation| format!("{} {} {:?} {:?} {:?}", o.name, o.id, o.state, o.reason, o.node);
        ends("abcd", text).iter().map(line).collect()
    }

    #[test]
    fn folded_lines_and_ends() {
        let named = |text: &str| {
            // The captures' jobs with names of ours of the same length where a line is folded.
            text.replace("<plainW>", "<dcabcd-000001>")
                .replace("<x9>", "<dcabcd-000002>")
                .replace("<pendj>", "<dcabcd-000003>")
        };
        let over = show(&named(include_str!("../../../tests/fixtures/lsf/bjobs_l_runlimit.out")));
        assert_eq!(
            over,
            [r#"dcabcd-000001 141 Ended { how: Walltime, exit_code: None } "Exited with exit code 140" Some("vm")"#]
        );
        let bhist = show(&named(include_str!("../../../tests/fixtures/lsf/bhist.out")));
        assert_eq!(
            bhist,
            [r#"dcabcd-000002 129 Ended { how: Exited, exit_code: None } "Done successfully" Some("vm")"#]
        );
        let pending = show(&named(include_str!("../../../tests/fixtures/lsf/bjobs_l_killed_pending.out")));
        assert_eq!(pending, [r#"dcabcd-000003 113 Ended { how: Cancelled, exit_code: None } "Exited" None"#]);
        assert!(show(include_str!("../../../tests/fixtures/lsf/bjobs_l_running.out")).is_empty());
    }

    #[test]
    fn ibm_names_the_reason() {
        let job = "\nJob <7[2]>, Job Name <dcabcd-000005[1-3]>, User <me>, Project <default>, Status <EXIT>\n\
            Mon Nov 23 15:02:03: Submitted from host <vm>, CWD <$HOME>;\n\
            Mon Nov 23 15:02:06: Dispatched 1 Task(s) on Host(s) <n03>;\n\
            Mon Nov 23 15:02:06: Starting (Pid 12);\n";
        for (end, how) in [
            (
                "Exited with exit code 140. The CPU time used is 0.1 seconds; Completed <exit>; TERM_RUNLIMIT: job killed after reaching LSF run time limit;",
                "Walltime",
            ),
            ("Exited; TERM_MEMLIMIT: job killed after reaching LSF memory usage limit;", "OutOfMemory"),
            ("Exited by signal 15. Completed <exit>; TERM_OWNER: job killed by owner;", "Cancelled"),
            ("Exited by signal 9", "Exited, exit_code: Some(137)"),
        ] {
            let seen = show(&format!("{job}Mon Nov 23 15:12:06: {end}\n")).join("\n");
            assert!(seen.starts_with("dcabcd-000006 7[2] Ended") && seen.contains(how), "{seen}");
            assert!(!seen.contains("CPU") && seen.contains("TERM_") == end.contains("TERM_"), "{seen}");
        }
        assert!(show(job).is_empty());
        let killed = format!(
            "{job}Mon Nov 23 15:03:00: Signal <KILL> requested by user or administrator <me>;\nMon Nov 23 15:03:01: Exited with exit code 130. The CPU time used is 0.0 seconds;\n"
        );
        assert!(show(&killed)[0].contains("Cancelled"), "{killed}");
        // Requeued: what was before is no end.
        let again = format!("{killed}Mon Nov 23 15:03:02: Requeued by user or administrator <me>;\n");
        assert!(show(&again)[0].contains("Unknown(\"EXIT, to run again\")"), "{again}");
    }

    /// OpenLava's words (`bhist.c`, `mbd.log.c`).
    #[test]
    fn what_runs_again_has_not_ended() {
        let run = "\nJob <7>, Job Name <dcabcd-000005>, User <me>, Project <default>, Command <x>\n\
            Mon Nov 23 15:02:06: Dispatched to <vm>;\n";
        let signal = "Mon Nov 23 15:12:05: Signal <KILLREQUEUE> requested by user or administrator <me>;\n";
        let exit = "Mon Nov 23 15:12:06: Exited with exit code 130;\n";
        let pending = "Mon Nov 23 15:12:16: Pending: Job has been requeued;\n";
        let by_code = "Mon Nov 23 15:12:06: Pending: Requeued job is waiting for rescheduling;(exit code 99);\n";
        let rerun = "Mon Nov 23 15:12:06: Exited; job will be requeued and rerun;\n";
        for events in [
            format!("{signal}{exit}"),
            format!("{signal}{exit}{pending}"),
            format!("{exit}{pending}"),
            format!("{exit}{by_code}"),
            rerun.to_owned(),
        ] {
            let seen = show(&format!("{run}{events}"));
            assert!(seen[0].contains("Unknown(\"EXIT, to run again\")"), "{events}: {seen:?}");
        }
        // Somebody thwarts it, and its second run has an end of its own.
        let kill = "Mon Nov 23 15:12:05: Signal <KILL> requested by user or administrator <me>;\n";
        let killed = show(&format!("{run}{signal}{kill}{exit}"));
        assert!(killed[0].contains("Cancelled"), "{killed:?}");
        let start = "Mon Nov 23 15:12:20: Dispatched to <vm2>;\n";
        let twice = show(&format!("{run}{signal}{exit}{pending}{start}{exit}"));
        assert!(twice[0].contains("Ended { how: Exited, exit_code: Some(130) }"), "{twice:?}");
        assert!(twice[0].ends_with("Some(\"vm2\")"), "{twice:?}");
    }

    /// Several slots: an end without a code is of a job that ran.
    #[test]
    fn ibm_counts_tasks_and_slots() {
        let head = "\nJob <7>, Job Name <dcabcd-000005>, User <me>, Project <default>, Status <EXIT>\n";
        for (start, node) in [
            ("Dispatched 4 Task(s) on Host(s) <4*n03>, Allocated 4 Slot(s) on Host(s) <4*n03>;", "Some(\"n03\")"),
            ("Started 4 Task(s) on Host(s) <n03>;", "Some(\"n03\")"),
            ("Started on 2 Hosts/Processors <n03> <n03>;", "Some(\"n03\")"),
            ("Starting (Pid 12);", "None"),
        ] {
            let seen = show(&format!("{head}Mon Nov 23 15:02:06: {start}\nMon Nov 23 15:12:06: Exited;\n"));
            assert!(seen[0].contains("Ended { how: Exited, ") && seen[0].ends_with(node), "{start}: {seen:?}");
        }
    }

    /// As measured on OpenLava 4.0.
    #[test]
    fn openlava_4_says_job_id_and_who_killed() {
        let text = "\nJob Id <105[2]>, Job Name <dcabcd-000001[2]>, User <hpc>, Project <default>, Co\n\
            \x20                    mmand <#!/bin/bash;#BSUB -n 1>\n\
            Thu Nov 26 14:58:54: Submitted from host <vm> to Queue <night>;\n\
            Thu Nov 26 14:59:00: Dispatched to <vm>;\n\
            Thu Nov 26 14:59:00: Signal <KILL> requested by user or administrator <hpc>;\n\
            Thu Nov 26 14:59:00: Exited with exit code 130. The CPU time used is 0.0 second\n\
            \x20                    s;\n";
        let seen = show(text);
        let words = "Exited with exit code 130; Signal <KILL> requested by user or administrator <hpc>";
        assert!(seen[0].starts_with("dcabcd-000002 105[2] Ended { how: Cancelled"), "{seen:?}");
        assert!(seen[0].contains(words), "{seen:?}");
        let held = show(include_str!("../../../tests/fixtures/lsf/openlava4_bhist_l.out"));
        assert!(held[0].contains("Ended { how: Cancelled") && held[0].contains("requested by user"), "{held:?}");
    }

    #[test]
    fn differences_of_times_without_a_year() {
        let from = second_of_year("Thu Dec 31 23:59:30").unwrap();
        let to = second_of_year("Fri Jan 1 00:00:30").unwrap();
        assert_eq!((to + YEAR - from) % YEAR, 60);
        assert_eq!(second_of_year("Fri Jan 41 00:00:30"), None);
        assert_eq!(minutes(" 5.0 min of vm            4"), Some(5));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            ends("abcd", &text);
            ends("abcd", &format!("Job <1>, Job Name <dcabcd-000001>\nMon {text}\n RUNLIMIT\n{text}\nMon Jan 1 00:00:00: Exited{text}"));
        }
    }
}
