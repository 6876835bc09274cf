//! Parses what Grid Engine's commands print. Pure. Checked on Son of Grid Engine 8.1.9
//! (`design/backends/slurm_sge_oar_condor.md` section 2, captures in `tests/fixtures/sge/`).

use crate::backends::batch::{bounded, element};
use crate::backends::{EndedHow, Observation, Observed};
use crate::runtime::ids::{JobName, NativeId};
use std::collections::BTreeMap;

/// Most elements of one list of tasks that are looked at (`max_aj_tasks` is 75,000 by default).
const TASKS_LIMIT: usize = 100_000;
/// Most bytes of a host name kept.
const NODE_LIMIT_BYTES: usize = 255;
/// Exit code of a script that was told to end (SIGUSR2), by which `templates/sge.sh.hbs` leaves.
const TOLD_TO_END: i32 = 140;

/// Returns the id of a job or array by what `qsub -terse` printed: `39`, for an array `12.1-9:1`. The last such
/// line counts, for sites wrap `qsub` in scripts that print banners or take `-terse` away.
pub fn submitted_id(stdout: &str) -> Option<&str> {
    let ids = stdout.lines().rev().filter_map(|line| {
        let line = line.trim();
        let said = line.strip_prefix("Your job-array ").or_else(|| line.strip_prefix("Your job "));
        let word = match said {
            Some(rest) => rest.split(' ').next()?,
            None => line,
        };
        let (id, tasks) = word.split_once('.').map_or((word, None), |(id, tasks)| (id, Some(tasks)));
        let tasks_fit = tasks.is_none_or(|tasks| tasks.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':')));
        (is_number(id) && id.len() <= 10 && tasks_fit).then_some(id)
    });
    ids.into_iter().next()
}

/// Returns what a `qstat -r -xml` in UTC says of the jobs of the cluster `id4` at `now`, in seconds since 1970; `None`
/// when it is no whole listing: while
/// the master is away some calls answer 0 with another document (capture down_qstat_j_xml).
///
/// The document is not read as XML, which it is not: a `<` in somebody's job name is written `%lt;`.
pub fn listing(id4: &str, stdout: &str, now: i64) -> Option<Vec<Observation>> {
    // An element of this name is in the one of this name.
    let closed = stdout.matches("<job_info").count() == stdout.matches("</job_info>").count();
    let (_, inside) = stdout.split_once("<job_info").filter(|_| closed)?;
    let (inside, _) = inside.rsplit_once("</job_info>")?;
    let mut seen = Vec::new();
    for block in inside.split("<job_list").skip(1) {
        let (block, _) = block.split_once("</job_list>")?;
        let after = |tag: &str, end: &str| Some(block.split_once(tag)?.1.split_once(end)?.0.trim());
        let field = |name: &str| after(&format!("<{name}>"), &format!("</{name}>"));
        let (Some(id), Some(name), Some(state)) = (field("JB_job_number"), field("JB_name"), field("state")) else {
            return None;
        };
        let node = field("queue_name").and_then(node_of);
        let observed = state_of(state);
        let left = || {
            // `<hard_request name="h_rt" resource_contribution="0.000000">100</hard_request>`
            let limit: i64 = after("<hard_request name=\"h_rt\"", "<")?.rsplit('>').next()?.parse().ok()?;
            let end = seconds_since_1970(field("JAT_start_time")?)?.saturating_add(limit);
            // Its clock may be ahead of ours: there is never more left than the limit.
            u64::try_from(end.saturating_sub(now).clamp(0, limit.max(0))).ok()
        };
        let seconds_left = if observed == Observed::Running { left() } else { None };
        seen.extend(spread(id4, id, name, field("tasks")).into_iter().map(|(name, id)| Observation {
            name,
            id,
            state: observed.clone(),
            reason: if state == "qw" { String::new() } else { bounded(state) },
            node: node.clone(),
            seconds_left,
        }));
    }
    Some(seen)
}

