//! Every target over its corpus and over changed copies of it. `FUZZ_ROUNDS=100000 cargo test fuzzing` does
//! more of them; the real fuzzer is in `fuzz/` (CONTRIBUTING.md).

use super::mutate::mutate;
use super::seeds::seeds;
use super::{TARGETS, Target};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Changed copies of the corpus that each target gets.
const ROUNDS: u64 = 1_000;

fn rounds() -> u64 {
    std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(corpus_folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// What may be held at once: values are larger in memory than on the wire, but not by much. A core and a template
/// keep or make more than they are given, but not as much as a number in their input says.
fn allocation_max(target: Target, input: usize) -> u64 {
    let most = if target.is_frugal { 1 << 20 } else { 64 << 20 };
    most + 512 * input as u64
}

fn run(target: Target, input: &[u8], which: &str) {
    let Target { name, body, .. } = target;
    let result = std::panic::catch_unwind(|| allocation_counter::measure(|| body(input)).bytes_max);
    let hex = || input.iter().take(2000).map(|byte| format!("{byte:02x}")).collect::<String>();
    match result {
        Ok(bytes) => {
            let max = allocation_max(target, input.len());
            assert!(bytes <= max, "{name}, {which}: {bytes} bytes for {}: {}", input.len(), hex());
        }
        Err(_) => panic!("{name}, {which} panics on {}", hex()),
    }
}

#[test]
fn the_corpus_harms_nothing() {
    for target in TARGETS {
        let corpus = corpus(target.name);
        assert!(corpus.len() >= 2, "{}: no corpus", target.name);
        for (number, input) in corpus.iter().enumerate() {
            run(target, input, &format!("file {number}"));
        }
    }
}

#[test]
fn changed_bytes_harm_nothing() {
    for target in TARGETS {
        let corpus = corpus(target.name);
        for seed in 0..rounds() {
            let mut rng = Rng::with_seed(seed);
            let (one, other) = (rng.usize(..corpus.len()), rng.usize(..corpus.len()));
            let mut input = mutate(&mut rng, &corpus[one], &corpus[other]);
            input.truncate(1 << 16);
            run(target, &input, &format!("seed {seed}"));
        }
    }
}

#[test]
fn mutations_reach_what_is_behind_the_decoder() {
    // Were most changed inputs refused at once, nothing behind would be tested.
    let corpus = corpus("worker_against_core");
    let decoded = (0..ROUNDS).filter(|seed| {
        let mut rng = Rng::with_seed(*seed);
        let (one, other) = (rng.usize(..corpus.len()), rng.usize(..corpus.len()));
        let input = mutate(&mut rng, &corpus[one], &corpus[other]);
        !corpus.contains(&input)
            && crate::runtime::transport::decode::<crate::runtime::protocol::WorkerMessage>(&input).is_ok()
    });
    let share = decoded.count() as u64 * 100 / ROUNDS;
    assert!(share > 10, "only {share} % are messages");
}

#[test]
fn seeds_are_good_and_in_the_corpus() {
    for Target { name: target, .. } in TARGETS {
        let seeds = seeds(target);
        let names: BTreeSet<&str> = seeds.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), seeds.len(), "{target}: a name stands twice");
        for (name, bytes) in seeds {
            let path = corpus_folder(target).join(name);
            if std::env::var_os("FUZZ_WRITE_SEEDS").is_some() {
                std::fs::create_dir_all(corpus_folder(target)).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            let there = std::fs::read(&path).is_ok_and(|there| there == bytes);
            assert!(there, "{target}/{name} is not what the seeds make: FUZZ_WRITE_SEEDS=1 cargo test fuzzing");
        }
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for Target { name: target, .. } in TARGETS {
        let source = std::fs::read_to_string(folder.join(format!("targets/{target}.rs"))).unwrap();
        assert!(source.contains(&format!("fuzzing::{target}(")), "{target}");
        assert!(manifest.contains(&format!("\"targets/{target}.rs\"")), "{target}");
    }
}
