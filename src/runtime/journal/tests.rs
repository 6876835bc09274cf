use super::*;
use crate::runtime::disk::{Disk, RealDisk};
use crate::runtime::lease::{Holder, LeaseState, ServerState};

const ID: &str = "6f1c0c0e-0000-4000-8000-000000000001";

fn temp() -> (tempfile::TempDir, RealDisk) {
    let root = tempfile::tempdir().expect("temp");
    let disk = RealDisk::open(root.path()).expect("open");
    (root, disk)
}

fn small() -> Limits {
    Limits { reserve_bytes: 64, compact_bytes: 200, payload_bytes: 40 }
}

fn start(disk: &RealDisk, epoch: u32, base: &[Vec<u8>]) -> Journal<RealDisk> {
    let recovered = recover(disk, ID, None).expect("recover");
    Journal::start(disk.clone(), ID, epoch, recovered.position, base.iter(), small()).expect("start")
}

fn records(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn lease(durable: u64) -> LeaseState {
    LeaseState {
        epoch: 1,
        holder: Holder { nonce: [1; 16], host: "a".into(), boot: "b".into(), pid: 1, pid_namespace: 2, pid_start: 3 },
        beat: 1,
        state: ServerState::Serving,
        durable,
    }
}

#[test]
fn golden_bytes_of_a_part() {
    let (_root, disk) = temp();
    let mut journal = start(&disk, 3, &records(&["ab"]));
    journal.append(&records(&["", "xyz"])).expect("append");
    journal.close().expect("close");
    let hex: Vec<String> =
        disk.read("journal/3.1", 1 << 20).expect("read").iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = include_str!("../../../docs/journal.md")
        .split("```hex\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the page shows it");
    let golden: Vec<&str> =
        golden.lines().filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace).collect();
    assert_eq!(hex, golden, "\n{}", hex.join(" "));
}

#[test]
fn what_was_appended_is_read_back_in_order_and_over_parts() {
    let (_root, disk) = temp();
    let empty = recover(&disk, ID, None).expect("recover");
    assert_eq!((empty.records.len(), empty.position), (0, Position::default()));
    let mut journal = start(&disk, 1, &[]);
    // Longer than one frame: split between records.
    let all: Vec<Vec<u8>> = (0..9).map(|n| vec![n; 12]).collect();
    let sequence = journal.append(&all).expect("append");
    assert_eq!(sequence, 2 + 5);
    assert_eq!(journal.append(&[]).expect("nothing"), sequence);
    let read = recover(&disk, ID, Some(&lease(sequence))).expect("recover");
    assert_eq!(read.records, all);
    assert!(!read.clean);

    assert!(journal.should_compact());
    journal.restart_part(all.iter()).expect("compact");
    assert!(!journal.should_compact());
    journal.append(&records(&["new"])).expect("append");
    let durable = journal.close().expect("close");
    assert!(journal.is_condemned());
    assert!(journal.append(&records(&["late"])).is_err());
    let read = recover(&disk, ID, Some(&lease(durable))).expect("recover");
    assert_eq!(read.records, [all, records(&["new"])].concat());
    assert!(read.clean);
    assert_eq!(read.position.sequence, durable);
    let error = recover(&disk, ID, Some(&lease(durable + 1))).expect_err("less than the lease");
    assert!(matches!(error, JournalError::Lost { .. }), "{error}");
}

#[test]
fn a_record_that_fits_no_frame_is_refused_before_anything_is_written() {
    let (_root, disk) = temp();
    let mut journal = start(&disk, 1, &[]);
    let error = journal.append(&[vec![1; 8], vec![2; 37]]).expect_err("too large");
    assert!(matches!(error, AppendError::RecordTooLarge { bytes: 37 }));
    assert!(!journal.is_condemned());
    journal.append(&[vec![2; 36]]).expect("just fits");
    let read = recover(&disk, ID, None).expect("recover");
    assert_eq!(read.records, [vec![2; 36]]);
    assert!(Journal::start(disk, ID, 2, read.position, [[0; 37]].iter(), small()).is_err());
}

