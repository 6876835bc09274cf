//! The local backend and its job script, with a real bash.

use crate::fake_worker::{Fake, ended, until};
use dcluster::backends::local::Local;
use dcluster::backends::sentinel::Sentinel;
use dcluster::backends::{Backend, EndedHow, JobRef, Observed};
use dcluster::config::spec::PoolSpec;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;

fn start(change: impl FnOnce(&mut PoolSpec)) -> (Fake, Local) {
    let fake = Fake::new(&std::env::temp_dir(), change);
    let backend = Local::new(fake.home.clone());
    (fake, backend)
}

fn script_pid(job: &JobRef) -> Pid {
    let id = &job.id.as_ref().unwrap().0;
    Pid::from_raw(id.split('.').next().unwrap().parse().unwrap())
}

fn exited(code: Option<i32>) -> Observed {
    Observed::Ended { how: EndedHow::Exited, exit_code: code }
}

#[tokio::test]
async fn runs_and_leaves_its_exit_code() {
    let (fake, backend) = start(|pool| pool.prologue = "set -eu\nexport FROM_PROLOGUE=\"x 'y'\"\ncd /\n".into());
    let jobs = fake.submit(&backend, 1, 2).await;
    for job in &jobs {
        fake.ready(job).await;
    }
    let seen = backend.list(&jobs).await.unwrap();
    assert_eq!(seen.len(), 2);
    for (seen, job) in seen.iter().zip(&jobs) {
        assert_eq!((&seen.name, Some(&seen.id)), (&job.name, job.id.as_ref()));
        assert_eq!(seen.state, Observed::Running);
        assert_eq!(seen.seconds_left, None, "the worker knows");
    }
    let (name, id) = (&jobs[0].name, jobs[0].id.as_ref().unwrap());
    let folder = fake.home.folder.display();
    let start = format!("start {name} {id} env=a  b prologue=x 'y' umask=0077 pwd={folder}\nready\n");
    assert_eq!(fake.record(&jobs[0]), start);

    fake.write(&format!("stop.{name}"), "7");
    let seen = ended(&backend, &jobs[0]).await;
    assert_eq!((seen.state, seen.reason.as_str()), (exited(Some(7)), "exit code 7"));
    let sentinel = Sentinel::read(&fake.home.exit_file(name)).unwrap();
    assert_eq!((sentinel.exit_code, sentinel.signal, &sentinel.id), (7, None, &id.0));
    assert!(fake.record(&jobs[0]).ends_with("ready\nexit 7\nsweep\n"));
    let mode = |name: &str| {
        let path = fake.home.job_folder(&jobs[0].name).join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!([mode(""), mode("script.sh"), mode("log"), mode("exit")], [0o700, 0o700, 0o600, 0o600]);
    assert_eq!(fake.read(&format!("jobs/{name}/log")), "");

    // A server that forgot everything finds both.
    let found = Local::new(fake.home.clone()).find().await.unwrap();
    let states: Vec<_> = found.iter().map(|o| (Some(&o.id), &o.state)).collect();
    assert_eq!(states, [(jobs[0].id.as_ref(), &exited(Some(7))), (jobs[1].id.as_ref(), &Observed::Running)]);
    backend.cancel(&jobs).await.unwrap();
    ended(&backend, &jobs[1]).await;
    let pid = script_pid(&jobs[1]);
    until("it is reaped", async || kill(pid, None).is_err().then_some(())).await;
}

#[tokio::test]
async fn forwards_signals_and_waits_for_the_worker() {
    let (fake, backend) = start(|_| {});
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    fake.ready(&job).await;
    for (signal, word) in [(Signal::SIGUSR1, "USR1\n"), (Signal::SIGUSR2, "USR2\n"), (Signal::SIGHUP, "HUP\n")] {
        kill(script_pid(&job), signal).unwrap();
        until(word, async || fake.record(&job).ends_with(word).then_some(())).await;
        let seen = backend.list(std::slice::from_ref(&job)).await.unwrap();
        assert_eq!(seen[0].state, Observed::Running);
    }
    backend.cancel(std::slice::from_ref(&job)).await.unwrap();
    let seen = ended(&backend, &job).await;
    assert_eq!(seen.state, Observed::Ended { how: EndedHow::Cancelled, exit_code: Some(5) });
    assert!(fake.record(&job).ends_with("HUP\nTERM\nsweep\n"));
}

#[tokio::test]
async fn signals_do_not_blur_the_exit_code() {
    let (fake, backend) = start(|_| {});
    let jobs = fake.submit(&backend, 1, 4).await;
    for (job, code) in jobs.iter().zip([0, 7, 126, 127]) {
        fake.ready(job).await;
        fake.write(&format!("stop.{}", job.name), &code.to_string());
        // Until the script is gone: some hit it while the worker ends.
        while kill(script_pid(job), Signal::SIGUSR2).is_ok() {
            tokio::time::sleep(std::time::Duration::from_micros(300)).await;
        }
        let seen = ended(&backend, job).await;
        let log = fake.read(&format!("jobs/{}/log", job.name));
        assert_eq!(seen.state, exited(Some(code)), "{log}");
        assert!(fake.record(job).contains(&format!("exit {code}\n")));
    }
}

#[tokio::test]
async fn a_second_cancel_kills() {
    let (fake, backend) = start(|_| {});
    fake.write("stubborn", "");
    fake.write("litter", "");
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    fake.ready(&job).await;
    backend.cancel(std::slice::from_ref(&job)).await.unwrap();
    until("TERM", async || fake.record(&job).ends_with("TERM\n").then_some(())).await;
    backend.cancel(std::slice::from_ref(&job)).await.unwrap();
    let seen = ended(&backend, &job).await;
    assert_eq!(seen.state, Observed::Ended { how: EndedHow::Cancelled, exit_code: None });
    assert_eq!(seen.reason, "the process is gone without an exit record");
    gone(&fake, &job).await;
    backend.cancel(&[job]).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let (fake, backend) = start(|_| {});
    fake.write("litter", "");
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    fake.ready(&job).await;
    fake.write(&format!("stop.{}", job.name), "0");
    assert_eq!(ended(&backend, &job).await.state, exited(Some(0)));
    gone(&fake, &job).await;
}

async fn gone(fake: &Fake, job: &JobRef) {
    let pid = fake.read(&format!("litter.{}", job.name));
    let stat = format!("/proc/{}/stat", pid.trim());
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    until("the left-over process is gone", async || (!alive()).then_some(())).await;
}

#[tokio::test]
async fn a_killed_worker_is_told_from_one_that_exits() {
    let (fake, backend) = start(|_| {});
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    fake.ready(&job).await;
    let pid = fake.read(&format!("jobs/{}/pid", job.name));
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(ended(&backend, &job).await.state, exited(Some(137)));
    assert_eq!(Sentinel::read(&fake.home.exit_file(&job.name)).unwrap().signal, Some(9));
}

#[tokio::test]
async fn a_failing_prologue_speaks() {
    for (prologue, code, says) in [
        ("echo hello; exit 3", 3, "ended with code 3 before its worker started"),
        ("set -e\nfalse\necho never", 1, "ended with code 1 before its worker started"),
        ("echo 'unclosed", 2, "before its worker started"),
        ("kill -TERM $$; sleep 1000 & wait", 143, "ended with code 143 before its worker started"),
    ] {
        let (fake, backend) = start(|pool| pool.prologue = prologue.into());
        let job = fake.submit(&backend, 1, 1).await.remove(0);
        assert_eq!(ended(&backend, &job).await.state, exited(Some(code)), "{prologue}");
        let log = fake.read(&format!("jobs/{}/log", job.name));
        assert!(log.contains(says), "{prologue}: {log}");
        assert!(!fake.record(&job).contains("start"));
    }
    let (fake, backend) = start(|pool| pool.prologue = "false".into());
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    fake.ready(&job).await;
    let log = fake.read(&format!("jobs/{}/log", job.name));
    assert!(log.contains("the last command of the prologue failed with code 1"), "{log}");
    fake.write(&format!("stop.{}", job.name), "0");
    ended(&backend, &job).await;
}

#[tokio::test]
async fn a_missing_binary_is_an_exit_code() {
    let (mut fake, _) = start(|_| {});
    fake.home.binary = "/no such/binary".into();
    let backend = Local::new(fake.home.clone());
    let job = fake.submit(&backend, 1, 1).await.remove(0);
    assert_eq!(ended(&backend, &job).await.state, exited(Some(127)));
    let log = fake.read(&format!("jobs/{}/log", job.name));
    assert!(log.contains("/no such/binary: No such file or directory"), "{log}");
}

#[tokio::test]
async fn another_machine_says_nothing() {
    let (fake, backend) = start(|_| {});
    let mut job = fake.submit(&backend, 1, 1).await.remove(0);
    fake.ready(&job).await;
    let own = job.clone();
    let id = job.id.as_mut().unwrap();
    id.0.replace_range(id.0.len() - 8.., "00000000");
    assert_eq!(backend.list(&[job]).await.unwrap(), []);
    backend.cancel(std::slice::from_ref(&own)).await.unwrap();
    ended(&backend, &own).await;
}
