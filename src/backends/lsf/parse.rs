//! Parses what `bsub` and `bjobs` print. Pure. Texts of OpenLava 2.2 are measured (`tests/fixtures/lsf`), those
//! of IBM LSF 10.1 are quoted from public material (`tests/fixtures/lsf/ibm.md`).

use crate::backends::batch::{bounded, element};
use crate::backends::{EndedHow, Observation, Observed};
use crate::runtime::ids::{JobName, NativeId};
use std::collections::BTreeMap;

/// How `bjobs` is asked, the best first: what a site's does not know it refuses with its usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `-json -o`, IBM LSF 10.1.0.2 and later.
    Json,
    /// `-noheader -o`, IBM LSF 9.1 and later.
    Columns,
    /// `-w`, everywhere.
    Wide,
}

impl Format {
    /// Returns what to ask with when this is refused.
    pub fn simpler(self) -> Option<Self> {
        match self {
            Self::Json => Some(Self::Columns),
            Self::Columns => Some(Self::Wide),
            Self::Wide => None,
        }
    }
    /// Returns the options of `bjobs`.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::Json => &[
                "-json",
                "-o",
                "jobid jobindex stat exec_host exit_code exit_reason pend_reason runtimelimit run_time job_name",
            ],
            Self::Columns => {
                &["-noheader", "-o", "jobid jobindex stat exec_host exit_code exit_reason job_name delimiter='^'"]
            }
            Self::Wide => &["-w"],
        }
    }
}

/// Most bytes of a host name kept.
const NODE_LIMIT_BYTES: usize = 255;

/// Returns the id of `Job <101> is submitted to queue <normal>.` (`to default queue` without `-q`, capture
/// bsub_no_o): the last such line, for an esub or a site's wrapper prints what it likes around it. 0 is no id:
/// `bkill 0` means all jobs.
pub fn submitted_id(stdout: &str) -> Option<&str> {
    let ids = stdout.lines().rev().filter_map(|line| {
        let (id, rest) = line.trim().strip_prefix("Job <")?.split_once('>')?;
        let submitted =
            rest.starts_with(" is submitted to queue") || rest.starts_with(" is submitted to default queue");
        (submitted && is_id(id)).then_some(id)
    });
    ids.into_iter().next()
}

/// Returns whether this is the number of a job: digits, and not 0.
pub fn is_id(text: &str) -> bool {
    let digits = !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    digits && text.bytes().any(|b| b != b'0')
}

/// Returns the id of element `index` (from 1) of a job, or of the job itself for 0, which is what LSF says of a
/// job that is no array.
pub fn native_id(job: &str, index: u32) -> NativeId {
    NativeId(match index {
        0 => job.to_owned(),
        index => format!("{job}[{index}]"),
    })
}

/// What a line says of one of our jobs.
struct Seen<'a> {
    job: &'a str,
    index: u32,
    name: &'a str,
    stat: &'a str,
    hosts: &'a str,
    exit_code: Option<i32>,
    exit_reason: &'a str,
    pend_reason: &'a str,
    seconds_left: Option<u64>,
    /// Whether DONE proves that the script ended with 0: OpenLava also says it when the script's shell was
    /// killed (capture bhist of `kill -9 $$`).
    done_is_zero: bool,
}

impl Seen<'_> {
    /// `None` for what is no job of the cluster `id4`.
    fn observation(&self, id4: &str) -> Option<Observation> {
        if !is_id(self.job) {
            return None;
        }
        let base = self.name.split('[').next().unwrap_or_default();
        let (name, _) = element(id4, base, self.index.saturating_sub(1))?;
        let node = node_of(self.hosts);
        let state = state_of(self, node.is_some());
        let reason = match &state {
            Observed::Pending => pending_words(self.stat, self.pend_reason),
            _ => bounded(format!("{} {}", self.stat, self.exit_reason).trim()),
        };
        let seconds_left = self.seconds_left.filter(|_| state == Observed::Running);
        Some(Observation { name, id: native_id(self.job, self.index), state, reason, node, seconds_left })
    }
}

/// The state's word stands in front when it is not the usual one.
fn pending_words(stat: &str, reason: &str) -> String {
    let reason = why(reason);
    match stat {
        "PEND" => reason,
        stat => bounded(format!("{stat} {reason}").trim()),
    }
}

/// ` New job is waiting for scheduling: 1 host;` without the count and the end; several reasons stand one
/// behind the other.
fn why(reason: &str) -> String {
    let each = reason.split(';').map(|one| {
        let one = one.trim();
        let count = one.rsplit_once(": ").filter(|(_, hosts)| {
            let (number, word) = hosts.split_once(' ').unwrap_or_default();
            number.parse::<u32>().is_ok() && matches!(word, "host" | "hosts")
        });
        count.map_or(one, |(reason, _)| reason)
    });
    bounded(&each.filter(|one| !one.is_empty()).collect::<Vec<_>>().join("; "))
}