fn seconds_since_1970(utc: &str) -> Option<i64> {
    let time: jiff::civil::DateTime = utc.parse().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Returns whether a state is one of an error: the job stays in the queue and never starts.
pub fn is_error(reason: &str) -> bool {
    let word = reason.split(' ').next().unwrap_or_default();
    word.starts_with('E') && matches!(state_of(word), Observed::Pending)
}

/// The letters of a state: qstat(1), "OUTPUT FORMATS", Reduced Format.
fn state_of(letters: &str) -> Observed {
    let known = !letters.is_empty() && letters.chars().all(|c| "dEhrRsSTtwqN".contains(c));
    let waits = letters.contains(['w', 'q']);
    let runs = letters.contains(['r', 't', 's', 'S', 'T', 'N']);
    match known {
        true if waits => Observed::Pending,
        true if runs => Observed::Running,
        true if letters.contains(['E', 'h']) => Observed::Pending,
        _ => Observed::Unknown(bounded(letters)),
    }
}

/// Returns why jobs wait or failed to start, by a `qstat -j` of several ids: of each id the words of the
/// scheduler, and of its tasks in error the reason. Unknown ids are left out in silence (8.1.9).
pub fn details(stdout: &str) -> BTreeMap<String, Details> {
    let mut all: BTreeMap<String, Details> = BTreeMap::new();
    let (mut id, mut scheduling) = (String::new(), false);
    for line in stdout.lines() {
        let continued = line.starts_with(' ');
        if let Some(number) = line.strip_prefix("job_number:") {
            id = number.trim().to_owned();
        }
        let told = all.entry(id.clone()).or_default();
        if let Some(text) = line.strip_prefix("scheduling info:") {
            scheduling = true;
            told.says(text);
        } else if continued && scheduling {
            told.says(line);
        } else {
            scheduling = false;
            let reason = line.strip_prefix("error reason").and_then(|rest| rest.split_once(':'));
            if let Some((task, text)) = reason {
                told.errors.insert(task.trim().to_owned(), message(text).to_owned());
            }
        }
    }
    all.remove("");
    all
}

/// What `qstat -j` says of one job or array.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Details {
    /// Why the scheduler did not start it.
    pub scheduling: Vec<String>,
    /// Why tasks are in error, by their index; a job that is no array is task `1`.
    pub errors: BTreeMap<String, String>,
}

impl Details {
    fn says(&mut self, text: &str) {
        let text = text.trim();
        // Said of every queue that was not asked for, and where the site collects no reasons.
        let empty =
            text.is_empty() || text.contains("not contained in its hard queue list") || text.contains("turned off");
        if !empty && !self.scheduling.iter().any(|known| known == text) {
            self.scheduling.push(text.to_owned());
        }
    }
    /// Returns why the job `id` waits.
    pub fn of(&self, id: &NativeId) -> Option<String> {
        let task = id.0.split_once('.').map_or("1", |(_, task)| task);
        let words = self.errors.get(task).cloned().unwrap_or_else(|| self.scheduling.join("; "));
        (!words.is_empty()).then(|| bounded(&words))
    }
}

/// The message of `11/26/2026 14:17:27 [1001:22540]: error: can't chdir to …`.
fn message(text: &str) -> &str {
    let text = text.split_once("]: ").map_or(text, |(_, rest)| rest).trim();
    text.strip_prefix("error: ").unwrap_or(text)
}

/// Returns what a `qacct` says of the jobs of the cluster `id4`: of several records of one job the last, and
/// those that say that it starts again are no end.
pub fn accounting(id4: &str, stdout: &str) -> Vec<Observation> {
    let mut last: BTreeMap<(JobName, NativeId), Observation> = BTreeMap::new();
    for record in stdout.split("==============").map(|record| record.trim_start_matches('=')) {
        let field =
            |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim));
        let (Some(id), Some(name), Some(failed)) = (field("jobnumber"), field("jobname"), field("failed")) else {
            continue;
        };
        // Values are followed by text: `137                  (Killed)`.
        let number = |text: &str| text.split(' ').next()?.parse::<i32>().ok();
        let exit = field("exit_status").and_then(number);
        let Some(failure) = number(failed) else { continue };
        let task = field("taskid").filter(|task| is_number(task));
        let Some((name, id)) = spread(id4, id, name, task).into_iter().next() else { continue };
        let (mut state, word) = end_of(failure, exit.unwrap_or(0));
        if failure == 37 && over_memory(&field) {
            state = Observed::Ended { how: EndedHow::OutOfMemory, exit_code: None };
        }
        let reason = match (failure, exit) {
            (0, code) => format!("{word}exit code {}", code.unwrap_or(0)),
            _ => format!("failed {failed}"),
        };
        let node = field("hostname").and_then(|host| node_of(&format!("@{host}")));
        let observation = Observation {
            name: name.clone(),
            id: id.clone(),
            state,
            reason: bounded(&reason),
            node,
            seconds_left: None,
        };
        last.insert((name, id), observation);
    }
    last.into_values().filter(|o| matches!(o.state, Observed::Ended { .. })).collect()
}

