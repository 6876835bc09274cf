//! Parses what HTCondor's commands print. Pure. Checked on HTCondor 23.9.6 (`design/backends/slurm_sge_oar_condor.md`
//! section 4, captures in `tests/fixtures/condor/`).

use crate::backends::batch::{bounded, element};
use crate::backends::{EndedHow, Observation, Observed};
use crate::runtime::ids::NativeId;
use serde_json::Value;
use std::collections::BTreeMap;

/// What is asked of every job.
pub const ATTRIBUTES: &str = "ClusterId,ProcId,JobBatchName,JobStatus,NumJobStarts,HoldReasonCode,HoldReason,\
    LastHoldReasonCode,LastHoldReason,RemoveReason,VacateReason,LastRejMatchReason,RemoteHost,LastRemoteHost,ExitCode,\
    ExitBySignal,ExitSignal,AllowedJobDuration,JobCurrentStartDate,ServerTime";
/// Most bytes of a host name kept.
const NODE_LIMIT_BYTES: usize = 255;

/// Returns the cluster id by what `condor_submit -terse` printed: `5.0 - 5.4`. The last such line counts, for sites
/// wrap `condor_submit` in scripts that print banners or take `-terse` away. Warnings are on stderr.
pub fn submitted_cluster(stdout: &str) -> Option<&str> {
    let number = |text: &str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    stdout.lines().rev().find_map(|line| {
        let line = line.trim();
        if let Some((_, id)) = line.split_once("submitted to cluster ") {
            return Some(id.trim_end_matches('.')).filter(|id| number(id));
        }
        let (first, last) = line.split_once(" - ")?;
        let ((cluster, from), (again, to)) = (first.split_once('.')?, last.split_once('.')?);
        (cluster == again && [cluster, from, to].into_iter().all(number)).then_some(cluster)
    })
}

/// What the queue says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Of the jobs of our cluster.
    pub seen: Vec<Observation>,
    /// Those that have ended and stay in the queue until they are removed.
    pub stuck: Vec<NativeId>,
}

/// Returns what a `condor_q -json` says of the jobs of the cluster `id4`; `None` when it is no whole answer. Of no job
/// it says nothing at all, not even `[]` (capture q_json_unknown).
pub fn listing(id4: &str, stdout: &str) -> Option<Listing> {
    if stdout.trim().is_empty() {
        return Some(Listing::default());
    }
    let mut listing = Listing::default();
    for ad in ads(stdout)? {
        let Some(observation) = ad.observe(id4, true) else { continue };
        if matches!(observation.state, Observed::Ended { .. }) && ad.number("JobStatus") != Some(COMPLETED) {
            listing.stuck.push(observation.id.clone());
        }
        listing.seen.push(observation);
    }
    Some(listing)
}

/// Returns what a `condor_history -json` says of the jobs of the cluster `id4`; `None` when it is no whole answer.
pub fn history(id4: &str, stdout: &str) -> Option<Vec<Observation>> {
    Some(ads(stdout)?.iter().filter_map(|ad| ad.observe(id4, false)).collect())
}

/// Between the banners of wrappers.
fn ads(stdout: &str) -> Option<Vec<Ad>> {
    let lines: Vec<_> = stdout.lines().collect();
    let first = lines.iter().position(|line| line.trim_end() == "[")?;
    let last = lines.iter().rposition(|line| line.trim_end() == "]")?;
    let ads: Vec<Value> = serde_json::from_str(&lines.get(first..=last)?.join("\n")).ok()?;
    Some(ads.into_iter().map(Ad).collect())
}

/// A job's ClassAd. An attribute that is no plain value is the text of its expression.
struct Ad(Value);

// JobStatus (`proc.h`): 1 idle, 2 running, 3 removed, 4 completed, 5 held, 6 transferring output, 7 suspended.
const IDLE: i64 = 1;
const REMOVED: i64 = 3;
const COMPLETED: i64 = 4;
const HELD: i64 = 5;

