//! The keys of the configuration: one table for files, environment variables and flags. Users of
//! Slurm, PBS and dask-jobqueue may write the names they know; `-` and `_` are the same.

use super::problem::nearest;
use serde::{Serialize, Serializer};

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// Name of the cluster.
    Name,
    /// Which `[profile.NAME]` to use.
    Profile,
    /// Which profiles are further pools.
    Pools,
    /// Where jobs run.
    Backend,
    /// Jobs to ask for.
    Jobs,
    /// Cores of one job.
    Cores,
    /// Memory of one job.
    Memory,
    /// GPUs of one job.
    Gpus,
    /// Time limit of one job.
    Walltime,
    /// Queue or partition.
    Queue,
    /// Account or project.
    Account,
    /// Quality of service.
    Qos,
    /// Node features.
    Constraint,
    /// Nodes to use.
    Nodelist,
    /// Nodes to avoid.
    Exclude,
    /// Further directives.
    Directives,
    /// Shell lines before the worker.
    Prologue,
    /// Time before the end of the walltime at which a worker drains.
    DrainLead,
    /// How long a worker lives on without its server.
    OrphanTimeout,
    /// Network interface of the server.
    Interface,
    /// Address of the server.
    Address,
    /// Cluster-wide counters.
    Counters,
    /// Whether tasks are kept on cores of their own.
    Pin,
    /// What a worker runs before it leaves.
    OnExit,
    /// Jobs there always are, where their number follows the load.
    Min,
    /// Jobs there never are more of; their number follows the load.
    Max,
    /// Share of a new job's time that must be useful.
    Efficiency,
    /// After how long an idle job is given up.
    IdleTimeout,
    /// Jobs that may be pending at once.
    MaxPending,
    /// Jobs that may be submitted in a minute.
    Rate,
}

/// What is known of a key: its name, its flag, other spellings.
struct Names {
    name: &'static str,
    flag: &'static str,
    variable: &'static str,
    aliases: &'static [&'static str],
}

const fn names(
    name: &'static str,
    flag: &'static str,
    variable: &'static str,
    aliases: &'static [&'static str],
) -> Names {
    Names { name, flag, variable, aliases }
}

impl Key {
    /// Every key, in the order in which people read them.
    pub const ALL: [Self; 30] = [
        Self::Name,
        Self::Profile,
        Self::Pools,
        Self::Backend,
        Self::Jobs,
        Self::Cores,
        Self::Memory,
        Self::Gpus,
        Self::Walltime,
        Self::Queue,
        Self::Account,
        Self::Qos,
        Self::Constraint,
        Self::Nodelist,
        Self::Exclude,
        Self::Directives,
        Self::Prologue,
        Self::DrainLead,
        Self::OrphanTimeout,
        Self::Interface,
        Self::Address,
        Self::Counters,
        Self::Pin,
        Self::OnExit,
        Self::Min,
        Self::Max,
        Self::Efficiency,
        Self::IdleTimeout,
        Self::MaxPending,
        Self::Rate,
    ];

