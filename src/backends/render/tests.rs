//! Whole scripts.

use super::*;

fn home() -> JobHome {
    let pool = PoolSpec {
        memory_bytes: Some(100_000_000_001),
        walltime_seconds: Some(90_061),
        queue: Some("regular".into()),
        drain_lead_seconds: 120,
        ..PoolSpec::new(24)
    };
    JobHome::new("/home/me/my clusters/d".into(), "/opt/it's/dcluster".into(), "abcd", pool)
}

fn render(home: &JobHome, backend: BackendKind, count: u32, explain: bool) -> Result<String, String> {
    let origins = BTreeMap::from([("cores".to_owned(), "--cores".to_owned())]);
    render_job_script(&RenderInput { home, backend, first: JobSeq(7), count, explain, origins: Some(&origins) })
        .map_err(|e| e.to_string())
}

fn head(script: &str) -> String {
    script.lines().take_while(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect()
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
    #SBATCH --output='/home/me/my clusters/d/jobs/dcabcd-000007-%a.log'
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
    dcluster_state=$dcluster_folder/jobs/$dcluster_job
    dcluster_child=
    dcluster_code=

    dcluster_say() { printf 'dcluster: %s\n' "$*" >&2; }

    dcluster_signal() { # NAME NUMBER
        local pid=
        # What some batch systems send in place of TERM.
        if [ "$1" = "${dcluster_last_signal-}" ]; then
            dcluster_ended_by=$2
            set -- TERM "$2"
        fi
        if [ -n "$dcluster_child" ]; then
            # The worker's number is written a moment after its child was started.
            until [ -s "$dcluster_state/pid" ] || ! kill -0 "$dcluster_child" 2>/dev/null; do sleep 0.02; done
            [ ! -s "$dcluster_state/code" ] && read -r pid < "$dcluster_state/pid" && kill -s "$1" "$pid" 2>/dev/null
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
        [ -n "$dcluster_child" ] || dcluster_say "$dcluster_job ended with code $code before its worker started"
        "$dcluster_binary" worker --sweep --job "$dcluster_job"
        if [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then signal=$((code - 128)); fi
        printf -v time '%(%s)T' -1
        printf '{"exit_code":%d,"signal":%s,"time":%d,"node":"%s","id":"%s","restart":%d}\n' \
            "$code" "$signal" "$time" "${dcluster_node//[^A-Za-z0-9._-]/_}" "$dcluster_id" "$dcluster_restart" \
            > "$dcluster_state/exit.$$" &&
            mv -f "$dcluster_state/exit.$$" "$dcluster_state/exit" ||
            dcluster_say "cannot write $dcluster_state/exit"
        # To the batch system some codes are commands.
        case " ${dcluster_reserved_codes-} " in *" $code "*) code=1 ;; esac
        [ -z "${dcluster_ended_by-}" ] || code=$((128 + dcluster_ended_by))
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
    if ! cd "$dcluster_folder" || ! mkdir -p "$dcluster_state"; then
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
    set +e +u +o posix
    dcluster_traps
    [ "$dcluster_code" = 0 ] || dcluster_say "the last command of the prologue failed with code $dcluster_code; the worker starts nevertheless"
    cd "$dcluster_folder" || exit 72

    dcluster_worker() {
        trap : HUP INT USR1 USR2 TERM
        (
            echo "$BASHPID" > "$dcluster_state/pid"
            exec "$dcluster_binary" worker --cluster-folder "$dcluster_folder" --job "$dcluster_job"
        )
        dcluster_code=$?
        echo "$dcluster_code" > "$dcluster_state/code"
        exit "$dcluster_code"
    }
    rm -f "$dcluster_state/pid" "$dcluster_state/code"
    dcluster_worker &
    dcluster_child=$!
    # A signal ends `wait` early, and bash 5.2 may then lose the status of a child that ends at that moment. So the
    # status is that of a foreground command, which no trap disturbs, and comes in a file.
    while [ ! -s "$dcluster_state/code" ] && kill -0 "$dcluster_child" 2>/dev/null; do
        wait "$dcluster_child"
        dcluster_code=$?
    done
    read -r dcluster_code < "$dcluster_state/code"
    exit "${dcluster_code:-71}"
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
    #SBATCH --output='/home/me/my clusters/d/jobs/dcabcd-000007.log'
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
    #SBATCH --output='/home/me/my clusters/d/jobs/dcabcd-000007.log'
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
    # queue or partition
    #SBATCH --partition=regular
    # the cluster's folder; the script checks it again, for Slurm runs a job in /tmp when it is missing
    #SBATCH --chdir='/home/me/my clusters/d'
    # where the job's output goes; a second run appends
    #SBATCH --output='/home/me/my clusters/d/jobs/dcabcd-000007-%a.log'
    #SBATCH --open-mode=append
    # a lost job is replaced by dcluster, under a new name, never restarted by the batch system
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
    dcluster_state=$dcluster_folder/jobs/$dcluster_job
    dcluster_child=
    dcluster_code=

    dcluster_say() { printf 'dcluster: %s\n' "$*" >&2; }

    # a signal reaches this script alone, so the worker is told; without a worker it ends the job
    dcluster_signal() { # NAME NUMBER
        local pid=
        # What some batch systems send in place of TERM.
        if [ "$1" = "${dcluster_last_signal-}" ]; then
            dcluster_ended_by=$2
            set -- TERM "$2"
        fi
        if [ -n "$dcluster_child" ]; then
            # The worker's number is written a moment after its child was started.
            until [ -s "$dcluster_state/pid" ] || ! kill -0 "$dcluster_child" 2>/dev/null; do sleep 0.02; done
            [ ! -s "$dcluster_state/code" ] && read -r pid < "$dcluster_state/pid" && kill -s "$1" "$pid" 2>/dev/null
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
        [ -n "$dcluster_child" ] || dcluster_say "$dcluster_job ended with code $code before its worker started"
        "$dcluster_binary" worker --sweep --job "$dcluster_job"
        if [ "$code" -gt 128 ] && [ "$code" -le 192 ]; then signal=$((code - 128)); fi
        printf -v time '%(%s)T' -1
        printf '{"exit_code":%d,"signal":%s,"time":%d,"node":"%s","id":"%s","restart":%d}\n' \
            "$code" "$signal" "$time" "${dcluster_node//[^A-Za-z0-9._-]/_}" "$dcluster_id" "$dcluster_restart" \
            > "$dcluster_state/exit.$$" &&
            mv -f "$dcluster_state/exit.$$" "$dcluster_state/exit" ||
            dcluster_say "cannot write $dcluster_state/exit"
        # To the batch system some codes are commands.
        case " ${dcluster_reserved_codes-} " in *" $code "*) code=1 ;; esac
        [ -z "${dcluster_ended_by-}" ] || code=$((128 + dcluster_ended_by))
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
    if ! cd "$dcluster_folder" || ! mkdir -p "$dcluster_state"; then
        dcluster_say "$dcluster_job cannot use the cluster folder $dcluster_folder on $dcluster_node: is it on a file system that this node shares with the submitting host?"
        exit 72
    fi
    dcluster_traps

    # the environment of `dcluster up`, from a file that only you can read
    if [ -e env.sh ]; then
        . ./env.sh
    fi
    export DCLUSTER_JOB="$dcluster_job" DCLUSTER_JOB_ID="$dcluster_id"

    # the worker, in the background of this script, which forwards signals to it meanwhile
    dcluster_worker() {
        trap : HUP INT USR1 USR2 TERM
        (
            echo "$BASHPID" > "$dcluster_state/pid"
            exec "$dcluster_binary" worker --cluster-folder "$dcluster_folder" --job "$dcluster_job"
        )
        dcluster_code=$?
        echo "$dcluster_code" > "$dcluster_state/code"
        exit "$dcluster_code"
    }
    rm -f "$dcluster_state/pid" "$dcluster_state/code"
    dcluster_worker &
    dcluster_child=$!
    # A signal ends `wait` early, and bash 5.2 may then lose the status of a child that ends at that moment. So the
    # status is that of a foreground command, which no trap disturbs, and comes in a file.
    while [ ! -s "$dcluster_state/code" ] && kill -0 "$dcluster_child" 2>/dev/null; do
        wait "$dcluster_child"
        dcluster_code=$?
    done
    read -r dcluster_code < "$dcluster_state/code"
    exit "${dcluster_code:-71}"
    "###);
}

#[test]
fn refuses_what_would_break_out() {
    let mut home = home();
    home.pool.queue = Some("a\n#SBATCH --uid=0".into());
    let error = render(&home, BackendKind::Slurm, 1, false).unwrap_err();
    assert!(error.starts_with("template slurm, line ") && error.contains("control"), "{error}");
    for directive in ["--arr=1-3", "-Jx", "-J x", "--nice=1 --job-name=x", "-M other", "--export=ALL", "-o x"] {
        let mut home = self::home();
        home.pool.directives = vec![directive.into()];
        let error = render(&home, BackendKind::Slurm, 1, false).unwrap_err();
        assert!(error.contains("which dcluster needs for itself"), "{directive}: {error}");
    }
    for directive in ["-p x", "--nodes=1", "--exclusive", "-e err", "--reservation=x -A y", "--gpus-per-node=1"] {
        let mut home = self::home();
        home.pool.directives = vec![directive.into()];
        render(&home, BackendKind::Slurm, 1, false).unwrap();
    }
    home.pool.queue = None;
    home.pool.prologue = "a\0b".into();
    assert_eq!(render(&home, BackendKind::Slurm, 1, false).unwrap_err(), "the prologue has a NUL byte");
}

#[test]
fn logs() {
    let first = JobName::new("abcd", JobSeq(7));
    let slurm = Dialect::of(BackendKind::Slurm);
    assert_eq!(slurm.log(&first, 1, 0), Path::new("jobs/dcabcd-000007.log"));
    assert_eq!(slurm.log(&first, 3, 2), Path::new("jobs/dcabcd-000007-2.log"));
}

#[test]
fn nodes_to_avoid_are_added_to_those_of_the_pool() {
    let with = |exclude: Option<&str>, more: &[&str]| {
        let pool = PoolSpec { exclude: exclude.map(str::to_owned), ..PoolSpec::new(1) };
        let mut home = JobHome::new("/c".into(), "/d".into(), "abcd", pool);
        home.avoid(&more.iter().map(|node| (*node).to_owned()).collect::<Vec<_>>());
        home.pool.exclude
    };
    assert_eq!(with(Some("n[1-2]"), &["n3", "n4"]).as_deref(), Some("n[1-2],n3,n4"));
    assert_eq!(with(None, &["n3"]).as_deref(), Some("n3"));
    assert_eq!((with(Some("n1"), &[]).as_deref(), with(None, &[])), (Some("n1"), None));
}