#[test]
fn older_parts_go_when_two_newer_bases_are_whole() {
    let (_root, disk) = temp();
    let names = || disk.list(JOURNAL_FOLDER).expect("list");
    let mut journal = start(&disk, 1, &[]);
    assert_eq!(names(), ["1.1"]);
    journal.restart_part([b"a"].iter()).expect("part");
    assert_eq!(names(), ["1.1", "1.2"]);
    journal.restart_part([b"a"].iter()).expect("part");
    assert_eq!(names(), ["1.2", "1.3"]);
    // An unfinished part of a server that died is no base.
    disk.create("journal/2.1").expect("create");
    start(&disk, 3, &[]);
    assert_eq!(names(), ["1.3", "2.1", "3.1"]);
    start(&disk, 4, &[]);
    assert_eq!(names(), ["3.1", "4.1"]);
}

#[test]
fn foreign_and_renamed_parts_do_not_read_as_ours() {
    let (root, disk) = temp();
    let mut journal = start(&disk, 1, &records(&["a"]));
    journal.append(&records(&["b"])).expect("append");
    assert!(matches!(recover(&disk, "another cluster", None), Err(JournalError::Foreign { offset: 0, .. })));
    let folder = root.path().join("journal");
    std::fs::copy(folder.join("1.1"), folder.join("1.2")).expect("copy");
    // Frames of another part may be old content of the blocks of a part that never served.
    let read = recover(&disk, ID, None).expect("recover");
    assert_eq!(read.records, records(&["a", "b"]));
    assert_eq!(read.unfinished.len(), 1);
    // If there is nothing else, the lease tells that something is missing.
    std::fs::rename(folder.join("1.1"), folder.join("saved")).expect("rename");
    assert!(recover(&disk, ID, Some(&lease(4))).is_err());
    std::fs::rename(folder.join("saved"), folder.join("1.1")).expect("rename");
    // Names that we never write do not count.
    std::fs::rename(folder.join("1.2"), folder.join("1.02")).expect("rename");
    let read = recover(&disk, ID, None).expect("recover");
    assert_eq!(read.records, records(&["a", "b"]));
    assert_eq!(read.unfinished, []);
}

#[test]
fn old_frames_inside_a_torn_one_are_no_damage_and_later_ones_are() {
    let (root, disk) = temp();
    let mut journal = start(&disk, 1, &[]);
    let path = root.path().join("journal/1.1");
    let before = std::fs::read(&path).expect("read");
    journal.append(&records(&["b"])).expect("append");
    let whole = std::fs::read(&path).expect("read");
    journal.mark().expect("mark");
    let marked = std::fs::read(&path).expect("read");
    let batch = &whole[before.len()..];
    let with = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).expect("write");
        recover(&disk, ID, None)
    };
    let torn = [&whole[..], b"DCJ1 garbage", &before, batch].concat();
    let read = with(torn.clone()).expect("old content only");
    assert_eq!(read.records, records(&["b"]));
    assert_eq!(read.torn_bytes, (torn.len() - whole.len()) as u64);
    let mut flipped = marked.clone();
    flipped[before.len() + 5] ^= 1;
    let error = with(flipped).expect_err("the mark follows");
    assert_eq!(
        error.to_string(),
        format!(
            "journal/1.1 is damaged at offset {}: sequence numbers after 2 are at stake, as a \
             whole frame (number 4) stands at offset {}",
            before.len(),
            whole.len()
        )
    );
}

#[test]
fn any_bytes_are_read_without_panic() {
    let (root, disk) = temp();
    let mut journal = start(&disk, 1, &records(&["a"]));
    journal.append(&records(&["b", "cc"])).expect("append");
    let path = root.path().join("journal/1.1");
    let whole = std::fs::read(&path).expect("read");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        std::fs::write(&path, bytes).expect("write");
        let _ = recover(&disk, ID, None);
    }
}
