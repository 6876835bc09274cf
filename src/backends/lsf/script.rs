//! What is peculiar to LSF's job scripts. Pure.
//!
//! `bsub` reads the script from its standard input, finds `#BSUB` lines anywhere in it, also behind the first
//! command (capture bsub_late_directive), and copies it with a heredoc that ends at `_USER_SCRIPT_` (capture
//! bsub_heredoc_trap). A value stands between quotes of one kind; there is no escape (OpenLava, `sub.c` parseLine).

use super::site::Memory;
use crate::backends::render::{Dialect, JobHome, RenderError, text};
use crate::backends::said::Said;
use crate::config::spec::PoolSpec;
use serde_json::json;

/// LSF's.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../../templates/lsf.sh.hbs"),
    reserved: &[
        ("-J", "-J"),
        ("-o", "-o"),
        ("-r", "-r"),
        ("-env", "-env"),
        ("-I", "-I"),
        ("-K", "-K"),
        ("-i", "-i"),
        ("-h", "-h"),
        ("-V", "-V"),
        ("-pack", "-pack"),
        ("-json", "-json"),
        ("-yaml", "-yaml"),
    ],
    index_word: "$LSB_JOBINDEX",
    first_index: 1,
    log_folder,
    values,
};

/// The line on which LSF's copy of the script ends.
const HEREDOC_END: &str = "_USER_SCRIPT_";
/// OpenLava's limit is 511 bytes (`sub.c`): nodes to avoid are left out where they do not fit.
const RESOURCES_LIMIT_BYTES: usize = 500;

fn log_folder(folder: &str) -> Result<String, RenderError> {
    match folder.chars().any(char::is_control) {
        true => Err(RenderError::Refused(format!("the path {folder:?} has a control character"))),
        false => Ok(folder.to_owned()),
    }
}

fn values(home: &JobHome) -> Result<serde_json::Value, RenderError> {
    let pool = &home.pool;
    let memory = match home.said {
        Said::Lsf(memory) => memory,
        _ => Memory::USUAL,
    };
    let line = pool.prologue.lines().find(|line| is_directive(line) || line.trim_end_matches('\r') == HEREDOC_END);
    if let Some(line) = line {
        return Err(RenderError::Refused(match is_directive(line) {
            true => format!("the prologue's line {line:?} would be an option of bsub: make it a directive of the pool"),
            false => format!("the prologue's line {line:?} would end the script, by which LSF copies it"),
        }));
    }
    log_folder(text(&home.binary)?)?;
    let word = |value: &Option<String>| value.as_deref().map(quote).transpose();
    let list = |value: &Option<String>| value.as_ref().map(|names| names.replace(',', " "));
    if let Some(qos) = &pool.qos {
        let refused = format!("LSF has no QOS ({qos:?}): a service class is a directive of the pool, `-sla {qos}`");
        return Err(RenderError::Refused(refused));
    }
    let gpu = (pool.gpus > 0).then(|| {
        let kind = pool.gpu_type.as_ref().map(|kind| format!(":gmodel={kind}")).unwrap_or_default();
        format!("num={}{kind}", pool.gpus)
    });
    let own = pool.directives.iter().filter(|directive| resources_of(directive).is_none());
    Ok(json!({
        "resources": quote(&resources(pool, memory))?,
        "limit": pool.memory_bytes.map(|bytes| bytes.div_ceil(memory.limit_unit).max(1)),
        "minutes": pool.walltime_seconds.map(|seconds| seconds.div_ceil(60).max(1)),
        "queue_word": word(&list(&pool.queue))?,
        "account_word": word(&pool.account)?,
        "hosts": word(&list(&pool.nodelist))?,
        "gpu": word(&gpu)?,
        "options": own.collect::<Vec<_>>(),
    }))
}

/// ` # BSUB -q x` is one too (`sub.c`).
fn is_directive(line: &str) -> bool {
    let rest = line.trim_start().strip_prefix('#').map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with("BSUB"))
}

