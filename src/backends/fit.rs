//! Whether a job can ever run, by what the site says of its queues. Pure. Called before anything is started, and by
//! the doctor.
//!
//! Only what is certain is refused. Sites route jobs by scripts of their own, so a job that names no queue is
//! refused when no queue at all takes it, and doubted when the default one does not; a quality of service may
//! raise a queue's walltime (sacctmgr(1), flag `PartitionTimeLimit`); directives of the user can change anything.

use super::{Queue, Site};
use crate::config::problem::{nearest, quoted};
use crate::config::spec::PoolSpec;
use crate::config::units::{clock_duration, human_size};
use crate::ui::words::count;

/// Queues named in a sentence, at most.
const NAMED: usize = 12;

/// What came of the comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fit {
    /// Nothing speaks against it.
    Fits,
    /// It may wait for ever.
    Doubt(Misfit),
    /// It can never run.
    Never(Misfit),
}

/// Why a job does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misfit {
    /// What is wrong.
    pub what: String,
    /// The limit.
    pub why: String,
    /// What helps.
    pub fix: String,
}

/// Compares a job with the queues of a site.
pub fn fit(pool: &PoolSpec, site: &Site) -> Fit {
    if site.queues.is_empty() || !pool.directives.is_empty() {
        return Fit::Fits;
    }
    let Some(asked) = &pool.queue else {
        return of_no_queue(pool, site);
    };
    // `queue@server`, `*.q@host`: PBS and Grid Engine know more than names.
    if asked.contains(['@', '*', '?', '[', '!']) {
        return Fit::Fits;
    }
    // Slurm and LSF take a list, and use any of it: `a,b` and `a b`; one that is not there spoils it.
    let mut queues = Vec::new();
    for name in asked.split([',', ' ']).filter(|name| !name.is_empty()) {
        match site.queues.iter().find(|queue| queue.name == name) {
            Some(queue) => queues.push(queue),
            None => return Fit::Never(unknown(name, pool, site)),
        }
    }
    let mut misfit = None;
    for queue in queues {
        match one(pool, queue) {
            None => return Fit::Fits,
            Some((what, why, less)) => misfit = misfit.or(Some(Misfit { what, why, fix: advice(less, pool, site) })),
        }
    }
    misfit.map_or(Fit::Fits, Fit::Never)
}

fn of_no_queue(pool: &PoolSpec, site: &Site) -> Fit {
    let default = site.queues.iter().find(|queue| queue.is_default);
    let Some((what, why, less)) = default.or(site.queues.first()).and_then(|queue| one(pool, queue)) else {
        return Fit::Fits;
    };
    if site.queues.iter().any(|queue| one(pool, queue).is_none()) {
        return match default {
            Some(_) => Fit::Doubt(Misfit { what, why, fix: advice(less, pool, site) }),
            None => Fit::Fits,
        };
    }
    // The queue that has most is the one whose limit says most.
    let largest = site.queues.iter().filter(|queue| queue.closed.is_none()).max_by_key(|queue| {
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        (most(queue.max_walltime_seconds), most(queue.max_cores.map(u64::from)), most(queue.max_memory_bytes))
    });
    let (what, why, less) = largest.and_then(|queue| one(pool, queue)).unwrap_or((what, why, less));
    Fit::Never(Misfit { what, why: format!("{why}; no other queue takes it"), fix: less })
}

fn unknown(name: &str, pool: &PoolSpec, site: &Site) -> Misfit {
    let names = site.queues.iter().map(|queue| queue.name.as_str());
    let fix = match nearest(name, names.clone()) {
        Some(meant) => format!("did you mean --queue {meant}?"),
        None => other_queue(pool, site).unwrap_or_else(|| "--queue with one of them".to_owned()),
    };
    let more = site.queues.len().saturating_sub(NAMED);
    let mut list = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    Misfit { what: format!("there is no queue {}", quoted(name)), why: format!("the queues are {list}"), fix }
}

