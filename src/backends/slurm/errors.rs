//! Slurm's errors as classes. Pure. The texts are those of `slurm/slurm_errno.h` (22.05 to 24.11) and of the
//! captures in `tests/fixtures/slurm/errors.txt`.

use crate::backends::ErrorClass;
use crate::backends::batch::{Answer, Exit, Verb};
use crate::backends::errors::{Row, class_of, first};

const LESS: &str =
    "ask for less: `sinfo -o '%P %l %c %m %G'` shows the walltime, cores, memory and GPUs of each partition";
const WAIT: &str = "Slurm's controller does not answer; `scontrol ping` shows when it is back";
const MUNGE: &str = "munged must run on this host: ask the administrators";
const DIRECTIVE: &str = "correct the pool's directives; `dcluster render` shows the script";

/// First match wins: what the controller refuses for ever stands before the general text around it.
const ROWS: &[Row] = {
    use ErrorClass::{Ambiguous, Limit, Permanent, Transient};
    &[
        // Sent, and the answer was lost.
        ("Socket timed out on send/recv", Ambiguous, WAIT),
        ("Zero Bytes were transmitted", Ambiguous, WAIT),
        ("Message receive failure", Ambiguous, WAIT),
        ("Unexpected message received", Ambiguous, WAIT),
        ("Communication shutdown failure", Ambiguous, WAIT),
        ("Connection reset by peer", Ambiguous, WAIT),
        // Not sent at all.
        ("Unable to contact slurm controller", Transient, WAIT),
        ("Unable to contact slurmctld", Transient, WAIT),
        ("controller in standby mode", Transient, WAIT),
        (
            "Could not establish a configuration source",
            Transient,
            "set SLURM_CONF, or load Slurm's module, in the shell that runs dcluster",
        ),
        (
            "Unable to process configuration file",
            Transient,
            "set SLURM_CONF, or load Slurm's module, in the shell that runs dcluster",
        ),
        ("munge", Transient, MUNGE),
        ("Munge", Transient, MUNGE),
        (
            "Protocol authentication error",
            Transient,
            "munged must run on this host with the site's key: ask the administrators",
        ),
        ("Problem talking to the database", Transient, "slurmdbd does not answer: ask the administrators if it lasts"),
        ("Connection refused", Transient, WAIT),
        (
            "Required partition not available",
            Transient,
            "the partition is down or drained; `sinfo` shows when it is back",
        ),
        // A shape that will never fit, whatever else is said.
        ("PerJob", Permanent, LESS),
        ("MaxWallDuration", Permanent, LESS),
        ("NotSatisfied", Permanent, "ask for more: the QOS has a minimum (`sacctmgr show qos`)"),
        (
            "Requested time limit is invalid",
            Permanent,
            "give a shorter --walltime: `sinfo -o '%P %l'` shows each partition's limit",
        ),
        ("Node count specification invalid", Permanent, LESS),
        ("Requested node configuration is not available", Permanent, LESS),
        ("Memory specification can not be satisfied", Permanent, LESS),
        ("CPU count per node can not be satisfied", Permanent, LESS),
        ("Requested partition configuration not available", Permanent, LESS),
        ("nvalid partition", Permanent, "give another --queue: `sinfo -s` lists the partitions"),
        ("not permitted to use this partition", Permanent, "give another --queue: `sinfo -s` lists the partitions"),
        (
            "Invalid account",
            Permanent,
            "give another --account: `sacctmgr show assoc user=$USER format=account,partition,qos` lists yours",
        ),
        (
            "Invalid qos",
            Permanent,
            "give another --qos: `sacctmgr show assoc user=$USER format=account,qos` lists yours",
        ),
        (
            "Invalid feature specification",
            Permanent,
            "correct --constraint: `sinfo -o '%N %f'` lists the features of the nodes",
        ),
        ("Invalid generic resource", Permanent, "correct --gpus: `sinfo -o '%N %G'` lists the GPUs of the nodes"),
        ("Invalid node name", Permanent, "correct --nodelist or --exclude: `sinfo -N` lists the nodes"),
        ("Invalid license", Permanent, DIRECTIVE),
        ("reservation is invalid", Permanent, DIRECTIVE),
        ("Job dependency problem", Permanent, DIRECTIVE),
        ("unrecognized option", Permanent, DIRECTIVE),
        ("invalid option", Permanent, DIRECTIVE),
        ("error: Invalid --", Permanent, DIRECTIVE),
        (
            "Access/permission denied",
            Permanent,
            "that job belongs to somebody else, or this user may not use the cluster",
        ),
        ("Unable to open file", Permanent, "the cluster's folder must be readable"),
        // Limits of the site.
        ("violates accounting/QOS policy", Limit, "the site's limit on jobs is reached; fewer jobs fit until some end"),
        (
            "Resource temporarily unavailable",
            Limit,
            "Slurm's queue is full (MaxJobCount); jobs fit again when some end",
        ),
        ("Invalid job array specification", Limit, "the site allows shorter arrays only (MaxArraySize)"),
    ]
};

