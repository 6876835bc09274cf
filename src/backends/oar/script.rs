//! What is peculiar to OAR's job scripts. Pure.
//!
//! `oarsub -S` reads the lines that begin with `#OAR` and a blank, in the whole script, and each value to the end of
//! its line: nothing is quoted. Of several `-l` it would choose one, of several `-p` it takes the last (OAR 2.5.9,
//! `OAR/Sub.pm` scan_script), so a pool's own ones are made one with ours.

use super::site::Found;
use crate::backends::render::{Dialect, JobHome, RenderError};
use crate::backends::said::Said;
use crate::config::spec::PoolSpec;
use serde_json::json;

/// OAR's.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../../templates/oar.sh.hbs"),
    reserved: &[
        ("--array", ""),
        ("--array-param-file", ""),
        ("--checkpoint", ""),
        ("--directory", "-d"),
        ("--name", "-n"),
        ("--resubmit", ""),
        ("--signal", ""),
        ("--stderr", "-E"),
        ("--stdout", "-O"),
    ],
    index_word: "$OAR_ARRAY_INDEX",
    first_index: 1,
    log_folder,
    values,
};

/// `oarsub` reads the script by its path through a shell, cut at blanks (OAR 2.5.9, `OAR/Sub.pm` scan_script).
fn log_folder(folder: &str) -> Result<String, RenderError> {
    match folder.chars().find(|c| !c.is_ascii_alphanumeric() && !"/._-+=@%:,".contains(*c)) {
        Some(odd) => {
            let why = format!("the path {folder:?} has {odd:?} in it, with which OAR does not find the job script");
            Err(RenderError::Refused(why))
        }
        None => Ok(folder.to_owned()),
    }
}

fn values(home: &JobHome) -> Result<serde_json::Value, RenderError> {
    let pool = &home.pool;
    let mut own = pool.prologue.lines().filter_map(|line| Some((line, line.strip_prefix("#OAR")?)));
    if let Some((line, _)) = own.find(|(_, rest)| rest.starts_with(char::is_whitespace)) {
        let why = "which OAR takes for a directive: give it as --directive, or put a blank before it";
        return Err(RenderError::Refused(format!("the prologue has the line {line:?}, {why}")));
    }
    if pool.qos.is_some() {
        let why = "OAR has no --qos: give a --queue, or a type with --directive '-t besteffort'";
        return Err(RenderError::Refused(why.to_owned()));
    }
    let kind = pool.directives.iter().filter_map(|directive| value_of(directive, "-t", "--type"));
    if let Some(kind) = kind.into_iter().find(|kind| ["idempotent", "noop"].contains(kind)) {
        let why = "dcluster replaces a lost job itself, and a job must run its script";
        return Err(RenderError::Refused(format!("the directive \"-t {kind}\" does not go with dcluster: {why}")));
    }
    let theirs = pool.directives.iter();
    let theirs =
        theirs.filter(|d| value_of(d, "-l", "--resource").is_none() && value_of(d, "-p", "--property").is_none());
    let guessed = Found::guessed();
    let site = match &home.said {
        Said::Oar(found) => found,
        _ => &guessed,
    };
    Ok(json!({
        "resources": resources(pool, site)?,
        "property": property(pool, site)?,
        "checkpoint": Some(pool.drain_lead_seconds).filter(|seconds| *seconds > 0),
        "options": theirs.collect::<Vec<_>>(),
    }))
}

/// The value of a directive that is this option.
fn value_of<'a>(directive: &'a str, short: &str, long: &str) -> Option<&'a str> {
    let text = directive.trim();
    // `--resource` begins with neither `-l` nor `-p`.
    let rest = text.strip_prefix(long).or_else(|| text.strip_prefix(short).filter(|_| !text.starts_with("--")))?;
    Some(rest.trim_start_matches('=').trim())
}

/// What one node gives to the job, and for how long: `/nodes=1/core=4,walltime=0:30:00`.
fn resources(pool: &PoolSpec, site: &Found) -> Result<String, RenderError> {
    let Found { core, gpu, .. } = site;
    let mut own = pool.directives.iter().filter_map(|directive| value_of(directive, "-l", "--resource"));
    let asked = match (own.next(), own.next(), pool.gpus) {
        (Some(_), Some(_), _) => {
            let why = "of several -l OAR chooses one: write one directive, '-l A+B' for both at once";
            return Err(RenderError::Refused(why.to_owned()));
        }
        (Some(own), ..) => own.to_owned(),
        (None, _, 0) => format!("/nodes=1/{core}={}", pool.cores),
        (None, ..) if !gpu => {
            let why =
                "GPUs are no resources here: `oarnodes` shows the properties; ask with --directive '-l …' or '-p …'";
            return Err(RenderError::Refused(why.to_owned()));
        }
        // The cores of a node are shared out among its GPUs.
        (None, _, gpus) => format!("/nodes=1/gpu={gpus}/{core}={}", pool.cores.div_ceil(gpus)),
    };
    Ok(match pool.walltime_seconds {
        Some(seconds) if !asked.contains("walltime") => {
            format!("{asked},walltime={}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
        _ => asked,
    })
}

/// What a node must be, as a condition of SQL.
fn property(pool: &PoolSpec, site: &Found) -> Result<Option<String>, RenderError> {
    let mut all: Vec<String> = Vec::new();
    let own = pool.directives.iter().filter_map(|directive| value_of(directive, "-p", "--property"));
    all.extend(pool.constraint.as_deref().into_iter().chain(own).map(|text| format!("({text})")));
    if let (Some(bytes), Some(name)) = (pool.memory_bytes, &site.memory) {
        all.push(format!("{name} >= {}", bytes.div_ceil(1 << 20)));
    }
    if let Some(kind) = pool.gpu_type.as_ref().filter(|_| pool.gpus > 0) {
        if !site.gpu_model {
            let why =
                "the kinds of GPUs are not known here by `gpu_model`: ask with --directive \"-p PROPERTY = 'KIND'\"";
            return Err(RenderError::Refused(why.to_owned()));
        }
        all.push(format!("gpu_model = {}", quoted(kind)?));
    }
    for (list, not) in [(&pool.nodelist, ""), (&pool.exclude, "NOT ")] {
        let hosts = list.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|host| !host.is_empty());
        let hosts = hosts.map(quoted).collect::<Result<Vec<_>, _>>()?;
        if !hosts.is_empty() {
            all.push(format!("network_address {not}IN ({})", hosts.join(", ")));
        }
    }
    Ok((!all.is_empty()).then(|| all.join(" AND ")))
}

/// A word of SQL.
fn quoted(word: &str) -> Result<String, RenderError> {
    match word.contains(['\'', '\\']) {
        true => Err(RenderError::Refused(format!(
            "{word:?} has a quote or a backslash, which OAR's database would take for its own"
        ))),
        false => Ok(format!("'{word}'")),
    }
}

#[cfg(test)]
mod tests;
