//! `dcluster worker`: by hand (`join`), and as job scripts start it.

use super::Context;
use crate::backends::leftovers::sweep;
use crate::cluster::Folder;
use crate::config::host;
use crate::config::options::ClusterOption;
use crate::config::spec::Spec;
use crate::config::units::{parse_duration, parse_size};
use crate::doctor::probe;
use crate::error::{Kind, Problem};
use crate::runtime::ids::JobName;
use crate::runtime::protocol::Capacity;
use crate::runtime::worker::{self, Cores, Simulation, WorkerOptions};
use bstr::BString;
use clap::{Args, Subcommand};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Add this node to a running cluster by hand (worker join)
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:
  dcluster worker join --cores 8"
)]
pub(super) struct WorkerArgs {
    #[command(subcommand)]
    command: Option<WorkerCommand>,
    /// The cluster folder.
    #[arg(long, hide = true, value_name = "DIR")]
    cluster_folder: Option<PathBuf>,
    /// The job it runs in.
    #[arg(long, hide = true, value_name = "NAME")]
    job: Option<String>,
    /// The pool of the job.
    #[arg(long, hide = true, value_name = "NAME", default_value = Spec::DEFAULT_POOL)]
    pool: String,
    /// The job's time limit, where it is not its pool's.
    #[arg(long, hide = true, value_name = "TIME", value_parser = parse_duration)]
    walltime: Option<u64>,
    /// End what is left of the job's processes.
    #[arg(long, hide = true)]
    sweep: bool,
}

#[derive(Subcommand, Debug)]
enum WorkerCommand {
    Join(JoinArgs),
}

/// Add this node to a running cluster until Ctrl-C
///
/// For an allocation that you hold already (salloc, an interactive job), or a spare workstation on the
/// same file system. Stays in the foreground; Ctrl-C interrupts its tasks, which run again elsewhere.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  dcluster worker join
  salloc --cpus-per-task 8 dcluster worker join --cores 8 --time 1h")]
struct JoinArgs {
    #[command(flatten)]
    cluster: ClusterOption,
    /// Cores to offer (default: those this process may use).
    #[arg(long, visible_alias = "cpus", value_name = "N")]
    cores: Option<u32>,
    /// Memory to offer (default: all of this machine).
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// GPUs to offer, the first of those this process sees (default: all of them).
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// Keep each task on cores of its own.
    #[arg(long)]
    pin: bool,
    /// Shell line to run before leaving, for at most 30 s.
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    on_exit: Option<String>,
    /// Leave after this time.
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Run nothing: each task ends well after this time, or after its own with `sleep` (for measurements).
    #[arg(long, hide = true, value_name = "TIME|sleep")]
    simulate: Option<Simulation>,
    /// So many simulated workers in this process.
    #[arg(long, hide = true, value_name = "N", default_value_t = 1, requires = "simulate")]
    workers: u32,
}

fn usage(what: impl Into<String>) -> Problem {
    Problem::new(Kind::Usage, what)
}

pub(super) fn run(args: &WorkerArgs, context: &Context) -> Result<u8, Problem> {
    match (&args.command, &args.cluster_folder, &args.job) {
        (Some(WorkerCommand::Join(join)), ..) => join_cluster(join, context),
        (None, None, Some(job)) if args.sweep => {
            let name = job_name(job)?;
            let swept = sweep(&name);
            worker::sweep_scratch(&temporary(context), &name);
            if swept.found > 0 {
                context.printer.note(&format!(
                    "{} processes of job {name} were left over; {} could not be ended",
                    swept.found, swept.left
                ));
            }
            Ok(u8::from(swept.left > 0))
        }
        (None, Some(folder), Some(job)) => in_job(&Folder::at(folder), job_name(job)?, args, context),
        _ => Err(usage("nothing to do").fix("dcluster worker join")),
    }
}

fn job_name(text: &str) -> Result<JobName, Problem> {
    let letters = text.strip_prefix("dc").and_then(|rest| rest.get(..4)).unwrap_or_default();
    JobName::parse(letters, text).map(|(name, _)| name).ok_or_else(|| usage(format!("`{text}` is no name of a job")))
}

fn environment(context: &Context) -> std::collections::BTreeMap<BString, BString> {
    let variables = context.variables.iter();
    variables.map(|(name, value)| (BString::from(name.as_bytes()), BString::from(value.as_bytes()))).collect()
}

