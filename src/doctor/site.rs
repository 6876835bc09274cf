//! What the doctor makes of a batch system that answers: its commands, its queues compared with the profile, its
//! accounting. Pure but for [`commands`], which looks at the `PATH`.

use super::Check;
use crate::backends::fit::{self, Fit, Misfit, fit};
use crate::backends::{BackendError, Site};
use crate::config::paths::Variables;
use crate::config::spec::{BackendKind, PoolSpec};
use crate::error::Kind;
use crate::ui::words::count;
use std::collections::BTreeSet;

/// Queues that are told one by one.
const QUEUES_TOLD: usize = 20;

/// Looks for the commands of a backend.
pub fn commands(kind: BackendKind, variables: &Variables) -> Check {
    let places: Vec<_> = kind.commands().iter().map(|name| (*name, variables.find_program(name))).collect();
    let missing: Vec<_> = places.iter().filter(|(_, place)| place.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let fix = format!("load the module of {}, or add its folder to PATH; else another --backend", kind.title());
        let says = format!("{} not on the PATH", missing.join(", "));
        return Check::fail(Kind::Unreachable, "commands", says, fix);
    }
    if places.is_empty() {
        return Check::ok("commands", "none are needed: jobs are processes of this machine");
    }
    let folders = places.iter().filter_map(|(_, place)| place.as_ref()?.parent());
    let folders: BTreeSet<_> = folders.map(|folder| folder.display().to_string()).collect();
    let names = places.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    Check::ok("commands", format!("{names} in {}", folders.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Judges what a batch system says of itself.
pub fn answer(kind: BackendKind, pool: &PoolSpec, answer: &Result<Site, BackendError>) -> Vec<Check> {
    let site = match answer {
        _ if kind == BackendKind::Local => {
            return vec![Check::ok("queues", "none: the cores and the memory of this machine are the limit")];
        }
        Err(error) => {
            let fix = error.fix.clone().unwrap_or_else(|| format!("try `{}` yourself", error.command));
            let says = format!("no answer: {error}");
            return vec![Check::fail(Kind::Unreachable, "batch system", says, fix)];
        }
        Ok(site) => site,
    };
    let version = match site.version.as_str() {
        "" => kind.title(),
        version => version,
    };
    let accounting = match site.accounting {
        Some(true) => "kept: how a job ended can be asked there, too",
        Some(false) => "not kept: how a job ended is known from its own exit record",
        None => "not known whether it is kept; how a job ended is known from its own exit record",
    };
    let queues = Check { details: queue_lines(site), ..queues(pool, site) };
    vec![Check::ok("batch system", format!("{version} answers")), queues, Check::ok("accounting", accounting)]
}

fn queues(pool: &PoolSpec, site: &Site) -> Check {
    let said = |misfit: Misfit| (format!("{}: {}", misfit.what, misfit.why), misfit.fix);
    match fit(pool, site) {
        Fit::Never(misfit) => {
            let (says, fix) = said(misfit);
            Check::fail(Kind::Config, "queues", says, fix)
        }
        Fit::Doubt(misfit) => {
            let (says, fix) = said(misfit);
            Check::warn("queues", format!("{says}; a job that names no queue may wait for ever"), fix)
        }
        Fit::Fits if site.queues.is_empty() => Check::ok("queues", "the batch system does not say their limits"),
        Fit::Fits => {
            let asked = pool.queue.as_deref();
            let told = match asked {
                Some(name) => format!("queue {name} takes the job"),
                None => "the job fits".to_owned(),
            };
            Check::ok("queues", format!("{told}; {}", count(site.queues.len() as u64, "queue")))
        }
    }
}

/// Says every queue with its limits, a line each.
pub fn queue_lines(site: &Site) -> Vec<String> {
    let width = site.queues.iter().take(QUEUES_TOLD).map(|queue| queue.name.chars().count()).max().unwrap_or(0);
    let line = |queue: &crate::backends::Queue| {
        let default = if queue.is_default { " (default)" } else { "" };
        format!("{:width$}  {}{default}", queue.name, fit::limits(queue))
    };
    let mut lines: Vec<_> = site.queues.iter().take(QUEUES_TOLD).map(line).collect();
    let more = site.queues.len().saturating_sub(QUEUES_TOLD);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::backends::{ErrorClass, Queue};

    fn pool(walltime: u64) -> PoolSpec {
        serde_json::from_value(serde_json::json!({
            "cores": 1, "drain_lead_seconds": 30, "queue": "debug", "walltime_seconds": walltime
        }))
        .unwrap()
    }

    fn site() -> Site {
        let debug =
            Queue { name: "debug".into(), is_default: true, max_walltime_seconds: Some(1800), ..Queue::default() };
        let long = Queue { name: "a-long-one".into(), ..Queue::default() };
        Site { version: "slurm 22.05.8".into(), queues: vec![debug, long], accounting: Some(false) }
    }

    fn verdicts(checks: &[Check]) -> Vec<(&str, Verdict)> {
        checks.iter().map(|check| (check.name, check.verdict)).collect()
    }

    #[test]
    fn a_site_that_answers() {
        let checks = answer(BackendKind::Slurm, &pool(1800), &Ok(site()));
        assert_eq!(
            verdicts(&checks),
            [("batch system", Verdict::Ok), ("queues", Verdict::Ok), ("accounting", Verdict::Ok)]
        );
        assert_eq!(checks[1].says, "queue debug takes the job; 2 queues");
        let lines = ["debug       at most 00:30:00 (default)", "a-long-one  no limits known"];
        assert_eq!(queue_lines(&site()), lines);
    }

    #[test]
    fn a_profile_over_the_limit_fails_with_the_limit() {
        let checks = answer(BackendKind::Slurm, &pool(1801), &Ok(site()));
        assert_eq!((checks[1].verdict, checks[1].kind), (Verdict::Fail, Kind::Config));
        assert!(checks[1].says.ends_with("its limit is 00:30:00"), "{}", checks[1].says);
        assert_eq!(checks[1].fix.as_deref(), Some("--walltime 00:30:00, or --queue a-long-one"));
    }

    #[test]
    fn a_site_that_does_not_answer() {
        let error = BackendError {
            class: ErrorClass::Transient,
            command: "scontrol show config".into(),
            says: "Unable to contact slurm controller".into(),
            fix: None,
        };
        let checks = answer(BackendKind::Slurm, &pool(1), &Err(error));
        assert_eq!(verdicts(&checks), [("batch system", Verdict::Fail)]);
        assert_eq!(checks[0].fix.as_deref(), Some("try `scontrol show config` yourself"));
    }

    #[test]
    fn commands_that_are_missing_fail() {
        let check = commands(BackendKind::Lsf, &Variables::default());
        assert_eq!((check.verdict, check.says.as_str()), (Verdict::Fail, "bsub, bjobs, bkill not on the PATH"));
        assert_eq!(commands(BackendKind::Local, &Variables::default()).verdict, Verdict::Ok);
    }
}
