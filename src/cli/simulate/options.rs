//! What can be typed. Options that want a number take a negative one, too, so that their own parsers say what is wrong
//! with it.

use crate::config::layers::RawValue;
use crate::config::problem::ConfigError;
use crate::config::units::{parse_duration, parse_size};
use crate::config::values;
use crate::simulate::queue::Choice;
use clap::Args;
use std::path::PathBuf;

/// What has no meaning with `--stdio`: every other option. Named one by one, because an error about a whole group names
/// all of it, also what was not typed.
const WITHOUT_STDIO: [&str; 23] = [
    "trace",
    "queue",
    "workload",
    "policy",
    "seed",
    "seeds",
    "plot",
    "table",
    "min",
    "max",
    "cores",
    "memory",
    "walltime",
    "startup",
    "efficiency",
    "idle_timeout",
    "max_pending",
    "rate",
    "vanish",
    "fail_listings",
    "blind",
    "reject",
    "fail_nodes",
];

/// Try out how many jobs a cluster would ask for, what they would cost and how long you would wait
///
/// Plays the days of a cluster in milliseconds, with the code that decides in a real one: nothing is asked of
/// any batch system, no cluster is touched. How long jobs wait comes from a model, or from the log of a real
/// machine; the tasks from the graph of a real workflow, or a typical load. Several logs, workloads, policies or
/// seeds are tried in all combinations.
///
/// Workloads with a name: burst (200 tasks of 60 s at once), bursts (10 × 40 tasks, minutes apart), phases
/// (5 × 80 tasks, each waits for the former), tail (a few very long ones), trickle (one every 20 s), short (20,000 ×
/// 0.5 s), long (400 of 20 to 50 min); with a number of tasks: burst:1000.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster simulate --workload burst:1000 --max 50 --walltime 2h
  dcluster simulate --workload tail --policy all --plot tail.svg
  dcluster simulate --trace kth.swf --queue easy --workload genome.json.gz --seeds 5 --json

Logs and workflows are read compressed with gzip or not; docs/simulate.md has their formats and all keys.")]
pub(crate) struct SimulateArgs {
    /// Logs of real queues, CSV or SWF (default: a model).
    #[arg(long, value_name = "LOG", num_args = 1..)]
    pub(super) trace: Vec<PathBuf>,
    /// How long jobs wait: constant:10s, lognormal:2m:1.2, nearest or easy (default: nearest for CSV, easy for SWF).
    #[arg(long, value_name = "MODEL", value_parser = queue)]
    pub(super) queue: Option<Choice>,
    /// Workflow files, or loads: burst, bursts, phases, tail, trickle, short, long; burst:1000 has 1000 tasks.
    #[arg(long, value_name = "WORKLOAD", num_args = 1.., default_value = "burst")]
    pub(super) workload: Vec<String>,
    /// Who decides: ours, or the rule of dask, parsl, hyperqueue, ray or static; all: one after the other.
    #[arg(long, value_name = "POLICY", num_args = 1.., value_delimiter = ',', default_value = "ours")]
    pub(super) policy: Vec<String>,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = seed)]
    pub(super) seed: u64,
    /// Number of seeds to try, from --seed on.
    #[arg(long, value_name = "K", default_value_t = 1, hide_default_value = true, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) seeds: u32,
    /// Write a figure: of one run demand, supply and jobs pending; of several, cost against time.
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Print a table for a single run, too.
    #[arg(long)]
    pub(super) table: bool,
    /// Drive the controller from another simulator: settings, then an observation a line in, a decision a line out.
    ///
    /// Nothing else can be said with it: all settings are on the first line.
    #[arg(long, conflicts_with_all = WITHOUT_STDIO)]
    pub(super) stdio: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    #[command(flatten)]
    pub(super) faults: FaultArgs,
}

