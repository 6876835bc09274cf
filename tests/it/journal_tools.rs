//! `dcluster journal`: a real journal is damaged, and goes through check, show, repair and up.

use crate::harness::{Bed, Ran};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below a folder with its bytes, but logs.
fn snapshot(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push((entry.path(), fs::read(entry.path()).unwrap())),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// A cluster that went down after three submissions, each waited for.
fn three() -> Bed {
    let bed = Bed::up(&[]);
    for _ in 0..3 {
        bed.run(&["submit", "--wait", "--array", "1-3", "--", "true"]).expect(0);
    }
    bed.run(&["down"]).expect(0);
    bed
}

fn part(bed: &Bed) -> PathBuf {
    let mut parts: Vec<_> =
        fs::read_dir(bed.folder().join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    parts.pop().unwrap()
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn check(bed: &Bed, more: &[&str]) -> (Ran, Value) {
    let ran = bed.run(&[&["journal", "check", "--json"], more].concat());
    let found = serde_json::from_str(ran.text()).unwrap();
    (ran, found)
}

fn keys(value: &Value) -> String {
    value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
}

/// Ids of the tasks in a state.
fn tasks(bed: &Bed, state: &str) -> Vec<String> {
    let all = bed.lines(&["tasks", "--json"]);
    all.iter().filter(|task| task["state"] == state).map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_whole_journal_is_read_and_not_touched() {
    let bed = Bed::up(&[]);
    bed.run(&["submit", "--wait", "--array", "5-8:3", "--", "true"]).expect(0);
    // While the server serves …
    let (ran, found) = check(&bed, &[]);
    ran.expect(0);
    assert_eq!((&found["whole"], &found["lease"]["state"]), (&true.into(), &"serving".into()));
    bed.run(&["down"]).expect(0);
    // … and after it.
    let before = snapshot(&bed.folder());
    let (ran, found) = check(&bed, &[]);
    ran.expect(0);
    assert_eq!((&found["whole"], &found["problem"], &found["claims"]), (&true.into(), &Value::Null, &1.into()));
    assert_eq!((&found["lease"]["state"], &found["lease"]["epoch"]), (&"closed".into(), &1.into()));
    // Every key of the contract, in its order.
    assert_eq!(keys(&found), "cluster folder whole problem lease claims parts");
    assert_eq!(keys(&found["lease"]), "epoch state host pid durable");
    let part = &found["parts"][0];
    assert_eq!(keys(part), "part state bytes frames first last records closed torn_bytes damage");
    assert_eq!(
        (&part["part"], &part["state"], &part["closed"]),
        (&"journal/1.1".into(), &"in_use".into(), &true.into())
    );
    assert_eq!(part["last"], found["lease"]["durable"]);
    bed.run(&["journal", "check"]).expect(0).says("the journal is whole");
    let lines = bed.lines(&["journal", "show", "--json"]);
    assert_eq!(lines.len() as u64, part["records"].as_u64().unwrap());
    assert!(lines.iter().all(|line| keys(line) == "part offset sequence frame kind submission text"));
    assert!(lines.iter().any(|line| line["text"] == "task 1 submitted, 2 elements: true"), "{lines:?}");
    let finished = lines.iter().filter(|line| line["kind"] == "finished");
    let texts: String = finished.map(|line| line["text"].as_str().unwrap()).collect();
    assert!(texts.contains("1.5") && texts.contains("1.8"), "{texts}");
    assert!(bed.ok(&["journal", "show", "--all"]).contains("task 1 submitted"));
    bed.run(&["journal", "repair", "--yes"]).expect(0).says("nothing to repair");
    assert_eq!(snapshot(&bed.folder()), before);
    bed.run(&["journal", "check", bed.folder().to_str().unwrap()]).expect(0);
    bed.run(&["journal", "show", "--name", "nosuch"]).expect(69);
}

#[test]
fn a_hole_is_told_and_all_around_it_is_saved() {
    let bed = three();
    let part = part(&bed);
    let lines = bed.lines(&["journal", "show", "--json"]);
    let second = lines.iter().find(|line| line["kind"] == "submitted" && line["submission"] == 2).unwrap();
    let sequence = second["sequence"].as_u64().unwrap();
    flip(&part, second["offset"].as_u64().unwrap() + 50);
    let damaged = fs::read(&part).unwrap();

    bed.run(&["up"]).expect(1).says("is not usable").says("dcluster journal check").says("dcluster journal repair");
    let before = snapshot(&bed.folder());
    let (ran, found) = check(&bed, &[]);
    ran.expect(1);
    assert_eq!(found["whole"], false);
    let holes = found["parts"][0]["damage"].as_array().unwrap();
    assert_eq!(holes.len(), 1);
    assert_eq!(keys(&holes[0]), "offset bytes after before");
    assert_eq!((&holes[0]["after"], &holes[0]["before"]), (&(sequence - 1).into(), &(sequence + 1).into()));
    assert_eq!(holes[0]["offset"], second["offset"]);
    bed.run(&["journal", "check"]).expect(1).says("the journal is damaged").says("dcluster journal repair");

    let around = bed.lines(&["journal", "show", "--json"]);
    assert_eq!(around.iter().filter(|line| line["kind"] == "unreadable").count(), 1);
    let same = |line: &&Value| line["sequence"] != second["sequence"];
    let readable = around.iter().filter(|line| line["kind"] != "unreadable");
    assert!(readable.map(|line| &line["sequence"]).eq(lines.iter().filter(same).map(|line| &line["sequence"])));

    let dry = bed.run(&["journal", "repair"]).expect(0).says("nothing was changed");
    assert!(dry.text().contains("lost: task 2 (the whole submission)"), "{}", dry.text());
    assert!(dry.text().contains(&format!("(frame {sequence})")), "{}", dry.text());
    assert!(dry.text().contains("left out: frame"), "{}", dry.text());
    assert_eq!(snapshot(&bed.folder()), before, "looking changed something");

    let done: Value = serde_json::from_str(&bed.ok(&["journal", "repair", "--yes", "--json"])).unwrap();
    assert_eq!((&done["done"], &done["lost_submissions"]), (&true.into(), &serde_json::json!([2])));
    assert_eq!(done["submissions"], 2);
    let expected = "cluster done submissions records lost_submissions damage missing_end left_out saved epoch";
    assert_eq!(keys(&done), expected);
    assert_eq!(keys(&done["damage"][0]), "part offset bytes after before");
    assert_eq!(keys(&done["left_out"][0]), "sequence text");
    let saved = PathBuf::from(done["saved"].as_str().unwrap());
    assert_eq!(fs::read(saved.join("journal").join(part.file_name().unwrap())).unwrap(), damaged);
    assert_eq!(fs::read(&part).unwrap(), damaged, "the old file was touched");
    // Where it was copied to it is as damaged as before.
    let (ran, found) = check(&bed, &[saved.to_str().unwrap()]);
    ran.expect(1);
    assert_eq!(found["parts"][0]["damage"].as_array().unwrap().len(), 1);

    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(tasks(&bed, "finished"), ["1.1", "1.2", "1.3", "3.1", "3.2", "3.3"]);
    assert_eq!(bed.submit(&[], "true"), "4");
    bed.run(&["wait"]).expect(0);
    bed.run(&["down"]).expect(0);
    // The next server removed the damaged part, which stands in the copy.
    let (ran, found) = check(&bed, &[]);
    ran.expect(0);
    assert!(!part.exists(), "{found}");
    assert!(saved.join("journal").join(part.file_name().unwrap()).exists());
}

#[test]
fn a_damaged_base_is_taken_from_the_part_before() {
    let bed = three();
    bed.run(&["up", "--wait", "1"]).expect(0);
    bed.run(&["submit", "--wait", "--", "true"]).expect(0);
    bed.run(&["down"]).expect(0);
    let part = part(&bed);
    assert!(part.ends_with("2.1"));
    flip(&part, 60);
    bed.run(&["tasks"]).expect(1).says("is not usable");
    let dry = bed.run(&["journal", "repair"]).expect(0);
    assert!(dry.text().contains("the beginning of journal/2.1 is damaged; what it said is taken from journal/1.1"));
    assert!(!dry.text().contains("lost"), "{}", dry.text());
    bed.run(&["journal", "repair", "--yes"]).expect(0).says("repaired");
    let (ran, found) = check(&bed, &[]);
    ran.expect(0);
    // The damaged part is still there, and counts no more.
    assert_eq!((&found["parts"][1]["state"], &found["parts"][2]["state"]), (&"older".into(), &"in_use".into()));
    let text = bed.ok(&["journal", "check"]);
    assert!(text.contains("nothing reads it any more"), "{text}");
    // A cluster that was down is down.
    bed.run(&["status"]).expect(69);
    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(bed.tasks("finished"), 10);
}

#[test]
fn a_lost_end_is_told_and_given_up_only_by_repair() {
    let bed = three();
    let part = part(&bed);
    let bytes = fs::read(&part).unwrap();
    let third = bed.lines(&["journal", "show", "--json"]).into_iter().find(|line| line["submission"] == 3).unwrap();
    fs::write(&part, &bytes[..usize::try_from(third["offset"].as_u64().unwrap()).unwrap()]).unwrap();
    bed.run(&["up"]).expect(1).says("the file system lost acknowledged data");
    let done: Value = serde_json::from_str(&bed.ok(&["journal", "repair", "--yes", "--json"])).unwrap();
    let ends = done["missing_end"].as_array().unwrap();
    assert_eq!(ends[0], third["sequence"]);
    assert!(ends[1].as_u64() >= ends[0].as_u64());
    // The end of its job is lost, too; that it is gone has to be found out again.
    bed.run(&["up"]).expect(0);
    assert_eq!(tasks(&bed, "finished").len(), 6);
}

#[test]
fn nothing_is_repaired_under_a_living_server() {
    let bed = Bed::up(&[]);
    bed.run(&["submit", "--wait", "--", "true"]).expect(0);
    let part = part(&bed);
    let whole = fs::read(&part).unwrap();
    flip(&part, 40);
    bed.run(&["journal", "repair", "--yes"]).expect(75).says("alive").says("dcluster down");
    fs::write(&part, whole).unwrap();
    bed.run(&["submit", "--wait", "--", "true"]).expect(0);
}
