//! The flags that shape a cluster: the same names as in configuration files. Nothing is parsed
//! here; a flag becomes a raw value of the strongest layer, so that errors look alike wherever the
//! value was written.

use super::keys::Key;
use super::layers::{Layer, RawValue};
use super::sources::counter;
use clap::Args;

/// Which cluster a command is about.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterOption {
    /// Name of the cluster (default: "default").
    ///
    /// Several clusters can be up side by side under different names. A name has 1 to 64 letters a-z,
    /// digits, ".", "_" and "-". Also: DCLUSTER_NAME, `name` in a configuration file.
    #[arg(long = "name", visible_alias = "cluster", value_name = "NAME")]
    pub name: Option<String>,
}

/// What one job is made of, and how many to ask for.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
#[command(next_help_heading = "Shape of a job")]
pub struct PoolOptions {
    /// Use the values of [profile.PROFILE] of the configuration files.
    ///
    /// Other flags and DCLUSTER_* variables go before the profile's values. Also: DCLUSTER_PROFILE,
    /// `default-profile` in a configuration file.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,

    /// Further kind of job, as [profile.PROFILE] of the configuration files says; repeatable.
    ///
    /// It is a job as the other options say, with the profile's values over them. With --max, the tasks decide of
    /// which kind jobs are asked for; a fixed number of jobs is of the kind that the options say.
    #[arg(long = "pool", value_name = "PROFILE")]
    pub pools: Vec<String>,

    /// Where jobs run: local, slurm, pbs, sge, lsf, oar or condor.
    ///
    /// Default: the batch system whose commands are on the PATH, else local (this machine); `up` says which and
    /// why. Where there are several, the one whose variable is set (SLURM_CONF, PBS_CONF_FILE, SGE_ROOT,
    /// LSF_ENVDIR, CONDOR_CONFIG), then in the order above.
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,

    /// Jobs to ask for (default: 1). Each runs one worker. With --max their number follows the load.
    #[arg(long, value_name = "N")]
    pub jobs: Option<String>,

    /// Cores of one job (default: local all of the machine, else 1).
    #[arg(long, visible_alias = "cpus", value_name = "N")]
    pub cores: Option<String>,

    /// Memory of one job, like 100GB (default: local all of the machine, else the queue's).
    ///
    /// 100GB is 100 x 1000^3 bytes; 100GiB is 100 x 1024^3 bytes. A bare 100G means GiB, as Slurm,
    /// PBS and SGE mean it (Dask reads 100 x 1000^3). Also kB, MB, TB, K, M, T, KiB, MiB, TiB, and
    /// fractions: 1.5GB. A number alone is refused, since batch systems disagree about it.
    #[arg(long, visible_alias = "mem", value_name = "SIZE")]
    pub memory: Option<String>,

    /// GPUs of one job, like 2 or a100:2 (default: none).
    #[arg(long, value_name = "[TYPE:]N")]
    pub gpus: Option<String>,

    /// Time limit of one job, like 01:30:00, 1h30m or 2-12 (default: the queue's).
    ///
    /// HH:MM:SS, DAYS-HH, DAYS-HH:MM and DAYS-HH:MM:SS as Slurm writes them; 90m, 90min, 1h30m,
    /// "2 days" as people do. auto, or auto:12h, is from 15 min to 4 h (to 12 h): while the number of jobs follows
    /// the load (--max), each job gets what starts soonest and is enough for its tasks; else the longest. Refused, since batch systems disagree about them: a number alone
    /// (minutes or seconds?) and 90:00 (minutes and seconds, or hours and minutes?).
    #[arg(long, alias = "time", value_name = "TIME")]
    pub walltime: Option<String>,

    /// Queue or partition to submit to (default: the batch system's).
    #[arg(long, visible_alias = "partition", value_name = "QUEUE")]
    pub queue: Option<String>,

    /// Account or project that pays (default: the batch system's).
    #[arg(long, visible_alias = "project", value_name = "ACCOUNT")]
    pub account: Option<String>,

    /// Quality of service (Slurm).
    #[arg(long, value_name = "QOS")]
    pub qos: Option<String>,

    /// Features that nodes must have, like "haswell|skylake" (Slurm).
    #[arg(long, value_name = "FEATURES")]
    pub constraint: Option<String>,

