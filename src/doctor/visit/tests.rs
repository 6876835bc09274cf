use super::*;

fn pool() -> PoolSpec {
    serde_json::from_value(serde_json::json!({
        "cores": 48, "memory_bytes": 100_000_000_000_u64, "gpus": 4, "gpu_type": "a100", "queue": "q", "account": "a",
        "directives": ["--exclusive"], "drain_lead_seconds": 300, "on_exit": "sleep 100", "pin": true
    }))
    .unwrap()
}

#[test]
fn a_probe_is_a_small_job_of_the_same_pool() {
    let probe = shape(&pool());
    assert_eq!((probe.cores, probe.gpus, probe.memory_bytes), (1, 1, Some(MEMORY_BYTES)));
    assert_eq!((probe.walltime_seconds, probe.drain_lead_seconds), (Some(600), 30));
    assert_eq!((probe.queue.as_deref(), probe.account.as_deref(), &probe.on_exit), (Some("q"), Some("a"), &None));
    assert_eq!(probe.directives, ["--exclusive"]);
    let short = shape(&PoolSpec { walltime_seconds: Some(61), memory_bytes: None, ..pool() });
    assert_eq!((short.walltime_seconds, short.drain_lead_seconds, short.memory_bytes), (Some(61), 15, None));
}

#[test]
fn only_a_doctor_that_is_certainly_gone_is_swept_after() {
    assert!(!Mark::of_process().is_gone());
    assert!(Mark { pid_start: 1, ..Mark::of_process() }.is_gone(), "its number is another process now");
    assert!(Mark { boot: "other".into(), ..Mark::of_process() }.is_gone());
    let elsewhere = Mark { host: "other".into(), boot: "other".into(), pid_start: 1, ..Mark::of_process() };
    assert!(!elsewhere.is_gone());
}

/// A batch system of one job that does what it is told to.
#[derive(Default)]
struct Fake {
    says: std::sync::Mutex<Script>,
}

#[derive(Clone, Default)]
struct Script {
    submit: Option<ErrorClass>,
    /// The job is there although the submission failed, after so many looks by name.
    appears_after: Option<u32>,
    /// It ends at the cancel of this number; never with 0.
    ends_at_cancel: u32,
    /// Questions fail.
    silent: bool,
    name: Option<JobName>,
    cancels: u32,
    finds: u32,
}

impl Fake {
    fn job(&self) -> Result<Vec<Observation>, BackendError> {
        let says = self.says.lock().unwrap();
        if says.silent {
            return Err(failed(ErrorClass::Transient));
        }
        let Some(name) = says.name.clone().filter(|_| says.appears_after.is_none_or(|after| says.finds > after)) else {
            return Ok(Vec::new());
        };
        let over = says.ends_at_cancel > 0 && says.cancels >= says.ends_at_cancel;
        let how = crate::backends::EndedHow::Cancelled;
        let state = if over { Observed::Ended { how, exit_code: None } } else { Observed::Pending };
        let reason = if over { "CANCELLED" } else { "PENDING Resources" }.to_owned();
        Ok(vec![Observation { name, id: NativeId("7".into()), state, reason, node: None, seconds_left: None }])
    }
}

fn failed(class: ErrorClass) -> BackendError {
    BackendError { class, command: "submit".into(), says: "no".into(), fix: None }
}

#[async_trait::async_trait]
impl Backend for Fake {
    async fn submit(&self, submit: &Submit) -> Result<Vec<NativeId>, BackendError> {
        let mut says = self.says.lock().unwrap();
        says.name = Some(submit.jobs[0].1.clone());
        match says.submit {
            Some(class) => Err(failed(class)),
            None => Ok(vec![NativeId("7".into())]),
        }
    }
    async fn list(&self, _: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        self.job()
    }
    async fn find(&self) -> Result<Vec<Observation>, BackendError> {
        self.says.lock().unwrap().finds += 1;
        self.job()
    }
    async fn account(&self, _: &[JobRef]) -> Result<Vec<Observation>, BackendError> {
        Ok(Vec::new())
    }
    async fn cancel(&self, _: &[JobRef]) -> Result<(), BackendError> {
        self.says.lock().unwrap().cancels += 1;
        Ok(())
    }
    fn jobs_per_submit(&self) -> u32 {
        1
    }
}

