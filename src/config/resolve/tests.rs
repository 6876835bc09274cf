use super::*;
use crate::config::host::Found;
use crate::config::layers::{Layer, Layers};
use proptest::prelude::*;

fn settings(pairs: &[(Key, &str)]) -> Settings {
    let mut layer = Layer::default();
    for (key, text) in pairs {
        layer.set_flag(*key, RawValue::Scalar((*text).to_owned()));
    }
    Settings { values: layer.values, pools: BTreeMap::new() }
}

fn facts(slurm: bool) -> Facts {
    let (kind, why) = match slurm {
        true => (BackendKind::Slurm, "sbatch and squeue are on the PATH"),
        false => (BackendKind::Local, "no batch system's commands are on the PATH"),
    };
    Facts { host_cores: 8, host_memory_bytes: Some(16 << 30), found: Found { kind, why: why.to_owned() } }
}

fn resolved(pairs: &[(Key, &str)], slurm: bool) -> Resolved {
    resolve(&settings(pairs), &facts(slurm)).expect("valid")
}

fn listing(resolved: &Resolved) -> String {
    let lines = resolved.values.iter().map(|shown| format!("{} = {} ({})", shown.key.name(), shown.text, shown.origin));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn defaults_on_a_laptop() {
    let resolved = resolved(&[], false);
    assert_eq!(resolved.name, "default");
    assert_eq!(resolved.spec.backend, BackendKind::Local);
    assert_eq!(resolved.spec.pool.cores, 8);
    assert_eq!(resolved.spec.pool.drain_lead_seconds, 300);
    assert_eq!(resolved.values.len(), Key::ALL.len());
    assert_eq!(
        listing(&resolved),
        "\
name = default (built-in)
profile = none (built-in)
pools = none (built-in)
backend = local (built-in: no batch system's commands are on the PATH)
jobs = 1 (built-in)
cores = 8 (built-in: all cores of this machine)
memory = all of this machine (16 GiB) (built-in)
gpus = 0 (built-in)
walltime = none (built-in)
queue = none (built-in)
account = none (built-in)
qos = none (built-in)
constraint = none (built-in)
nodelist = none (built-in)
exclude = none (built-in)
directives = none (built-in)
prologue = none (built-in)
drain-lead = 5 min (built-in)
orphan-timeout = 5 min (built-in)
interface = all (built-in)
address = all (built-in)
counters = none (built-in)
pin = false (built-in)
on-exit = nothing (built-in)
min = 0 (built-in)
max = the number of jobs is fixed (built-in)
efficiency = 65 % (balanced) (built-in)
idle-timeout = learned (built-in)
max-pending = any number (built-in)
rate = any number (built-in)"
    );
}

#[test]
fn the_example_of_the_readme_on_slurm() {
    let pairs = [
        (Key::Cores, "24"),
        (Key::Memory, "100GB"),
        (Key::Queue, "regular"),
        (Key::Walltime, "01:30:00"),
        (Key::Gpus, "a100:2"),
    ];
    let resolved = resolved(&pairs, true);
    let pool = &resolved.spec.pool;
    assert_eq!(resolved.spec.backend, BackendKind::Slurm);
    assert_eq!(pool.cores, 24);
    assert_eq!(pool.memory_bytes, Some(100_000_000_000));
    assert_eq!(pool.queue.as_deref(), Some("regular"));
    assert_eq!((pool.gpus, pool.gpu_type.as_deref()), (2, Some("a100")));
    assert_eq!(pool.drain_lead_seconds, 300);
    let json = serde_json::to_value(&resolved.values[6]).expect("JSON");
    assert_eq!(
        json,
        json!({
            "key": "memory",
            "value": 100_000_000_000_u64,
            "text": "100 GB",
            "origin": {"kind": "flag", "flag": "--memory"},
        })
    );
}

#[test]
fn a_slurm_job_has_one_core_by_default() {
    let resolved = resolved(&[], true);
    assert_eq!(resolved.spec.pool.cores, 1);
    assert!(listing(&resolved).contains("memory = the queue's default (built-in)"));
}

#[test]
fn all_problems_are_found_with_their_places() {
    let pairs = [(Key::Name, "a/b"), (Key::Cores, "0"), (Key::Memory, "100"), (Key::Walltime, "90")];
    let problems = resolve_all(&settings(&pairs), &facts(true)).expect_err("four");
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "\"a/b\" cannot be a cluster's name (--name): a name has only letters a-z, digits, . _ and -",
            "0 cores are too few (--cores)",
            "\"90\" has no unit: Slurm would read minutes, PBS seconds (--walltime)",
            "\"100\" has no unit: Slurm would read megabytes, PBS bytes, LSF kilobytes (--memory)",
        ]
    );
    assert_eq!(problems[2].fix.as_deref(), Some("write 90m or 01:30:00 for minutes, 90s for seconds"));
}

