//! Renders job scripts. Pure: input to text. Called by the backends, by `render` and by `explain`.
//!
//! Handlebars leaves three holes that are closed here (`style.md` section 4.1): HTML escaping is off; strict
//! mode says nothing of a misspelt `{{#if}}`, so every path of a template is checked against [`FIELDS`] when it
//! is loaded; and user text comes in as a value, through `{{sh}}` (one shell word) or `{{line}}` (a directive:
//! no control characters), except the prologue, which is shell code.

use crate::backends::template;
use crate::config::spec::{BackendKind, PoolSpec};
use crate::runtime::ids::{JobName, JobSeq};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What all jobs of a pool have in common.
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
}

impl JobHome {
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
    /// A value with a NUL byte.
    #[error("the prologue has a NUL byte")]
    Nul,
    /// A template or a value in it.
    #[error(transparent)]
    Template(#[from] template::TemplateError),
}

/// The names a template may use.
const FIELDS: &[&str] = &[
    "name",
    "array_last",
    "cores",
    "memory_mib",
    "gres",
    "time",
    "queue",
    "account",
    "qos",
    "constraint",
    "nodelist",
    "exclude",
    "folder",
    "output",
    "signal_seconds",
    "directives",
    "binary",
    "id4",
    "first",
    "prologue",
];

/// `sbatch` options that a directive must not set: names, the log and how we find a job again hang on them.
const RESERVED: &[(&str, &str)] = &[
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
];

/// Largest lead of `--signal` (sbatch(1), 22.05: "sig_time must have an integer value between 0 and 65535").
const SIGNAL_LIMIT_SECONDS: u64 = 65535;

/// The values of a script.
#[derive(Serialize)]
struct Values<'a> {
    name: String,
    array_last: Option<u32>,
    cores: u32,
    memory_mib: Option<u64>,
    gres: Option<String>,
    time: Option<String>,
    queue: Option<&'a str>,
    account: Option<&'a str>,
    qos: Option<&'a str>,
    constraint: Option<&'a str>,
    nodelist: Option<&'a str>,
    exclude: Option<&'a str>,
    folder: &'a str,
    output: String,
    signal_seconds: Option<u64>,
    directives: &'a [String],
    binary: &'a str,
    id4: &'a str,
    first: u32,
    prologue: String,
}

/// Returns the job script.
pub fn render_job_script(input: &RenderInput<'_>) -> Result<String, RenderError> {
    let JobHome {
        folder,
        binary,
        id4,
        pool,
    } = input.home;
    let name = JobName::new(id4, input.first);
    if input.backend == BackendKind::Slurm {
        pool.directives.iter().try_for_each(|d| not_reserved(d))?;
    }
    // sbatch refuses a script with DOS line ends (capture submit_crlf).
    let prologue = pool.prologue.replace("\r\n", "\n");
    if prologue.contains('\0') {
        return Err(RenderError::Nul);
    }
    let values = Values {
        name: name.to_string(),
        array_last: (input.count > 1).then(|| input.count - 1),
        cores: pool.cores,
        memory_mib: pool.memory_bytes.map(|bytes| bytes.div_ceil(1 << 20)),
        gres: gres(pool),
        time: pool.walltime_seconds.map(slurm_time),
        queue: pool.queue.as_deref(),
        account: pool.account.as_deref(),
        qos: pool.qos.as_deref(),
        constraint: pool.constraint.as_deref(),
        nodelist: pool.nodelist.as_deref(),
        exclude: pool.exclude.as_deref(),
        folder: text(folder)?,
        output: slurm_output(&name, input.count),
        signal_seconds: Some(pool.drain_lead_seconds.min(SIGNAL_LIMIT_SECONDS)).filter(|s| *s > 0),
        directives: &pool.directives,
        binary: text(binary)?,
        id4,
        first: input.first.0,
        prologue: prologue.trim_end().to_owned(),
    };
    let main = match input.backend {
        BackendKind::Slurm => include_str!("../../templates/slurm.sh.hbs"),
        BackendKind::Local => include_str!("../../templates/local.sh.hbs"),
    };
    let files = [
        (input.backend.as_str(), main),
        ("job_body", include_str!("../../templates/job_body.sh.hbs")),
    ];
    let why = |topic: &str| {
        let meaning = meaning(topic)?;
        let origin = input.origins.and_then(|o| o.get(topic));
        input.explain.then(|| match origin {
            Some(origin) => format!("{meaning} [{origin}]"),
            None => meaning.to_owned(),
        })
    };
    Ok(template::render(&files, FIELDS, &values, why)?)
}

