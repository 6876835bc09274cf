//! Renders job scripts. Pure: input to text. Called by the backends, by `render` and by `explain`.
//!
//! Handlebars leaves three holes that are closed here (`style.md` section 4.1): HTML escaping is off; strict
//! mode says nothing of a misspelt `{{#if}}`, so every path of a template is checked against `FIELDS` when it
//! is loaded; and user text comes in as a value, through `{{sh}}` (one shell word) or `{{line}}` (a directive:
//! no control characters), except the prologue, which is shell code.

use crate::backends::template;
use crate::config::spec::{BackendKind, PoolSpec};
use crate::runtime::ids::{JobName, JobSeq};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What all jobs of a pool have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobHome {
    /// Folder of the cluster, absolute.
    pub folder: PathBuf,
    /// Our own program, absolute.
    pub binary: PathBuf,
    /// First four letters of the cluster's id.
    pub id4: String,
    /// The shape of a job.
    pub pool: PoolSpec,
}

impl JobHome {
    /// Returns the folder of one job.
    pub fn job_folder(&self, name: &JobName) -> PathBuf {
        self.folder.join("jobs").join(name.as_str())
    }
    /// Returns the file in which a job's script leaves its exit code.
    pub fn exit_file(&self, name: &JobName) -> PathBuf {
        self.job_folder(name).join("exit")
    }
}

/// A script to render.
#[derive(Clone, Copy, Debug)]
pub struct RenderInput<'a> {
    /// What all jobs have in common.
    pub home: &'a JobHome,
    /// Which backend's script.
    pub backend: BackendKind,
    /// Number of the first job.
    pub first: JobSeq,
    /// How many jobs the script is for.
    pub count: u32,
    /// Says with every directive what it is and where it came from.
    pub explain: bool,
    /// Where a field of [`PoolSpec`] came from, by its name (`cores` → `--cores`); for `explain` only.
    pub origins: Option<&'a BTreeMap<String, String>>,
}

/// Why a script cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A path that cannot stand in a text file.
    #[error("the path {path:?} is not UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A directive that dcluster sets itself.
    #[error("the directive {directive:?} sets {option}, which dcluster needs for itself")]
    Reserved {
        /// The user's directive.
        directive: String,
        /// The option in it.
        option: &'static str,
    },
    /// A path that Slurm cannot be told: it drops a backslash even within quotes (22.05.8).
    #[error("the path {path:?} has a backslash, which Slurm does not take")]
    Backslash {
        /// The path.
        path: PathBuf,
    },
    /// A value with a NUL byte.
    #[error("the prologue has a NUL byte")]
    Nul,
    /// A template or a value in it.
    #[error(transparent)]
    Template(#[from] template::TemplateError),
}

/// The names a template may use.
const FIELDS: &[&str] = &[
    "name",
    "array_last",
    "cores",
    "memory_mib",
    "gres",
    "time",
    "queue",
    "account",
    "qos",
    "constraint",
    "nodelist",
    "exclude",
    "folder",
    "output",
    "signal_seconds",
    "directives",
    "binary",
    "id4",
    "first",
    "prologue",
];

/// `sbatch` options that a directive must not set: names, the log and how we find a job again hang on them.
const RESERVED: &[(&str, &str)] = &[
    ("--array", "-a"),
    ("--chdir", "-D"),
    ("--clusters", "-M"),
    ("--export", ""),
    ("--export-file", ""),
    ("--job-name", "-J"),
    ("--output", "-o"),
    ("--parsable", ""),
    ("--requeue", ""),
    ("--signal", ""),
    ("--test-only", ""),
    ("--wait", "-W"),
    ("--wrap", ""),
];

/// Largest lead of `--signal` (sbatch(1), 22.05: "sig_time must have an integer value between 0 and 65535").
const SIGNAL_LIMIT_SECONDS: u64 = 65535;

/// The values of a script.
#[derive(Serialize)]
struct Values<'a> {
    name: String,
    array_last: Option<u32>,
    cores: u32,
    memory_mib: Option<u64>,
    gres: Option<String>,
    time: Option<String>,
    queue: Option<&'a str>,
    account: Option<&'a str>,
    qos: Option<&'a str>,
    constraint: Option<&'a str>,
    nodelist: Option<&'a str>,
    exclude: Option<&'a str>,
    folder: &'a str,
    output: String,
    signal_seconds: Option<u64>,
    directives: &'a [String],
    binary: &'a str,
    id4: &'a str,
    first: u32,
    prologue: String,
}

