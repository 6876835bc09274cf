use super::*;
use crate::runtime::disk::RealDisk;

fn holder(number: u8) -> Holder {
    Holder {
        nonce: [number; 16],
        host: format!("host{number}"),
        boot: "0f0e-boot".into(),
        pid: 4000 + u32::from(number),
        pid_namespace: 4_026_531_836,
        pid_start: 77,
    }
}

fn state(epoch: u32, beat: u64, durable: u64) -> LeaseState {
    LeaseState { epoch, holder: holder(epoch as u8), beat, state: ServerState::Serving, durable }
}

fn temp() -> (tempfile::TempDir, RealDisk) {
    let root = tempfile::tempdir().expect("temp");
    let disk = RealDisk::open(root.path()).expect("open");
    (root, disk)
}

fn take_over(disk: &RealDisk, number: u8) -> (Lease<&RealDisk>, Option<LeaseState>) {
    let epoch = newest_claim(disk).expect("list") + 1;
    let won = claim(disk, &holder(number), epoch).expect("claim");
    assert_eq!(won, Claim::Won { epoch });
    Lease::open(disk, holder(number), epoch).expect("lease")
}

#[test]
fn slots_survive_and_any_flipped_bit_is_noticed() {
    let long =
        LeaseState { holder: Holder { host: "é".repeat(200), boot: "b".repeat(300), ..holder(7) }, ..state(7, 3, 9) };
    let read = decode(&encode(&long)).expect("whole");
    assert_eq!(read.holder.host.len(), 254);
    assert_eq!(read.holder.boot.len(), 64);
    let slot = encode(&state(7, 3, 9));
    assert_eq!(decode(&slot), Some(state(7, 3, 9)));
    for bit in 0..SLOT * 8 {
        let mut flipped = slot;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&flipped), None, "bit {bit}");
    }
}

#[test]
fn the_golden_slot_of_the_documentation() {
    let slot = encode(&state(2, 5, 41));
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        hex(&slot[..72]),
        "44434c31020000000202020202020202020202020202020205000000000000002900000000000000\
         01050900a20f0000fcffffef000000004d00000000000000686f737432000000"
    );
    assert_eq!(crc32fast::hash(&slot[..508]).to_le_bytes(), slot[508..]);
}

#[test]
fn a_successor_fences_its_predecessor_and_inherits_what_was_durable() {
    let (_root, disk) = temp();
    assert_eq!(read_lease(&disk).expect("read"), None);
    let (mut first, before) = take_over(&disk, 1);
    assert_eq!(before, None);
    first.beat(10).expect("beat");
    first.beat(20).expect("beat");
    first.fence().expect("alone");
    let seen = read_lease(&disk).expect("read").expect("there");
    assert_eq!((seen.epoch, seen.beat, seen.durable), (1, 2, 20));

    let (mut second, before) = take_over(&disk, 2);
    assert_eq!(before.expect("there").durable, 20);
    assert!(first.fence().expect_err("fenced").is_fenced());
    assert!(first.beat(30).expect_err("fenced").is_fenced());
    assert!(first.close(30).expect_err("fenced").is_fenced());
    second.fence().expect("ours");
    second.beat(5).expect("beat");
    let seen = read_lease(&disk).expect("read").expect("there");
    assert_eq!((seen.epoch, seen.beat, seen.durable), (2, 1, 20));
    second.close(50).expect("close");
    let seen = read_lease(&disk).expect("read").expect("there");
    assert_eq!((seen.state, seen.durable), (ServerState::Closed, 50));
}

#[test]
fn a_claimer_that_was_overtaken_before_its_lease_is_fenced() {
    let (_root, disk) = temp();
    let won = claim(&disk, &holder(1), 1).expect("claim");
    assert_eq!(won, Claim::Won { epoch: 1 });
    let (second, _) = take_over(&disk, 2);
    let error = Lease::open(&disk, holder(1), 1).expect_err("overtaken");
    assert!(error.is_fenced());
    second.fence().expect("ours");
}

#[test]
fn a_claim_is_won_once_and_repeated_requests_are_ours() {
    let (_root, disk) = temp();
    let won = Claim::Won { epoch: 1 };
    assert_eq!(claim(&disk, &holder(1), 1).expect("claim"), won);
    assert_eq!(claim(&disk, &holder(1), 1).expect("claim"), won);
    let lost = Claim::Lost { epoch: 1, holder: Some(holder(1)) };
    assert_eq!(claim(&disk, &holder(2), 1).expect("claim"), lost);
    // A number that is no longer the newest is not won either.
    assert_eq!(claim(&disk, &holder(3), 5).expect("claim"), Claim::Won { epoch: 5 });
    let late = claim(&disk, &holder(4), 4).expect("claim");
    assert!(matches!(late, Claim::Lost { epoch: 5, .. }), "{late:?}");
    assert_eq!(disk.list("epochs").expect("list"), ["1", "4", "5"]);
}

#[test]
fn a_torn_first_slot_is_no_lease_and_two_broken_slots_are_damage() {
    let slots = |list: &[&[u8]]| list.concat();
    let hole = [0; 2 * SLOT];
    let first = encode(&state(1, 0, 0));
    let second = encode(&state(1, 1, 4));
    assert_eq!(newest(0, &slots(&[&hole])).expect("read"), None);
    assert_eq!(newest(0, &slots(&[&hole, &first[..100]])).expect("read"), None);
    let seen = newest(0, &slots(&[&hole, &first, &second[..100]]));
    assert_eq!(seen.expect("read").expect("first").beat, 0);
    let seen = newest(0, &slots(&[&hole, &[1; SLOT], &second]));
    assert_eq!(seen.expect("read").expect("second").beat, 1);
    let damaged = newest(0, &slots(&[&hole, &[1; SLOT], &[1; SLOT]]));
    assert!(matches!(damaged, Err(LeaseError::Damaged { .. })));
    // A slot at the place of another epoch does not count.
    let moved = newest(0, &slots(&[&hole, &hole, &first]));
    assert_eq!(moved.expect("read"), None);
}

#[test]
fn the_tail_need_not_begin_at_a_slot() {
    let second = encode(&state(9, 1, 4));
    let mut bytes = vec![0; 100];
    bytes.extend_from_slice(&encode(&state(9, 0, 0)));
    bytes.extend_from_slice(&second);
    let offset = 18 * SLOT as u64 - 100;
    assert_eq!(newest(offset, &bytes).expect("read"), Some(state(9, 1, 4)));
}