/// Returns the class of a failed command and what to do about it.
pub fn classify(verb: Verb, answer: &Answer) -> (ErrorClass, Option<String>) {
    let Answer { exit, stderr, .. } = answer;
    if let Some((_, class, fix)) = first(ROWS, |text| stderr.contains(text)) {
        return (class_of(*class, verb), Some((*fix).to_owned()));
    }
    let class = match (verb, *exit) {
        // scancel's exit code is Slurm's errno modulo 256: 1800 no contact, 2002 not yours (captures
        // down_scancel, scancel_otheruser).
        (Verb::Cancel, Exit::Code(210)) => ErrorClass::Permanent,
        // The controller, or a site's job_submit plugin, said no; 255 is sbatch's own reading of options.
        (Verb::Submit, _) if stderr.contains("Batch job submission failed") => ErrorClass::Permanent,
        (Verb::Submit, Exit::Code(255)) => ErrorClass::Permanent,
        // It ended before it sent anything: "This does not look like a batch script", "fatal: …".
        (Verb::Submit, Exit::Code(1)) if stderr.contains("sbatch: ") => ErrorClass::Permanent,
        (Verb::Submit, _) => ErrorClass::Ambiguous,
        _ => ErrorClass::Transient,
    };
    (class, None)
}

/// Returns whether `sacct` says that there is no accounting (rc 1, design 1.6).
pub fn no_accounting(stderr: &str) -> bool {
    stderr.contains("accounting storage is disabled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::errors::captures;

    fn classify(verb: Verb, exit: Exit, stderr: &str) -> (ErrorClass, Option<String>) {
        super::classify(verb, &Answer { exit, stdout: String::new(), stderr: stderr.to_owned() })
    }

    #[test]
    fn every_capture_has_its_class() {
        let mut lines = Vec::new();
        for (name, code, stderr) in captures(include_str!("../../../tests/fixtures/slurm/errors.txt")) {
            let verb = match name {
                n if n.contains("scancel") => Verb::Cancel,
                n if n.contains("sacct") => Verb::Account,
                n if n.contains("squeue") => Verb::List,
                _ => Verb::Submit,
            };
            let (class, fix) = classify(verb, Exit::Code(code), stderr);
            let fix = fix.map_or("", |_| ", fix");
            lines.push(format!("{name} ({verb:?} {code}): {class:?}{fix}"));
        }
        insta::assert_snapshot!(lines.join("\n"), @r###"
        array_bad_spec (Submit 1): Limit, fix
        array_bad_spec2 (Submit 1): Limit, fix
        array_too_large (Submit 1): Limit, fix
        db_bad_account (Submit 1): Permanent, fix
        db_bad_qos (Submit 1): Permanent, fix
        db_qos_3_denied (Submit 1): Limit, fix
        db_qos_array_denied (Submit 1): Limit, fix
        db_user_without_assoc (Submit 1): Permanent, fix
        down_sbatch (Submit 1): Transient, fix
        down_sbatch_parsable (Submit 1): Transient, fix
        down_scancel (Cancel 8): Transient, fix
        down_scancel_signal (Cancel 1): Transient, fix
        down_scontrol_show (Submit 1): Transient, fix
        down_squeue (List 1): Transient, fix
        down_squeue_j (List 1): Transient, fix
        enforce_nodes_debug (Submit 1): Limit, fix
        enforce_time_over_debug (Submit 1): Limit, fix
        enforce_time_over_multi (Submit 1): Permanent, fix
        enforce_too_many_nodes (Submit 1): Permanent, fix
        maxjobcount_array (Submit 1): Limit, fix
        sacct_bad (Account 1): Transient
        sacct_badfield (Account 1): Transient
        scancel_bad (Cancel 1): Transient
        scancel_none (Cancel 1): Transient
        scancel_otheruser (Cancel 210): Permanent, fix
        scancel_signal_bad (Cancel 1): Transient
        scancel_signal_unknown (Cancel 1): Transient
        squeue_badid (List 1): Transient
        squeue_badstate (List 1): Transient
        squeue_unknown_one (List 1): Transient
        squeue_unknown_one_tall (List 1): Transient
        submit_bad_constraint (Submit 1): Permanent, fix
        submit_bad_dependency_syntax (Submit 1): Permanent, fix
        submit_bad_directive (Submit 255): Permanent, fix
        submit_bad_directive_value (Submit 255): Permanent, fix
        submit_bad_gres (Submit 1): Permanent, fix
        submit_bad_gres_type (Submit 1): Permanent, fix
        submit_bad_license (Submit 1): Permanent, fix
        submit_bad_mem (Submit 255): Permanent, fix
        submit_bad_option (Submit 255): Permanent, fix
        submit_bad_partition (Submit 1): Permanent, fix
        submit_bad_reservation (Submit 1): Permanent, fix
        submit_crlf (Submit 1): Permanent
        submit_dir (Submit 1): Permanent
        submit_empty (Submit 1): Permanent
        submit_nofile (Submit 1): Permanent, fix
        submit_noshebang (Submit 1): Permanent
        submit_stdin_empty (Submit 1): Permanent
        submit_stdin_noshebang (Submit 1): Permanent
        submit_stdin_with_dash (Submit 1): Permanent, fix
        submit_too_many_cpus_per_task (Submit 1): Permanent, fix
        submit_too_much_mem (Submit 1): Permanent, fix
        submit_too_much_mem_parsable (Submit 1): Permanent, fix
        v2411_scancel_signal_batch_unknown (Cancel 1): Transient
        v2411_squeue_unknown_one (List 1): Transient
        v2411_submit_bad_directive (Submit 255): Permanent, fix
        v2411_submit_bad_partition (Submit 1): Permanent, fix
        v2411_submit_bad_value (Submit 255): Permanent, fix
        v2411_submit_mem (Submit 1): Permanent, fix
        v2411_submit_nofile (Submit 1): Permanent, fix
        "###);
    }

    #[test]
    fn what_no_capture_shows() {
        use ErrorClass::*;
        let lost = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation";
        for (verb, code, stderr, class) in [
            (Verb::Submit, 1, lost, Ambiguous),
            (Verb::List, 1, "slurm_load_jobs error: Socket timed out on send/recv operation", Transient),
            (
                Verb::Submit,
                1,
                "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
                Permanent,
            ),
            (
                Verb::Submit,
                1,
                "sbatch: error: AssocGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
                Limit,
            ),
            (
                Verb::Submit,
                1,
                "sbatch: error: use another queue\nsbatch: error: Batch job submission failed: Unspecified error",
                Permanent,
            ),
            (
                Verb::Submit,
                1,
                "sbatch: error: Munge encode failed: Failed to access \"/run/munge/munge.socket.2\": No such file or directory",
                Transient,
            ),
            (Verb::Submit, 1, "", Ambiguous),
            (Verb::Submit, 3, "wrapper: something", Ambiguous),
            (Verb::Cancel, 210, "", Permanent),
            (Verb::Cancel, 8, "", Transient),
        ] {
            assert_eq!(classify(verb, Exit::Code(code), stderr).0, class, "{stderr}");
        }
        assert_eq!(classify(Verb::Submit, Exit::Signal(9), "").0, Ambiguous);
        assert!(no_accounting("Slurm accounting storage is disabled"));
    }
}