    /// Nodes to use, like n[01-04] (Slurm).
    #[arg(long, value_name = "NODES")]
    pub nodelist: Option<String>,

    /// Nodes to avoid, like n[05-07] (Slurm).
    #[arg(long, value_name = "NODES")]
    pub exclude: Option<String>,

    /// Further line for the batch system, like --directive=--exclusive; repeatable.
    ///
    /// It is written into the job script as it is, after #SBATCH (#PBS, #$, #BSUB, #OAR); HTCondor's are
    /// lines NAME = VALUE of its submit description. Given here, directives replace those of
    /// the configuration files.
    #[arg(long = "directive", value_name = "TEXT", allow_hyphen_values = true)]
    pub directives: Vec<String>,

    /// Shell line to run in each job before its worker starts, like "module load netcdf"; repeatable.
    ///
    /// Given here, the lines replace the prologue of the configuration files.
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pub prologue: Vec<String>,

    /// How long before its time limit a worker takes no new task.
    ///
    /// Default: a tenth of --walltime, at least 30 s, at most 5 min. Less than half of --walltime.
    #[arg(long, value_name = "TIME")]
    pub drain_lead: Option<String>,

    /// How long a worker lives on when it cannot reach the server (default: 5min).
    #[arg(long, value_name = "TIME")]
    pub orphan_timeout: Option<String>,

    /// Network interface on which workers reach the server, like ib0 (default: all).
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Address on which workers reach the server, like 10.4.0.13 (default: all of this host).
    #[arg(long, value_name = "IP")]
    pub address: Option<String>,

    /// Something there is only a number of in the whole cluster, like lic=2; repeatable.
    ///
    /// Licences, connections to a database: tasks that need one say so, and never more run at once.
    /// Given here, counters replace those of the configuration files.
    #[arg(long = "counter", value_name = "NAME=TOTAL")]
    pub counters: Vec<String>,

    /// Keep each task on cores of its own, close to its memory.
    ///
    /// The processes of a task run on no core but its own (DCLUSTER_TASK_CPUS names them), and those of other
    /// tasks not on its.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub pin: Option<String>,

    /// Shell line that each worker runs before it leaves, like "rsync -a /tmp/out results/".
    ///
    /// For at most 30 s, and not beyond the time limit of the job. DCLUSTER_EXIT_REASON says why it leaves; what it
    /// prints is in the job's output. Not run when the worker is killed.
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pub on_exit: Option<String>,

    /// How the number of jobs follows the load.
    #[command(flatten)]
    pub adapt: AdaptOptions,
}

/// How the number of jobs follows the load.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
#[command(next_help_heading = "Number of jobs by load")]
pub struct AdaptOptions {
    /// Jobs there always are (default: 0).
    #[arg(long, visible_alias = "minimum", value_name = "N")]
    pub min: Option<String>,

    /// Jobs there never are more of; their number follows the load.
    #[arg(long, visible_alias = "maximum", value_name = "N")]
    pub max: Option<String>,

    /// What counts more, time or core-hours: speed, balanced (default), thrift; or a number.
    ///
    /// The share of a new job's time, start-up included, that must be useful for it to be asked for: 0.05 to
    /// 0.95. speed is 0.5, balanced 0.65, thrift 0.85.
    #[arg(long, visible_alias = "prefer", value_name = "SHARE")]
    pub efficiency: Option<String>,

    /// After how long an idle job is given up (default: learned from waits and gaps).
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<String>,

    /// Jobs that may be pending at once (default: as many as are of use).
    #[arg(long, value_name = "N")]
    pub max_pending: Option<String>,

    /// Jobs that may be asked for in a minute, like 10 or 10/min (default: as many as are of use).
    #[arg(long, value_name = "N/min")]
    pub rate: Option<String>,
}

impl AdaptOptions {
    /// Writes the flags that were given into a layer.
    pub fn add_to(&self, layer: &mut Layer) {
        let Self { min, max, efficiency, idle_timeout, max_pending, rate } = self;
        for (key, text) in [
            (Key::Min, min),
            (Key::Max, max),
            (Key::Efficiency, efficiency),
            (Key::IdleTimeout, idle_timeout),
            (Key::MaxPending, max_pending),
            (Key::Rate, rate),
        ] {
            set(layer, key, text.as_deref());
        }
    }
}