impl Ad {
    fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }
    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).map_or("", str::trim)
    }
    fn has_started(&self) -> bool {
        self.number("NumJobStarts").is_some_and(|starts| starts > 0)
    }

    /// In the queue, or in the history.
    fn observe(&self, id4: &str, queued: bool) -> Option<Observation> {
        let (cluster, process) = (self.number("ClusterId")?, self.number("ProcId")?);
        let (name, _) = element(id4, self.text("JobBatchName"), u32::try_from(process).ok()?)?;
        let status = self.number("JobStatus")?;
        let (state, reason) = match status {
            IDLE if queued && self.has_started() => (self.evicted(), self.text("VacateReason").to_owned()),
            IDLE if queued => (Observed::Pending, self.text("LastRejMatchReason").to_owned()),
            2 | 6 if queued => (Observed::Running, String::new()),
            7 if queued => (Observed::Running, "suspended".to_owned()),
            REMOVED if queued && self.text("RemoteHost").is_empty() => (Observed::Pending, being_removed()),
            // Its processes may still be there.
            REMOVED if queued => (Observed::Running, being_removed()),
            REMOVED => self.removed(),
            COMPLETED => self.completed(),
            HELD if queued => self.held(),
            other => (Observed::Unknown(format!("JobStatus {other}")), String::new()),
        };
        let host = [self.text("RemoteHost"), self.text("LastRemoteHost")].into_iter().find_map(node_of);
        let running = state == Observed::Running;
        Some(Observation {
            name,
            id: NativeId(format!("{cluster}.{process}")),
            reason: bounded(&reason),
            seconds_left: if running { self.seconds_left() } else { None },
            node: if state == Observed::Pending { None } else { host },
            state,
        })
    }

    fn seconds_left(&self) -> Option<u64> {
        let limit = self.number("AllowedJobDuration")?;
        let began = self.number("JobCurrentStartDate")?;
        let ran = self.number("ServerTime")?.saturating_sub(began);
        u64::try_from(limit.saturating_sub(ran).clamp(0, limit.max(0))).ok()
    }

    fn completed(&self) -> (Observed, String) {
        let by_signal = self.0.get("ExitBySignal").and_then(Value::as_bool).unwrap_or(false);
        let code = match (by_signal, self.number("ExitSignal"), self.number("ExitCode")) {
            (true, Some(signal), _) => signal.checked_add(128),
            (true, None, _) => None,
            (false, _, code) => code,
        };
        let code = code.and_then(|code| i32::try_from(code).ok());
        let word = code.map_or_else(String::new, |code| format!("exit code {code}"));
        (Observed::Ended { how: EndedHow::Exited, exit_code: code }, word)
    }

    /// Somebody's hold on what has not started keeps it waiting; every other hold is the end of a job.
    fn held(&self) -> (Observed, String) {
        let (code, why) = (self.number("HoldReasonCode"), self.text("HoldReason"));
        let reason = format!("held: {why}");
        match is_of_people(code) && !self.has_started() {
            true => (Observed::Pending, reason),
            false => (ended(self.hold(code, why)), reason),
        }
    }

    fn hold(&self, code: Option<i64>, why: &str) -> EndedHow {
        match code {
            code if is_of_people(code) => EndedHow::Cancelled,
            // JobDurationExceeded, JobExecuteExceeded.
            Some(46 | 47) => EndedHow::Walltime,
            // JobOutOfResources: memory, or disk.
            Some(34) if !why.contains("disk") => EndedHow::OutOfMemory,
            // Policies of the job, of the machine, of the site.
            Some(3 | 21 | 26) if why.to_ascii_lowercase().contains("memory") => EndedHow::OutOfMemory,
            Some(3 | 21 | 26 | 34) if self.has_started() => EndedHow::Cancelled,
            _ => EndedHow::LaunchFailed,
        }
    }

    /// Left in the queue without a machine: its own was taken from it, or lost.
    fn evicted(&self) -> Observed {
        let why = self.text("VacateReason");
        let lost = ["disconnected", "lease", "reconnect"].iter().any(|word| why.contains(word));
        ended(if lost { EndedHow::NodeFailed } else { EndedHow::Preempted })
    }

    /// By us, by others, or by our own `periodic_remove`.
    fn removed(&self) -> (Observed, String) {
        let removed = self.text("RemoveReason");
        let held = (self.number("LastHoldReasonCode").or(self.number("HoldReasonCode")))
            .filter(|code| !is_of_people(Some(*code)));
        let why = [self.text("LastHoldReason"), self.text("HoldReason")].into_iter().find(|text| !text.is_empty());
        match held {
            Some(code) => {
                let why = why.unwrap_or(removed);
                (ended(self.hold(Some(code), why)), format!("held: {why}"))
            }
            None if removed.contains("PeriodicRemove") && self.has_started() => {
                (self.evicted(), self.text("VacateReason").to_owned())
            }
            None => (ended(EndedHow::Cancelled), removed.to_owned()),
        }
    }
}