/// The node's folder for temporary files.
fn temporary(context: &Context) -> PathBuf {
    let named = context.variables.get("TMPDIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    named.unwrap_or_else(|| PathBuf::from("/tmp"))
}

fn set_aside(count: u32) -> Result<Cores, Problem> {
    Cores::of_host(count).map_err(|error| {
        usage("tasks cannot be pinned to cores")
            .says(error.to_string())
            .why("each task needs cores of its own")
            .fix("ask for fewer --cores, or leave --pin out")
    })
}

/// GPUs that the batch system gave this job.
fn gpus(context: &Context) -> Vec<String> {
    let listed =
        ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"].into_iter().find_map(|name| context.variables.get(name));
    let listed = listed.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
    listed.split(',').filter(|id| !id.is_empty() && *id != "NoDevFiles").map(str::to_owned).collect()
}

fn in_job(folder: &Folder, job: JobName, args: &WorkerArgs, context: &Context) -> Result<u8, Problem> {
    super::server::start_log(std::io::stderr, context);
    folder.open()?;
    if probe::is_probe(folder) {
        return probe::run(folder, &job, context.variables.home().as_deref(), &temporary(context));
    }
    let spec = folder.spec()?;
    let pool = spec.shape(&args.pool);
    let ids = gpus(context);
    let gpus: Vec<String> = if ids.is_empty() { (0..pool.gpus).map(|id| id.to_string()).collect() } else { ids };
    let memory = pool.memory_bytes.or(host::memory_bytes()).unwrap_or(u64::MAX);
    let cores = pool.pin.then(|| set_aside(pool.cores)).transpose()?;
    let walltime_seconds = args.walltime.or(pool.walltime_seconds);
    let capacity = Capacity {
        cores: pool.cores,
        memory_bytes: memory,
        gpus: u32::try_from(gpus.len()).unwrap_or(u32::MAX),
        numa: cores.as_ref().map(Cores::by_node).unwrap_or_default(),
    };
    let (code, reason) = worker::run(&WorkerOptions {
        folder: folder.clone(),
        job: Some(job),
        capacity,
        gpus,
        cores,
        temporary: temporary(context),
        on_exit: pool.on_exit.clone(),
        // As asked for; the server's next listing knows better.
        walltime_left: walltime_seconds,
        drain_lead_seconds: pool.drain_lead(args.walltime),
        orphan_timeout_seconds: spec.orphan_timeout_seconds,
        environment: environment(context),
    })?;
    tracing::info!(code, reason, "worker leaves");
    Ok(u8::try_from(code).unwrap_or(1))
}

fn join_cluster(args: &JoinArgs, context: &Context) -> Result<u8, Problem> {
    let folder = context.folder(&args.cluster)?;
    if super::connect::condition(&folder)? != super::connect::Condition::Up {
        return Err(super::connect::not_up(&folder));
    }
    folder.open()?;
    let spec = folder.spec()?;
    let size = |text: &String| {
        parse_size(text).map_err(|error| {
            let fix = error.fix();
            usage(error.to_string()).location("--memory").fix(fix)
        })
    };
    let seconds = |text: &String| {
        parse_duration(text).map_err(|error| {
            let fix = error.fix();
            usage(error.to_string()).location("--time").fix(fix)
        })
    };
    let walltime_left = args.time.as_ref().map(seconds).transpose()?;
    let mut gpus = gpus(context);
    if let Some(wanted) = args.gpus {
        let ids = (0u32..).map(|id| id.to_string());
        gpus = if gpus.is_empty() { ids.take(wanted as usize).collect() } else { gpus };
        gpus.truncate(wanted as usize);
    }
    let count = args.cores.unwrap_or_else(host::cores).max(1);
    let cores = args.pin.then(|| set_aside(count)).transpose()?;
    let capacity = Capacity {
        cores: count,
        memory_bytes: args.memory.as_ref().map(size).transpose()?.or(host::memory_bytes()).unwrap_or(u64::MAX),
        gpus: u32::try_from(gpus.len()).unwrap_or(u32::MAX),
        numa: cores.as_ref().map(Cores::by_node).unwrap_or_default(),
    };
    context.printer.note(&format!(
        "joining cluster {} with {}; Ctrl-C leaves",
        folder.name(),
        crate::ui::words::count(u64::from(capacity.cores), "core")
    ));
    let options = WorkerOptions {
        folder,
        job: None,
        capacity,
        gpus,
        cores,
        temporary: temporary(context),
        on_exit: args.on_exit.clone(),
        walltime_left,
        drain_lead_seconds: spec.pool.drain_lead_seconds.min(walltime_left.unwrap_or(u64::MAX) / 4),
        orphan_timeout_seconds: spec.orphan_timeout_seconds,
        environment: environment(context),
    };
    let (code, reason) = match args.simulate {
        Some(simulation) => worker::simulate(&options, simulation, args.workers)?,
        None => worker::run(&options)?,
    };
    context.printer.note(&format!("left: {reason}"));
    Ok(u8::try_from(code).unwrap_or(1))
}
