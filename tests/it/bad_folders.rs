//! Folders as they should not be: full, read-only, copied, damaged.

use crate::harness::{Bed, WITNESS, signal, until, witnesses};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fs;
use std::path::Path;

/// Mounts a file system for a test; `None`, with a line, where that is not possible.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Uid::effective().is_root()
            && std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(at)
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            crate::harness::skipped("mount is not possible here");
        }
        mounted.then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_new_work_and_goes_on() {
    let bed = Bed::new();
    let state = bed.state.clone();
    let Some(mount) = Mount::new(&state, "size=6m,mode=0700") else { return };
    bed.run(&["up", "--wait", "1"]).expect(0);
    let accepted = bed.submit(&["--stdout", "/dev/null"], WITNESS);
    until("it runs", || (witnesses(&bed).len() == 1).then_some(()));
    let ballast = state.join("ballast");
    let fill = || {
        let mut file = fs::File::options().append(true).create(true).open(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };
    fill();
    // The first failure gives the reserve back; after that there is nothing to give.
    let mut refusals = 0;
    let refused = until("submissions are refused", || {
        fill();
        let ran = bed.run(&["submit", "--", "true"]);
        refusals = if ran.code == 0 { 0 } else { refusals + 1 };
        (refusals == 2).then_some(ran)
    });
    let refused = refused.expect(75).says("cannot write its journal").says("No space left");
    assert!(refused.out.is_empty(), "an id of something that was refused");
    let there: u64 = bed.status()["tasks"].as_object().unwrap().values().map(|number| number.as_u64().unwrap()).sum();
    bed.run(&["submit", "--", "true"]).expect(75).says("make room there");
    let status = bed.status();
    assert!(status["journal_trouble"].as_str().unwrap().contains("No space left"), "{status}");
    bed.run(&["status"]).expect(0);
    // Accepted work goes on.
    fs::write(bed.work.join("go"), "").unwrap();
    until("the accepted task ends", || bed.read(&witnesses(&bed)[0]).contains("end").then_some(()));
    fs::remove_file(&ballast).unwrap();
    until("it recovers by itself", || bed.status()["journal_trouble"].is_null().then_some(()));
    let id: usize = bed.submit(&[], "true").parse().unwrap();
    bed.run(&["wait", &accepted, &id.to_string()]).expect(0);
    let listed = bed.lines(&["tasks", "--json"]);
    assert_eq!(listed.len() as u64, there + 1, "{listed:?}");
    // What it told is true after a crash, too.
    signal(bed.server(), Signal::SIGKILL);
    let again = bed.lines(&["tasks", "--json"]);
    let states = |lines: &[serde_json::Value]| {
        lines.iter().map(|line| (line["id"].clone(), line["state"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(states(&again), states(&listed));
    bed.leaves_nothing();
    drop(mount);
}

#[test]
fn a_read_only_file_system_is_a_clear_error() {
    let bed = Bed::new();
    let state = bed.state.clone();
    let Some(mount) = Mount::new(&state, "size=6m,mode=0700") else { return };
    let remount = |how: &str| {
        let status = std::process::Command::new("mount").args(["-o", how]).arg(&state).status().unwrap();
        assert!(status.success());
    };
    remount("remount,ro");
    bed.run(&["up"]).expect(69).says("cannot create the cluster folder").says("Read-only file system");
    bed.run(&["map", "true", ":::", "1"]).expect(69).says("Read-only file system");
    remount("remount,rw");
    bed.run(&["up"]).expect(0);
    bed.run(&["down"]).expect(0);
    remount("remount,ro");
    bed.run(&["up"]).expect(69).says("Read-only file system").says("nothing was started");
    bed.run(&["tasks"]).expect(0);
    remount("remount,rw");
    bed.nothing_left();
    drop(mount);
}

fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Every file below a folder with its bytes.
fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.push((name, fs::read(path).unwrap_or_default()));
            }
        }
    }
    files.sort();
    // The log and the lock are no data.
    files.retain(|(name, _)| name != "server.log" && name != "lock");
    files
}

#[test]
fn a_copied_folder_is_refused() {
    let bed = Bed::up(&[]);
    copy(&bed.folder(), &bed.state.join("other"));
    for words in [
        &["up", "--name", "other"][..],
        &["status", "--cluster", "other"],
        &["submit", "--cluster", "other", "--", "true"],
        &["down", "--cluster", "other"],
        &["tasks", "--cluster", "other"],
    ] {
        bed.run(words).expect(69).says("is a copy of the cluster folder");
    }
    assert_eq!(bed.pids_of("server").len(), 1);
    assert!(bed.state.join("other").join("id").exists());
    // Moved, not copied: the old one is gone.
    bed.run(&["down"]).expect(0);
    fs::remove_dir_all(bed.state.join("other")).unwrap();
    fs::rename(bed.folder(), bed.state.join("moved")).unwrap();
    bed.run(&["up", "--name", "moved", "--wait", "1"]).expect(0);
    bed.run(&["submit", "--cluster", "moved", "--wait", "--", "true"]).expect(0);
    bed.run(&["down", "--cluster", "moved"]).expect(0);
}

#[test]
fn a_damaged_folder_is_refused_and_left_alone() {
    let bed = Bed::up(&[]);
    bed.submit(&["--array", "1-50"], "true");
    bed.run(&["wait"]).expect(0);
    bed.run(&["down"]).expect(0);
    let folder = bed.folder();
    let truncate = |file: &str, to: usize| {
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..to]).unwrap();
        bytes
    };
    let refused = |words: &str| {
        let before = snapshot(&folder);
        for command in [&["up"][..], &["map", "true", ":::", "1"]] {
            let ran = bed.run(command).says(words);
            assert!(matches!(ran.code, 1 | 69 | 75 | 78), "{ran:?}");
            assert!(ran.out.is_empty());
        }
        let after: Vec<_> = snapshot(&folder).into_iter().map(|(name, _)| name).collect();
        let names: Vec<_> = before.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            assert!(after.contains(&name), "{name} was deleted");
        }
        bed.nothing_left();
    };
    for (file, to, words) in [("id", 0, "damaged"), ("id", 40, "damaged"), ("spec", 10, ""), ("ca.key", 10, "")] {
        let bytes = truncate(file, to);
        if file == "spec" {
            // `up` after `down` writes it anew.
            bed.run(&["tasks"]).expect(69).says("spec is damaged");
        } else {
            refused(words);
        }
        fs::write(folder.join(file), bytes).unwrap();
    }
    let id = fs::read_to_string(folder.join("id")).unwrap();
    fs::write(folder.join("id"), id.replace("\"format\": 1", "\"format\": 99")).unwrap();
    refused("was made by a newer dcluster");
    bed.run(&["tasks"]).expect(69).says("format 99");
    bed.run(&["down", "--purge"]).expect(69).says("newer dcluster");
    fs::write(folder.join("id"), &id).unwrap();
    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(bed.tasks("finished"), 50);
}

#[test]
fn a_flipped_bit_in_the_journal_is_refused() {
    let bed = Bed::up(&[]);
    bed.submit(&["--array", "1-50"], "true");
    bed.run(&["wait"]).expect(0);
    bed.run(&["down"]).expect(0);
    let journal = bed.folder().join("journal");
    let mut parts: Vec<_> = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    let newest = parts.last().unwrap();
    let whole = fs::read(newest).unwrap();
    for at in [40, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(newest, &bytes).unwrap();
        let ran = bed.run(&["tasks"]);
        assert_ne!(ran.code, 0, "byte {at} of {}: {ran:?}", whole.len());
        bed.run(&["up"]).expect(1).says("the journal of cluster default is not usable").says("nothing was changed");
        bed.nothing_left();
        assert_eq!(fs::read(newest).unwrap(), bytes, "touched");
    }
    fs::write(newest, &whole[..whole.len() / 2]).unwrap();
    bed.run(&["up"]).expect(1).says("is not usable");
    fs::write(newest, whole).unwrap();
    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(bed.tasks("finished"), 50);
}
