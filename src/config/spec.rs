//! The resolved specification of a cluster: what `up` validated, what the server keeps, what a
//! template renders. No units in text form here: bytes, seconds, counts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where jobs run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Processes on this machine.
    Local,
    /// Slurm.
    Slurm,
    /// PBS: OpenPBS, PBS Professional, TORQUE.
    Pbs,
    /// Grid Engine and its children.
    Sge,
    /// LSF: IBM Spectrum LSF, OpenLava.
    Lsf,
    /// OAR.
    Oar,
    /// HTCondor.
    Condor,
}

impl BackendKind {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Local, Self::Slurm, Self::Pbs, Self::Sge, Self::Lsf, Self::Oar, Self::Condor];

    /// Returns the name used in commands and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Slurm => "slurm",
            Self::Pbs => "pbs",
            Self::Sge => "sge",
            Self::Lsf => "lsf",
            Self::Oar => "oar",
            Self::Condor => "condor",
        }
    }
    /// Returns its name in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Self::Local => "this machine",
            Self::Slurm => "Slurm",
            Self::Pbs => "PBS",
            Self::Sge => "Grid Engine",
            Self::Lsf => "LSF",
            Self::Oar => "OAR",
            Self::Condor => "HTCondor",
        }
    }
    /// Returns what stands before a directive in its job scripts; nothing in a submit description of HTCondor.
    pub fn directive_mark(self) -> &'static str {
        match self {
            Self::Local | Self::Slurm => "#SBATCH",
            Self::Pbs => "#PBS",
            Self::Sge => "#$",
            Self::Lsf => "#BSUB",
            Self::Oar => "#OAR",
            Self::Condor => "",
        }
    }
    /// Returns the commands it must find on the `PATH`.
    pub fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Local => &[],
            Self::Slurm => &["sbatch", "squeue", "scancel"],
            Self::Pbs => &["qsub", "qstat", "qdel", "qselect"],
            Self::Sge => &["qsub", "qstat", "qdel"],
            Self::Lsf => &["bsub", "bjobs", "bkill"],
            Self::Oar => &["oarsub", "oarstat", "oardel"],
            Self::Condor => &["condor_submit", "condor_q", "condor_rm"],
        }
    }
}

/// A cluster as it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Where jobs run.
    pub backend: BackendKind,
    /// The job shape; called `default`.
    pub pool: PoolSpec,
    /// Further job shapes, by the names of their profiles. Where the number of jobs follows the load, the tasks
    /// decide of which shape jobs are asked for; else they are of the default one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pools: BTreeMap<String, PoolSpec>,
    /// Jobs asked for at `up`.
    pub jobs: u32,
    /// Asked for at `up`: their number follows the load.
    #[serde(default)]
    pub adapt: Option<Adapt>,
    /// Cluster-wide counters: name → total.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Network interface the server listens on; all when neither this nor `address` is given.
    #[serde(default)]
    pub interface: Option<String>,
    /// Address the server listens on and publishes.
    #[serde(default)]
    pub address: Option<std::net::IpAddr>,
    /// Seconds a worker lives on without its server.
    pub orphan_timeout_seconds: u64,
}

impl Spec {
    /// Returns a cluster of no jobs as yet, whose workers live on for five minutes without their server.
    pub fn new(backend: BackendKind, pool: PoolSpec) -> Self {
        Self {
            backend,
            pool,
            pools: BTreeMap::new(),
            jobs: 0,
            adapt: None,
            counters: BTreeMap::new(),
            interface: None,
            address: None,
            orphan_timeout_seconds: 300,
        }
    }

    /// Name of the pool that there always is.
    pub const DEFAULT_POOL: &str = "default";

    /// Returns all pools by name, the default one first.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &PoolSpec)> {
        let further = self.pools.iter().map(|(name, pool)| (name.as_str(), pool));
        std::iter::once((Self::DEFAULT_POOL, &self.pool)).chain(further)
    }

    /// Returns the shape of a pool's jobs; that of the default one where the cluster has no such pool any more.
    pub fn shape(&self, pool: &str) -> &PoolSpec {
        self.pools.get(pool).unwrap_or(&self.pool)
    }
}