/// Says what of a job a queue does not take: what, the limit, how to ask for less.
fn one(pool: &PoolSpec, queue: &Queue) -> Option<(String, String, String)> {
    let name = quoted(&queue.name);
    if let Some(closed) = &queue.closed {
        return Some((format!("queue {name} takes no jobs"), closed.clone(), "wait until it does".to_owned()));
    }
    // Of several to choose from the longest counts: each may be asked for.
    let walltime = pool.walltime_seconds.filter(|_| pool.qos.is_none());
    if let (Some(asked), Some(most)) = (walltime, queue.max_walltime_seconds)
        && asked > most
    {
        let auto = if pool.walltime_choices.first().is_some_and(|least| *least <= most) { "auto:" } else { "" };
        let (asked, most) = (clock_duration(asked), clock_duration(most));
        let what = format!("a walltime of {asked} is more than queue {name} allows");
        return Some((what, format!("its limit is {most}"), format!("--walltime {auto}{most}")));
    }
    if let Some(most) = queue.max_cores
        && pool.cores > most
    {
        let what = format!("{} are more than one job can have in queue {name}", count(pool.cores.into(), "core"));
        return Some((what, format!("its limit on one node is {most}"), format!("--cores {most}")));
    }
    if let (Some(asked), Some(most)) = (pool.memory_bytes, queue.max_memory_bytes)
        && asked > most
    {
        let what = format!("{} of memory are more than one job can have in queue {name}", human_size(asked));
        // Rounded down: what the fix says must fit.
        let fix = format!("--memory {}MiB", most >> 20);
        return Some((what, format!("its limit on one node is {}", human_size(most)), fix));
    }
    match queue.max_gpus {
        Some(0) if pool.gpus > 0 => {
            let (what, why) = (format!("queue {name} has no GPUs"), "none of its nodes has any");
            Some((what, why.to_owned(), "leave --gpus out".to_owned()))
        }
        Some(most) if pool.gpus > most => {
            let what = format!("{} are more than one job can have in queue {name}", count(pool.gpus.into(), "GPU"));
            Some((what, format!("its limit on one node is {most}"), format!("--gpus {most}")))
        }
        _ => None,
    }
}

/// Adds the queues that would take the job to another advice.
fn advice(less: String, pool: &PoolSpec, site: &Site) -> String {
    match other_queue(pool, site) {
        None => less,
        Some(other) => format!("{less}, or {other}"),
    }
}

/// Returns the option that names a queue which takes the job; `None` = there is none.
fn other_queue(pool: &PoolSpec, site: &Site) -> Option<String> {
    let takes = |queue: &&Queue| one(pool, queue).is_none();
    let names: Vec<_> = site.queues.iter().filter(takes).take(NAMED).map(|queue| queue.name.as_str()).collect();
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("--queue {name}")),
        names => Some(format!("--queue with one of {}", names.join(", "))),
    }
}