/// Sends a probe to a fake batch system; returns what came of it, how often it was cancelled, and whether the
/// folder stayed.
async fn sent(script: Script) -> (Outcome, u32, bool) {
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let folder = Folder::of(state.path(), ".doctor-test");
    let spec = Spec::new(crate::config::spec::BackendKind::Local, PoolSpec::new(1));
    folder.create(&spec, b"").unwrap();
    let fake = Arc::new(Fake { says: std::sync::Mutex::new(script) });
    let backend: Arc<dyn Backend> = fake.clone();
    let mut visit = Visit::in_folder(&folder, spec, |_| Ok(backend)).await.unwrap();
    visit.watch(Duration::from_secs(10), |_| {}).await;
    let outcome = visit.end().await;
    let cancels = fake.says.lock().unwrap().cancels;
    (outcome, cancels, folder.path().exists())
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_does_not_start_is_cancelled_and_its_reason_told() {
    let (outcome, cancels, stays) = sent(Script { ends_at_cancel: 1, ..Script::default() }).await;
    assert_eq!((cancels, stays, outcome.left), (1, false, None));
    assert_eq!(outcome.seen.unwrap().reason, "PENDING Resources", "and not that we cancelled it");
    assert!(outcome.waited >= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_end_is_cancelled_again_and_told_with_its_folder() {
    let (outcome, cancels, stays) = sent(Script { ends_at_cancel: 2, ..Script::default() }).await;
    assert_eq!((cancels, stays, outcome.left), (2, false, None));
    let (outcome, cancels, stays) = sent(Script::default()).await;
    assert!(cancels > 2 && stays);
    assert!(outcome.left.unwrap().contains("(id 7) is not seen to be over"));
}

#[tokio::test(start_paused = true)]
async fn failed_questions_do_not_say_that_the_job_is_gone() {
    let (outcome, _, stays) = sent(Script { ends_at_cancel: 1, silent: true, ..Script::default() }).await;
    assert!(stays && outcome.left.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_submission_has_no_clear_answer_is_looked_for_by_name() {
    let unclear = Script { submit: Some(ErrorClass::Ambiguous), ends_at_cancel: 1, ..Script::default() };
    // It comes up while it is looked for.
    let (outcome, cancels, stays) = sent(Script { appears_after: Some(3), ..unclear.clone() }).await;
    assert_eq!((cancels, stays, outcome.left), (1, false, None));
    // It never was.
    let (outcome, cancels, stays) = sent(Script { appears_after: Some(u32::MAX), ..unclear }).await;
    assert_eq!((cancels, stays, outcome.left), (0, false, None));
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_there_is_nothing_to_end() {
    let (outcome, cancels, stays) = sent(Script { submit: Some(ErrorClass::Permanent), ..Script::default() }).await;
    assert_eq!((cancels, stays, outcome.left), (0, false, None));
    assert_eq!(outcome.submitted, Err(failed(ErrorClass::Permanent)));
}

#[tokio::test]
async fn a_folder_without_a_mark_is_swept_when_it_is_old() {
    let state = tempfile::tempdir().unwrap();
    let made = |name: &str, age: u64| {
        let path = state.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let at = std::time::SystemTime::now() - Duration::from_secs(age);
        std::fs::File::open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let (old, new, other) = (made(".doctor-old", 4000), made(".doctor-new", 60), made("default", 4000));
    assert_eq!(sweep(state.path()).await, (1, Vec::new()));
    assert!(!old.exists() && new.exists() && other.exists());
}
