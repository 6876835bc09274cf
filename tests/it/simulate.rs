//! `dcluster simulate`: what goes in, what comes out, and that the seed decides.

use crate::harness::{BINARY, Bed, Ran};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The keys of an outcome, as programs rely on them.
const KEYS: [&str; 16] = [
    "policy",
    "seed",
    "makespan_seconds",
    "response_p50_seconds",
    "response_p95_seconds",
    "core_seconds_billed",
    "core_seconds_useful",
    "jobs_submitted",
    "jobs_useless",
    "jobs_cancelled_pending",
    "tasks_killed_by_walltime",
    "tasks_finished",
    "tasks_parked",
    "below_min_seconds",
    "above_max_seconds",
    "settle_seconds",
];

fn fixture(path: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path).display().to_string()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_run_is_one_object() {
    let bed = Bed::new();
    let text = bed.ok(&["simulate", "--workload", "burst:40", "--max", "4", "--json"]);
    let found = lines(&text);
    assert_eq!(found.len(), 1);
    assert_eq!(keys(&found[0]), KEYS);
    let outcome = &found[0];
    assert_eq!((&outcome["policy"], &outcome["seed"]), (&json!("ours"), &json!(1)));
    assert_eq!((&outcome["tasks_finished"], &outcome["above_max_seconds"]), (&json!(40), &json!(0.0)));
    assert!(outcome["core_seconds_useful"].as_f64().unwrap() == 2400.0);
    assert!(outcome["core_seconds_billed"].as_f64().unwrap() > 2400.0);
    // People get the same in lines.
    let text = bed.ok(&["simulate", "--workload", "burst:40", "--max", "4"]);
    for part in ["40 tasks of burst:40, 0 to 4 jobs of 8 cores, walltime 4 h", "core-hours", "40 finished"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!bed.state.exists(), "a simulation has no state");
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let bed = Bed::new();
    let run = |seed: &str, more: &[&str]| {
        let words = ["simulate", "--workload", "tail:60", "--json", "--seed", seed];
        bed.ok(&[&words[..], more].concat())
    };
    assert_eq!(run("7", &[]), run("7", &[]));
    assert_ne!(run("7", &[]), run("8", &[]));
    // Several at once are those of one at a time, in order, whatever the threads do.
    let many = run("7", &["--seeds", "3", "--policy", "ours", "dask"]);
    assert_eq!(many, run("7", &["--seeds", "3", "--policy", "ours", "dask"]));
    let seeds: Vec<u64> = lines(&many).iter().map(|line| line["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds, [7, 8, 9, 7, 8, 9]);
    let first = &lines(&many)[0];
    assert_eq!(keys(first)[..2], ["trace", "workload"]);
    assert_eq!(keys(first)[2..], KEYS);
    let single = &lines(&run("7", &[]))[0];
    for key in KEYS {
        assert_eq!(first[key], single[key], "{key}");
    }
}

#[test]
fn compressed_or_not_is_the_same() {
    let bed = Bed::new();
    for (file, option) in [("traces/kth-sp2.csv.gz", "--trace"), ("workflows/montage-small.json.gz", "--workload")] {
        let packed = fixture(file);
        let name = packed.rsplit('/').next().unwrap().trim_end_matches(".gz");
        let plain = bed.work.join(name);
        let unpacked = Command::new("gzip").args(["-dc", &packed]).output().unwrap();
        std::fs::write(&plain, unpacked.stdout).unwrap();
        let run = |path: &str| bed.ok(&["simulate", option, path, "--json"]);
        assert_eq!(run(&packed), run(plain.to_str().unwrap()), "{file}");
    }
}

#[test]
fn an_swf_log_is_replayed_and_a_csv_log_too() {
    let bed = Bed::new();
    let small = fixture("traces/small.swf");
    let kth = fixture("traces/kth-sp2.csv.gz");
    for words in [
        &["--trace", &small, "--cores", "4"][..],
        &["--trace", &small, "--queue", "nearest"],
        &["--trace", &kth, "--queue", "easy", "--max", "4"],
    ] {
        let text = bed.ok(&[&["simulate", "--workload", "burst:30", "--json"][..], words].concat());
        assert_eq!(lines(&text)[0]["tasks_finished"], 30, "{words:?}: {text}");
    }
    bed.run(&["simulate", "--trace", &small, "--cores", "17"]).expect(2).says("has 16 processors, a job asks for 17");
}

#[test]
fn all_policies_are_a_table_and_a_figure() {
    let bed = Bed::new();
    let figure = bed.work.join("frontier.svg");
    let words = ["simulate", "--workload", "burst:30", "bursts:30", "--policy", "all", "--plot"];
    let text = bed.ok(&[&words[..], &[figure.to_str().unwrap()]].concat());
    for part in ["TRACE", "MAKESPAN", "÷ USEFUL", "SETTLE", "MAKESPAN ÷ BEST", "bursts:30"] {
        assert!(text.contains(part), "no {part}:\n{text}");
    }
    for policy in ["ours", "dask", "parsl", "hyperqueue", "ray", "static"] {
        // Once for each workload, and once over all.
        assert_eq!(text.lines().filter(|line| line.contains(policy)).count(), 3, "{policy}:\n{text}");
    }
    let svg = std::fs::read_to_string(&figure).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("hyperqueue") && svg.contains("aria-label"));
    bed.ok(&["simulate", "--workload", "burst:30", "--plot", figure.to_str().unwrap()]);
    assert!(std::fs::read_to_string(&figure).unwrap().contains("cores wanted"));
    bed.run(&["simulate", "--plot", "/no/such/folder/a.svg"]).expect(1).says("cannot write the figure");
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    let bed = Bed::new();
    let write = |name: &str, text: &str| {
        let path = bed.work.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let csv = write("bad.csv", "# MaxProcs: 4\nsubmit_s,wait_s,run_s,procs,requested_s\n0,1,2,3,4\n0,1,x,3,4\n");
    let swf = write("bad.swf", "; MaxProcs: 4\n1 2 3\n");
    let flow = write("bad.json", r#"{"name": "a", "tasks": [{"id": 1, "run_s": 1, "parents": [1]}]}"#);
    let half = write("half.json", "{\n\"tasks\": [\n");
    let folder = bed.work.display().to_string();
    for (words, says) in [
        (&["--trace", &csv][..], format!("{csv}:4")),
        (&["--trace", &csv], "run_s: `x` is no number".to_owned()),
        (&["--trace", &swf], format!("{swf}:2")),
        (&["--trace", &swf], "3 fields where a job has 18".to_owned()),
        (&["--trace", "/no/such.swf"], "No such file".to_owned()),
        (&["--workload", &flow], "the tasks 1 wait for each other".to_owned()),
        (&["--workload", &half], format!("{half}:3")),
        (&["--workload", "burts"], "burst, bursts, phases".to_owned()),
        (&["--workload", "burst:none"], "`none` is no number of tasks".to_owned()),
        (&["--policy", "best"], "there is no policy `best`".to_owned()),
        (&["--queue", "easy"], "needs a log".to_owned()),
        (&["--trace", &fixture("traces/small.swf"), "--queue", "constant:1s"], "takes no log".to_owned()),
        (&["--min", "9", "--max", "3"], "--min 9 is more than --max 3".to_owned()),
        (&["--queue", "constant:-5s"], "\"-5s\" is negative: write a duration like".to_owned()),
        (&["--startup", "2m", "--walltime", "2m"], "over before they could take a task".to_owned()),
        (&["--queue", "fifo"], "no model of a queue: constant:10s".to_owned()),
        (&["--trace", &folder], "it is a folder".to_owned()),
        (&["--workload", &folder], "it is a folder".to_owned()),
        (&["--seed", "18446744073709551615", "--seeds", "2"], "no 2 seeds from 18446744073709551615 on".to_owned()),
        (&["--seed", "18446744073709551615", "--seeds", "2"], "--seed 18446744073709551614 at most".to_owned()),
        (&["--vanish", "-0.1"], "a number from 0 to 1".to_owned()),
        (&["--efficiency", "-0.5"], "a number from 0.05 to 0.95".to_owned()),
        (&["--seed", "-1"], "a whole number from 0 to 18446744073709551615".to_owned()),
        (&["--seeds", "-1"], "-1 is not in 1..=10000".to_owned()),
        (&["--min", "-1"], "-1 is not in 0..".to_owned()),
        (&["--max", "-1"], "-1 is not in 1..=100000".to_owned()),
        (&["--max-pending", "-1"], "-1 is not in 0..".to_owned()),
        (&["--idle-timeout", "-5m"], "\"-5m\" is negative".to_owned()),
        (&["--blind", "-5m"], "\"-5m\" is negative".to_owned()),
        (&["--walltime", "-5m"], "\"-5m\" is negative".to_owned()),
        (&["--memory", "-5GB"], "-5GB".to_owned()),
        (&["--rate", "-3/min"], "a number from 0.01".to_owned()),
        (&["--stdio", "--max", "3"], "'--stdio' cannot be used with '--max <N>'".to_owned()),
        (&["--stdio", "--workload", "foo"], "'--stdio' cannot be used with '--workload <WORKLOAD>...'".to_owned()),
        (&["--stdio", "--vanish", "0.1"], "'--stdio' cannot be used with '--vanish <SHARE>'".to_owned()),
        (&["--walltime", "90"], "has no unit".to_owned()),
        (&["--memory", "90"], "has no unit".to_owned()),
        (&["--vanish", "1.5"], "a number from 0 to 1".to_owned()),
        (&["--efficiency", "1"], "a number from 0.05 to 0.95".to_owned()),
    ] {
        bed.run(&[&["simulate"][..], words].concat()).expect(2).says(&says);
    }
}

/// Runs `simulate --stdio` on lines.
fn stdio(lines: &str) -> Ran {
    let mut child = Command::new(BINARY)
        .args(["simulate", "--stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { code: output.status.code().unwrap(), out: output.stdout, err }
}

#[test]
fn another_simulator_drives_the_same_controller() {
    let settings = r#"{"min": 1, "max": 4, "pools": [{"cores": 2, "walltime": 3600}]}"#;
    let seen = [
        r#"{"now": 0}"#,
        r#"{"now": 5, "classes": [{"name": "a", "ready": 9}], "jobs": [{"id": 1, "phase": "pending", "submitted_at": 0}]}"#,
    ];
    let ran = stdio(&format!("{settings}\n{}\n\n{}\n", seen[0], seen[1])).expect(0);
    let decisions = lines(ran.text());
    assert_eq!(decisions.len(), 2);
    assert_eq!(decisions[0]["rule"], "below-min");
    assert_eq!(decisions[0]["submit"], json!([{"pool": "default", "jobs": 1}]));
    for key in ["now", "submit", "cancel", "drain", "parked", "rule", "reason", "numbers", "next"] {
        assert!(decisions[1].get(key).is_some(), "{key}: {}", decisions[1]);
    }
    assert!(!decisions[1]["submit"].as_array().unwrap().is_empty());

    let wrapped = stdio(&format!("{{\"settings\": {settings}, \"learned\": {{}}}}\n{}\n", seen[0])).expect(0);
    assert_eq!(lines(wrapped.text())[0], decisions[0]);
    let broken =
        stdio(&format!("{settings}\n{}\n{{\"now\": \"x\"}}\n", seen[0])).expect(2).says("line 3 is no observation");
    assert_eq!(lines(broken.text()).len(), 1, "what was right before is answered");
    let asked = stdio(&format!("{settings}\n{}\n\"learned\"\n", seen[1])).expect(0);
    let learned = &lines(asked.text())[1];
    assert!(learned["learned"]["pools"]["default"].is_object(), "{learned}");
    let mut taken = learned.clone();
    taken["settings"] = serde_json::from_str(settings).unwrap();
    let again = stdio(&format!("{taken}\n\"learned\"\n")).expect(0);
    assert_eq!(&lines(again.text())[0], learned);
    stdio("{}").expect(78).says("missing field `min`");
    stdio("").expect(78).says("there is no line");
    stdio(&format!("{settings}\n")).expect(0);
}
