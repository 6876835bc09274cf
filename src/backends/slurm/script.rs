//! What is peculiar to Slurm's job scripts. Pure.

use crate::backends::render::{Dialect, JobHome, RenderError};
use crate::config::spec::PoolSpec;
use serde_json::json;

/// Slurm's.
pub static DIALECT: Dialect = Dialect {
    template: include_str!("../../../templates/slurm.sh.hbs"),
    reserved: &[
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
    ],
    index_word: "%a",
    first_index: 0,
    log_folder,
    values,
};

/// Largest lead of `--signal` (sbatch(1), 22.05: "sig_time must have an integer value between 0 and 65535").
const SIGNAL_LIMIT_SECONDS: u64 = 65535;

fn log_folder(folder: &str) -> Result<String, RenderError> {
    // 22.05.8 drops a backslash even within quotes, and reads `%` as a pattern in the folder too, also when the
    // output is relative to `--chdir`.
    match folder.contains('\\') {
        true => Err(RenderError::Refused(format!("the path {folder:?} has a backslash, which Slurm does not take"))),
        false => Ok(folder.replace('%', "%%")),
    }
}

fn values(home: &JobHome) -> Result<serde_json::Value, RenderError> {
    let pool = &home.pool;
    Ok(json!({
        "gres": gres(pool),
        "time": pool.walltime_seconds.map(time),
        "qos": pool.qos,
        "constraint": pool.constraint,
        "nodelist": pool.nodelist,
        "exclude": pool.exclude,
        "signal_seconds": Some(pool.drain_lead_seconds.min(SIGNAL_LIMIT_SECONDS)).filter(|s| *s > 0),
    }))
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
fn time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        _ => format!("{days}-{time}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(3600), "01:00:00");
        assert_eq!(time(2 * 86400), "2-00:00:00");
    }
}