/// The number of jobs follows the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Adapt {
    /// Jobs there always are.
    pub min: u32,
    /// Jobs there never are more of.
    pub max: u32,
    /// Share of a new job's time that must be useful, in per cent: 5 to 95.
    pub efficiency_percent: u32,
    /// Seconds after which an idle job is given up; `None` = learned.
    #[serde(default)]
    pub idle_timeout_seconds: Option<u64>,
    /// Jobs that may be pending at once.
    #[serde(default)]
    pub max_pending: Option<u32>,
    /// Jobs that may be submitted in a minute.
    #[serde(default)]
    pub rate_per_minute: Option<u32>,
}

impl Adapt {
    /// The efficiency in per cent where none is said.
    pub const BALANCED: u32 = 65;
    /// Words for efficiencies, in per cent.
    pub const PREFER: [(&str, u32); 3] = [("speed", 50), ("balanced", Self::BALANCED), ("thrift", 85)];

    /// Says what makes no sense, if anything.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let most = super::values::JOBS_MAX;
        match self {
            Self { min, max, .. } if min > max => {
                Err(format!("the minimum of {min} jobs is above the maximum of {max}"))
            }
            Self { max, .. } if *max > most => Err(format!("a cluster has at most {most} jobs, not {max}")),
            Self { efficiency_percent: percent, .. } if !(5..=95).contains(percent) => {
                Err(format!("an efficiency is 5 % to 95 %, not {percent} %"))
            }
            Self { max_pending: Some(0), .. } => Err("with no job pending at a time there never is one".to_owned()),
            Self { rate_per_minute: Some(0), .. } => {
                Err("with no job asked for in a minute there never is one".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// The shape of one job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Cores of one job and its worker.
    pub cores: u32,
    /// Bytes of memory of one job; `None` = the queue's default (on `local`: all of the machine).
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// GPUs of one job.
    #[serde(default)]
    pub gpus: u32,
    /// Kind of GPU, as the batch system calls it (`a100`).
    #[serde(default)]
    pub gpu_type: Option<String>,
    /// Walltime of one job; `None` = the queue's default (on `local`: none).
    #[serde(default)]
    pub walltime_seconds: Option<u64>,
    /// Walltimes to choose from, ascending, where the walltime is to be found (`--walltime auto`); `walltime_seconds`
    /// is then the longest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub walltime_choices: Vec<u64>,
    /// Queue or partition.
    #[serde(default)]
    pub queue: Option<String>,
    /// Account or project.
    #[serde(default)]
    pub account: Option<String>,
    /// Quality of service (Slurm).
    #[serde(default)]
    pub qos: Option<String>,
    /// Node features (Slurm `--constraint`).
    #[serde(default)]
    pub constraint: Option<String>,
    /// Nodes to use (Slurm `--nodelist`).
    #[serde(default)]
    pub nodelist: Option<String>,
    /// Nodes to avoid (Slurm `--exclude`).
    #[serde(default)]
    pub exclude: Option<String>,
    /// Further directives, verbatim, without the `#SBATCH` (`#PBS`, `#$`, `#BSUB`, `#OAR`) in front.
    #[serde(default)]
    pub directives: Vec<String>,
    /// Shell lines run in the job before the worker starts.
    #[serde(default)]
    pub prologue: String,
    /// Seconds before the end of the walltime at which a worker drains.
    pub drain_lead_seconds: u64,
    /// Whether tasks are kept on cores of their own.
    #[serde(default)]
    pub pin: bool,
    /// Shell line that a worker runs before it leaves.
    #[serde(default)]
    pub on_exit: Option<String>,
}

impl PoolSpec {
    /// Returns the shape of jobs of which only the cores are said.
    pub fn new(cores: u32) -> Self {
        Self {
            cores,
            memory_bytes: None,
            gpus: 0,
            gpu_type: None,
            walltime_seconds: None,
            walltime_choices: Vec::new(),
            queue: None,
            account: None,
            qos: None,
            constraint: None,
            nodelist: None,
            exclude: None,
            directives: Vec::new(),
            prologue: String::new(),
            drain_lead_seconds: 60,
            pin: false,
            on_exit: None,
        }
    }

    /// Returns the drain lead of a job that was asked for with `walltime_seconds`, where that is not the pool's.
    pub fn drain_lead(&self, walltime_seconds: Option<u64>) -> u64 {
        match walltime_seconds {
            Some(_) => self.drain_lead_seconds.min(super::resolve::drain_lead_of(walltime_seconds)),
            None => self.drain_lead_seconds,
        }
    }
}
