//! Renders job scripts. Pure: input to text. Called by the backends, by `render` and by `explain`.
//!
//! Handlebars leaves three holes that are closed here (`style.md` section 4.1): HTML escaping is off; strict
//! mode says nothing of a misspelt `{{#if}}`, so every path of a template is checked against `FIELDS` when it
//! is loaded; and user text comes in as a value, through `{{sh}}` (one shell word) or `{{line}}` (a directive:
//! no control characters), except the prologue, which is shell code.

use crate::backends::batch::bounded;
use crate::backends::said::Said;
use crate::backends::{BackendError, ErrorClass, Submit, template};
use crate::config::spec::{BackendKind, PoolSpec};
use crate::runtime::ids::{JobName, JobSeq};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the jobs of one submission have in common. That of a cluster is of its default pool;
/// [`JobHome::of`] makes it that of a submission.
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
    /// The cluster's further shapes, by name.
    pub pools: BTreeMap<String, PoolSpec>,
    /// What the worker must be told of the shape: options and their values, for the shell.
    pub worker_options: String,
    /// What the batch system said of itself.
    pub said: Said,
}

impl JobHome {
    /// Returns what the jobs of a cluster's default pool have in common.
    pub fn new(folder: PathBuf, binary: PathBuf, id4: &str, pool: PoolSpec) -> Self {
        Self {
            folder,
            binary,
            id4: id4.to_owned(),
            pool,
            pools: BTreeMap::new(),
            worker_options: String::new(),
            said: Said::Nothing,
        }
    }
    /// Returns what the jobs of a submission have in common.
    #[must_use]
    pub fn of(&self, submit: &Submit) -> Self {
        let mut home = self.clone();
        if let Some(pool) = self.pools.get(&submit.pool) {
            home.pool = pool.clone();
            home.worker_options = format!(" --pool {}", submit.pool);
        }
        if let Some(seconds) = submit.walltime_seconds {
            home.pool.drain_lead_seconds = home.pool.drain_lead(Some(seconds));
            home.pool.walltime_seconds = Some(seconds);
            home.worker_options.push_str(&format!(" --walltime {seconds}s"));
        }
        home
    }
    /// Adds nodes to avoid.
    pub fn avoid(&mut self, nodes: &[String]) {
        if !nodes.is_empty() {
            let all = self.pool.exclude.iter().chain(nodes).cloned();
            self.pool.exclude = Some(all.collect::<Vec<_>>().join(","));
        }
    }
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
    /// A value that the batch system cannot be told.
    #[error("{0}")]
    Refused(String),
    /// A value with a NUL byte.
    #[error("the prologue has a NUL byte")]
    Nul,
    /// A template or a value in it.
    #[error(transparent)]
    Template(#[from] template::TemplateError),
}

/// The names every template may use.
const FIELDS: &[&str] = &[
    "name",
    "array_first",
    "array_last",
    "count",
    "cores",
    "memory_mib",
    "gpus",
    "gpu_type",
    "queue",
    "account",
    "folder",
    "output",
    "directives",
    "binary",
    "id4",
    "first",
    "worker_options",
    "prologue",
];

/// What is peculiar to the scripts of a batch system.
pub struct Dialect {
    /// Its template.
    pub template: &'static str,
    /// Options a directive must not set, long and short (`""` = none): names, the log and how we find a job again
    /// hang on them.
    pub reserved: &'static [(&'static str, &'static str)],
    /// How the template writes the index of an array's element within the path of its log (`%a`).
    pub index_word: &'static str,
    /// Index of an array's first element.
    pub first_index: u32,
    /// Returns the cluster's folder as it must be written in the path of a log; an error where the batch system
    /// cannot be told.
    pub log_folder: fn(&str) -> Result<String, RenderError>,
    /// Returns the further values of its template, an object. All names are always in it: a value that is not
    /// given is `null`. An error is what the batch system cannot be told.
    pub values: fn(&JobHome) -> Result<serde_json::Value, RenderError>,
}

impl Dialect {
    /// Returns what is peculiar to a backend's scripts.
    pub fn of(backend: BackendKind) -> &'static Self {
        match backend {
            BackendKind::Local => &super::local::DIALECT,
            BackendKind::Slurm => &super::slurm::script::DIALECT,
            BackendKind::Lsf => &super::lsf::script::DIALECT,
            BackendKind::Pbs => &super::pbs::script::DIALECT,
            BackendKind::Sge => &super::sge::script::DIALECT,
            BackendKind::Oar => &super::oar::script::DIALECT,
            BackendKind::Condor => &super::condor::script::DIALECT,
        }
    }
    /// Returns the template of what a submit command is given beside the script, where scripts have no directives.
    fn description(backend: BackendKind) -> Option<&'static str> {
        (backend == BackendKind::Condor).then_some(super::condor::script::DESCRIPTION)
    }
    /// Returns where the output of a job lies that was submitted as element `index`, from 0, of an array of
    /// `count` jobs; relative to the cluster's folder.
    pub fn log(&self, array_name: &JobName, count: u32, index: u32) -> PathBuf {
        let index = self.first_index + index;
        PathBuf::from(log_pattern(array_name, count, &index.to_string()))
    }
}

