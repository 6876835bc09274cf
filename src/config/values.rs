//! From what was written to what it means: one function a kind of value, each with its bounds. An
//! error here says what is wrong and what to write; where it was said is added by the caller.

use super::layers::RawValue;
use super::problem::{ConfigError, nearest, quoted};
use super::spec::{Adapt, BackendKind, Spec};
use super::units::{human_duration, parse_duration, parse_size};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most cores of a job.
pub const CORES_MAX: u32 = 65_000;
/// Most jobs of a cluster.
pub const JOBS_MAX: u32 = 100_000;
/// Most GPUs of a job.
pub const GPUS_MAX: u32 = 1_024;
/// Most counters of a cluster: with cores, memory and GPUs they are at most 64 kinds.
pub const COUNTERS_MAX: usize = 60;
/// Longest name of a cluster, and of a counter.
const NAME_MAX_BYTES: usize = 64;
/// Longest directive, list of nodes or other word for the batch system.
const WORD_MAX_BYTES: usize = 4_096;
/// Kinds of resources that every worker has; no counter can be called so.
const RESOURCES: [&str; 6] = ["core", "cores", "cpus", "gpus", "memory", "mem"];

type Parsed<T> = Result<T, ConfigError>;

/// Parses the share of a new job's time that must be useful, in per cent.
pub(super) fn efficiency(raw: &RawValue) -> Parsed<u32> {
    share(scalar(raw)?).map(|share| (share * 100.0).round() as u32)
}

/// Parses the share of a new job's time that must be useful: a word, or a number from 0.05 to 0.95.
///
/// # Errors
/// It is neither.
pub fn share(text: &str) -> Result<f64, ConfigError> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, percent)) = Adapt::PREFER.iter().find(|(word, _)| *word == lower) {
        return Ok(f64::from(*percent) / 100.0);
    }
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => text.parse().ok(),
    };
    share.filter(|share| (0.05..=0.95).contains(share)).ok_or_else(|| {
        ConfigError::new(format!("{} is no efficiency", quoted(text)))
            .because("it is the share of a new job's time that must be useful")
            .fix("speed, balanced, thrift, or a number from 0.05 to 0.95")
    })
}

/// Parses a number of jobs in a minute.
pub(super) fn rate(raw: &RawValue) -> Parsed<u32> {
    let text = scalar(raw)?;
    let number = text.strip_suffix("/min").unwrap_or(text).trim();
    count(&RawValue::Scalar(number.to_owned()), "jobs a minute", 1, JOBS_MAX)
}

/// Returns the one text there must be.
pub(super) fn scalar(raw: &RawValue) -> Parsed<&str> {
    match raw {
        RawValue::Scalar(text) => Ok(text.trim()),
        RawValue::List(_) | RawValue::Table(_) => Err(ConfigError::new("one value is wanted")),
    }
}

/// Parses the name of a cluster: it becomes a folder and part of file names.
pub(super) fn cluster_name(raw: &RawValue) -> Parsed<String> {
    let text = scalar(raw)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let why = if text.is_empty() || text.len() > NAME_MAX_BYTES {
        "a name has 1 to 64 characters"
    } else if !text.chars().all(good) {
        "a name has only letters a-z, digits, . _ and -"
    } else if text.starts_with(['.', '-']) {
        "a name begins with a letter, a digit or _"
    } else {
        return Ok(text.to_owned());
    };
    Err(ConfigError::new(format!("{} cannot be a cluster's name", quoted(text))).because(why))
}

/// Parses where jobs run.
pub(super) fn backend(raw: &RawValue) -> Parsed<BackendKind> {
    let text = scalar(raw)?;
    let kinds = BackendKind::ALL;
    let lower = text.to_ascii_lowercase();
    if let Some(kind) = kinds.into_iter().find(|kind| kind.as_str() == lower) {
        return Ok(kind);
    }
    let meant = nearest(&lower, kinds.map(BackendKind::as_str));
    Err(ConfigError::new(format!("there is no backend {}", quoted(text)))
        .because(format!("the backends are {}", kinds.map(BackendKind::as_str).join(", ")))
        .fix(match meant {
            Some(meant) => format!("did you mean {meant}?"),
            None => "leave it out: the batch system of this machine is used, else local".to_owned(),
        }))
}

/// Parses a whole number within bounds.
pub(super) fn count(raw: &RawValue, what: &str, least: u32, most: u32) -> Parsed<u32> {
    let text = scalar(raw)?;
    let range = format!("write a whole number from {least} to {}", grouped(most));
    match text.parse::<u32>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(ConfigError::new(format!("{} is no number of {what}", quoted(text))).fix(range))
        }
        Ok(number) if number < least => Err(ConfigError::new(format!("{number} {what} are too few")).fix(range)),
        _ => Err(ConfigError::new(format!("{} {what} are too many", quoted(text))).fix(range)),
    }
}