#[test]
fn a_queue_needs_a_batch_system() {
    let pairs = [(Key::Queue, "regular")];
    let error = resolve(&settings(&pairs), &facts(false)).expect_err("no queue here");
    assert_eq!(error.what, "--queue means nothing on the local backend");
    assert_eq!(error.fix.as_deref(), Some("leave --queue out, or say --backend slurm"));
    let pairs = [(Key::Queue, "regular"), (Key::Backend, "slurm")];
    assert!(resolve(&settings(&pairs), &facts(false)).is_ok());
    // In a file it does no harm: the same file serves the laptop.
    let mut settings = settings(&[(Key::Queue, "regular")]);
    settings.values.get_mut(&Key::Queue).expect("set").origin = Origin::Variable { name: "DCLUSTER_QUEUE".into() };
    assert!(resolve(&settings, &facts(false)).is_ok());
}

#[test]
fn the_drain_lead_is_less_than_half_of_the_walltime() {
    let with = |lead: &str| {
        let pairs = [(Key::Walltime, "10m"), (Key::DrainLead, lead)];
        resolve(&settings(&pairs), &facts(true))
    };
    assert_eq!(with("299s").expect("less").spec.pool.drain_lead_seconds, 299);
    let error = with("5m").expect_err("half");
    assert_eq!(error.what, "a drain lead of 5 min is too long");
    assert_eq!(error.why.as_deref(), Some("it must be less than half of the walltime of 10 min"));
}

proptest! {
    #[test]
    fn default_drain_leads_fit(walltime in WALLTIME_LEAST..10_000_000) {
        let lead = default_drain_lead(Some(walltime)).value;
        prop_assert!((30..=300).contains(&lead) && lead * 2 < walltime);
    }

    #[test]
    fn no_text_panics_or_leaves_its_line(text in any::<String>(), key in 0..Key::ALL.len()) {
        let key = Key::ALL[key];
        if let Ok(resolved) = resolve(&settings(&[(key, &text)]), &facts(true)) {
            let pool = &resolved.spec.pool;
            let directives = [&pool.queue, &pool.account, &pool.qos, &pool.constraint]
                .into_iter()
                .chain([&pool.nodelist, &pool.exclude, &pool.gpu_type])
                .flatten()
                .chain(&pool.directives);
            for line in directives {
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}

#[test]
fn a_walltime_may_be_left_open() {
    let pool = |text: &str, slurm| resolved(&[(Key::Walltime, text)], slurm).spec.pool;
    assert_eq!(pool("auto", true).walltime_seconds, Some(14_400));
    assert_eq!(pool("auto", true).walltime_choices, [900, 1800, 3600, 7200, 14_400]);
    assert_eq!(pool("auto:90min", true).walltime_choices, [900, 1800, 3600, 5400]);
    assert_eq!(pool("auto:15min", true).walltime_choices, [900]);
    assert_eq!(pool("auto", false).walltime_seconds, None, "nothing waits in a queue here");
    let error = resolve(&settings(&[(Key::Walltime, "auto:10min")]), &facts(true)).expect_err("too short");
    assert_eq!(error.what, "\"10min\" is too short");
    let shown = resolved(&[(Key::Walltime, "auto")], true).values;
    let line = shown.iter().find(|shown| shown.key == Key::Walltime).expect("shown");
    assert_eq!(line.text, "auto: 00:15:00 to 04:00:00, as the load needs");
}

fn with_profiles(flags: &[(Key, RawValue)]) -> Result<Resolved, ConfigError> {
    let text = "cores = 2\nqueue = \"std\"\n[profile.big]\ncores = 48\nmemory = \"1TB\"\n\
                [profile.gpu]\ngpus = 2\nqueue = \"gpu\"\n[profile.here]\nbackend = \"local\"\n";
    let (file, problems) = crate::config::file::parse(std::path::Path::new("/f.toml"), text);
    let mut layers = Layers { files: vec![file], problems, ..Layers::default() };
    for (key, value) in flags {
        layers.flags.set_flag(*key, value.clone());
    }
    resolve(&layers.settings()?, &facts(true))
}

fn names(names: &[&str]) -> RawValue {
    RawValue::List(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_further_pool_is_a_profile_over_what_is_said() {
    let account = (Key::Account, RawValue::Scalar("me".into()));
    let cores = (Key::Cores, RawValue::Scalar("4".into()));
    let spec = with_profiles(&[(Key::Pools, names(&["big", "gpu"])), account, cores]).expect("pools").spec;
    let shapes: Vec<_> =
        spec.shapes().map(|(name, pool)| (name, pool.cores, pool.gpus, pool.queue.as_deref())).collect();
    let wanted = [("default", 4, 0, Some("std")), ("big", 48, 0, Some("std")), ("gpu", 4, 2, Some("gpu"))];
    assert_eq!(shapes, wanted);
    assert!(spec.shapes().all(|(_, pool)| pool.account.as_deref() == Some("me")));
    assert_eq!((spec.shape("gpu").gpus, spec.shape("gone").gpus), (2, 0));
}

#[test]
fn pools_that_cannot_be() {
    let what = |pools: &[&str]| with_profiles(&[(Key::Pools, names(pools))]).expect_err("refused").what;
    assert_eq!(what(&["bgi"]), "there is no profile \"bgi\" to be a pool");
    assert_eq!(what(&["big", "big"]), "\"big\" cannot be a further pool");
    assert_eq!(what(&["default"]), "\"default\" cannot be a further pool");
    assert_eq!(what(&["here"]), "pool \"here\" is of the local backend, and the cluster of slurm");
}