/// The path of a log below the folder; a single job has no index.
fn log_pattern(array_name: &JobName, count: u32, index: &str) -> String {
    match count {
        1 => format!("jobs/{array_name}.log"),
        _ => format!("jobs/{array_name}-{index}.log"),
    }
}

/// The values of every script.
#[derive(Serialize)]
struct Values<'a> {
    name: String,
    /// Indexes of an array's first and last element.
    array_first: Option<u32>,
    array_last: Option<u32>,
    /// How many jobs.
    count: u32,
    cores: u32,
    memory_mib: Option<u64>,
    /// `None` when there are none.
    gpus: Option<u32>,
    gpu_type: Option<&'a str>,
    queue: Option<&'a str>,
    account: Option<&'a str>,
    folder: &'a str,
    /// Path of the log, with the batch system's word for the index.
    output: String,
    directives: &'a [String],
    binary: &'a str,
    id4: &'a str,
    first: u32,
    worker_options: &'a str,
    prologue: String,
    #[serde(flatten)]
    own: serde_json::Value,
}

impl<'a> RenderInput<'a> {
    /// Returns the script of jobs as it is submitted, without explanations.
    pub fn plain(home: &'a JobHome, backend: BackendKind, first: JobSeq, count: u32) -> Self {
        Self { home, backend, first, count, explain: false, origins: None }
    }
}

impl RenderError {
    /// Returns it as the failure of a submission that never was: it will never work as it is.
    pub fn into_backend_error(self, command: &str) -> BackendError {
        BackendError {
            class: ErrorClass::Permanent,
            command: command.to_owned(),
            says: bounded(&self.to_string()),
            fix: Some("correct the pool; `dcluster render` shows the script".to_owned()),
        }
    }
}

/// Returns the job script.
pub fn render_job_script(input: &RenderInput<'_>) -> Result<String, RenderError> {
    render(input, Dialect::of(input.backend).template)
}

/// Returns what the submit command is given beside the script, where scripts have no directives.
pub fn render_description(input: &RenderInput<'_>) -> Result<Option<String>, RenderError> {
    Dialect::description(input.backend).map(|template| render(input, template)).transpose()
}

