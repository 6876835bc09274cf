//! The Grid Engine backend on a real Grid Engine: `eval "$(tests/clusters/sge/up)"`, then
//! `DCLUSTER_TEST_SGE=1 cargo test --test it sge`. Skipped otherwise.

use crate::fake_worker::{Fake, until};
use crate::sge_bed::{bed, sge, start, stop_master};
use dcluster::backends::sentinel::Sentinel;
use dcluster::backends::sge::Sge;
use dcluster::backends::{Backend, BackendError, EndedHow, ErrorClass, JobRef, Observation, Observed, Submit};
use dcluster::config::spec::PoolSpec;
use dcluster::runtime::ids::{JobName, JobSeq, NativeId};
use std::path::Path;

fn fake(change: impl FnOnce(&mut PoolSpec)) -> (Fake, Sge) {
    // What would need quoting, and what `-o` reads in a path of its own.
    let fake = Fake::named(Path::new("/var/tmp"), "my \"clus%ter\", a:b #c $x it's", change);
    let backend = Sge::new(fake.home.clone());
    (fake, backend)
}

async fn refused(change: impl FnOnce(&mut PoolSpec)) -> BackendError {
    let (_fake, backend) = fake(change);
    let job = (JobSeq(1), JobName::new("zzzz", JobSeq(1)));
    let submit = Submit { pool: "default".to_owned(), walltime_seconds: None, jobs: vec![job], exclude: Vec::new() };
    backend.submit(&submit).await.unwrap_err()
}

async fn seen(backend: &Sge, job: &JobRef) -> Option<Observation> {
    backend.list(std::slice::from_ref(job)).await.unwrap().into_iter().next()
}

async fn accounted(backend: &Sge, job: &JobRef) -> Observation {
    let ask = async || backend.account(std::slice::from_ref(job)).await.unwrap().into_iter().next();
    until("accounting knows", ask).await
}

fn ended(how: EndedHow, exit_code: Option<i32>) -> Observed {
    Observed::Ended { how, exit_code }
}