fn grouped(number: u32) -> String {
    match number {
        0..=999 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}

/// Parses a size that is at least one MiB.
pub(super) fn size(raw: &RawValue) -> Parsed<u64> {
    let bytes = parse_size(scalar(raw)?).map_err(|error| ConfigError::new(error.to_string()).fix(error.fix()))?;
    if bytes < 1 << 20 {
        return Err(ConfigError::new("a job needs at least 1 MiB of memory").fix("write a size like 4GB"));
    }
    Ok(bytes)
}

/// Time limits to choose from, in seconds: those at which queues and their backfill change most often.
const LADDER: [u64; 9] = [900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 172_800];
/// The longest of `auto`, in seconds.
const AUTO_LONGEST: u64 = 14_400;

/// Parses a time limit, or `auto` and `auto:12h`: the longest, and those to choose from, ascending.
///
/// # Errors
/// If it is neither, or less than `least` seconds.
pub fn walltime(raw: &RawValue, least: u64) -> Parsed<(u64, Vec<u64>)> {
    let text = scalar(raw)?;
    let longest = match text.split_once(':') {
        _ if text == "auto" => AUTO_LONGEST,
        Some(("auto", longest)) => duration(&RawValue::Scalar(longest.to_owned()), LADDER[0])?,
        _ => return Ok((duration(raw, least)?, Vec::new())),
    };
    Ok((longest, ladder(longest)))
}

/// Returns the time limits to choose from up to `longest`, in seconds, ascending.
fn ladder(longest: u64) -> Vec<u64> {
    LADDER.into_iter().take_while(|rung| *rung < longest).chain([longest]).collect()
}

/// Parses a duration of at least `least` seconds.
pub(super) fn duration(raw: &RawValue, least: u64) -> Parsed<u64> {
    let text = scalar(raw)?;
    let seconds = parse_duration(text).map_err(|error| ConfigError::new(error.to_string()).fix(error.fix()))?;
    if seconds < least {
        return Err(ConfigError::new(format!("{} is too short", quoted(text)))
            .fix(format!("write {} or more", human_duration(least))));
    }
    Ok(seconds)
}

/// Parses `2` or `a100:2`.
pub(super) fn gpus(raw: &RawValue) -> Parsed<(u32, Option<String>)> {
    let text = scalar(raw)?;
    let (kind, number) = match text.rsplit_once(':') {
        Some((kind, number)) => (Some(kind), number),
        None => (None, text),
    };
    let number = RawValue::Scalar(number.to_owned());
    let number = count(&number, "GPUs", 0, GPUS_MAX).map_err(|error| ConfigError {
        fix: Some("write a number like 2, or a kind and a number like a100:2".to_owned()),
        ..error
    })?;
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match kind {
        Some(kind) if kind.is_empty() || kind.len() > 64 || !kind.chars().all(good) => {
            Err(ConfigError::new(format!("{} is no kind of GPU", quoted(kind)))
                .fix("write the kind as your queue calls it, like a100:2"))
        }
        kind => Ok((number, kind.map(str::to_owned))),
    }
}

/// Parses the names of profiles that are pools.
pub(super) fn pools(raw: &RawValue) -> Parsed<Vec<String>> {
    let names = match raw {
        RawValue::List(names) => names.clone(),
        other => scalar(other)?.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    for (at, name) in names.iter().enumerate() {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let why = if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(good) {
            "a pool's name has 1 to 64 letters, digits, . _ and -"
        } else if name == Spec::DEFAULT_POOL {
            "there always is a pool of that name: its shape is that of --cores, --memory and so on"
        } else if names[..at].contains(name) {
            "it stands twice"
        } else {
            continue;
        };
        return Err(ConfigError::new(format!("{} cannot be a further pool", quoted(name))).because(why));
    }
    Ok(names)
}

/// Parses a word that ends in a directive; lists are joined with commas.
pub(super) fn word(raw: &RawValue) -> Parsed<String> {
    let text = match raw {
        RawValue::List(items) => items.join(","),
        other => scalar(other)?.to_owned(),
    };
    let bad = |c: char| c.is_control() || c.is_whitespace() || "\"'\\#`$".contains(c);
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() > WORD_MAX_BYTES {
        "it is longer than 4 KiB"
    } else if text.contains(bad) {
        "it would end a line of the job script: no spaces, quotes, control characters or any of \\ # ` $"
    } else {
        return Ok(text);
    };
    Err(ConfigError::new(format!("{} cannot be used", quoted(&text))).because(why))
}

/// Parses further directives; the backend's own `#SBATCH` in front is taken off.
pub(super) fn directives(raw: &RawValue, backend: BackendKind) -> Parsed<Vec<String>> {
    let items = match raw {
        RawValue::List(items) => items.as_slice(),
        RawValue::Scalar(item) => std::slice::from_ref(item),
        RawValue::Table(_) => return Err(ConfigError::new("a list of texts is wanted")),
    };
    items.iter().map(|item| directive(item, backend)).collect()
}

fn directive(text: &str, backend: BackendKind) -> Parsed<String> {
    let mark = backend.directive_mark();
    let trimmed = text.trim();
    let line = trimmed.strip_prefix(mark).unwrap_or(trimmed).trim();
    let error = ConfigError::new(format!("{} is no directive", quoted(text)));
    if line.chars().any(char::is_control) {
        return Err(error
            .because("a directive is one line without control characters")
            .fix("give each directive by itself"));
    }
    if line.len() > WORD_MAX_BYTES {
        return Err(error.because("it is longer than 4 KiB"));
    }
    if backend == BackendKind::Condor {
        return match line.split_once('=') {
            Some((name, _)) if !name.trim().is_empty() => Ok(line.to_owned()),
            _ => Err(error
                .because("a line of a submit description is NAME = VALUE")
                .fix("write it like 'rank = Memory' or '+Project = \"x\"'")),
        };
    }
    if !line.starts_with('-') {
        return Err(error.because("a directive begins with -").fix("write it like --exclusive or --mail-type=END"));
    }
    Ok(line.to_owned())
}

/// Parses the prologue: a text of lines, or a list of them.
pub(super) fn prologue(raw: &RawValue) -> Parsed<String> {
    let text = match raw {
        RawValue::List(lines) => lines.join("\n"),
        RawValue::Scalar(text) => text.clone(),
        RawValue::Table(_) => return Err(ConfigError::new("lines of shell are wanted")),
    };
    let text = text.replace("\r\n", "\n");
    match text.chars().find(|c| c.is_control() && !"\n\t".contains(*c)) {
        Some(c) => Err(ConfigError::new(format!("the prologue contains the control character {c:?}"))
            .fix("take it out, or write it as $'\\033' for the shell")),
        None => Ok(text.trim_matches('\n').to_owned()),
    }
}

/// Parses yes or no.
pub(super) fn boolean(raw: &RawValue) -> Parsed<bool> {
    let text = scalar(raw)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(ConfigError::new(format!("{} is neither true nor false", quoted(text))).fix("write true or false")),
    }
}

/// Parses one line of shell.
pub(super) fn shell_line(raw: &RawValue) -> Parsed<String> {
    let text = scalar(raw)?;
    let control = text.chars().any(|c| c.is_control() && c != '\t');
    if text.is_empty() || control || text.len() > WORD_MAX_BYTES {
        return Err(ConfigError::new(format!("{} is no line of shell", quoted(text)))
            .because("it is one line with 1 to 4,096 bytes")
            .fix("put more into a script that the line calls"));
    }
    Ok(text.to_owned())
}

/// Parses counters: names and totals.
pub(super) fn counters(raw: &RawValue) -> Parsed<BTreeMap<String, u64>> {
    let RawValue::Table(items) = raw else {
        return Err(ConfigError::new("names and totals are wanted").fix("write lic=2"));
    };
    let mut counters = BTreeMap::new();
    for (name, total) in items {
        let (name, total) = counter(name, total)?;
        if counters.insert(name.clone(), total).is_some() {
            return Err(ConfigError::new(format!("counter {} stands twice", quoted(&name))).fix("keep one of them"));
        }
    }
    if counters.len() > COUNTERS_MAX {
        return Err(ConfigError::new(format!("{} counters are too many", counters.len()))
            .because(format!("a cluster has at most {COUNTERS_MAX}")));
    }
    Ok(counters)
}

fn counter(name: &str, total: &str) -> Parsed<(String, u64)> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let error = ConfigError::new(format!("{} cannot be a counter", quoted(name)));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.len() > NAME_MAX_BYTES || !name.chars().all(good) {
        return Err(error.because("its name begins with a letter and has up to 64 letters a-z, digits, . _ and -"));
    }
    if RESOURCES.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(error.because("workers have a resource of that name"));
    }
    match total.parse::<u64>() {
        Ok(total) if total > 0 && total <= u64::from(u32::MAX) => Ok((name.to_owned(), total)),
        _ if total.is_empty() => {
            Err(ConfigError::new(format!("counter {} has no total", quoted(name))).fix(format!("write {name}=2")))
        }
        _ => Err(ConfigError::new(format!("counter {} cannot have the total {}", quoted(name), quoted(total)))
            .fix("write a whole number from 1 to 4294967295")),
    }
}

/// Parses the name of a network interface.
pub(super) fn interface(raw: &RawValue) -> Parsed<String> {
    let text = scalar(raw)?;
    // IFNAMSIZ is 16 with the NUL; the kernel refuses '/' and white space.
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    if text.is_empty() || text.len() > 15 || text.contains(bad) {
        return Err(ConfigError::new(format!("{} is no network interface", quoted(text)))
            .fix("write a name like ib0; `ip -brief address` lists them"));
    }
    Ok(text.to_owned())
}

/// Parses an address that others can reach.
pub(super) fn address(raw: &RawValue) -> Parsed<IpAddr> {
    let text = scalar(raw)?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let error = ConfigError::new(format!("{} is no address to listen on", quoted(text)));
    match bare.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err(error
            .because("workers cannot connect to it")
            .fix("leave it out to listen everywhere, or write the address that workers see")),
        Ok(address) if address.is_multicast() => Err(error.because("it is a multicast address")),
        Ok(address) => Ok(address),
        Err(_) => Err(error
            .because("an address is numbers, without a port")
            .fix("write one like 10.4.0.13, or use interface = \"ib0\"")),
    }
}

#[cfg(test)]
mod tests;