fn render(input: &RenderInput<'_>, template: &str) -> Result<String, RenderError> {
    let JobHome { folder, binary, id4, pool, worker_options, .. } = input.home;
    let name = JobName::new(id4, input.first);
    let dialect = Dialect::of(input.backend);
    pool.directives.iter().try_for_each(|directive| not_reserved(directive, dialect.reserved))?;
    // sbatch refuses a script with DOS line ends (capture submit_crlf).
    let prologue = pool.prologue.replace("\r\n", "\n");
    if prologue.contains('\0') {
        return Err(RenderError::Nul);
    }
    let is_array = input.count > 1;
    let values = Values {
        name: name.to_string(),
        array_first: is_array.then_some(dialect.first_index),
        count: input.count,
        array_last: is_array.then(|| dialect.first_index + input.count - 1),
        cores: pool.cores,
        memory_mib: pool.memory_bytes.map(|bytes| bytes.div_ceil(1 << 20)),
        gpus: Some(pool.gpus).filter(|gpus| *gpus > 0),
        gpu_type: pool.gpu_type.as_deref(),
        queue: pool.queue.as_deref(),
        account: pool.account.as_deref(),
        folder: text(folder)?,
        output: format!(
            "{}/{}",
            (dialect.log_folder)(text(folder)?)?,
            log_pattern(&name, input.count, dialect.index_word)
        ),
        directives: &pool.directives,
        binary: text(binary)?,
        id4,
        first: input.first.0,
        worker_options,
        prologue: prologue.trim_end().to_owned(),
        own: (dialect.values)(input.home)?,
    };
    let files = [(input.backend.as_str(), template), ("job_body", include_str!("../../templates/job_body.sh.hbs"))];
    let why = |topic: &str| {
        let meaning = meaning(topic)?;
        let origin = input.origins.and_then(|o| o.get(topic));
        input.explain.then(|| match origin {
            Some(origin) => format!("{meaning} [{origin}]"),
            None => meaning.to_owned(),
        })
    };
    let own = values.own.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let fields: Vec<&str> = FIELDS.iter().copied().chain(own).collect();
    Ok(template::render(&files, &fields, &values, why)?)
}

/// Returns a path as text.
///
/// # Errors
/// If it is not UTF-8.
pub(super) fn text(path: &Path) -> Result<&str, RenderError> {
    path.to_str().ok_or_else(|| RenderError::Path { path: path.to_owned() })
}

/// Refuses a directive with a reserved option, also abbreviated as getopt_long(3) allows.
fn not_reserved(directive: &str, reserved: &'static [(&'static str, &'static str)]) -> Result<(), RenderError> {
    for word in shlex::split(directive).unwrap_or_default() {
        let option = word.split('=').next().unwrap_or_default();
        let taken = reserved.iter().find(|(long, short)| {
            let long_match = option == *long || option.len() >= 5 && long.starts_with(option);
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
        "queue" => "queue or partition",
        "account" => "account the time is billed to",
        "qos" => "quality of service",
        "constraint" => "features a node must have",
        "nodelist" => "nodes to use",
        "exclude" => "nodes to avoid",
        "chdir" => "the cluster's folder; the script checks it again, for Slurm runs a job in /tmp when it is missing",
        "output" => "where the job's output goes; a second run appends",
        "requeue" => "a lost job is replaced by dcluster, under a new name, never restarted by the batch system",
        "drain_lead_seconds" => {
            "asks the worker to drain so many seconds before the walltime ends; Slurm may be 60 s early"
        }
        "shell" => "else it would run in /bin/sh: its first line is no more than a comment to Grid Engine",
        "notify" => "USR2 to this script some seconds before it is killed, at the end of its time and by qdel",
        "verify" => "refused now where it could never start, in place of waiting for ever",
        "last_signal" => "what means that the end is near",
        "reserved_codes" => "codes that mean `run it again` and `hold it in error` to the batch system",
        "directives" => "your own directive, verbatim",
        "arguments" => "which job this is: the script is told its cluster and process",
        "shared" => "the script runs where it lies: all machines see the cluster's folder",
        "never_held" => "a job that is held, or has lost its machine, leaves the queue also where no server removes it",
        "graceful" => "the script has time to end when it is removed",
        "resources" => "what one host must have and keep for the job, your own -R directives included",
        "property" => {
            "what its node must be, as a condition of SQL: OAR reserves no memory, so the node's whole memory is looked at"
        }
        "own_log" => "the script keeps its own log: OAR cannot name one by an element's index",
        "own_environment" => "what OAR's commands set for themselves and its start of jobs passes on",
        "mail" => "no report by mail: the script keeps its own log",
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
