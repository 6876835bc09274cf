//! From merged settings and facts about the machine to a [`Spec`]: defaults, validation, and the
//! list of every value with its origin that `config show` prints. Pure.

use super::host::Facts;
use super::keys::Key;
use super::layers::{Layers, Origin, RawValue, Settings};
use super::options::AdaptOptions;
use super::problem::{ConfigError, quoted};
use super::spec::{Adapt, BackendKind, PoolSpec, Spec};
use super::units::{clock_duration, human_duration, human_size};
use super::values;
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Least walltime, in seconds: no worker comes up, works and drains within a minute.
const WALLTIME_LEAST: u64 = 61;
/// Drain lead when the walltime is not known, and the longest by default, in seconds.
const DRAIN_LEAD_LONGEST: u64 = 300;
/// Shortest drain lead by default, in seconds.
const DRAIN_LEAD_SHORTEST: u64 = 30;
/// Seconds a worker lives on without its server, by default.
const ORPHAN_TIMEOUT: u64 = 300;

/// A value with where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Value<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

/// A line of `config show`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shown {
    /// The setting.
    pub key: Key,
    /// The value for machines: bytes, seconds, counts; null when there is none.
    pub value: Json,
    /// The value for people: `100 GB`, `01:30:00`; what holds in its place when there is none.
    pub text: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// A configuration that has been understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Name of the cluster.
    pub name: String,
    /// What it is made of.
    pub spec: Spec,
    /// Every value with its origin, in the order of [`Key::ALL`].
    pub values: Vec<Shown>,
}

/// Returns the specification, or the first problem.
pub fn resolve(settings: &Settings, facts: &Facts) -> Result<Resolved, ConfigError> {
    resolve_all(settings, facts)
        .map_err(|problems| problems.into_iter().next().expect("resolve_all fails only with problems"))
}

/// Returns how the number of jobs is to follow the load, as the options of `dcluster adapt` alone say.
///
/// # Errors
/// The first problem, a missing `--max` among them.
pub fn adapt_of(options: &AdaptOptions) -> Result<Adapt, ConfigError> {
    let mut layers = Layers::default();
    options.add_to(&mut layers.flags);
    let settings = layers.settings()?;
    let mut resolver = Resolver { settings: &settings, problems: Vec::new(), shown: Vec::new() };
    let adapt = resolver.adapt(1, &Origin::BuiltIn { because: None });
    match (resolver.problems.into_iter().next(), adapt) {
        (None, Some(adapt)) => Ok(adapt),
        (Some(problem), _) => Err(problem),
        (None, None) => Err(ConfigError::new("--max is missing").fix("dcluster adapt --min 0 --max N")),
    }
}

/// Returns the specification, or all problems, at least one.
pub(super) fn resolve_all(settings: &Settings, facts: &Facts) -> Result<Resolved, Vec<ConfigError>> {
    let mut resolver = Resolver { settings, problems: Vec::new(), shown: Vec::new() };
    let (name, spec) = resolver.spec(facts);
    if !resolver.problems.is_empty() {
        return Err(resolver.problems);
    }
    resolver.shown.sort_by_key(|shown| shown.key);
    Ok(Resolved { name, spec, values: resolver.shown })
}

struct Resolver<'a> {
    settings: &'a Settings,
    problems: Vec<ConfigError>,
    shown: Vec<Shown>,
}

