//! Parses what OAR's commands print. Pure. Measured on OAR 2.5.9 with PostgreSQL, read in its sources; with MySQL the
//! numbers in its JSON may be strings.

use crate::backends::batch::{bounded, element};
use crate::backends::{EndedHow, Observation, Observed};
use crate::runtime::ids::NativeId;
use serde_json::{Map, Value};

/// Most bytes of a host name kept.
const NODE_LIMIT_BYTES: usize = 255;
/// Events before the script ran: it never did.
const NOT_LAUNCHED: &[&str] = &[
    "WORKING_DIRECTORY",
    "OUTPUT_FILES",
    "USER_SHELL",
    "PROLOGUE_ERROR",
    "SERVER_PROLOGUE",
    "CPUSET_ERROR",
    "CPUSET_MANAGER_FILE",
    "PING_CHECKER_NODE_SUSPECTED",
    "CANNOT_WRITE",
    "CANNOT_CREATE_TMP_DIRECTORY",
    "LAUNCHING_OAREXEC_TIMEOUT",
    "SSH_TRANSFER_TIMEOUT",
    "BAD_HASHTABLE_DUMP",
    "EXIT_VALUE_OAREXEC",
    "BIPBIP_",
];

/// Returns the ids of the jobs that `oarsub` made, in order, out of all that admission rules say before them; a
/// refusal is `OAR_JOB_ID=-5`, or without a number.
pub fn submitted_ids(stdout: &str) -> Vec<NativeId> {
    let ids = stdout.lines().filter_map(|line| line.trim().strip_prefix("OAR_JOB_ID="));
    ids.filter(|id| is_id(id)).map(|id| NativeId(id.to_owned())).collect()
}

/// Whether this is the number of a job.
pub fn is_id(id: &str) -> bool {
    (1..=18).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0')
}

/// Returns the records of a `-J`, by their ids; `None` when that is no whole document. Where there is nothing to say
/// it says nothing at all (capture stat_unknown_J).
pub fn records(stdout: &str) -> Option<Map<String, Value>> {
    // Sites wrap commands in scripts that print banners; the document's own braces stand alone in their lines.
    let is = |line: &str, brace| line.trim_end() == brace;
    let mut lines = stdout.lines().skip_while(|line| !is(line, "{")).peekable();
    if lines.peek().is_none() {
        return stdout.trim().is_empty().then(Map::new);
    }
    let mut document = String::new();
    for line in lines {
        document.push_str(line);
        document.push('\n');
        if is(line, "}") {
            return serde_json::from_str(&document).ok();
        }
    }
    None
}

/// What `oarstat -J -f` says of one job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The job.
    pub job: Observation,
    /// OAR started it again by itself, under a new id and the old name.
    pub again: bool,
}

/// Returns what `oarstat -J -f` says of the jobs of the cluster `id4` at `now`, in seconds since 1970; `None` when it
/// is no whole document.
pub fn jobs(id4: &str, stdout: &str, now: i64) -> Option<Vec<Seen>> {
    let records = records(stdout)?;
    let mut seen: Vec<_> = records.iter().filter_map(|(id, record)| job(id4, id, record, now)).collect();
    seen.sort_by(|a, b| a.job.name.cmp(&b.job.name));
    Some(seen)
}

fn job(id4: &str, id: &str, record: &Value, now: i64) -> Option<Seen> {
    if !is_id(id) {
        return None;
    }
    // Elements begin at 1, and a single job is one of them.
    let index = u32::try_from(number(record, "array_index")?).ok()?.checked_sub(1)?;
    let (name, _) = element(id4, text(record, "name")?, index)?;
    let word = text(record, "state")?;
    let events: Vec<(&str, &str)> = record["events"].as_array().into_iter().flatten().filter_map(event).collect();
    let status = number(record, "exit_code");
    let state = match word {
        "Waiting" | "Hold" | "toLaunch" | "toAckReservation" => Observed::Pending,
        "Launching" | "Running" | "Resuming" | "Suspended" | "Finishing" | "toError" => Observed::Running,
        "Terminated" | "Error" => end_of(word, status, &events),
        _ => Observed::Unknown(bounded(word)),
    };
    let node = record["assigned_network_address"].as_array().and_then(|hosts| hosts.first()?.as_str());
    let running = state == Observed::Running && word == "Running";
    let left = || {
        let limit = number(record, "walltime")?;
        let end = number(record, "startTime").filter(|start| *start > 0)?.saturating_add(limit);
        // Its clock may be ahead of ours: there is never more left than the limit.
        u64::try_from(end.saturating_sub(now).clamp(0, limit.max(0))).ok()
    };
    let job = Observation {
        name,
        id: NativeId(id.to_owned()),
        reason: bounded(&reason(word, status, &events, text(record, "message").unwrap_or_default())),
        node: node.map(|node| bounded(node).chars().take(NODE_LIMIT_BYTES).collect()),
        seconds_left: if running { left() } else { None },
        state,
    };
    Some(Seen { job, again: number(record, "resubmit_job_id").is_some_and(|first| first > 0) })
}

