//! All combinations of what was asked for, and playing them.

use super::bad_file;
use super::options::{ClusterArgs, SimulateArgs};
use crate::adapt::{PoolShape, Settings};
use crate::config::resolve::drain_lead_of;
use crate::error::{Kind, Problem};
use crate::simulate::policy;
use crate::simulate::queue::{Choice, Easy, LogNormal, Nearest, Queue};
use crate::simulate::report::Row;
use crate::simulate::trace::{Format, Log};
use crate::simulate::workload::{Made, Workload};
use crate::simulate::{Faults, Run, Scenario};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Most combinations of one command.
const RUNS_MAX: usize = 100_000;

/// Where waits come from.
#[derive(Clone, Debug)]
enum Waits {
    Constant(f64),
    LogNormal(f64, f64),
    Nearest(Arc<Log>),
    Easy(Arc<Log>),
}

impl Waits {
    fn queue(&self, seed: u64) -> Box<dyn Queue> {
        match self {
            Self::Constant(wait) => Box::new(LogNormal::constant(*wait)),
            Self::LogNormal(median, sigma) => Box::new(LogNormal::new(*median, *sigma, seed)),
            Self::Nearest(log) => Box::new(Nearest::new(Arc::clone(log), seed)),
            Self::Easy(log) => Box::new(Easy::new(Arc::clone(log), seed)),
        }
    }
}

/// Where tasks come from.
#[derive(Clone, Debug)]
enum Load {
    Read(Arc<Workload>),
    Made(Made),
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) trace: String,
    pub(super) policy: String,
    pub(super) scenario: Scenario,
}

/// What is to be played.
#[derive(Debug)]
pub(super) struct Plan {
    sources: Vec<(String, Waits)>,
    loads: Vec<Load>,
    policies: Vec<String>,
    efficiencies: Vec<f64>,
    seeds: Vec<u64>,
    settings: Settings,
    startup: f64,
    faults: Faults,
}

/// What came of it all.
#[derive(Debug)]
pub(super) struct Played {
    /// The figures of every run, in order.
    pub(super) rows: Vec<Row>,
    /// All of the only run, if there was one.
    pub(super) only: Option<(Cell, Run)>,
}

/// A combination, by place in each list.
#[derive(Clone, Copy, Debug)]
struct Combination {
    source: usize,
    load: usize,
    policy: usize,
    efficiency: usize,
    seed: u64,
}

fn usage(what: impl Into<String>, location: &str) -> Problem {
    Problem::new(Kind::Usage, what).done("nothing was simulated").location(location.to_owned())
}

impl Plan {
    /// Reads the files and checks what was typed.
    pub(super) fn of(args: &SimulateArgs) -> Result<Self, Problem> {
        let cluster = &args.cluster;
        if cluster.min > cluster.max {
            return Err(usage(format!("--min {} is more than --max {}", cluster.min, cluster.max), "--min"));
        }
        if let Some(walltime) = cluster.walltime.longest
            && cluster.startup + drain_lead_of(Some(walltime)) as f64 >= walltime as f64
        {
            let what = "the jobs would be over before they could take a task";
            let fix = "a longer --walltime, or a shorter --startup";
            return Err(usage(what, "--walltime").fix(fix));
        }
        let more = u64::from(args.seeds) - 1;
        let last = args.seed.checked_add(more).ok_or_else(|| {
            usage(format!("there are no {} seeds from {} on", args.seeds, args.seed), "--seeds")
                .fix(format!("--seed {} at most", u64::MAX - more))
        })?;
        let plan = Self {
            sources: sources(args)?,
            loads: args.workload.iter().map(|text| load(text)).collect::<Result<_, _>>()?,
            policies: policies(&args.policy)?,
            efficiencies: cluster.efficiency.clone(),
            seeds: (args.seed..=last).collect(),
            settings: settings(cluster, args.seed),
            startup: cluster.startup,
            faults: Faults {
                vanish: args.faults.vanish,
                listings_fail: args.faults.fail_listings,
                blind_seconds: args.faults.blind,
                reject: args.faults.reject,
                node_fails: args.faults.fail_nodes,
            },
        };
        match plan.combinations().len() {
            runs if runs > RUNS_MAX => Err(usage(format!("{runs} combinations are too many"), "--seeds")),
            _ => Ok(plan),
        }
    }

    /// Returns all combinations, in the order in which they are printed.
    fn combinations(&self) -> Vec<Combination> {
        let mut all = Vec::new();
        for source in 0..self.sources.len() {
            for load in 0..self.loads.len() {
                for (policy, name) in self.policies.iter().enumerate() {
                    // The others know no efficiency.
                    let efficiencies = if name == "ours" { self.efficiencies.len().max(1) } else { 1 };
                    for efficiency in 0..efficiencies {
                        let one = |seed: &u64| Combination { source, load, policy, efficiency, seed: *seed };
                        all.extend(self.seeds.iter().map(one));
                    }
                }
            }
        }
        all
    }

    fn cell(&self, of: Combination) -> Cell {
        let workload = match &self.loads[of.load] {
            Load::Read(workload) => Workload::clone(workload),
            Load::Made(made) => made.make(of.seed),
        };
        let efficiency = self.efficiencies.get(of.efficiency).copied().unwrap_or(self.settings.efficiency);
        Cell {
            trace: self.sources[of.source].0.clone(),
            policy: self.policies[of.policy].clone(),
            scenario: Scenario {
                workload,
                settings: Settings { efficiency, seed: of.seed, ..self.settings.clone() },
                startup: self.startup,
                faults: self.faults,
                seed: of.seed,
            },
        }
    }