/// Says the limits of a queue in a few words: `at most 2-00:00:00 (default 01:00:00), 24 cores, 107 GiB`.
pub fn limits(queue: &Queue) -> String {
    let mut words = Vec::new();
    match (queue.max_walltime_seconds, queue.default_walltime_seconds) {
        (Some(most), Some(default)) => {
            words.push(format!("{} (default {})", clock_duration(most), clock_duration(default)));
        }
        (Some(most), None) => words.push(clock_duration(most)),
        (None, Some(default)) => words.push(format!("any time (default {})", clock_duration(default))),
        (None, None) => {}
    }
    words.extend(queue.max_cores.map(|cores| count(cores.into(), "core")));
    words.extend(queue.max_memory_bytes.map(human_size));
    words.extend(queue.max_gpus.filter(|gpus| *gpus > 0).map(|gpus| count(gpus.into(), "GPU")));
    words.extend(queue.max_jobs.map(|jobs| count(jobs.into(), "job")));
    match (&queue.closed, words.is_empty()) {
        (Some(closed), _) => format!("closed: {closed}"),
        (None, true) => "no limits known".to_owned(),
        (None, false) => format!("at most {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str, hours: u64) -> Queue {
        Queue {
            name: name.to_owned(),
            max_walltime_seconds: (hours > 0).then_some(hours * 3600),
            max_cores: Some(24),
            max_memory_bytes: Some(100 << 30),
            max_gpus: Some(2),
            ..Queue::default()
        }
    }

    fn site() -> Site {
        let debug = Queue { is_default: true, max_cores: Some(4), max_gpus: Some(0), ..queue("debug", 1) };
        let shut = Queue { closed: Some("State=DRAIN".to_owned()), ..queue("shut", 0) };
        Site { queues: vec![debug, queue("regular", 48), shut], ..Site::default() }
    }

    fn pool(queue: Option<&str>, hours: u64) -> PoolSpec {
        PoolSpec {
            walltime_seconds: (hours > 0).then_some(hours * 3600),
            queue: queue.map(str::to_owned),
            ..PoolSpec::new(1)
        }
    }

    fn never(pool: &PoolSpec) -> String {
        match fit(pool, &site()) {
            Fit::Never(Misfit { what, why, fix }) => format!("{what} | {why} | {fix}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_can_never_run_is_refused_with_the_limit() {
        for (pool, says) in [
            (
                pool(Some("debug"), 2),
                "a walltime of 02:00:00 is more than queue \"debug\" allows | its limit is 01:00:00 | --walltime 01:00:00, or --queue regular",
            ),
            (
                pool(Some("regular"), 49),
                "a walltime of 2-01:00:00 is more than queue \"regular\" allows | its limit is 2-00:00:00 | --walltime 2-00:00:00",
            ),
            (
                PoolSpec { walltime_choices: vec![1800, 7200], ..pool(Some("debug"), 2) },
                "a walltime of 02:00:00 is more than queue \"debug\" allows | its limit is 01:00:00 | --walltime auto:01:00:00, or --queue regular",
            ),
            (
                PoolSpec { cores: 25, ..pool(Some("regular"), 1) },
                "25 cores are more than one job can have in queue \"regular\" | its limit on one node is 24 | --cores 24",
            ),
            (
                PoolSpec { memory_bytes: Some(120 << 30), ..pool(Some("regular"), 1) },
                "120 GiB of memory are more than one job can have in queue \"regular\" | its limit on one node is 100 GiB | --memory 102400MiB",
            ),
            (
                PoolSpec { gpus: 1, ..pool(Some("debug"), 1) },
                "queue \"debug\" has no GPUs | none of its nodes has any | leave --gpus out, or --queue regular",
            ),
            (
                PoolSpec { gpus: 3, ..pool(Some("regular"), 1) },
                "3 GPUs are more than one job can have in queue \"regular\" | its limit on one node is 2 | --gpus 2",
            ),
            (
                pool(Some("regulr"), 1),
                "there is no queue \"regulr\" | the queues are debug, regular, shut | did you mean --queue regular?",
            ),
            (
                pool(Some("gpu"), 1),
                "there is no queue \"gpu\" | the queues are debug, regular, shut | --queue with one of debug, regular",
            ),
            (
                pool(Some("regular,nosuch"), 1),
                "there is no queue \"nosuch\" | the queues are debug, regular, shut | --queue with one of debug, regular",
            ),
            (
                pool(Some("shut"), 1),
                "queue \"shut\" takes no jobs | State=DRAIN | wait until it does, or --queue with one of debug, regular",
            ),
            (
                pool(Some("regular,nosuch"), 999),
                "there is no queue \"nosuch\" | the queues are debug, regular, shut | --queue with one of them",
            ),
        ] {
            assert_eq!(never(&pool), says);
        }
    }

    #[test]
    fn at_the_limit_it_runs() {
        for pool in [
            pool(Some("debug"), 1),
            PoolSpec { cores: 24, memory_bytes: Some(100 << 30), ..pool(Some("regular"), 48) },
            pool(Some("debug,regular"), 48),
            pool(Some("debug regular"), 48),
            PoolSpec { walltime_choices: vec![1800, 3600], ..pool(Some("debug"), 1) },
            pool(None, 1),
            pool(None, 0),
        ] {
            assert_eq!(fit(&pool, &site()), Fit::Fits, "{pool:?}");
        }
    }

    #[test]
    fn without_a_queue_only_what_no_queue_takes_is_refused() {
        let Fit::Doubt(doubt) = fit(&pool(None, 2), &site()) else { panic!() };
        assert_eq!(doubt.fix, "--walltime 01:00:00, or --queue regular");
        let over = PoolSpec { memory_bytes: Some((100 << 30) + 1), ..pool(None, 0) };
        assert!(matches!(fit(&over, &site()), Fit::Never(_)), "one byte past it");
        let says = never(&pool(None, 49));
        assert!(says.contains("queue \"regular\" allows | its limit is 2-00:00:00; no other queue takes it"), "{says}");
        let mut no_default = site();
        no_default.queues[0].is_default = false;
        assert_eq!(fit(&pool(None, 2), &no_default), Fit::Fits);
    }

    #[test]
    fn what_is_not_certain_is_not_refused() {
        let qos = PoolSpec { qos: Some("long".into()), ..pool(Some("debug"), 2) };
        let directives = PoolSpec { directives: vec!["--partition=regular".into()], ..pool(Some("debug"), 2) };
        for pool in [qos, directives, pool(Some("debug@other"), 2), pool(Some("*.q"), 2)] {
            assert_eq!(fit(&pool, &site()), Fit::Fits);
        }
        assert_eq!(fit(&pool(Some("nosuch"), 2), &Site::default()), Fit::Fits, "the site said nothing");
    }

    #[test]
    fn limits_in_words() {
        assert_eq!(limits(&site().queues[0]), "at most 01:00:00, 4 cores, 100 GiB");
        assert_eq!(limits(&site().queues[2]), "closed: State=DRAIN");
        assert_eq!(limits(&Queue::default()), "no limits known");
        let default = Queue { default_walltime_seconds: Some(300), max_jobs: Some(1), ..Queue::default() };
        assert_eq!(limits(&default), "at most any time (default 00:05:00), 1 job");
    }
}
