//! What a task needs, as options of `submit` and `map` say it.

use crate::config::units::parse_size;
use crate::error::{Kind, Problem};
use crate::runtime::protocol::{Gpus, Needs, Request};
use clap::Args;
use std::collections::BTreeMap;

/// What `submit` and `map` say a task needs.
#[derive(Args, Debug)]
pub(super) struct NeedsOptions {
    /// Cores of one task.
    #[arg(long, visible_alias = "cpus", value_name = "N", default_value_t = 1)]
    cores: u32,
    /// Memory of one task, like 4G or 500MB; it is killed if it uses more (default: not counted).
    #[arg(long, visible_alias = "mem", value_name = "SIZE")]
    memory: Option<String>,
    /// GPUs of one task; 0.5 shares one with another task.
    #[arg(long, value_name = "N", default_value = "0")]
    gpus: String,
    /// Amount of a cluster-wide counter (up --counter lic=4), like lic=1; may be repeated.
    #[arg(long, value_name = "NAME=N")]
    resource: Vec<String>,
    /// Another way to satisfy it, used where the first finds no room: cores=1,gpus=1; may be repeated.
    #[arg(long, value_name = "NEEDS")]
    or: Vec<String>,
    /// Workers that the task runs on at once, with these cores and this memory on each.
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: u32,
    /// Take the cores from as few NUMA nodes as possible.
    #[arg(long)]
    compact: bool,
}

fn usage(what: impl Into<String>, option: &str) -> Problem {
    Problem::new(Kind::Usage, what).done("nothing was submitted").location(option.to_owned())
}

impl NeedsOptions {
    /// Returns what they say.
    pub(super) fn needs(&self) -> Result<Needs, Problem> {
        let mut counters = BTreeMap::new();
        for pair in &self.resource {
            let parsed = pair.split_once('=').and_then(|(name, amount)| Some((name.to_owned(), amount.parse().ok()?)));
            let (name, amount) = parsed
                .ok_or_else(|| usage(format!("`{pair}` is not NAME=NUMBER"), "--resource").fix("--resource lic=1"))?;
            counters.insert(name, amount);
        }
        let first = Request {
            cores: cores(self.cores, "--cores")?,
            memory_bytes: self.memory.as_ref().map(|text| size(text, "--memory")).transpose()?.unwrap_or(0),
            gpus: gpus(&self.gpus, "--gpus")?,
            counters,
            compact: self.compact,
        };
        if self.nodes == 0 {
            return Err(usage("a task needs at least one worker", "--nodes"));
        }
        if self.nodes > 1 && !self.or.is_empty() {
            return Err(usage("a task on several workers has one way to say what it needs on each", "--or"));
        }
        let mut variants = vec![first];
        for text in &self.or {
            variants.push(variant(text, &variants[0])?);
        }
        Ok(Needs { variants, nodes: self.nodes })
    }
}

/// Reads `cores=1,gpus=1`; what is not named is as little as possible, but counters and NUMA as in the first.
fn variant(text: &str, first: &Request) -> Result<Request, Problem> {
    let mut request = Request { cores: 1, memory_bytes: 0, gpus: Gpus(0), ..first.clone() };
    let mut named = std::collections::BTreeSet::new();
    for pair in text.split(',') {
        let (name, value) = pair.trim().split_once('=').unwrap_or((pair, ""));
        if !named.insert(name) {
            return Err(usage(format!("`{text}` says {name} twice"), "--or").fix("each once, or --or for each"));
        }
        match name {
            "cores" | "cpus" => {
                let parsed = value.parse().map_err(|_| usage(format!("`{value}` is no number of cores"), "--or"))?;
                request.cores = cores(parsed, "--or")?;
            }
            "memory" | "mem" => request.memory_bytes = size(value, "--or")?,
            "gpus" => request.gpus = gpus(value, "--or")?,
            _ => {
                return Err(usage(format!("`{pair}` names nothing a task can need"), "--or")
                    .fix("cores, memory and gpus, like --or cores=1,gpus=1,memory=8G"));
            }
        }
    }
    Ok(request)
}

fn cores(number: u32, option: &str) -> Result<u32, Problem> {
    if number == 0 {
        return Err(usage("a task needs at least one core", option));
    }
    Ok(number)
}

fn size(text: &str, option: &str) -> Result<u64, Problem> {
    parse_size(text).map_err(|error| {
        let fix = error.fix();
        usage(error.to_string(), option).fix(fix)
    })
}

/// Reads a number of GPUs with at most three decimals.
fn gpus(text: &str, option: &str) -> Result<Gpus, Problem> {
    let wrong = || usage(format!("`{text}` is no number of GPUs"), option).fix("1, or 0.5 to share one");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(Gpus::ONE).and_then(|whole| whole.checked_add(part)).map(Gpus).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_gpus_have_three_decimals() {
        let read = |text| gpus(text, "--gpus").ok().map(|gpus| gpus.0);
        assert_eq!(read("0.5"), Some(500));
        assert_eq!(read("2"), Some(2000));
        assert_eq!(read("1.125"), Some(1125));
        for wrong in ["", ".5", "1.", "-1", "0.1234", "a", "99999999", "1e3"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!([Gpus(500), Gpus(2000), Gpus(1125)].map(|g| g.to_string()), ["0.5", "2", "1.125"]);
    }

    #[test]
    fn a_variant_needs_what_it_names() {
        let first = Request { cores: 4, memory_bytes: 9, ..Request::default() };
        let other = variant("cores=1, gpus=0.5", &first).expect("sound");
        assert_eq!((other.cores, other.memory_bytes, other.gpus), (1, 0, Gpus(500)));
        for wrong in ["", "cores", "cores=0", "cores=1,cores=2", "tpus=1", "gpus=x"] {
            assert!(variant(wrong, &first).is_err(), "{wrong}");
        }
    }
}
