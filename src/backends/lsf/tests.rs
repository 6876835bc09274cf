//! What needs no LSF.

use super::*;
use crate::runtime::ids::{JobName, JobSeq};

fn job(seq: u32, id: Option<&str>) -> JobRef {
    JobRef { name: JobName::new("abcd", JobSeq(seq)), id: id.map(|id| NativeId(id.to_owned())) }
}

#[test]
fn asks_for_arrays_once() {
    let jobs = [job(1, Some("71[1]")), job(2, Some("71[2]")), job(3, Some("8")), job(4, None), job(5, Some("0"))];
    assert_eq!(array_ids(jobs.iter().filter_map(|job| job.id.as_ref())), ["71", "8"], "0 is no job");
}

#[test]
fn a_reused_id_is_another_job() {
    let table = "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n\
        71      me      RUN   normal     vm          vm          dcabcd-000001[1]     Nov 23 15:02\n\
        71      me      RUN   normal     vm          vm          dcabcd-000001[2]     Nov 23 15:02\n\
        8       me      RUN   normal     vm          vm          dcabcd-000009     Nov 23 15:02\n\
        9       me      RUN   normal     vm          vm          dcabcd-000004     Nov 23 15:02\n";
    let Listing::Jobs(seen) = parse::listing("abcd", Format::Wide, table) else { panic!("no table") };
    let jobs = [job(1, Some("71[1]")), job(2, Some("70")), job(3, Some("8")), job(4, None)];
    let ids: Vec<String> = batch::of(&jobs, seen).into_iter().map(|seen| seen.id.0).collect();
    assert_eq!(ids, ["71[1]", "9"]);
}

/// The whole environment of `bsub` is copied into the job, and some of it changes what commands do.
#[test]
fn the_environment_stays_here() {
    for name in ["AWS_SECRET_ACCESS_KEY", "BSUB_QUIET", "LSB_JOBID", "LSB_SUB_QUEUE", "LSB_BJOBS_FORMAT", "BASH_ENV"] {
        assert!(!inherited(name), "{name}");
    }
    for name in ["PATH", "HOME", "LSF_ENVDIR", "LSB_DEFAULTQUEUE"] {
        assert!(inherited(name), "{name}");
    }
}

/// `bkill 0` ends all jobs of the user; IBM's `bkill` without an id ends the last one, so none is called then.
#[test]
fn bkill_0_is_never_said() {
    let jobs = [job(1, Some("0")), job(2, Some("0[3]")), job(3, Some("")), job(4, Some("all")), job(5, None)];
    assert!(killable(&jobs).is_empty());
    assert_eq!(killable(&[job(1, Some("7[3]")), job(2, Some("10"))]).len(), 2);
}