fn being_removed() -> String {
    "being removed".to_owned()
}

/// UserRequest, SubmittedOnHold.
fn is_of_people(code: Option<i64>) -> bool {
    matches!(code, Some(1 | 15))
}

fn ended(how: EndedHow) -> Observed {
    Observed::Ended { how, exit_code: None }
}

/// The host of a slot, `slot1_3@n01.site.org`.
fn node_of(slot: &str) -> Option<String> {
    let host = slot.rsplit('@').next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (!host.is_empty() && host.len() <= NODE_LIMIT_BYTES && host.chars().all(plain)).then(|| host.to_owned())
}

/// Returns why jobs wait, by a `condor_q -better-analyze`: of each id the conditions that no machine fulfils, else what
/// the machines do.
pub fn analysis(stdout: &str) -> BTreeMap<NativeId, String> {
    let mut all = BTreeMap::new();
    let parts = stdout.split("The Requirements expression for job ").skip(1);
    for part in parts {
        // `16.000 reduces to these conditions:`, after `16.000 is`.
        let (Some((id, _)), Some((_, told))) = (part.split_once(' '), part.split_once("reduces to these conditions:"))
        else {
            continue;
        };
        let Some(id) = id.split_once('.').and_then(|(cluster, process)| {
            Some(NativeId(format!("{}.{}", cluster.parse::<u32>().ok()?, process.parse::<u32>().ok()?)))
        }) else {
            continue;
        };
        let mut conditions = Vec::new();
        let mut machines = Vec::new();
        for line in told.lines().map(str::trim) {
            if let Some((_, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let (count, condition) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
                // `[1] && [3]`, of earlier lines, says nothing by itself.
                if matches!(count, "0" | "never") && !condition.trim().is_empty() && !condition.trim().starts_with('[')
                {
                    conditions.push(condition.trim());
                }
            } else if let Some((count, rest)) = line.split_once(' ') {
                let says = SUMMARY.iter().any(|text| rest.starts_with(text));
                if says && count.parse().is_ok_and(|count: u64| count > 0) {
                    machines.push(line);
                }
            }
        }
        let words = match conditions.as_slice() {
            [] => machines.join("; "),
            conditions => format!("no machine fulfils {}", conditions.join(" && ")),
        };
        if !words.is_empty() {
            all.insert(id, bounded(&words));
        }
    }
    all
}

/// Lines of the summary, after a number of machines.
const SUMMARY: [&str; 5] = [
    "are rejected by your job's requirements",
    "reject your job because of their own requirements",
    "match and are already running your jobs",
    "match but are serving other users",
    "are able to run your job",
];

/// Returns the version by a `condor_version`: `$CondorVersion: 23.9.6 2026-07-12 …`.
pub fn version(stdout: &str) -> String {
    let version = stdout.lines().find_map(|line| line.strip_prefix("$CondorVersion: ")?.split(' ').next());
    version.map_or_else(String::new, |version| bounded(&format!("HTCondor {version}")))
}

/// Returns the lines of a failed `condor_rm` that say more than that a job is, or will be, gone. That it could not find
/// any it says too when it could not ask: then there is another line.
pub fn not_removed(text: &str) -> Vec<&str> {
    let fine = ["marked for removal", "not found", "Couldn't find/remove"];
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !fine.iter().any(|text| line.contains(text))).collect()
}

/// Returns the expression that is true of these jobs alone.
pub fn constraint<'a>(ids: impl Iterator<Item = &'a NativeId>) -> String {
    let mut clusters: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for id in ids {
        if let Some((cluster, process)) =
            id.0.split_once('.').and_then(|(c, p)| Some((c.parse().ok()?, p.parse().ok()?)))
        {
            clusters.entry(cluster).or_default().push(process);
        }
    }
    let of_cluster = |(cluster, mut processes): (u32, Vec<u32>)| {
        processes.sort_unstable();
        processes.dedup();
        let runs = processes.chunk_by(|a, b| a.checked_add(1) == Some(*b)).filter_map(|run| match run {
            [process] => Some(format!("ProcId == {process}")),
            [first, .., last] => Some(format!("(ProcId >= {first} && ProcId <= {last})")),
            [] => None,
        });
        format!("(ClusterId == {cluster} && ({}))", runs.collect::<Vec<_>>().join(" || "))
    };
    clusters.into_iter().map(of_cluster).collect::<Vec<_>>().join(" || ")
}

#[cfg(test)]
mod tests;