/// Returns a value of a directive.
fn quote(value: &str) -> Result<String, RenderError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.,:+/@%=-".contains(c);
    match (value.contains('"'), value.contains('\'')) {
        _ if !value.is_empty() && value.chars().all(plain) => Ok(value.to_owned()),
        (false, _) => Ok(format!("\"{value}\"")),
        (true, false) => Ok(format!("'{value}'")),
        _ => Err(RenderError::Refused(format!("{value:?} has quotes of both kinds, which bsub does not take"))),
    }
}

/// The string of a directive `-R "…"`.
fn resources_of(directive: &str) -> Option<String> {
    match &shlex::split(directive)?[..] {
        [option, value] if option == "-R" => Some(value.clone()),
        [option] => option.strip_prefix("-R").filter(|value| !value.is_empty()).map(str::to_owned),
        _ => None,
    }
}

/// Returns the resource requirement of a job: one string, for of several `-R` OpenLava takes the last.
fn resources(pool: &PoolSpec, memory: Memory) -> String {
    let mut sections = Sections::default();
    let given = pool.directives.iter().filter_map(|directive| resources_of(directive));
    given.for_each(|text| sections.add(&text));
    if let Some(constraint) = &pool.constraint {
        sections.add(constraint);
    }
    let excluded = pool.exclude.iter().flat_map(|hosts| hosts.split([',', ' '])).filter(|host| !host.is_empty());
    for host in excluded.filter(|host| !host.contains(['\'', '"', ']'])) {
        sections.select.push(format!("hname!='{host}'"));
    }
    if let Some(bytes) = pool.memory_bytes {
        let share = if memory.reserve_per_slot { bytes.div_ceil(u64::from(pool.cores.max(1))) } else { bytes };
        sections.usage.push(format!("mem={}", share.div_ceil(memory.reserve_unit).max(1)));
    }
    sections.text()
}

/// Returns the pool with further nodes to avoid, if they fit.
pub fn avoiding(pool: &PoolSpec, memory: Memory, nodes: &[String]) -> PoolSpec {
    let all = pool.exclude.iter().chain(nodes).cloned().collect::<Vec<_>>().join(",");
    let avoiding = PoolSpec { exclude: Some(all).filter(|all| !all.is_empty()), ..pool.clone() };
    let fits = resources(&avoiding, memory).len() <= RESOURCES_LIMIT_BYTES;
    if fits { avoiding } else { pool.clone() }
}

/// The sections of a resource requirement (`select[…] rusage[…] order[…]`); without a name it is a selection.
#[derive(Default)]
struct Sections {
    select: Vec<String>,
    usage: Vec<String>,
    other: Vec<String>,
}

impl Sections {
    fn add(&mut self, text: &str) {
        let mut rest = text.trim();
        while !rest.is_empty() {
            let name_end = rest.find('[').filter(|at| rest[..*at].chars().all(|c| c.is_ascii_alphabetic()));
            let (Some(open), Some(close)) = (name_end, name_end.and_then(|at| closing(rest, at))) else {
                self.select.push(rest.to_owned());
                return;
            };
            let inner = rest[open + 1..close].trim().to_owned();
            match &rest[..open] {
                "select" => self.select.push(inner),
                "rusage" => self.usage.push(inner),
                // One job is on one host.
                "span" => {}
                _ => self.other.push(rest[..=close].to_owned()),
            }
            rest = rest[close + 1..].trim_start();
        }
    }

    fn text(&self) -> String {
        let select = match &self.select[..] {
            [] => None,
            [one] => Some(format!("select[{one}]")),
            several => Some(format!("select[({})]", several.join(") && ("))),
        };
        let usage = (!self.usage.is_empty()).then(|| format!("rusage[{}]", self.usage.join(":")));
        let parts =
            select.into_iter().chain(self.other.iter().cloned()).chain(["span[hosts=1]".to_owned()]).chain(usage);
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// The bracket that closes the one at `open`.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests;