/// Returns where the output of element `index` of an array lies, relative to the cluster's folder.
pub fn slurm_log(array_name: &JobName, count: u32, index: u32) -> PathBuf {
    PathBuf::from(slurm_output(array_name, count).replace("%a", &index.to_string()))
}

/// Relative to `--chdir`, so that a `%` or a backslash in the folder's path is no pattern (sbatch(1),
/// "filename pattern").
fn slurm_output(array_name: &JobName, count: u32) -> String {
    match count {
        1 => format!("jobs/{array_name}.log"),
        _ => format!("jobs/{array_name}-%a.log"),
    }
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
fn slurm_time(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => time,
        _ => format!("{days}-{time}"),
    }
}

fn text(path: &Path) -> Result<&str, RenderError> {
    path.to_str().ok_or_else(|| RenderError::Path {
        path: path.to_owned(),
    })
}

/// Refuses a directive with an option of [`RESERVED`], also abbreviated as getopt_long(3) allows.
fn not_reserved(directive: &str) -> Result<(), RenderError> {
    for word in shlex::split(directive).unwrap_or_default() {
        let option = word.split('=').next().unwrap_or_default();
        let taken = RESERVED.iter().find(|(long, short)| {
            let long_match = option.len() >= 5 && long.starts_with(option);
            long_match || (!short.is_empty() && !word.starts_with("--") && word.starts_with(short))
        });
        if let Some((option, _)) = taken {
            return Err(RenderError::Reserved {
                directive: directive.to_owned(),
                option,
            });
        }
    }
    Ok(())
}