    #[rustfmt::skip] // A table.
    const fn names(self) -> Names {
        match self {
            Self::Name => names("name", "--name", "DCLUSTER_NAME", &["cluster"]),
            Self::Profile => names("profile", "--profile", "DCLUSTER_PROFILE", &["default-profile"]),
            Self::Pools => names("pools", "--pool", "DCLUSTER_POOLS", &["pool"]),
            Self::Backend => names("backend", "--backend", "DCLUSTER_BACKEND", &[]),
            Self::Jobs => names("jobs", "--jobs", "DCLUSTER_JOBS", &[]),
            Self::Cores => names("cores", "--cores", "DCLUSTER_CORES", &["cpus", "ncpus", "cpus-per-task"]),
            Self::Memory => names("memory", "--memory", "DCLUSTER_MEMORY", &["mem"]),
            Self::Gpus => names("gpus", "--gpus", "DCLUSTER_GPUS", &["ngpus"]),
            Self::Walltime => names("walltime", "--walltime", "DCLUSTER_WALLTIME", &["time"]),
            Self::Queue => names("queue", "--queue", "DCLUSTER_QUEUE", &["partition"]),
            Self::Account => names("account", "--account", "DCLUSTER_ACCOUNT", &["project"]),
            Self::Qos => names("qos", "--qos", "DCLUSTER_QOS", &[]),
            Self::Constraint => names("constraint", "--constraint", "DCLUSTER_CONSTRAINT", &[]),
            Self::Nodelist => names("nodelist", "--nodelist", "DCLUSTER_NODELIST", &[]),
            Self::Exclude => names("exclude", "--exclude", "DCLUSTER_EXCLUDE", &[]),
            Self::Directives => names("directives", "--directive", "DCLUSTER_DIRECTIVES", &["directive", "job-extra-directives", "job-extra"]),
            Self::Prologue => names("prologue", "--prologue", "DCLUSTER_PROLOGUE", &["job-script-prologue", "env-extra"]),
            Self::DrainLead => names("drain-lead", "--drain-lead", "DCLUSTER_DRAIN_LEAD", &[]),
            Self::OrphanTimeout => names("orphan-timeout", "--orphan-timeout", "DCLUSTER_ORPHAN_TIMEOUT", &[]),
            Self::Interface => names("interface", "--interface", "DCLUSTER_INTERFACE", &[]),
            Self::Address => names("address", "--address", "DCLUSTER_ADDRESS", &[]),
            Self::Counters => names("counters", "--counter", "DCLUSTER_COUNTERS", &["counter"]),
            Self::Pin => names("pin", "--pin", "DCLUSTER_PIN", &[]),
            Self::OnExit => names("on-exit", "--on-exit", "DCLUSTER_ON_EXIT", &[]),
            Self::Min => names("min", "--min", "DCLUSTER_MIN", &["minimum"]),
            Self::Max => names("max", "--max", "DCLUSTER_MAX", &["maximum"]),
            Self::Efficiency => names("efficiency", "--efficiency", "DCLUSTER_EFFICIENCY", &["prefer"]),
            Self::IdleTimeout => names("idle-timeout", "--idle-timeout", "DCLUSTER_IDLE_TIMEOUT", &[]),
            Self::MaxPending => names("max-pending", "--max-pending", "DCLUSTER_MAX_PENDING", &[]),
            Self::Rate => names("rate", "--rate", "DCLUSTER_RATE", &[]),
        }
    }

    /// Returns the name in files and in `config show`.
    pub const fn name(self) -> &'static str {
        self.names().name
    }

    /// Returns the flag, with its dashes.
    pub const fn flag(self) -> &'static str {
        self.names().flag
    }

    /// Returns the environment variable.
    pub const fn variable(self) -> &'static str {
        self.names().variable
    }

    /// Returns the key of a name or alias; `_` counts as `-`, case does not count.
    pub fn find(text: &str) -> Option<Self> {
        let wanted = normal(text);
        Self::ALL.into_iter().find(|key| {
            let names = key.names();
            names.name == wanted || names.aliases.contains(&wanted.as_str())
        })
    }

    /// Returns the name or alias that was probably meant by `text`.
    pub fn suggest(text: &str) -> Option<&'static str> {
        let all = Self::ALL.into_iter().flat_map(|key| {
            let names = key.names();
            std::iter::once(names.name).chain(names.aliases.iter().copied())
        });
        nearest(&normal(text), all)
    }
}

fn normal(text: &str) -> String {
    text.to_ascii_lowercase().replace('_', "-")
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_key_alone() {
        let mut seen = std::collections::BTreeSet::new();
        for key in Key::ALL {
            let names = key.names();
            assert_eq!(names.variable, format!("DCLUSTER_{}", names.name.to_uppercase().replace('-', "_")));
            for name in std::iter::once(&names.name).chain(names.aliases) {
                assert_eq!(Key::find(name), Some(key));
                assert!(seen.insert(*name), "{name} stands twice");
            }
        }
        assert_eq!(Key::find("drain_lead"), Some(Key::DrainLead));
        assert_eq!(Key::find("Job_Extra_Directives"), Some(Key::Directives));
        assert_eq!(Key::find("queu"), None);
    }

    #[test]
    fn suggests_names_and_aliases() {
        assert_eq!(Key::suggest("queu"), Some("queue"));
        assert_eq!(Key::suggest("partiton"), Some("partition"));
        assert_eq!(Key::suggest("drain_led"), Some("drain-lead"));
        assert_eq!(Key::suggest("colour"), None);
    }
}