/// States of bjobs(1), OpenLava 2.2 and IBM 10.1. `UNKWN` is a job whose host is silent, `ZOMBI` one that was
/// killed there meanwhile: neither has ended.
fn state_of(seen: &Seen<'_>, ran: bool) -> Observed {
    match seen.stat {
        "PEND" | "PSUSP" | "WAIT" | "PROV" => Observed::Pending,
        "RUN" | "USUSP" | "SSUSP" => Observed::Running,
        "DONE" => Observed::Ended { how: EndedHow::Exited, exit_code: seen.done_is_zero.then_some(0) },
        "EXIT" => ended(seen.exit_code, seen.exit_reason, ran),
        // The job has ended, what the site does after it goes on or is over.
        "PDONE" | "PERR" => Observed::Ended { how: EndedHow::Exited, exit_code: None },
        other => Observed::Unknown(bounded(other)),
    }
}

/// An end by its exit code and IBM's reason (`TERM_RUNLIMIT: job killed after reaching LSF run time limit`,
/// bhist(1), "Exit reasons"). A job without a host never ran: somebody killed it.
pub(super) fn ended(exit_code: Option<i32>, reason: &str, ran: bool) -> Observed {
    let word = reason.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).find(|word| word.starts_with("TERM_"));
    let how = match word.unwrap_or_default() {
        "TERM_RUNLIMIT" | "TERM_DEADLINE" | "TERM_RC_TTL" => EndedHow::Walltime,
        "TERM_MEMLIMIT" | "TERM_SWAP" => EndedHow::OutOfMemory,
        "TERM_OWNER" | "TERM_ADMIN" | "TERM_FORCE_OWNER" | "TERM_FORCE_ADMIN" | "TERM_BUCKET_KILL"
        | "TERM_ORPHAN_SYSTEM" => EndedHow::Cancelled,
        "TERM_PREEMPT" | "TERM_PREEMPTED" | "TERM_LOAD" | "TERM_WINDOW" | "TERM_RC_RECLAIM" => EndedHow::Preempted,
        "TERM_ZOMBIE" | "TERM_REMOVE_HUNG_JOB" => EndedHow::NodeFailed,
        "TERM_PRE_EXEC_FAIL" | "TERM_CWD_NOTEXIST" => EndedHow::LaunchFailed,
        _ if !ran && exit_code.is_none() => EndedHow::Cancelled,
        _ => EndedHow::Exited,
    };
    Observed::Ended { how, exit_code: exit_code.filter(|_| how == EndedHow::Exited) }
}

/// `vm:vm`, `2*hostA:hostB`; `-` or nothing while pending: where the script itself runs.
pub(super) fn node_of(hosts: &str) -> Option<String> {
    let first = hosts.split(':').next().unwrap_or_default();
    let host = first.split_once('*').filter(|(n, _)| n.parse::<u32>().is_ok()).map_or(first, |(_, host)| host);
    (!matches!(host, "" | "-")).then(|| bounded(host).chars().take(NODE_LIMIT_BYTES).collect())
}

/// What a listing is, before its jobs are looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listing {
    /// These jobs of the cluster.
    Jobs(Vec<Observation>),
    /// Neither a table nor a document: no answer at all, whatever the exit code.
    Nothing,
}

/// Returns what `bjobs` in this format says of the jobs of the cluster `id4`.
pub fn listing(id4: &str, format: Format, stdout: &str) -> Listing {
    match format {
        Format::Json => json(id4, stdout),
        Format::Columns => columns(id4, stdout),
        Format::Wide => wide(id4, stdout),
    }
}

/// Words such as `LSF is down. Please wait ...` may precede the document (`ibm_samples.md`): it begins at the
/// first brace.
fn json(id4: &str, stdout: &str) -> Listing {
    let document = stdout.find('{').zip(stdout.rfind('}')).and_then(|(first, last)| stdout.get(first..=last));
    let document = document.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let Some(records) = document.as_ref().and_then(|d| d["RECORDS"].as_array()) else { return Listing::Nothing };
    let jobs = records.iter().filter_map(|record| {
        let text = |key: &str| record[key].as_str().unwrap_or_default();
        // An unknown id is a record with ERROR and without STAT.
        let seen = Seen {
            job: text("JOBID"),
            index: index_of(text("JOBINDEX"), text("JOB_NAME")),
            name: text("JOB_NAME"),
            stat: Some(text("STAT")).filter(|stat| !stat.is_empty())?,
            hosts: text("EXEC_HOST"),
            exit_code: text("EXIT_CODE").parse().ok(),
            exit_reason: text("EXIT_REASON"),
            pend_reason: text("PEND_REASON"),
            seconds_left: seconds_left(text("RUNTIMELIMIT"), text("RUN_TIME")),
            done_is_zero: true,
        };
        seen.observation(id4)
    });
    Listing::Jobs(jobs.collect())
}