/// What the cluster is made of.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Jobs there always are.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(super) min: u32,
    /// Jobs there never are more of.
    #[arg(long, value_name = "N", default_value_t = 50, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) max: u32,
    /// Cores of one job.
    #[arg(long, visible_alias = "cpus", value_name = "N", default_value_t = 8, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) cores: u32,
    /// Memory of one job, like 100GB (default: never the limit).
    #[arg(long, visible_alias = "mem", value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    pub(super) memory: Option<u64>,
    /// Time limit of one job; none: no limit; auto or auto:12h: up to 4 h (12 h), as the load needs.
    #[arg(long, value_name = "TIME", default_value = "4h", allow_hyphen_values = true, value_parser = walltime)]
    pub(super) walltime: Walltime,
    /// From the start of a job until its worker is there, on average.
    #[arg(long, value_name = "TIME", default_value = "25s", allow_hyphen_values = true, value_parser = seconds)]
    pub(super) startup: f64,
    /// What counts more, time or core-hours: speed, balanced (default), thrift; or 0.05 to 0.95.
    ///
    /// The share of a new job's time that must be useful: 0.5, 0.65, 0.85. Several are tried one by one.
    #[arg(long, visible_alias = "prefer", value_name = "SHARE", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true, value_parser = efficiency)]
    pub(super) efficiency: Vec<f64>,
    /// When an idle job is given up (default: learned).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = seconds)]
    pub(super) idle_timeout: Option<f64>,
    /// Jobs that may be pending at once.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) max_pending: Option<u32>,
    /// Jobs that may be submitted in a minute, like 30/min.
    #[arg(long, value_name = "N/min", allow_hyphen_values = true, value_parser = rate)]
    pub(super) rate: Option<f64>,
}

/// What goes wrong.
#[derive(Args, Debug)]
#[command(next_help_heading = "What goes wrong")]
pub(crate) struct FaultArgs {
    /// Share of jobs that vanish without a trace if they are still pending after a while (a minute on average).
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true, allow_negative_numbers = true, value_parser = share)]
    pub(super) vanish: f64,
    /// Share of listings of the queue that fail.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true, allow_negative_numbers = true, value_parser = share)]
    pub(super) fail_listings: f64,
    /// No listing succeeds for so long at the beginning.
    #[arg(long, value_name = "TIME", default_value = "0", hide_default_value = true, allow_hyphen_values = true, value_parser = seconds)]
    pub(super) blind: f64,
    /// Share of submissions that are rejected.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true, allow_negative_numbers = true, value_parser = share)]
    pub(super) reject: f64,
    /// Share of jobs whose node dies, at a random time of their walltime, if they last so long.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true, allow_negative_numbers = true, value_parser = share)]
    pub(super) fail_nodes: f64,
}

/// A time limit in seconds, or none, and those to choose from.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Walltime {
    pub(super) longest: Option<u64>,
    pub(super) choices: Vec<u64>,
}

fn queue(text: &str) -> Result<Choice, String> {
    text.parse().map_err(|error: crate::simulate::queue::ChoiceError| format!("{error}: {}", error.fix))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text {
        "0" => Ok(0.0),
        _ => parse_duration(text).map(|seconds| seconds as f64).map_err(|error| format!("{error}: {}", error.fix())),
    }
}

fn walltime(text: &str) -> Result<Walltime, String> {
    match text {
        "none" => Ok(Walltime { longest: None, choices: Vec::new() }),
        _ => {
            let parsed = values::walltime(&RawValue::Scalar(text.to_owned()), 60);
            let (longest, choices) = parsed.map_err(said)?;
            Ok(Walltime { longest: Some(longest), choices })
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| format!("{error}: {}", error.fix()))
}

fn number(text: &str, from: f64, to: f64) -> Result<f64, String> {
    let fits = text.parse().ok().filter(|value| (from..=to).contains(value));
    fits.ok_or_else(|| format!("write a number from {from} to {to}"))
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("write a whole number from 0 to {}", u64::MAX))
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1.0)
}

fn efficiency(text: &str) -> Result<f64, String> {
    values::share(text).map_err(said)
}

fn said(error: ConfigError) -> String {
    format!("{error}: {}", error.fix.as_deref().unwrap_or_default())
}

fn rate(text: &str) -> Result<f64, String> {
    number(text.strip_suffix("/min").unwrap_or(text), 0.01, 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    #[test]
    fn stdio_goes_with_no_other_option() {
        let command = SimulateArgs::augment_args(Command::new("simulate"));
        let stdio = command.get_arguments().find(|arg| arg.get_id() == "stdio").unwrap();
        let refused = command.get_arg_conflicts_with(stdio);
        let refused: Vec<&str> = refused.into_iter().map(|arg| arg.get_id().as_str()).collect();
        let others = command.get_arguments().map(|arg| arg.get_id().as_str()).filter(|id| *id != "stdio");
        assert_eq!(others.filter(|id| !refused.contains(id)).collect::<Vec<_>>(), [""; 0]);
        // Defaults are not typed.
        assert!(command.clone().try_get_matches_from(["simulate", "--stdio"]).is_ok());
        assert!(command.try_get_matches_from(["simulate", "--stdio", "--seed", "4"]).is_err());
    }
}