    fn play(&self, of: Combination) -> (Cell, Run) {
        let cell = self.cell(of);
        let queue = self.sources[of.source].1.queue(of.seed);
        let mut policy =
            policy::named(&cell.policy, &cell.scenario.settings).expect("names were checked when options were read");
        let run = crate::simulate::run(&cell.scenario, queue, policy.as_mut());
        (cell, run)
    }

    fn row(&self, of: Combination, cell: &Cell, run: &Run) -> Row {
        let several = self.efficiencies.len() > 1 && cell.policy == "ours";
        Row {
            trace: cell.trace.clone(),
            workload: cell.scenario.workload.name.clone(),
            efficiency: several.then(|| self.efficiencies[of.efficiency]),
            summary: run.summary.clone(),
        }
    }

    /// Plays everything.
    pub(super) fn run(&self) -> Result<Played, Problem> {
        let all = self.combinations();
        if let [only] = all[..] {
            let (cell, run) = self.play(only);
            return Ok(Played { rows: vec![self.row(only, &cell, &run)], only: Some((cell, run)) });
        }
        let next = AtomicUsize::new(0);
        // By place, so that the order is not that in which threads are done.
        let rows: Mutex<BTreeMap<usize, Row>> = Mutex::default();
        let work = || {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(of) = all.get(place).copied() else { break };
                let (cell, run) = self.play(of);
                let row = self.row(of, &cell, &run);
                if let Ok(mut rows) = rows.lock() {
                    rows.insert(place, row);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(all.len());
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        let rows = rows.into_inner().map_err(|_| Problem::new(Kind::Internal, "a simulation came to a wrong end"))?;
        Ok(Played { rows: rows.into_values().collect(), only: None })
    }
}

fn policies(typed: &[String]) -> Result<Vec<String>, Problem> {
    let mut policies: Vec<String> = Vec::new();
    for name in typed {
        let names = if name == "all" { policy::NAMES.to_vec() } else { vec![name.as_str()] };
        if let Some(unknown) = names.iter().find(|name| !policy::NAMES.contains(name)) {
            let what = format!("there is no policy `{unknown}`");
            return Err(usage(what, "--policy").fix(format!("{} or all", policy::NAMES.join(", "))));
        }
        policies.extend(names.into_iter().map(str::to_owned));
    }
    let mut seen = BTreeSet::new();
    policies.retain(|name| seen.insert(name.clone()));
    Ok(policies)
}

fn load(text: &str) -> Result<Load, Problem> {
    match text.parse::<Made>() {
        Ok(made) => Ok(Load::Made(made)),
        // No seed changes a file.
        Err(_) => Workload::find(text, 0).map(|read| Load::Read(Arc::new(read))).map_err(|error| bad_file(&error)),
    }
}

/// Returns where waits come from, with a name: the logs, or one model.
fn sources(args: &SimulateArgs) -> Result<Vec<(String, Waits)>, Problem> {
    let needs_log = || usage("this model of the queue needs a log", "--queue").fix("--trace LOG.csv or LOG.swf");
    let takes_none = || {
        usage("this model of the queue takes no log", "--queue").fix("leave --trace out, or --queue nearest or easy")
    };
    if args.trace.is_empty() {
        let choice = args.queue.unwrap_or_default();
        let waits = match choice {
            Choice::Constant(wait) => Waits::Constant(wait),
            Choice::LogNormal(median, sigma) => Waits::LogNormal(median, sigma),
            Choice::Nearest | Choice::Easy => return Err(needs_log()),
        };
        return Ok(vec![(choice.to_string(), waits)]);
    }
    let mut sources: Vec<(String, Waits)> = Vec::new();
    for path in &args.trace {
        let log = Arc::new(Log::read(path).map_err(|error| bad_file(&error))?);
        let usual = if log.format == Format::Csv { Choice::Nearest } else { Choice::Easy };
        // Two logs of one name are told apart by their paths.
        let known = sources.iter().any(|(name, _)| *name == log.name);
        let name = if known { path.display().to_string() } else { log.name.clone() };
        let waits = match args.queue.unwrap_or(usual) {
            Choice::Nearest => Waits::Nearest(log),
            Choice::Easy => {
                let (machine, cores) = (log.processors(), args.cluster.cores);
                if machine < cores {
                    let what = format!("the machine of {name} has {machine} processors, a job asks for {cores}");
                    return Err(usage(what, "--cores").fix(format!("--cores {machine} at most")));
                }
                Waits::Easy(log)
            }
            Choice::Constant(_) | Choice::LogNormal(..) => return Err(takes_none()),
        };
        sources.push((name, waits));
    }
    Ok(sources)
}

fn settings(cluster: &ClusterArgs, seed: u64) -> Settings {
    let seconds = |seconds: u64| seconds as f64;
    let pool = PoolShape {
        memory_bytes: cluster.memory,
        walltime: cluster.walltime.longest.map(seconds),
        walltime_choices: cluster.walltime.choices.iter().copied().map(seconds).collect(),
        drain_lead: seconds(drain_lead_of(cluster.walltime.longest)),
        ..PoolShape::new(cluster.cores)
    };
    let settings = Settings::new(cluster.min, cluster.max, vec![pool]);
    Settings {
        efficiency: cluster.efficiency.first().copied().unwrap_or(settings.efficiency),
        idle_timeout: cluster.idle_timeout,
        max_pending: cluster.max_pending,
        rate_per_minute: cluster.rate,
        seed,
        ..settings
    }
}