impl Resolver<'_> {
    fn spec(&mut self, facts: &Facts) -> (String, Spec) {
        let name =
            self.or_default(Key::Name, values::cluster_name, |name| name.clone(), built_in("default".to_owned()));
        self.optional(Key::Profile, |raw| Ok(values::scalar(raw)?.to_owned()), "none");
        let backend =
            self.or_default(Key::Backend, values::backend, |kind| kind.as_str().to_owned(), default_backend(facts));
        let is_local = backend.value == BackendKind::Local;
        let pool = self.pool(&backend, facts);
        let pools = self.further_pools(&backend, facts);
        let jobs = self.or_default(
            Key::Jobs,
            |raw| values::count(raw, "jobs", 0, values::JOBS_MAX),
            u32::to_string,
            built_in(1),
        );
        let orphan_timeout = self.or_default(
            Key::OrphanTimeout,
            |raw| values::duration(raw, 1),
            |seconds| human_duration(*seconds),
            built_in(ORPHAN_TIMEOUT),
        );
        let counters = self.or_default(
            Key::Counters,
            values::counters,
            |counters| {
                let items = counters.iter().map(|(name, total)| format!("{name}={total}"));
                none_if_empty(&items.collect::<Vec<_>>().join(", "))
            },
            built_in(std::collections::BTreeMap::new()),
        );
        if is_local {
            self.refuse_flags_of_queues(&backend.origin);
        }
        let spec = Spec {
            backend: backend.value,
            pool,
            pools,
            adapt: self.adapt(jobs.value, &jobs.origin),
            jobs: jobs.value,
            counters: counters.value,
            interface: self.optional(Key::Interface, values::interface, "all"),
            address: self.optional(Key::Address, values::address, "all"),
            orphan_timeout_seconds: orphan_timeout.value,
        };
        (name.value, spec)
    }

    /// A further pool is what the default one would be, with the values of its profile over it.
    fn further_pools(&mut self, backend: &Value<BackendKind>, facts: &Facts) -> BTreeMap<String, PoolSpec> {
        let names =
            self.or_default(Key::Pools, values::pools, |names| none_if_empty(&names.join(", ")), built_in(Vec::new()));
        let mut pools = BTreeMap::new();
        for name in names.value {
            let Some(settings) = self.settings.pools.get(&name) else { continue };
            let mut resolver = Resolver { settings, problems: Vec::new(), shown: Vec::new() };
            let kind = resolver.parsed(Key::Backend, values::backend);
            if let Some(Value { value, origin }) = kind.filter(|kind| kind.value != backend.value) {
                let (other, ours) = (value.as_str(), backend.value.as_str());
                let problem = ConfigError::new(format!(
                    "pool {} is of the {other} backend, and the cluster of {ours}",
                    quoted(&name)
                ));
                resolver.problems.push(problem.at(&origin).because("all jobs of a cluster go to one backend"));
            }
            let pool = resolver.pool(backend, facts);
            self.problems.append(&mut resolver.problems);
            pools.insert(name, pool);
        }
        pools
    }

    /// The number of jobs follows the load where a maximum is given. What is typed wins over what is written:
    /// `--jobs` over `max` in a file.
    fn adapt(&mut self, jobs: u32, jobs_from: &Origin) -> Option<Adapt> {
        let number = |what| move |raw: &RawValue| values::count(raw, what, 0, values::JOBS_MAX);
        let most = |what| move |raw: &RawValue| values::count(raw, what, 1, values::JOBS_MAX);
        let by_hand = matches!(jobs_from, Origin::Flag { .. });
        let max_from = self.settings.values.get(&Key::Max).map(|raw| raw.origin.clone());
        let max = self.optional(Key::Max, most("jobs"), "the number of jobs is fixed");
        let min = self.optional(Key::Min, number("jobs"), "0");
        let text = |percent: &u32| format!("{percent} %");
        let efficiency = self.optional_as(Key::Efficiency, values::efficiency, text, "65 % (balanced)");
        let human = |seconds: &u64| human_duration(*seconds);
        let idle_timeout_seconds = self.optional_as(Key::IdleTimeout, |raw| values::duration(raw, 1), human, "learned");
        let max_pending = self.optional(Key::MaxPending, most("jobs"), "any number");
        let rate_per_minute = self.optional(Key::Rate, values::rate, "any number");
        let (Some(max), Some(max_from)) = (max, max_from) else {
            if let Some((key, raw)) = self.flag_without_max() {
                let problem = ConfigError::new(format!(
                    "{} says how jobs follow the load, and {} is missing",
                    key.flag(),
                    Key::Max.flag()
                ));
                self.problems.push(problem.at(&raw).fix("add --max N, the largest number of jobs"));
            }
            return None;
        };
        match (&max_from, by_hand) {
            (Origin::Flag { .. }, true) => {
                let problem = ConfigError::new(format!(
                    "--jobs {jobs} holds a number of jobs, --max {max} lets it follow the load"
                ));
                self.problems.push(problem.at(&max_from).fix("say one of them; --min N keeps N jobs in any case"));
                return None;
            }
            (_, true) => return None,
            _ => {}
        }
        let adapt = Adapt {
            min: min.unwrap_or(0),
            max,
            efficiency_percent: efficiency.unwrap_or(Adapt::BALANCED),
            idle_timeout_seconds,
            max_pending,
            rate_per_minute,
        };
        if let Err(what) = adapt.check() {
            self.problems.push(ConfigError::new(what).at(&max_from).fix("--min N and --max M with N not above M"));
        }
        Some(adapt)
    }

    /// Returns an option that was typed and means nothing without a maximum.
    fn flag_without_max(&self) -> Option<(Key, Origin)> {
        let keys = [Key::Min, Key::Efficiency, Key::IdleTimeout, Key::MaxPending, Key::Rate];
        keys.into_iter().find_map(|key| match &self.settings.values.get(&key)?.origin {
            origin @ Origin::Flag { .. } => Some((key, origin.clone())),
            _ => None,
        })
    }

    fn pool(&mut self, backend: &Value<BackendKind>, facts: &Facts) -> PoolSpec {
        let is_local = backend.value == BackendKind::Local;
        let cores = self.or_default(
            Key::Cores,
            |raw| values::count(raw, "cores", 1, values::CORES_MAX),
            u32::to_string,
            default_cores(is_local, facts),
        );
        let gpus = self.gpus();
        let (walltime_seconds, walltime_choices) = self.walltime(is_local);
        PoolSpec {
            cores: cores.value,
            memory_bytes: self.memory(is_local, facts),
            gpus: gpus.0,
            gpu_type: gpus.1,
            walltime_seconds,
            walltime_choices,
            queue: self.word(Key::Queue, is_local),
            account: self.word(Key::Account, is_local),
            qos: self.word(Key::Qos, is_local),
            constraint: self.word(Key::Constraint, is_local),
            nodelist: self.word(Key::Nodelist, is_local),
            exclude: self.word(Key::Exclude, is_local),
            directives: self
                .or_default(
                    Key::Directives,
                    |raw| values::directives(raw, backend.value),
                    |lines| none_if_empty(&lines.join("\n")),
                    built_in(Vec::new()),
                )
                .value,
            prologue: self
                .or_default(Key::Prologue, values::prologue, |text| none_if_empty(text), built_in(String::new()))
                .value,
            drain_lead_seconds: self.drain_lead(walltime_seconds),
            pin: self.or_default(Key::Pin, values::boolean, bool::to_string, built_in(false)).value,
            on_exit: self.optional(Key::OnExit, values::shell_line, "nothing"),
        }
    }

    /// Parses a value that may miss; a problem is kept, with its place.
    fn parsed<T>(&mut self, key: Key, parse: impl FnOnce(&RawValue) -> Result<T, ConfigError>) -> Option<Value<T>> {
        let raw = self.settings.values.get(&key)?;
        match parse(&raw.value) {
            Ok(value) => Some(Value { value, origin: raw.origin.clone() }),
            Err(error) => {
                self.problems.push(error.at(&raw.origin));
                None
            }
        }
    }

    fn show(&mut self, key: Key, value: Json, text: String, origin: Origin) {
        self.shown.push(Shown { key, value, text, origin });
    }

    /// Reads a value that always is.
    fn or_default<T: Serialize>(
        &mut self,
        key: Key,
        parse: impl FnOnce(&RawValue) -> Result<T, ConfigError>,
        text: impl FnOnce(&T) -> String,
        default: Value<T>,
    ) -> Value<T> {
        let value = self.parsed(key, parse).unwrap_or(default);
        self.show(key, json!(value.value), text(&value.value), value.origin.clone());
        value
    }

    /// Reads a value that may miss; `otherwise` says what holds then.
    fn optional<T: Serialize + ToString>(
        &mut self,
        key: Key,
        parse: impl FnOnce(&RawValue) -> Result<T, ConfigError>,
        otherwise: &str,
    ) -> Option<T> {
        self.optional_as(key, parse, T::to_string, otherwise)
    }

    fn optional_as<T: Serialize>(
        &mut self,
        key: Key,
        parse: impl FnOnce(&RawValue) -> Result<T, ConfigError>,
        text: impl FnOnce(&T) -> String,
        otherwise: &str,
    ) -> Option<T> {
        match self.parsed(key, parse) {
            Some(Value { value, origin }) => {
                self.show(key, json!(value), text(&value), origin);
                Some(value)
            }
            None => {
                let origin = Origin::BuiltIn { because: None };
                self.show(key, Json::Null, otherwise.to_owned(), origin);
                None
            }
        }
    }

    fn word(&mut self, key: Key, is_local: bool) -> Option<String> {
        let otherwise = match key {
            Key::Queue | Key::Account | Key::Qos if !is_local => "the batch system's default",
            _ => "none",
        };
        self.optional(key, values::word, otherwise)
    }

    fn memory(&mut self, is_local: bool, facts: &Facts) -> Option<u64> {
        let otherwise = match facts.host_memory_bytes {
            Some(bytes) if is_local => format!("all of this machine ({})", human_size(bytes)),
            _ if is_local => "all of this machine".to_owned(),
            _ => "the queue's default".to_owned(),
        };
        self.optional_as(Key::Memory, values::size, |bytes| human_size(*bytes), &otherwise)
    }

    fn gpus(&mut self) -> (u32, Option<String>) {
        let text = |(number, kind): &(u32, Option<String>)| match kind {
            Some(kind) => format!("{kind}:{number}"),
            None => number.to_string(),
        };
        let gpus = self.parsed(Key::Gpus, values::gpus).unwrap_or(built_in((0, None)));
        let json = json!({"count": gpus.value.0, "type": gpus.value.1});
        self.show(Key::Gpus, json, text(&gpus.value), gpus.origin);
        gpus.value
    }

    /// Returns the walltime, and those to choose from. This machine has no queue in which a shorter one starts sooner.
    fn walltime(&mut self, is_local: bool) -> (Option<u64>, Vec<u64>) {
        let parsed = self.parsed(Key::Walltime, |raw| values::walltime(raw, WALLTIME_LEAST));
        let parsed = parsed.filter(|parsed| !is_local || parsed.value.1.is_empty());
        let Some(Value { value: (seconds, choices), origin }) = parsed else {
            let otherwise = if is_local { "none" } else { "the queue's default" };
            self.show(Key::Walltime, Json::Null, otherwise.to_owned(), Origin::BuiltIn { because: None });
            return (None, Vec::new());
        };
        let text = match choices.first() {
            Some(shortest) => {
                format!("auto: {} to {}, as the load needs", clock_duration(*shortest), clock_duration(seconds))
            }
            None => clock_duration(seconds),
        };
        self.show(Key::Walltime, json!(seconds), text, origin);
        (Some(seconds), choices)
    }

    fn drain_lead(&mut self, walltime_seconds: Option<u64>) -> u64 {
        let parse = |raw: &RawValue| {
            let seconds = values::duration(raw, 1)?;
            match walltime_seconds {
                Some(walltime) if seconds.saturating_mul(2) >= walltime => {
                    Err(ConfigError::new(format!("a drain lead of {} is too long", human_duration(seconds)))
                        .because(format!("it must be less than half of the walltime of {}", human_duration(walltime)))
                        .fix("leave it out: a tenth of the walltime, 30 s to 5 min, is taken"))
                }
                _ => Ok(seconds),
            }
        };
        self.or_default(Key::DrainLead, parse, |seconds| human_duration(*seconds), default_drain_lead(walltime_seconds))
            .value
    }

    /// A queue asked for on the command line would be forgotten without a word: that is an error. In
    /// a file it is not, which serves all backends.
    fn refuse_flags_of_queues(&mut self, backend: &Origin) {
        const OF_QUEUES: [Key; 7] =
            [Key::Queue, Key::Account, Key::Qos, Key::Constraint, Key::Nodelist, Key::Exclude, Key::Directives];
        let why = match backend {
            Origin::BuiltIn { because: Some(why) } => format!("jobs run on this machine, for {why}"),
            origin => format!("jobs run on this machine, says {origin}"),
        };
        for key in OF_QUEUES {
            let Some(raw) = self.settings.values.get(&key) else {
                continue;
            };
            if let Origin::Flag { flag } = &raw.origin {
                self.problems.push(
                    ConfigError::new(format!("{flag} means nothing on the local backend"))
                        .at(&raw.origin)
                        .because(&why)
                        .fix(format!("leave {flag} out, or say --backend slurm")),
                );
            }
        }
    }
}

