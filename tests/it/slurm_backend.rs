//! The Slurm backend on a real Slurm: `eval "$(tests/clusters/slurm/up --db)"`, then
//! `DCLUSTER_TEST_SLURM=1 cargo test --test it slurm`. Skipped otherwise.

use crate::fake_worker::{Fake, ended, until};
use crate::site::bed;
use dcluster::backends::sentinel::Sentinel;
use dcluster::backends::slurm::Slurm;
use dcluster::backends::slurm::reasons::meaning;
use dcluster::backends::{Backend, BackendError, EndedHow, ErrorClass, JobRef, Observed, Submit};
use dcluster::config::spec::PoolSpec;
use dcluster::runtime::ids::{JobName, JobSeq, NativeId};
use std::path::Path;
use std::process::Command;

/// A folder that the virtual nodes see, and the backend; `None` where there is no Slurm to test on.
fn start(change: impl FnOnce(&mut PoolSpec)) -> Option<(Fake, Slurm)> {
    let fake = Fake::new(Path::new("/var/tmp"), change);
    let backend = Slurm::new(fake.home.clone());
    Some((fake, backend))
}

async fn refused(backend: &Slurm) -> BackendError {
    let job = (JobSeq(1), JobName::new("zzzz", JobSeq(1)));
    let submit = Submit { pool: "default".to_owned(), walltime_seconds: None, jobs: vec![job], exclude: Vec::new() };
    backend.submit(&submit).await.unwrap_err()
}

async fn state(backend: &Slurm, job: &JobRef) -> Option<Observed> {
    let seen = backend.list(std::slice::from_ref(job)).await.unwrap();
    seen.into_iter().next().map(|o| o.state)
}

/// One test, for it stops the controller, and all find each other's jobs.
#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the Slurm is this test's alone to its end, and nothing else runs in it")]
async fn a_life_on_slurm() {
    let Some(_bed) = bed() else { return };
    let Some((fake, backend)) = start(|pool| {
        pool.prologue = "export FROM_PROLOGUE=p".into();
        pool.directives = vec!["--comment='x y'".into()];
        pool.nodelist = Some("n[01-02]".into());
        pool.directives.push("--nodelist=n01".into());
    }) else {
        return;
    };
    let cancel_all = || Command::new("scancel").args(["-u", "root"]).status().unwrap();
    cancel_all();
    backend.prepare().await.unwrap();
    assert_eq!(backend.jobs_per_submit(), 1000);

    // An array: all run, on a node, and are listed and found.
    let jobs = fake.submit(&backend, 1, 3).await;
    let array = jobs[0].id.as_ref().unwrap().0.strip_suffix("_0").unwrap().to_owned();
    for job in &jobs {
        fake.ready(job).await;
    }
    let mut seen = backend.list(&jobs).await.unwrap();
    seen.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(seen.len(), 3);
    for (seen, job) in seen.iter().zip(&jobs) {
        assert_eq!((&seen.name, Some(&seen.id)), (&job.name, job.id.as_ref()));
        assert_eq!((&seen.state, seen.node.as_deref()), (&Observed::Running, Some("n01")));
        assert!((500..=600).contains(&seen.seconds_left.unwrap()));
    }
    let folder = fake.home.folder.display();
    let start = format!("start {} {array}_2 env=a  b prologue=p umask=0077 pwd={folder}\nready\n", jobs[2].name);
    assert_eq!(fake.record(&jobs[2]), start);
    assert!(fake.home.folder.join(format!("jobs/{}-2.log", jobs[0].name)).exists());
    let found = backend.find().await.unwrap();
    assert_eq!(found.iter().filter(|o| o.state == Observed::Running).count(), 3);

    // The early warning reaches the worker.
    let signal = ["--signal=USR1", "--batch", &format!("{array}_1")];
    assert!(Command::new("scancel").args(signal).status().unwrap().success());
    until("USR1", async || fake.record(&jobs[1]).contains("USR1\n").then_some(())).await;

    // One ends by itself, one is cancelled and has time to end, one goes on.
    fake.write(&format!("stop.{}", jobs[0].name), "7");
    ended(&backend, &jobs[0]).await;
    let sentinel = Sentinel::read(&fake.home.exit_file(&jobs[0].name)).unwrap();
    assert_eq!((sentinel.exit_code, sentinel.id, sentinel.node.as_str()), (7, format!("{array}_0"), "n01"));
    backend.cancel(&jobs[1..2]).await.unwrap();
    let seen = ended(&backend, &jobs[1]).await;
    assert_eq!(seen.state, Observed::Ended { how: EndedHow::Cancelled, exit_code: None });
    assert_eq!(Sentinel::read(&fake.home.exit_file(&jobs[1].name)).unwrap().exit_code, 5);
    assert_eq!(state(&backend, &jobs[2]).await, Some(Observed::Running));

    // Accounting, once it has caught up (or never, where there is none).
    if Command::new("sacct").arg("-n").output().unwrap().status.success() {
        let account = until("accounting knows", async || {
            let known = backend.account(&jobs[..2]).await.unwrap();
            let over = known.iter().filter(|o| matches!(o.state, Observed::Ended { .. })).count();
            (over == 2).then_some(known)
        })
        .await;
        let first = account.iter().find(|o| o.name == jobs[0].name).unwrap();
        assert_eq!(first.state, Observed::Ended { how: EndedHow::Exited, exit_code: Some(7) });
        assert_eq!(first.reason, "FAILED, exit code 7:0");
        // Cancelled before it began.
        let held = Fake::new(Path::new("/var/tmp"), |pool| pool.directives = vec!["--hold".into()]);
        let slurm = Slurm::new(held.home.clone());
        let waiting = held.submit(&slurm, 50, 2).await;
        assert_eq!(state(&slurm, &waiting[1]).await, Some(Observed::Pending));
        slurm.cancel(&waiting).await.unwrap();
        until("accounting knows", async || {
            let known = slurm.account(&waiting).await.unwrap();
            let cancelled = Observed::Ended { how: EndedHow::Cancelled, exit_code: None };
            (known.iter().filter(|o| o.state == cancelled).count() == 2).then_some(())
        })
        .await;
    }

    // Jobs that are unknown are absent; to cancel them is no error.
    let nobody = JobRef { name: JobName::new(&fake.home.id4, JobSeq(99)), id: Some(NativeId("987654".into())) };
    assert_eq!(state(&backend, &nobody).await, None);
    assert_eq!(backend.list(&[nobody.clone(), jobs[2].clone()]).await.unwrap().len(), 1);
    backend.cancel(&[nobody]).await.unwrap();

    impossible_shapes().await;
    never_starts().await;
    controller_stopped(&backend, &jobs[2]).await;

    backend.cancel(&jobs).await.unwrap();
    ended(&backend, &jobs[2]).await;
    cancel_all();
}

