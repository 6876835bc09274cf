//! What is peculiar to Grid Engine's job scripts. Pure.

use crate::backends::render::{Dialect, JobHome, RenderError};
use crate::backends::said::Said;
use crate::backends::sge::site::{Found, Resource};
use serde_json::json;

/// Grid Engine's.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../../templates/sge.sh.hbs"),
    reserved: &[
        ("-C", ""),
        ("-N", ""),
        ("-S", ""),
        ("-V", ""),
        ("-b", ""),
        ("-clear", ""),
        ("-cwd", ""),
        ("-e", ""),
        ("-j", ""),
        ("-notify", ""),
        ("-now", ""),
        ("-o", ""),
        ("-r", ""),
        ("-sync", ""),
        ("-t", ""),
        ("-terse", ""),
        ("-verify", ""),
        ("-wd", ""),
    ],
    index_word: "$TASK_ID",
    first_index: FIRST_INDEX,
    log_folder,
    values,
};

/// Index of an array's first task: 0 is refused (capture submit_array_bad).
const FIRST_INDEX: u32 = 1;
/// What Grid Engine expands in `-wd` and `-o` (qsub(1), "-o path"); nothing takes the meaning away.
const EXPANDED: [&str; 6] = ["$HOME", "$USER", "$JOB_ID", "$JOB_NAME", "$HOSTNAME", "$TASK_ID"];

/// The log is named relative to the folder, which the command line names: in `-o` a colon ends a host, a comma a
/// path, and in a script a `#` ends the line, even within quotes (all seen on 8.1.9).
fn log_folder(folder: &str) -> Result<String, RenderError> {
    match EXPANDED.iter().find(|word| folder.contains(*word)) {
        Some(word) => {
            Err(RenderError::Refused(format!("the path {folder:?} has {word} in it, which Grid Engine would replace")))
        }
        None => Ok(".".to_owned()),
    }
}

fn values(home: &JobHome) -> Result<serde_json::Value, RenderError> {
    let pool = &home.pool;
    // It looks for its directives in the whole script.
    if let Some(line) = pool.prologue.lines().find(|line| line.starts_with("#$")) {
        let why = "which Grid Engine takes for a directive: give it as --directive, or put a blank before it";
        return Err(RenderError::Refused(format!("the prologue has the line {line:?}, {why}")));
    }
    for (option, given) in [("--qos", &pool.qos), ("--constraint", &pool.constraint)] {
        if given.is_some() {
            let why =
                format!("Grid Engine has no {option}: `qconf -sc` lists what can be asked for with --directive '-l …'");
            return Err(RenderError::Refused(why));
        }
    }
    Ok(json!({
        "first_index": FIRST_INDEX,
        "pe": environment(home)?,
        "memory": memory(home)?,
        "gpu": gpu(home)?,
        "time": pool.walltime_seconds,
        "hosts": hosts(pool.nodelist.as_deref(), pool.exclude.as_deref()),
    }))
}

fn found(home: &JobHome) -> Option<&Found> {
    match &home.said {
        Said::Sge(found) => Some(found),
        _ => None,
    }
}

/// Whether the user's own directives have this option.
fn has(home: &JobHome, option: &str) -> bool {
    let words = home.pool.directives.iter().flat_map(|directive| shlex::split(directive).unwrap_or_default());
    words.into_iter().any(|word| word == option)
}

fn environment(home: &JobHome) -> Result<Option<&str>, RenderError> {
    let cores = home.pool.cores;
    if cores == 1 || has(home, "-pe") {
        return Ok(None);
    }
    found(home).and_then(|found| found.pe.as_deref()).map(Some).ok_or_else(|| {
        RenderError::Refused(format!(
            "no parallel environment is known here that keeps {cores} cores on one host (allocation_rule $pe_slots): \
             `qconf -spl` lists all; name one with --directive '-pe NAME {cores}', or ask for --cores 1"
        ))
    })
}

/// Memory is a slot's in most places: the job's, divided by its slots and rounded up.
fn memory(home: &JobHome) -> Result<Option<String>, RenderError> {
    let Some(bytes) = home.pool.memory_bytes else { return Ok(None) };
    let Some(Resource { name, per_slot }) = found(home).and_then(|found| found.memory.as_ref()) else {
        let why = "no resource is known by which memory is asked for here: `qconf -sc` lists all; \
            leave --memory out, and ask with --directive '-l NAME=AMOUNT'";
        return Err(RenderError::Refused(why.to_owned()));
    };
    let parts = if *per_slot { u64::from(home.pool.cores.max(1)) } else { 1 };
    Ok(Some(format!("{name}={}M", bytes.div_ceil(parts << 20))))
}

fn gpu(home: &JobHome) -> Result<Option<String>, RenderError> {
    let (gpus, cores) = (home.pool.gpus, home.pool.cores.max(1));
    match found(home).and_then(|found| found.gpu.as_ref()) {
        _ if gpus == 0 => Ok(None),
        None => Err(RenderError::Refused(
            "no resource is known by which GPUs are asked for here: `qconf -sc` lists all; ask with --directive '-l NAME=COUNT'"
                .to_owned(),
        )),
        Some(Resource { name, per_slot: false }) => Ok(Some(format!("{name}={gpus}"))),
        Some(Resource { name, .. }) if gpus % cores == 0 => Ok(Some(format!("{name}={}", gpus / cores))),
        Some(Resource { name, .. }) => Err(RenderError::Refused(format!(
            "GPUs are asked for by slot here ({name}), so their number must be a multiple of the {cores} cores"
        ))),
    }
}

/// Hosts to use and to avoid as one expression (sge_types(5), "EXPRESSION").
fn hosts(nodelist: Option<&str>, exclude: Option<&str>) -> Option<String> {
    let any = |list: &str| list.split(',').map(str::trim).filter(|host| !host.is_empty()).collect::<Vec<_>>().join("|");
    match (nodelist.map(any), exclude.map(any)) {
        (None, None) => None,
        (Some(yes), None) => Some(format!("hostname={yes}")),
        (None, Some(no)) => Some(format!("hostname=!({no})")),
        (Some(yes), Some(no)) => Some(format!("hostname=({yes})&!({no})")),
    }
}

#[cfg(test)]
mod tests;