/// What a line of a script is for, in the words of `--explain`.
fn meaning(topic: &str) -> Option<&'static str> {
    Some(match topic {
        "name" => {
            "name of the job: how dcluster finds it again after a crash; an array bears its first job's"
        }
        "array" => {
            "jobs of one shape are submitted by one command; element 0 is the job the array is named after"
        }
        "nodes" => "one job is one worker on one node",
        "cores" => "cores of one job",
        "memory_bytes" => "memory of one job, in MiB rounded up",
        "gpus" => "GPUs of one job",
        "walltime_seconds" => "walltime: the job is ended after it",
        "queue" => "partition",
        "account" => "account the time is billed to",
        "qos" => "quality of service",
        "constraint" => "features a node must have",
        "nodelist" => "nodes to use",
        "exclude" => "nodes to avoid",
        "chdir" => {
            "the cluster's folder; the script checks it again, for Slurm runs a job in /tmp when it is missing"
        }
        "output" => {
            "where the job's output goes, relative to the folder above; a second run appends"
        }
        "requeue" => {
            "a lost job is replaced by dcluster, under a new name, never restarted by Slurm"
        }
        "drain_lead_seconds" => {
            "asks the worker to drain so many seconds before the walltime ends; Slurm may be 60 s early"
        }
        "directives" => "your own directive, verbatim",
        "identity" => "which job this is, in the words of the batch system",
        "signals" => {
            "a signal reaches this script alone, so the worker is told; without a worker it ends the job"
        }
        "sentinel" => {
            "however the job ends: ends left-over processes, then leaves the exit code where the server looks"
        }
        "environment" => "the environment of `dcluster up`, from a file that only you can read",
        "prologue" => "your prologue",
        "worker" => {
            "the worker, in the background: bash runs no trap while it waits for a foreground command"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> JobHome {
        JobHome {
            folder: "/home/me/my clusters/d".into(),
            binary: "/opt/it's/dcluster".into(),
            id4: "abcd".into(),
            pool: PoolSpec {
                cores: 24,
                memory_bytes: Some(100_000_000_001),
                gpus: 0,
                gpu_type: None,
                walltime_seconds: Some(90_061),
                queue: Some("regular".into()),
                account: None,
                qos: None,
                constraint: None,
                nodelist: None,
                exclude: None,
                directives: vec![],
                prologue: String::new(),
                drain_lead_seconds: 120,
            },
        }
    }

    fn render(
        home: &JobHome,
        backend: BackendKind,
        count: u32,
        explain: bool,
    ) -> Result<String, String> {
        let origins = BTreeMap::from([("cores".to_owned(), "--cores".to_owned())]);
        render_job_script(&RenderInput {
            home,
            backend,
            first: JobSeq(7),
            count,
            explain,
            origins: Some(&origins),
        })
        .map_err(|e| e.to_string())
    }

    fn head(script: &str) -> String {
        script
            .lines()
            .take_while(|l| !l.is_empty())
            .map(|l| format!("{l}\n"))
            .collect()
    }

    #[test]
    fn slurm_array() {
        let mut home = home();
        home.pool.prologue = "module load cuda\r\nawk '{{print $1}}' ${X:-y}\n\n".into();
        insta::assert_snapshot!(render(&home, BackendKind::Slurm, 3, false).unwrap(), @r###"
        #!/bin/bash
        #SBATCH --job-name=dcabcd-000007
        #SBATCH --array=0-2
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=24
        #SBATCH --mem=95368M
        #SBATCH --time=1-01:01:01
        #SBATCH --partition=regular
        #SBATCH --chdir='/home/me/my clusters/d'
        #SBATCH --output='jobs/dcabcd-000007-%a.log'
        #SBATCH --open-mode=append
        #SBATCH --no-requeue
        #SBATCH --signal=B:USR1@120

        dcluster_index=${SLURM_ARRAY_TASK_ID:-0}
        dcluster_id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
        dcluster_id=${dcluster_id:-$SLURM_JOB_ID}
        dcluster_restart=${SLURM_RESTART_COUNT:-0}
        dcluster_node=${SLURMD_NODENAME:-$(uname -n)}
        umask 077
        dcluster_folder='/home/me/my clusters/d'
        dcluster_binary="/opt/it's/dcluster"
        printf -v dcluster_job 'dc%s-%06d' abcd "$((7 + dcluster_index))"
        dcluster_worker=
        dcluster_caught=
        dcluster_code=
        dcluster_round=

        dcluster_say() { printf 'dcluster: %s\n' "$*" >&2; }

        dcluster_signal() { # NAME NUMBER
            dcluster_caught=1
            if [ -n "$dcluster_worker" ]; then
                kill -s "$1" "$dcluster_worker" 2>/dev/null
            elif [ "$1" != USR1 ] && [ "$1" != USR2 ]; then
                exit $((128 + $2))
            fi
        }

        dcluster_finish() {
            local code=$? signal=null time
            trap : TERM INT HUP USR1 USR2
            trap - EXIT
            set +e +u
            cd "$dcluster_folder" || exit 72
            [ -n "$dcluster_worker" ] || dcluster_say "$dcluster_job ended with code $code before its worker started"
            "$dcluster_binary" worker --sweep --job "$dcluster_job"
            if [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then signal=$((code - 128)); fi
            printf -v time '%(%s)T' -1
            printf '{"exit_code":%d,"signal":%s,"time":%d,"node":"%s","id":"%s","restart":%d}\n' \
                "$code" "$signal" "$time" "${dcluster_node//[^A-Za-z0-9._-]/_}" "$dcluster_id" "$dcluster_restart" \
                > "jobs/$dcluster_job/exit.$$" &&
                mv -f "jobs/$dcluster_job/exit.$$" "jobs/$dcluster_job/exit" ||
                dcluster_say "cannot write jobs/$dcluster_job/exit in $dcluster_folder"
            exit "$code"
        }

        dcluster_traps() {
            trap 'dcluster_signal HUP 1' HUP
            trap 'dcluster_signal INT 2' INT
            trap 'dcluster_signal USR1 10' USR1
            trap 'dcluster_signal USR2 12' USR2
            trap 'dcluster_signal TERM 15' TERM
            trap dcluster_finish EXIT
        }

        export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"
        if ! cd "$dcluster_folder" || ! mkdir -p "jobs/$dcluster_job"; then
            dcluster_say "$dcluster_job cannot use the cluster folder $dcluster_folder on $dcluster_node: is it on a file system that this node shares with the submitting host?"
            exit 72
        fi
        dcluster_traps

        if [ -e env.sh ]; then
            . ./env.sh
        fi
        export DCLUSTER_JOB="$dcluster_job" DCLUSTER_JOB_ID="$dcluster_id"

        :
        module load cuda
        awk '{{print $1}}' ${X:-y}
        dcluster_code=$?
        set +e +u
        dcluster_traps
        [ "$dcluster_code" = 0 ] || dcluster_say "the last command of the prologue failed with code $dcluster_code; the worker starts nevertheless"
        cd "$dcluster_folder" || exit 72

        "$dcluster_binary" worker --cluster-folder "$dcluster_folder" --job "$dcluster_job" &
        dcluster_worker=$!
        while :; do
            dcluster_caught=
            wait "$dcluster_worker"
            dcluster_last=$?
            # 127 after an interrupted wait: the status was already taken, in the round before.
            [ "$dcluster_last" = 127 ] && [ -n "$dcluster_round" ] || dcluster_code=$dcluster_last
            dcluster_round=1
            [ -n "$dcluster_caught" ] || break
        done
        exit "$dcluster_code"
        "###);
    }

    #[test]
    fn slurm_single_with_everything() {
        let mut home = home();
        home.pool.gpus = 2;
        home.pool.gpu_type = Some("a100".into());
        home.pool.account = Some("me & you".into());
        home.pool.qos = Some("low".into());
        home.pool.constraint = Some("a|b".into());
        home.pool.nodelist = Some("n[01-03]".into());
        home.pool.exclude = Some("n02".into());
        home.pool.walltime_seconds = Some(59);
        home.pool.directives = vec!["--comment='x y' --nice=0".into(), "--mail-user=me".into()];
        insta::assert_snapshot!(head(&render(&home, BackendKind::Slurm, 1, false).unwrap()), @r###"
        #!/bin/bash
        #SBATCH --job-name=dcabcd-000007
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=24
        #SBATCH --mem=95368M
        #SBATCH --gres=gpu:a100:2
        #SBATCH --time=00:00:59
        #SBATCH --partition=regular
        #SBATCH --account='me & you'
        #SBATCH --qos=low
        #SBATCH --constraint='a|b'
        #SBATCH --nodelist='n[01-03]'
        #SBATCH --exclude=n02
        #SBATCH --chdir='/home/me/my clusters/d'
        #SBATCH --output=jobs/dcabcd-000007.log
        #SBATCH --open-mode=append
        #SBATCH --no-requeue
        #SBATCH --signal=B:USR1@120
        #SBATCH --comment='x y' --nice=0
        #SBATCH --mail-user=me
        "###);
    }

    #[test]
    fn slurm_with_the_least() {
        let mut home = home();
        home.pool.memory_bytes = None;
        home.pool.walltime_seconds = None;
        home.pool.queue = None;
        home.pool.drain_lead_seconds = 0;
        insta::assert_snapshot!(head(&render(&home, BackendKind::Slurm, 1, false).unwrap()), @r###"
        #!/bin/bash
        #SBATCH --job-name=dcabcd-000007
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=24
        #SBATCH --chdir='/home/me/my clusters/d'
        #SBATCH --output=jobs/dcabcd-000007.log
        #SBATCH --open-mode=append
        #SBATCH --no-requeue
        "###);
    }

    #[test]
    fn slurm_explained() {
        insta::assert_snapshot!(head(&render(&home(), BackendKind::Slurm, 3, true).unwrap()), @r###"
        #!/bin/bash
        # name of the job: how dcluster finds it again after a crash; an array bears its first job's
        #SBATCH --job-name=dcabcd-000007
        # jobs of one shape are submitted by one command; element 0 is the job the array is named after
        #SBATCH --array=0-2
        # one job is one worker on one node
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        # cores of one job [--cores]
        #SBATCH --cpus-per-task=24
        # memory of one job, in MiB rounded up
        #SBATCH --mem=95368M
        # walltime: the job is ended after it
        #SBATCH --time=1-01:01:01
        # partition
        #SBATCH --partition=regular
        # the cluster's folder; the script checks it again, for Slurm runs a job in /tmp when it is missing
        #SBATCH --chdir='/home/me/my clusters/d'
        # where the job's output goes, relative to the folder above; a second run appends
        #SBATCH --output='jobs/dcabcd-000007-%a.log'
        #SBATCH --open-mode=append
        # a lost job is replaced by dcluster, under a new name, never restarted by Slurm
        #SBATCH --no-requeue
        # asks the worker to drain so many seconds before the walltime ends; Slurm may be 60 s early
        #SBATCH --signal=B:USR1@120
        "###);
    }

    #[test]
    fn local_explained() {
        insta::assert_snapshot!(render(&home(), BackendKind::Local, 1, true).unwrap(), @r###"
        #!/bin/bash
        # which job this is, in the words of the batch system
        dcluster_index=0
        dcluster_id=$(</proc/$$/stat) && dcluster_id=(${dcluster_id##*) })
        dcluster_id=$$.${dcluster_id[19]}.$(head -c 8 /proc/sys/kernel/random/boot_id)
        dcluster_restart=0
        dcluster_node=$(uname -n)
        umask 077
        dcluster_folder='/home/me/my clusters/d'
        dcluster_binary="/opt/it's/dcluster"
        printf -v dcluster_job 'dc%s-%06d' abcd "$((7 + dcluster_index))"
        dcluster_worker=
        dcluster_caught=
        dcluster_code=
        dcluster_round=

        dcluster_say() { printf 'dcluster: %s\n' "$*" >&2; }

        # a signal reaches this script alone, so the worker is told; without a worker it ends the job
        dcluster_signal() { # NAME NUMBER
            dcluster_caught=1
            if [ -n "$dcluster_worker" ]; then
                kill -s "$1" "$dcluster_worker" 2>/dev/null
            elif [ "$1" != USR1 ] && [ "$1" != USR2 ]; then
                exit $((128 + $2))
            fi
        }

        # however the job ends: ends left-over processes, then leaves the exit code where the server looks
        dcluster_finish() {
            local code=$? signal=null time
            trap : TERM INT HUP USR1 USR2
            trap - EXIT
            set +e +u
            cd "$dcluster_folder" || exit 72
            [ -n "$dcluster_worker" ] || dcluster_say "$dcluster_job ended with code $code before its worker started"
            "$dcluster_binary" worker --sweep --job "$dcluster_job"
            if [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then signal=$((code - 128)); fi
            printf -v time '%(%s)T' -1
            printf '{"exit_code":%d,"signal":%s,"time":%d,"node":"%s","id":"%s","restart":%d}\n' \
                "$code" "$signal" "$time" "${dcluster_node//[^A-Za-z0-9._-]/_}" "$dcluster_id" "$dcluster_restart" \
                > "jobs/$dcluster_job/exit.$$" &&
                mv -f "jobs/$dcluster_job/exit.$$" "jobs/$dcluster_job/exit" ||
                dcluster_say "cannot write jobs/$dcluster_job/exit in $dcluster_folder"
            exit "$code"
        }

        dcluster_traps() {
            trap 'dcluster_signal HUP 1' HUP
            trap 'dcluster_signal INT 2' INT
            trap 'dcluster_signal USR1 10' USR1
            trap 'dcluster_signal USR2 12' USR2
            trap 'dcluster_signal TERM 15' TERM
            trap dcluster_finish EXIT
        }

        export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"
        if ! cd "$dcluster_folder" || ! mkdir -p "jobs/$dcluster_job"; then
            dcluster_say "$dcluster_job cannot use the cluster folder $dcluster_folder on $dcluster_node: is it on a file system that this node shares with the submitting host?"
            exit 72
        fi
        dcluster_traps

        # the environment of `dcluster up`, from a file that only you can read
        if [ -e env.sh ]; then
            . ./env.sh
        fi
        export DCLUSTER_JOB="$dcluster_job" DCLUSTER_JOB_ID="$dcluster_id"

        # the worker, in the background: bash runs no trap while it waits for a foreground command
        "$dcluster_binary" worker --cluster-folder "$dcluster_folder" --job "$dcluster_job" &
        dcluster_worker=$!
        while :; do
            dcluster_caught=
            wait "$dcluster_worker"
            dcluster_last=$?
            # 127 after an interrupted wait: the status was already taken, in the round before.
            [ "$dcluster_last" = 127 ] && [ -n "$dcluster_round" ] || dcluster_code=$dcluster_last
            dcluster_round=1
            [ -n "$dcluster_caught" ] || break
        done
        exit "$dcluster_code"
        "###);
    }

    #[test]
    fn refuses_what_would_break_out() {
        let mut home = home();
        home.pool.queue = Some("a\n#SBATCH --uid=0".into());
        let error = render(&home, BackendKind::Slurm, 1, false).unwrap_err();
        assert!(
            error.starts_with("template slurm, line ") && error.contains("control"),
            "{error}"
        );
        for directive in [
            "--arr=1-3",
            "-Jx",
            "-J x",
            "--nice=1 --job-name=x",
            "-M other",
            "--export=ALL",
            "-o x",
        ] {
            let mut home = super::tests::home();
            home.pool.directives = vec![directive.into()];
            let error = render(&home, BackendKind::Slurm, 1, false).unwrap_err();
            assert!(
                error.contains("which dcluster needs for itself"),
                "{directive}: {error}"
            );
        }
        for directive in [
            "-p x",
            "--nodes=1",
            "--exclusive",
            "-e err",
            "--reservation=x -A y",
            "--gpus-per-node=1",
        ] {
            let mut home = super::tests::home();
            home.pool.directives = vec![directive.into()];
            render(&home, BackendKind::Slurm, 1, false).unwrap();
        }
        home.pool.queue = None;
        home.pool.prologue = "a\0b".into();
        assert_eq!(
            render(&home, BackendKind::Slurm, 1, false).unwrap_err(),
            "the prologue has a NUL byte"
        );
    }

    #[test]
    fn times_and_logs() {
        assert_eq!(slurm_time(3600), "01:00:00");
        assert_eq!(slurm_time(2 * 86400), "2-00:00:00");
        let first = JobName::new("abcd", JobSeq(7));
        assert_eq!(slurm_log(&first, 1, 0), Path::new("jobs/dcabcd-000007.log"));
        assert_eq!(
            slurm_log(&first, 3, 2),
            Path::new("jobs/dcabcd-000007-2.log")
        );
    }
}