/// The name comes last: it may hold anything.
fn columns(id4: &str, stdout: &str) -> Listing {
    let mut any = false;
    let mut jobs = Vec::new();
    for line in stdout.lines() {
        let fields: Vec<&str> = line.trim().splitn(7, '^').collect();
        let [job, index, stat, hosts, exit_code, exit_reason, name] = fields[..] else { continue };
        any = true;
        let seen = Seen {
            job,
            index: index_of(index, name),
            name,
            stat,
            hosts,
            exit_code: exit_code.parse().ok(),
            exit_reason: if exit_reason == "-" { "" } else { exit_reason },
            pend_reason: "",
            seconds_left: None,
            done_is_zero: true,
        };
        jobs.extend(seen.observation(id4));
    }
    if any { Listing::Jobs(jobs) } else { Listing::Nothing }
}

/// `JOBID USER STAT QUEUE FROM_HOST EXEC_HOST JOB_NAME SUBMIT_TIME`. Names of others may have blanks, the host is
/// missing in the narrow view, so our name is found by its own form. All elements have the bare id (capture
/// bjobs_array_w): the index is in the name.
fn wide(id4: &str, stdout: &str) -> Listing {
    let mut lines = stdout.lines().skip_while(|line| !is_header(line));
    if lines.next().is_none() {
        return Listing::Nothing;
    }
    let jobs = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words.iter().skip(4).rposition(|word| is_ours(id4, word))? + 4;
        let seen = Seen {
            job: words[0],
            index: index_of("", words[name]),
            name: words[name],
            stat: words[2],
            hosts: if name > 5 { words[5] } else { "" },
            exit_code: None,
            exit_reason: "",
            pend_reason: "",
            seconds_left: None,
            done_is_zero: false,
        };
        seen.observation(id4)
    });
    Listing::Jobs(jobs.collect())
}

fn is_header(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("JOBID") && words.any(|word| word == "STAT")
}

fn is_ours(id4: &str, name: &str) -> bool {
    JobName::parse(id4, name.split('[').next().unwrap_or_default()).is_some()
}

/// `jobindex`, or the `[3]` of the name; 0 for a job that is no array.
fn index_of(index: &str, name: &str) -> u32 {
    let in_name = || name.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok();
    index.parse().ok().filter(|index| *index > 0).or_else(in_name).unwrap_or(0)
}

/// `1440.0` or `60.0/hostA` minutes or `00:10:00` of limit, `16038 second(s)` or `00:00:01` of running time
/// (`ibm_samples.md`).
fn seconds_left(limit: &str, run: &str) -> Option<u64> {
    let clock = |text: &str| {
        let parts: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
        match parts?[..] {
            [hours, minutes, seconds] => Some(hours.checked_mul(3600)? + minutes.checked_mul(60)? + seconds),
            _ => None,
        }
    };
    let minutes = || {
        let number = limit.split(['.', '/', ' ']).next()?;
        number.parse::<u64>().ok()?.checked_mul(60)
    };
    let limit = clock(limit).or_else(minutes)?;
    let run = clock(run).or_else(|| run.strip_suffix(" second(s)")?.trim().parse().ok())?;
    Some(limit.saturating_sub(run))
}

/// Returns why jobs wait, by their ids, from `bjobs -p`: under each job's line its reasons, each on a line of its
/// own that begins with a blank. Long names are cut at their beginning, so the index of an element stays.
pub fn pending_reasons(stdout: &str) -> BTreeMap<NativeId, String> {
    let mut reasons: BTreeMap<NativeId, String> = BTreeMap::new();
    let mut current = None;
    for line in stdout.lines().skip_while(|line| !is_header(line)).skip(1) {
        if !line.starts_with(' ') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let index = words.iter().rev().map(|word| index_of("", word)).find(|index| *index > 0);
            current = words.first().filter(|id| is_id(id)).map(|id| native_id(id, index.unwrap_or(0)));
        } else if let Some(id) = &current {
            let text = reasons.entry(id.clone()).or_default();
            text.push_str(line.trim());
            text.push(';');
        }
    }
    reasons.values_mut().for_each(|text| *text = why(text));
    reasons
}

/// Adds reasons to those jobs that wait.
pub fn add_reasons(jobs: &mut [Observation], reasons: &BTreeMap<NativeId, String>) {
    for job in jobs.iter_mut().filter(|job| job.state == Observed::Pending) {
        if let Some(reason) = reasons.get(&job.id) {
            job.reason = bounded(format!("{} {reason}", job.reason).trim());
        }
    }
}

#[cfg(test)]
mod tests;