fn built_in<T>(value: T) -> Value<T> {
    Value { value, origin: Origin::BuiltIn { because: None } }
}

fn built_in_because<T>(value: T, why: &str) -> Value<T> {
    Value { value, origin: Origin::BuiltIn { because: Some(why.to_owned()) } }
}

fn default_backend(facts: &Facts) -> Value<BackendKind> {
    built_in_because(facts.found.kind, &facts.found.why)
}

fn default_cores(is_local: bool, facts: &Facts) -> Value<u32> {
    if is_local {
        let cores = facts.host_cores.clamp(1, values::CORES_MAX);
        built_in_because(cores, "all cores of this machine")
    } else {
        built_in(1)
    }
}

fn default_drain_lead(walltime_seconds: Option<u64>) -> Value<u64> {
    let lead = drain_lead_of(walltime_seconds);
    match walltime_seconds {
        Some(_) => built_in_because(lead, "a tenth of the walltime, 30 s to 5 min"),
        None => built_in(lead),
    }
}

/// Returns how long before its end a job takes no new task, in seconds, where nobody says.
pub fn drain_lead_of(walltime_seconds: Option<u64>) -> u64 {
    walltime_seconds
        .map_or(DRAIN_LEAD_LONGEST, |walltime| (walltime / 10).clamp(DRAIN_LEAD_SHORTEST, DRAIN_LEAD_LONGEST))
}

fn none_if_empty(text: &str) -> String {
    if text.is_empty() { "none" } else { text }.to_owned()
}

#[cfg(test)]
mod tests;