/// Whether the limit that ended a job (37 is said of all) was that of memory: its time was not over, or that is not
/// known and it had more than it asked for.
fn over_memory<'a>(field: &impl Fn(&str) -> Option<&'a str>) -> bool {
    // `-l h_rt=100,h_vmem=200M -pe smp 2`
    let category = field("category").unwrap_or_default();
    let asked = |name: &str| {
        let mut words = category.split([' ', ',']);
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let wall: Option<f64> = field("ru_wallclock").and_then(|text| text.trim_end_matches('s').parse().ok());
    let limit = asked("h_rt").and_then(|text| text.parse().ok());
    match (wall, limit) {
        _ if asked("h_vmem").is_none() => false,
        (Some(wall), Some(limit)) => wall < limit,
        _ => {
            let had = field("maxvmem").and_then(|text| super::site::bytes(text.trim_end_matches('B')));
            let slots = field("slots").and_then(|text| text.parse().ok()).unwrap_or(1);
            let most = asked("h_vmem").and_then(super::site::bytes).map(|bytes| bytes.saturating_mul(slots));
            had.zip(most).is_some_and(|(had, most)| had > most)
        }
    }
}

/// What `failed` means (sge_status(5)); `exit` is the script's.
fn end_of(failed: i32, exit: i32) -> (Observed, &'static str) {
    let how = match (failed, exit) {
        // Rescheduled, or migrated: it goes on.
        (24 | 25 | 30, _) => return (Observed::Pending, ""),
        // The script was told to end, and did: `qdel`, for a time limit is 37.
        (0, TOLD_TO_END) => return (Observed::Ended { how: EndedHow::Cancelled, exit_code: None }, "told to end, "),
        (0, _) => EndedHow::Exited,
        (37, _) => EndedHow::Walltime,
        // Ended by a signal that was not meant for it (`139 (Segmentation fault)`), or killed.
        (100, 137 | TOLD_TO_END | 0) => EndedHow::Cancelled,
        (100, _) => EndedHow::Exited,
        // Everything else is before the job, or around it.
        _ => EndedHow::LaunchFailed,
    };
    // `qdel -f` writes a record of a job whose host is lost: failed 0, exit_status 0 (capture execd_down_qacct). So
    // 0 is no proof: the script's own word counts.
    let code = (how == EndedHow::Exited && exit != 0).then_some(exit);
    (Observed::Ended { how, exit_code: code }, "")
}

/// One name and id for each task of `12`, tasks `3`, `1-3:1`, `1,5,9-20:2`. Tasks begin at 1.
fn spread(id4: &str, id: &str, array_name: &str, tasks: Option<&str>) -> Vec<(JobName, NativeId)> {
    if !is_number(id) {
        return Vec::new();
    }
    let Some(tasks) = tasks.filter(|tasks| !tasks.is_empty()) else {
        let named = element(id4, array_name, 0).map(|(name, _)| (name, NativeId(id.to_owned())));
        return named.into_iter().collect();
    };
    let ranges = tasks.split(',').filter_map(|range| {
        let (range, step) = range.split_once(':').unwrap_or((range, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let step: usize = step.trim().parse().ok().filter(|step| *step > 0)?;
        Some((first.trim().parse::<u32>().ok()?..=last.trim().parse().ok()?).step_by(step))
    });
    let tasks = ranges.flatten().take(TASKS_LIMIT);
    let named = tasks
        .filter_map(|task| Some((element(id4, array_name, task.checked_sub(1)?)?.0, NativeId(format!("{id}.{task}")))));
    named.collect()
}

/// The host of a queue instance `all.q@n01.site.org`.
fn node_of(instance: &str) -> Option<String> {
    let (_, host) = instance.split_once('@')?;
    (!host.is_empty()).then(|| bounded(host).chars().take(NODE_LIMIT_BYTES).collect())
}

/// Returns which limits a request is over, by a `qsub -w v`; empty where it says nothing of them.
///
/// Each line names an id, which belongs to no job.
pub fn never_runs(stderr: &str) -> String {
    let lines = stderr.lines().map(|line| line.trim().trim_start_matches("Unable to run job: "));
    let lines =
        lines.filter(|line| line.contains("cannot run") && !line.contains("not contained in its hard queue list"));
    let words = lines.map(|line| match line.strip_prefix("Job ").and_then(|rest| rest.split_once(' ')) {
        Some((id, words)) if is_number(id) => words,
        _ => line,
    });
    let words: Vec<_> = words.collect();
    if words.is_empty() { String::new() } else { format!("no suitable queues: {}", words.join("; ")) }
}

/// Returns the lines of a `qdel` that say more than that a job is, will be, or was gone. It says everything on
/// stdout, and fails when one of many jobs has ended.
pub fn not_deleted(stdout: &str) -> Vec<&str> {
    let fine = [
        "has deleted",
        "has registered",
        "already in deletion",
        "does not exist",
        // All of `71.1-3`.
        "comprises no tasks",
        "forced the deletion",
    ];
    let lines = stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !fine.iter().any(|text| line.contains(text))).collect()
}

/// Returns ids as arguments of `qdel`: tasks of one array in ranges, `12.1-3`.
pub fn ranges<'a>(ids: impl Iterator<Item = &'a NativeId>) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut tasks: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for id in ids {
        match id.0.split_once('.').and_then(|(array, task)| Some((array, task.parse::<u32>().ok()?))) {
            Some((array, task)) => tasks.entry(array).or_default().push(task),
            None => arguments.push(id.0.clone()),
        }
    }
    for (array, mut tasks) in tasks {
        tasks.sort_unstable();
        tasks.dedup();
        for run in tasks.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            arguments.push(match run {
                [task] => format!("{array}.{task}"),
                [first, .., last] => format!("{array}.{first}-{last}"),
                [] => continue,
            });
        }
    }
    arguments
}

pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
