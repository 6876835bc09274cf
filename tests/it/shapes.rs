//! The shapes of `--json`, which programs rely on: every key and its type, in every state a value has.

use crate::harness::{Bed, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Key path to the types seen there, like `jobs[].name: string`.
fn shape(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !path.is_empty() {
        found.entry(path.to_owned()).or_default().insert(kind);
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| shape(value, &format!("{path}[]"), found)),
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            fields.iter().for_each(|(name, value)| shape(value, &format!("{path}{dot}{name}"), found));
        }
        _ => {}
    }
}

/// One line per key.
fn text<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    let mut found = BTreeMap::new();
    values.into_iter().for_each(|value| shape(value, "", &mut found));
    let line = |(path, kinds): (&String, &BTreeSet<&str>)| {
        format!("{path}: {}\n", kinds.iter().copied().collect::<Vec<_>>().join("|"))
    };
    found.iter().map(line).collect()
}

/// Every line must have all keys, in the documented order.
fn keys(lines: &[Value], expected: &[&str]) {
    for line in lines {
        let found: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn status_tasks_and_events() {
    let bed = Bed::up(&["--memory", "1GB"]);
    bed.run(&["submit", "--name", "fine", "--wait", "--", "true"]).expect(0);
    bed.run(&["submit", "--wait", "--", "sh", "-c", "kill -9 $$"]).expect(137);
    bed.run(&["submit", "--wait", "--", "/no/such/program"]).expect(127);
    bed.submit(&["--array", "5-7"], "exit 3");
    bed.run(&["wait", "4"]).expect(1);
    bed.submit(&["--after", "4"], "true");
    bed.submit(&[], "echo > started; sleep 1000");
    bed.appears("started");
    until("it runs", || (bed.tasks("running") == 1).then_some(()));
    bed.submit(&["--cores", "2"], "true");
    bed.submit(&["--after", "7"], "true");

    let first = bed.status();
    bed.run(&["cancel", "6"]).expect(0);
    bed.run(&["wait"]).expect(1);
    bed.run(&["scale", "2"]).expect(0);
    bed.run(&["scale", "0"]).expect(0);
    bed.submit(&[], "true");
    let second = until("no job is left", || {
        let status = bed.status();
        let ended = status["jobs"].as_array().unwrap().iter().all(|job| job["state"] == "ended");
        (ended && status["waiting_for"].is_string()).then_some(status)
    });
    let mut found = text([&first, &second]);
    // What a job that was not started yet does not have; seldom seen here.
    for field in ["id", "node"] {
        found = found.replace(&format!("jobs[].{field}: string"), &format!("jobs[].{field}: null|string"));
    }
    assert_eq!(
        found,
        "advice: null\n\
         backend: string\n\
         cluster: string\n\
         engine: string\n\
         gave_up: bool\n\
         jobs: array\n\
         jobs[]: object\n\
         jobs[].cores: integer\n\
         jobs[].exit_code: integer|null\n\
         jobs[].id: null|string\n\
         jobs[].memory_bytes: integer\n\
         jobs[].name: string\n\
         jobs[].node: null|string\n\
         jobs[].pool: string\n\
         jobs[].queued_seconds: integer\n\
         jobs[].reason: null|string\n\
         jobs[].running_seconds: integer\n\
         jobs[].state: string\n\
         jobs[].unknown: bool\n\
         jobs[].walltime_seconds: null\n\
         journal_trouble: null\n\
         scaling: object\n\
         scaling.efficiency: null\n\
         scaling.jobs: integer\n\
         scaling.max: null\n\
         scaling.min: null\n\
         scaling.mode: string\n\
         scaling.reason: null\n\
         server: object\n\
         server.host: string\n\
         server.longest_turn_seconds: number\n\
         server.pid: integer\n\
         server.uptime_seconds: integer\n\
         server.version: string\n\
         tasks: object\n\
         tasks.cancelled: integer\n\
         tasks.failed: integer\n\
         tasks.finished: integer\n\
         tasks.ready: integer\n\
         tasks.running: integer\n\
         tasks.waiting: integer\n\
         trouble: null\n\
         used: object\n\
         used.cpu_seconds: number\n\
         used.jobs: integer\n\
         used.memory_bytes_max: integer\n\
         used.wall_seconds: number\n\
         waiting_for: null|string\n\
         workers: array\n\
         workers[]: object\n\
         workers[].cores: integer\n\
         workers[].id: integer\n\
         workers[].job: string\n\
         workers[].memory_bytes: integer\n\
         workers[].node: string\n\
         workers[].running: integer\n\
         workers[].state: string\n",
    );

    let longest = second["server"]["longest_turn_seconds"].as_f64().unwrap();
    assert!(longest > 0.0 && longest < 60.0, "{longest}");

    let tasks = bed.lines(&["tasks", "--json"]);
    keys(
        &tasks,
        &[
            "id",
            "name",
            "state",
            "reason",
            "node",
            "exit_code",
            "signal",
            "started",
            "wall_seconds",
            "cpu_seconds",
            "memory_bytes",
            "command",
            "stdout",
            "stderr",
        ],
    );
    assert_eq!(
        text(&tasks),
        "command: string\n\
         cpu_seconds: null|number\n\
         exit_code: integer|null\n\
         id: string\n\
         memory_bytes: integer|null\n\
         name: string\n\
         node: null|string\n\
         reason: null|string\n\
         signal: integer|null\n\
         started: null|string\n\
         state: string\n\
         stderr: string\n\
         stdout: string\n\
         wall_seconds: null|number\n",
    );
    let words: Vec<_> =
        tasks.iter().map(|task| (task["id"].as_str().unwrap(), task["state"].as_str().unwrap())).collect();
    assert_eq!(
        words,
        [
            ("1", "finished"),
            ("2", "failed"),
            ("3", "failed"),
            ("4.5", "failed"),
            ("4.6", "failed"),
            ("4.7", "failed"),
            ("5", "cancelled"),
            ("6", "cancelled"),
            ("7", "finished"),
            ("8", "finished"),
            ("9", "ready"),
        ],
    );
    assert_eq!(tasks[1]["signal"], 9);
    assert_eq!(tasks[1]["exit_code"], Value::Null);
    assert_eq!(tasks[3]["exit_code"], 3);
    assert!(tasks[6]["reason"].as_str().unwrap().contains("4.5 did not finish"), "{}", tasks[6]);
    assert!(tasks[0]["started"].as_str().unwrap().ends_with('Z'));

    let events = bed.lines(&["events", "--json"]);
    for event in &events {
        let fields = event.as_object().unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(&names[..2], ["time", "kind"], "{event}");
        assert_eq!(names.last(), Some(&"text"), "{event}");
        assert!(names.iter().all(|name| ["time", "kind", "job", "task", "text"].contains(name)), "{event}");
    }
    assert_eq!(text(&events), "job: integer\nkind: string\ntask: string\ntext: string\ntime: string\n");
    let kinds: BTreeSet<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in ["server_started", "job_submitted", "job_up", "job_draining", "job_ended", "scaled", "task_failed"] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }

    // The rest that speaks JSON.
    let one = |words: &[&str], code| -> Value { serde_json::from_str(bed.run(words).expect(code).text()).unwrap() };
    assert_eq!(one(&["submit", "--json", "--", "true"], 0), serde_json::json!({ "id": "10" }));
    assert_eq!(one(&["cancel", "--json", "10"], 0), serde_json::json!({ "tasks": 1 }));
    assert_eq!(one(&["retry", "--json", "3"], 0), serde_json::json!({ "tasks": 1 }));
    assert_eq!(
        text([&one(&["ls", "--json"], 0)]),
        "backend: string\ncluster: string\nfolder: string\njobs: integer\nstate: string\n"
    );
    let error: Value = serde_json::from_str(bed.run(&["wait", "--json", "99"]).expect(2).err.trim()).unwrap();
    assert!(error.to_string().contains("there is no task 99"), "{error}");
    assert_eq!(one(&["down", "--json"], 0), serde_json::json!({ "cluster": "default", "down": true }));
    // The same from the journal, without a server.
    assert_eq!(bed.lines(&["tasks", "--json"])[1], tasks[1]);
}