/// How a job ended. `status` is the raw wait status of its script; a job that was killed has none.
fn end_of(word: &str, status: Option<i64>, events: &[(&str, &str)]) -> Observed {
    let has = |name: &str| events.iter().any(|(kind, _)| *kind == name);
    let how = match status.and_then(|status| u32::try_from(status).ok()) {
        // The end of its time is asked for as root's `oardel`, so it comes first.
        _ if has("WALLTIME") => EndedHow::Walltime,
        _ if has("BESTEFFORT_KILL") => EndedHow::Preempted,
        Some(status) => {
            let code = if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) };
            // 126 and 127 are the shell's, which did not find or might not run the script; but a script of ours may
            // end by them, too.
            return Observed::Ended { how: EndedHow::Exited, exit_code: i32::try_from(code).ok() };
        }
        // Killed though nobody was there to do it: its node does not answer.
        None if has("EXTERMINATE_JOB") => EndedHow::NodeFailed,
        None if has("FRAG_JOB_REQUEST") => EndedHow::Cancelled,
        None if launch_error(events).is_some() => EndedHow::LaunchFailed,
        None if word == "Error" => EndedHow::NodeFailed,
        None => EndedHow::Exited,
    };
    Observed::Ended { how, exit_code: None }
}

fn launch_error<'a>(events: &[(&str, &'a str)]) -> Option<&'a str> {
    let known = |kind: &str| NOT_LAUNCHED.iter().any(|begin| kind.starts_with(begin));
    events.iter().find(|(kind, _)| known(kind)).map(|(_, words)| *words)
}

/// OAR's own words for a state. Its message mostly repeats the request: `R=4,W=0:10:0,J=B,N=NAME (Karma=0.0,quota_ok)`.
fn reason(word: &str, status: Option<i64>, events: &[(&str, &str)], message: &str) -> String {
    let message = match message.strip_prefix("R=").and_then(|rest| rest.split_once(' ')) {
        Some((_, rest)) => rest,
        None if message.starts_with("R=") => "",
        None => message,
    };
    let last = |kinds: &[&str]| events.iter().rev().find(|(kind, _)| kinds.contains(kind)).map(|(_, words)| *words);
    match word {
        "Running" => String::new(),
        "Terminated" | "Error" => {
            let said = last(&["WALLTIME", "BESTEFFORT_KILL", "EXTERMINATE_JOB"]);
            let said = said.or_else(|| launch_error(events)).or_else(|| last(&["FRAG_JOB_REQUEST"]));
            match (said, status) {
                (Some(words), _) => format!("{word}: {words}"),
                (None, Some(status)) => format!("{word}, wait status {status}"),
                (None, None) => word.to_owned(),
            }
        }
        _ if message.is_empty() => word.to_owned(),
        _ => format!("{word} {message}"),
    }
}

fn event(event: &Value) -> Option<(&str, &str)> {
    Some((event["type"].as_str()?, event["description"].as_str().unwrap_or_default().trim()))
}

/// A word of a record.
pub fn text<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    record.get(name)?.as_str()
}

/// A number of a record, also where it is written as a string.
pub fn number(record: &Value, name: &str) -> Option<i64> {
    let value = record.get(name)?;
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Returns the lines of an `oardel` that say more than that a job is, will be, or was gone. Of a job that there is not
/// it says that it is somebody else's; whether one of ours lives on the next listing shows.
pub fn not_deleted(stderr: &str) -> Vec<&str> {
    let fine = ["was already killed", "not the right user"];
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !fine.iter().any(|text| line.contains(text))).collect()
}

/// Returns a condition on OAR's table of jobs: those of a cluster and a user. `%` is the only wildcard in it.
pub fn of_cluster(id4: &str, user: Option<&str>) -> String {
    let letters: String = id4.chars().filter(char::is_ascii_alphanumeric).collect();
    let user = user.filter(|user| user.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
    let owner = user.map(|user| format!(" AND job_user = '{user}'")).unwrap_or_default();
    format!("job_name LIKE 'dc{letters}-%'{owner}")
}

#[cfg(test)]
mod tests;
