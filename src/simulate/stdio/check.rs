//! What may be said: bounds of numbers, and names that must fit each other. The controller takes both for granted,
//! since a server reads its settings with care and counts by itself.

use crate::adapt::{
    DEFAULT_POOL, Durations, ExpectedWait, JobView, Learned, LearnedPool, Observation, PoolShape, Settings, TaskClass,
};
use crate::config::units::LONGEST_SECONDS;
use std::collections::BTreeSet;

/// Most jobs; the sum of two such numbers can still be counted.
const JOBS_MAX: u32 = i32::MAX as u32;
/// Most submissions in a minute, as `--rate` has it.
const RATE_MAX: f64 = 1e6;
/// The clock's farthest moment from its zero in seconds, on either side: beyond, seconds are not told apart.
const MOMENT_MAX: f64 = 1e15;

pub(super) fn settings(settings: &Settings) -> Result<(), String> {
    if settings.pools.is_empty() {
        return Err("`pools` is empty".to_owned());
    }
    if settings.min > settings.max {
        return Err(format!("`min` is {}, more than `max`, {}", settings.min, settings.max));
    }
    if settings.max > JOBS_MAX {
        return Err(format!("`max` is {}, more than {JOBS_MAX}", settings.max));
    }
    if !(0.05..=0.95).contains(&settings.efficiency) {
        return Err(format!("`efficiency` is {:?}, not 0.05 to 0.95", settings.efficiency));
    }
    if let Some(rate) = settings.rate_per_minute.filter(|rate| !(*rate > 0.0 && *rate <= RATE_MAX)) {
        return Err(format!("`rate_per_minute` is {rate:?}: write more than 0, at most {RATE_MAX}"));
    }
    time("idle_timeout", settings.idle_timeout)?;
    let mut names = BTreeSet::new();
    for shape in &settings.pools {
        if !names.insert(&shape.name) {
            return Err(format!("two of `pools` have the name `{}`", shape.name));
        }
        pool(shape).map_err(|what| format!("pool `{}`: {what}", shape.name))?;
    }
    Ok(())
}

fn pool(shape: &PoolShape) -> Result<(), String> {
    some("cores", shape.cores)?;
    time("drain_lead", Some(shape.drain_lead))?;
    let walltimes = shape.walltime_choices.iter().map(|choice| ("walltime_choices", *choice));
    for (key, walltime) in shape.walltime.map(|walltime| ("walltime", walltime)).into_iter().chain(walltimes) {
        time(key, Some(walltime))?;
        if walltime == 0.0 {
            return Err(format!("`{key}` is 0, and a job needs time"));
        }
    }
    Ok(())
}

pub(super) fn learned(learned: &Learned) -> Result<(), String> {
    for (name, pool) in &learned.pools {
        learned_pool(pool).map_err(|what| format!("pool `{name}` in `learned`: {what}"))?;
    }
    for (name, known) in &learned.durations {
        durations(known).map_err(|what| format!("class `{name}` in `learned`: {what}"))?;
    }
    Ok(())
}

fn learned_pool(pool: &LearnedPool) -> Result<(), String> {
    for (wait, walltime) in &pool.waits {
        time("waits", Some(*wait))?;
        time("waits", Some(*walltime))?;
    }
    time("startup", pool.startup)?;
    pool.gaps.iter().try_for_each(|gap| time("gaps", Some(*gap)))
}

/// Checks an observation for a controller with pools of these names.
pub(super) fn observation(seen: &Observation, pools: &BTreeSet<String>) -> Result<(), String> {
    moment("now", Some(seen.now))?;
    for class in &seen.classes {
        self::class(class).map_err(|what| format!("class `{}`: {what}", class.name))?;
    }
    let mut ids = BTreeSet::new();
    for job in &seen.jobs {
        if !ids.insert(job.id) {
            return Err(format!("two of `jobs` have the id {}", job.id));
        }
        self::job(job, pools).map_err(|what| format!("job {}: {what}", job.id))?;
    }
    seen.expected_waits
        .iter()
        .try_for_each(|expected| expected_wait(expected, pools).map_err(|what| format!("`expected_waits`: {what}")))
}

fn class(class: &TaskClass) -> Result<(), String> {
    some("cores", class.cores)?;
    some("nodes", class.nodes)?;
    time("time_request", class.time_request)?;
    class.running.iter().try_for_each(|some| time("elapsed", Some(some.elapsed)))?;
    durations(&class.durations)
}

fn job(job: &JobView, pools: &BTreeSet<String>) -> Result<(), String> {
    known(&job.pool, pools)?;
    // `ends_at` may be beyond all moments: never.
    for (key, at) in [("submitted_at", job.submitted_at), ("started_at", job.started_at), ("up_at", job.up_at)] {
        moment(key, at)?;
        if let (Some(submitted), Some(at)) = (job.submitted_at, at)
            && at < submitted
        {
            return Err(format!("`{key}` is {at:?}, before `submitted_at`, {submitted:?}"));
        }
    }
    moment("idle_since", job.idle_since)?;
    time("walltime", job.walltime)
}

fn expected_wait(expected: &ExpectedWait, pools: &BTreeSet<String>) -> Result<(), String> {
    known(&expected.pool, pools)?;
    time("walltime", expected.walltime)?;
    time("wait", Some(expected.wait))
}

/// Checks the name of a pool. Where none is said, it is the first of them, whatever its name.
fn known(pool: &str, pools: &BTreeSet<String>) -> Result<(), String> {
    if pool == DEFAULT_POOL || pools.contains(pool) {
        return Ok(());
    }
    let names = pools.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(format!("there is no pool `{pool}`, only {names}"))
}

fn durations(known: &Durations) -> Result<(), String> {
    if known.ended.checked_add(known.cut).is_none() {
        return Err("`ended` and `cut` are more than can be counted".to_owned());
    }
    time("mean", Some(known.mean))?;
    time("p90", Some(known.p90))?;
    time("longest", Some(known.longest))
}

/// Checks a length of time in seconds. Sums and multiples of what is longer would not be numbers any more.
fn time(key: &str, seconds: Option<f64>) -> Result<(), String> {
    match seconds {
        Some(seconds) if !(0.0..=LONGEST_SECONDS as f64).contains(&seconds) => {
            Err(format!("`{key}` is {seconds:?}, not 0 to {LONGEST_SECONDS} seconds (100 years)"))
        }
        _ => Ok(()),
    }
}

/// Checks a moment on the driver's clock.
fn moment(key: &str, seconds: Option<f64>) -> Result<(), String> {
    match seconds {
        Some(seconds) if seconds.is_nan() || seconds.abs() > MOMENT_MAX => {
            Err(format!("`{key}` is {seconds:?}, farther than {MOMENT_MAX:e} seconds from the clock's zero"))
        }
        _ => Ok(()),
    }
}

/// Checks that there is at least one of something.
fn some(key: &str, number: u32) -> Result<(), String> {
    if number == 0 { Err(format!("`{key}` is 0, not 1 or more")) } else { Ok(()) }
}