/// One test, for it stops the master.
#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the bed is this test's alone to its end, and nothing else runs in it")]
async fn a_life_on_grid_engine() {
    let Some(_bed) = bed() else { return };
    let (fake, backend) = fake(|pool| {
        pool.prologue = "export FROM_PROLOGUE=p".into();
        pool.directives = vec!["-ac comment='x y'".into()];
        pool.cores = 2;
        pool.queue = Some("all.q".into());
    });
    backend.prepare().await.unwrap();
    assert_eq!(backend.jobs_per_submit(), 1000);

    // An array: all run, on a host, and are listed and found.
    let jobs = fake.submit(&backend, 1, 3).await;
    let array = jobs[0].id.as_ref().unwrap().0.strip_suffix(".1").unwrap().to_owned();
    for job in &jobs {
        fake.ready(job).await;
    }
    let mut listed = backend.list(&jobs).await.unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let host = listed[0].node.clone();
    assert!(host.is_some());
    for (seen, job) in listed.iter().zip(&jobs) {
        assert_eq!((&seen.name, Some(&seen.id), &seen.node), (&job.name, job.id.as_ref(), &host));
        assert_eq!(seen.state, Observed::Running);
    }
    let folder = fake.home.folder.display();
    let began = format!("start {} {array}.3 env=a  b prologue=p umask=0077 pwd={folder}\nready\n", jobs[2].name);
    assert_eq!(fake.record(&jobs[2]), began);
    assert!(fake.home.folder.join(format!("jobs/{}-3.log", jobs[0].name)).exists());
    assert_eq!(backend.find().await.unwrap().iter().filter(|o| o.state == Observed::Running).count(), 3);

    // One ends by itself, with a code that Grid Engine would take for a command; qacct knows another.
    fake.write(&format!("stop.{}", jobs[0].name), "100");
    assert_eq!(accounted(&backend, &jobs[0]).await.state, ended(EndedHow::Exited, Some(1)));
    let sentinel = Sentinel::read(&fake.home.exit_file(&jobs[0].name)).unwrap();
    assert_eq!((sentinel.exit_code, sentinel.id, Some(sentinel.node)), (100, format!("{array}.1"), host));
    assert_eq!(seen(&backend, &jobs[0]).await, None, "qstat forgets it at once");

    // One is cancelled and has time to end, one goes on.
    backend.cancel(&jobs[1..2]).await.unwrap();
    assert_eq!(accounted(&backend, &jobs[1]).await.state, ended(EndedHow::Cancelled, None));
    assert!(fake.record(&jobs[1]).contains("TERM\n"), "{}", fake.record(&jobs[1]));
    assert_eq!(Sentinel::read(&fake.home.exit_file(&jobs[1].name)).unwrap().exit_code, 5);
    assert_eq!(seen(&backend, &jobs[2]).await.unwrap().state, Observed::Running);

    // What has ended is found by name, too.
    let found = backend.find().await.unwrap();
    assert_eq!(found.len(), 3);

    // Jobs that are unknown are absent; to cancel them, alone or among others, is no error.
    let nobody = JobRef { name: JobName::new(&fake.home.id4, JobSeq(99)), id: Some(NativeId("987654".into())) };
    assert_eq!(seen(&backend, &nobody).await, None);
    assert_eq!(backend.list(&[nobody.clone(), jobs[2].clone()]).await.unwrap().len(), 1);
    backend.cancel(std::slice::from_ref(&nobody)).await.unwrap();
    backend.cancel(&[nobody, jobs[0].clone()]).await.unwrap();

    impossible_shapes().await;
    the_site(&backend).await;
    pending(&backend).await;

    stop_master();
    let error = refused(|_| {}).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    let job = std::slice::from_ref(&jobs[2]);
    assert_eq!(backend.list(job).await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(backend.find().await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(backend.cancel(job).await.unwrap_err().class, ErrorClass::Transient);
    start();
    assert_eq!(seen(&backend, &jobs[2]).await.unwrap().state, Observed::Running);
    backend.cancel(&jobs).await.unwrap();
    until("it is gone", async || seen(&backend, &jobs[2]).await.is_none().then_some(())).await;
}

type Change = fn(&mut PoolSpec);

async fn impossible_shapes() {
    let changes: [(Change, &str); 7] = [
        (|pool| pool.queue = Some("nosuch.q".into()), "unknown queue \"nosuch.q\""),
        (|pool| pool.account = Some("nosuch".into()), "requested project \"nosuch\" does not exist"),
        (|pool| pool.memory_bytes = Some(1 << 50), "offers only hc:h_vmem=64.000G"),
        (|pool| pool.cores = 17, "cannot run in PE \"smp\""),
        (|pool| pool.cores = 1000, "no parallel environment is known"),
        (|pool| pool.directives = vec!["-l nosuch=1".into()], "unknown resource \"nosuch\""),
        (|pool| pool.nodelist = Some("nosuch".into()), "can't resolve hostname"),
    ];
    for (change, says) in changes {
        let error = refused(change).await;
        assert_eq!(error.class, ErrorClass::Permanent, "{error}");
        assert!(error.says.contains(says) && error.fix.is_some(), "{error}");
    }
}

async fn the_site(backend: &Sge) {
    let site = backend.site().await.unwrap();
    assert!(site.version.contains("8.1.9"), "{}", site.version);
    assert_eq!(site.accounting, Some(true));
    let short = site.queues.iter().find(|queue| queue.name == "short.q").unwrap();
    assert_eq!((short.max_walltime_seconds, short.max_cores), (Some(600), Some(16)));
    assert_eq!((short.max_memory_bytes, &short.closed), (Some(64 << 30), &None));
    sge(&["qmod", "-d", "short.q"]);
    let closed = backend.site().await.unwrap().queues.into_iter().find(|queue| queue.name == "short.q");
    sge(&["qmod", "-e", "short.q"]);
    assert!(closed.unwrap().closed.is_some_and(|why| why.contains("disabled")));
}

/// A job that waits says why; one that is cancelled before it starts leaves no record at all.
async fn pending(other: &Sge) {
    let (held, backend) = fake(|pool| pool.directives = vec!["-h".into()]);
    let waiting = held.submit(&backend, 50, 2).await;
    let reason = async || seen(&backend, &waiting[1]).await.map(|o| o.reason).filter(|reason| reason.contains(' '));
    assert_eq!(until("a reason", reason).await, "hqw Job is in hold state");
    assert_eq!(seen(&backend, &waiting[1]).await.unwrap().state, Observed::Pending);
    assert_eq!(seen(other, &waiting[1]).await, None, "another cluster's");
    backend.cancel(&waiting).await.unwrap();
    until("they are gone", async || backend.list(&waiting).await.unwrap().is_empty().then_some(())).await;
    assert_eq!(backend.account(&waiting).await.unwrap(), []);
    assert_eq!(backend.find().await.unwrap(), []);
}