impl ClusterOption {
    /// Writes the flag into a layer.
    pub fn add_to(&self, layer: &mut Layer) {
        set(layer, Key::Name, self.name.as_deref());
    }
}

impl PoolOptions {
    /// Writes the flags that were given into a layer.
    pub fn add_to(&self, layer: &mut Layer) {
        let Self {
            profile,
            pools,
            backend,
            jobs,
            cores,
            memory,
            gpus,
            walltime,
            queue,
            account,
            qos,
            constraint,
            nodelist,
            exclude,
            directives,
            prologue,
            drain_lead,
            orphan_timeout,
            interface,
            address,
            counters,
            pin,
            on_exit,
            adapt,
        } = self;
        adapt.add_to(layer);
        for (key, text) in [
            (Key::Profile, profile),
            (Key::Backend, backend),
            (Key::Jobs, jobs),
            (Key::Cores, cores),
            (Key::Memory, memory),
            (Key::Gpus, gpus),
            (Key::Walltime, walltime),
            (Key::Queue, queue),
            (Key::Account, account),
            (Key::Qos, qos),
            (Key::Constraint, constraint),
            (Key::Nodelist, nodelist),
            (Key::Exclude, exclude),
            (Key::DrainLead, drain_lead),
            (Key::OrphanTimeout, orphan_timeout),
            (Key::Interface, interface),
            (Key::Address, address),
            (Key::Pin, pin),
            (Key::OnExit, on_exit),
        ] {
            set(layer, key, text.as_deref());
        }
        for (key, lines) in [(Key::Pools, pools), (Key::Directives, directives), (Key::Prologue, prologue)] {
            if !lines.is_empty() {
                layer.set_flag(key, RawValue::List(lines.clone()));
            }
        }
        if !counters.is_empty() {
            let counters = counters.iter().map(|text| counter(text)).collect();
            layer.set_flag(Key::Counters, RawValue::Table(counters));
        }
    }
}

fn set(layer: &mut Layer, key: Key, text: Option<&str>) {
    if let Some(text) = text {
        layer.set_flag(key, RawValue::Scalar(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Up {
        #[command(flatten)]
        cluster: ClusterOption,
        #[command(flatten)]
        pool: PoolOptions,
    }

    fn layer(args: &[&str]) -> Layer {
        let up = Up::try_parse_from(std::iter::once(&"up").chain(args)).expect("valid");
        let mut layer = Layer::default();
        up.cluster.add_to(&mut layer);
        up.pool.add_to(&mut layer);
        layer
    }

    #[test]
    fn every_key_has_its_flag() {
        let command = Up::command();
        command.clone().debug_assert();
        for key in Key::ALL {
            let flag = key.flag().trim_start_matches("--");
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag));
            assert!(arg.is_some_and(|arg| arg.get_help().is_some()), "{flag}");
        }
    }

    #[test]
    fn flags_become_raw_values() {
        let layer = layer(&[
            "--name=x",
            "--partition=p",
            "--project=a",
            "--time=1h",
            "--directive=--exclusive",
            "--directive",
            "--gres=x",
            "--prologue=module load a",
            "--counter=lic=2",
            "--counter=db",
        ]);
        let scalar = |text: &str| RawValue::Scalar(text.to_owned());
        assert_eq!(layer.values[&Key::Name].value, scalar("x"));
        assert_eq!(layer.values[&Key::Queue].value, scalar("p"));
        assert_eq!(layer.values[&Key::Queue].origin.to_string(), "--queue");
        assert_eq!(layer.values[&Key::Account].value, scalar("a"));
        assert_eq!(layer.values[&Key::Walltime].value, scalar("1h"));
        assert_eq!(layer.values[&Key::Directives].value, RawValue::List(vec!["--exclusive".into(), "--gres=x".into()]));
        assert_eq!(
            layer.values[&Key::Counters].value,
            RawValue::Table(vec![("lic".into(), "2".into()), ("db".into(), "".into())])
        );
        assert_eq!(layer.values.len(), 7);
    }

    #[test]
    fn nothing_given_nothing_set() {
        assert_eq!(layer(&[]), Layer::default());
    }
}