type Change = fn(&mut PoolSpec);

async fn impossible_shapes() {
    let changes: [(Change, &str); 5] = [
        (|pool| pool.queue = Some("nosuch".into()), "Invalid partition name specified"),
        (|pool| pool.memory_bytes = Some(1 << 50), "Requested node configuration is not available"),
        (|pool| pool.cores = 25, "Requested node configuration is not available"),
        (|pool| pool.constraint = Some("a|b".into()), "Invalid feature specification"),
        (|pool| pool.gpus = 99, "Requested node configuration is not available"),
    ];
    for (change, says) in changes {
        let Some((_fake, backend)) = start(change) else {
            return;
        };
        let error = refused(&backend).await;
        assert_eq!(error.class, ErrorClass::Permanent, "{error}");
        assert!(error.says.contains(says) && error.fix.is_some(), "{error}");
    }
}

/// More cores than all nodes have is accepted, and waits for ever.
async fn never_starts() {
    let Some((fake, backend)) = start(|pool| pool.cores = 500) else {
        return;
    };
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    let reason = until("a reason", async || {
        let seen = backend.list(std::slice::from_ref(&job)).await.unwrap();
        let (state, reason) = seen.first()?.reason.split_once(' ')?;
        (state == "PENDING").then(|| reason.to_owned())
    })
    .await;
    assert!(meaning(&reason).unwrap().never, "{reason}");
    backend.cancel(std::slice::from_ref(&job)).await.unwrap();
    ended(&backend, &job).await;
}

async fn controller_stopped(backend: &Slurm, job: &JobRef) {
    let conf = std::env::var("SLURM_CONF").unwrap();
    let bed = Path::new(&conf).ancestors().nth(2).unwrap();
    let pid = std::fs::read_to_string(bed.join("run/slurmctld.pid")).unwrap();
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
    let stat = format!("/proc/{}/exe", pid.trim());
    until("the controller is down", async || std::fs::read_link(&stat).is_err().then_some(())).await;
    let error = refused(backend).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    let job = std::slice::from_ref(job);
    assert_eq!(backend.list(job).await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(backend.find().await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(backend.cancel(job).await.unwrap_err().class, ErrorClass::Transient);
    assert!(Command::new("slurmctld").status().unwrap().success());
    until("the controller is back", async || {
        Command::new("scontrol").arg("ping").output().unwrap().status.success().then_some(())
    })
    .await;
    assert_eq!(state(backend, &job[0]).await, Some(Observed::Running));
}