/// Returns the job script.
pub fn render_job_script(input: &RenderInput<'_>) -> Result<String, RenderError> {
    let JobHome { folder, binary, id4, pool } = input.home;
    let name = JobName::new(id4, input.first);
    if input.backend == BackendKind::Slurm {
        pool.directives.iter().try_for_each(|d| not_reserved(d))?;
        if text(folder)?.contains('\\') {
            return Err(RenderError::Backslash { path: folder.clone() });
        }
    }
    // sbatch refuses a script with DOS line ends (capture submit_crlf).
    let prologue = pool.prologue.replace("\r\n", "\n");
    if prologue.contains('\0') {
        return Err(RenderError::Nul);
    }
    let values = Values {
        name: name.to_string(),
        array_last: (input.count > 1).then(|| input.count - 1),
        cores: pool.cores,
        memory_mib: pool.memory_bytes.map(|bytes| bytes.div_ceil(1 << 20)),
        gres: gres(pool),
        time: pool.walltime_seconds.map(slurm_time),
        queue: pool.queue.as_deref(),
        account: pool.account.as_deref(),
        qos: pool.qos.as_deref(),
        constraint: pool.constraint.as_deref(),
        nodelist: pool.nodelist.as_deref(),
        exclude: pool.exclude.as_deref(),
        folder: text(folder)?,
        output: format!("{}/{}", text(folder)?.replace('%', "%%"), slurm_output(&name, input.count)),
        signal_seconds: Some(pool.drain_lead_seconds.min(SIGNAL_LIMIT_SECONDS)).filter(|s| *s > 0),
        directives: &pool.directives,
        binary: text(binary)?,
        id4,
        first: input.first.0,
        prologue: prologue.trim_end().to_owned(),
    };
    let main = match input.backend {
        BackendKind::Slurm => include_str!("../../templates/slurm.sh.hbs"),
        BackendKind::Local => include_str!("../../templates/local.sh.hbs"),
    };
    let files = [(input.backend.as_str(), main), ("job_body", include_str!("../../templates/job_body.sh.hbs"))];
    let why = |topic: &str| {
        let meaning = meaning(topic)?;
        let origin = input.origins.and_then(|o| o.get(topic));
        input.explain.then(|| match origin {
            Some(origin) => format!("{meaning} [{origin}]"),
            None => meaning.to_owned(),
        })
    };
    Ok(template::render(&files, FIELDS, &values, why)?)
}

/// Returns where the output of element `index` of an array lies, relative to the cluster's folder.
pub fn slurm_log(array_name: &JobName, count: u32, index: u32) -> PathBuf {
    PathBuf::from(slurm_output(array_name, count).replace("%a", &index.to_string()))
}

/// The pattern of `--output` below the folder. In the folder itself `%` is doubled, for Slurm reads patterns
/// there too, also when the output is relative to `--chdir` (22.05.8).
fn slurm_output(array_name: &JobName, count: u32) -> String {
    match count {
        1 => format!("jobs/{array_name}.log"),
        _ => format!("jobs/{array_name}-%a.log"),
    }
}

fn gres(pool: &PoolSpec) -> Option<String> {
    let count = pool.gpus;
    match &pool.gpu_type {
        _ if count == 0 => None,
        Some(kind) => Some(format!("gpu:{kind}:{count}")),
        None => Some(format!("gpu:{count}")),
    }
}

/// `[days-]hours:minutes:seconds` (sbatch(1), `--time`). Slurm rounds up to a minute.
fn slurm_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        _ => format!("{days}-{time}"),
    }
}

fn text(path: &Path) -> Result<&str, RenderError> {
    path.to_str().ok_or_else(|| RenderError::Path { path: path.to_owned() })
}

/// Refuses a directive with an option of [`RESERVED`], also abbreviated as getopt_long(3) allows.
fn not_reserved(directive: &str) -> Result<(), RenderError> {
    for word in shlex::split(directive).unwrap_or_default() {
        let option = word.split('=').next().unwrap_or_default();
        let taken = RESERVED.iter().find(|(long, short)| {
            let long_match = option.len() >= 5 && long.starts_with(option);
            long_match || (!short.is_empty() && !word.starts_with("--") && word.starts_with(short))
        });
        if let Some((option, _)) = taken {
            return Err(RenderError::Reserved { directive: directive.to_owned(), option });
        }
    }
    Ok(())
}

/// What a line of a script is for, in the words of `--explain`.
fn meaning(topic: &str) -> Option<&'static str> {
    Some(match topic {
        "name" => "name of the job: how dcluster finds it again after a crash; an array bears its first job's",
        "array" => "jobs of one shape are submitted by one command; element 0 is the job the array is named after",
        "nodes" => "one job is one worker on one node",
        "cores" => "cores of one job",
        "memory_bytes" => "memory of one job, in MiB rounded up",
        "gpus" => "GPUs of one job",
        "walltime_seconds" => "walltime: the job is ended after it",
        "queue" => "partition",
        "account" => "account the time is billed to",
        "qos" => "quality of service",
        "constraint" => "features a node must have",
        "nodelist" => "nodes to use",
        "exclude" => "nodes to avoid",
        "chdir" => "the cluster's folder; the script checks it again, for Slurm runs a job in /tmp when it is missing",
        "output" => "where the job's output goes; a second run appends",
        "requeue" => "a lost job is replaced by dcluster, under a new name, never restarted by Slurm",
        "drain_lead_seconds" => {
            "asks the worker to drain so many seconds before the walltime ends; Slurm may be 60 s early"
        }
        "directives" => "your own directive, verbatim",
        "identity" => "which job this is, in the words of the batch system",
        "signals" => "a signal reaches this script alone, so the worker is told; without a worker it ends the job",
        "sentinel" => {
            "however the job ends: ends left-over processes, then leaves the exit code where the server looks"
        }
        "environment" => "the environment of `dcluster up`, from a file that only you can read",
        "prologue" => "your prologue",
        "worker" => "the worker, in the background of this script, which forwards signals to it meanwhile",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
