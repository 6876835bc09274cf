//! What the fuzzers call: one function for each kind of bytes that others make. They are run by
//! cargo-fuzz (`fuzz/`) without end, and by `cargo test` over the committed corpus and mutations of it.
//!
//! None may panic, allocate much more than its input has, or take long. Where a property holds beyond
//! that (what was decoded can be encoded and decoded again; an evil worker harms no other), it is asserted.

mod cores;
mod files;
mod queues;

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

use crate::config::units::{parse_duration, parse_size};
use crate::map::inputs;
use crate::runtime::control::{ClientMessage, ClientReply};
use crate::runtime::protocol::{ServerMessage, WorkerMessage};
use crate::runtime::transport::{Channel, decode, encode};
use crate::selection::{ArraySpec, Selection};
use crate::template::Template;
use bstr::{BString, ByteSlice};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub use cores::{client_against_core, records_against_core, server_against_session, worker_against_core};
pub use files::{journal, lease};
pub use queues::{condor, lsf, oar, pbs, sge, slurm};

/// One kind of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of the function and of the folder in the corpus.
    pub name: &'static str,
    /// What is done with the bytes.
    pub body: fn(&[u8]),
    /// What it allocates is bounded by its input. (A core keeps what it is told, within the bounds of its own
    /// tests; a template multiplies its inputs.)
    pub is_frugal: bool,
}

const fn target(name: &'static str, body: fn(&[u8]), is_frugal: bool) -> Target {
    Target { name, body, is_frugal }
}

/// Every target.
pub const TARGETS: [Target; 19] = [
    target("frames", frames, true),
    target("worker_message", worker_message, true),
    target("client_message", client_message, true),
    target("server_message", server_message, true),
    target("client_reply", client_reply, true),
    target("worker_against_core", worker_against_core, false),
    target("client_against_core", client_against_core, false),
    target("records_against_core", records_against_core, false),
    target("server_against_session", server_against_session, true),
    target("journal", journal, true),
    target("lease", lease, true),
    target("slurm", slurm, true),
    target("sge", sge, true),
    target("pbs", pbs, true),
    target("lsf", lsf, true),
    target("oar", oar, true),
    target("condor", condor, true),
    target("template", template, false),
    target("config", config, true),
];

/// Bytes of a connection, as the frame decoder of a server gets them.
pub fn frames(data: &[u8]) {
    let stream = tokio::io::join(data, tokio::io::sink());
    let mut channel = Channel::new(stream, 16 << 10);
    while let Some(Ok(Some(_))) = channel.receive::<WorkerMessage>().now_or_never() {}
}

/// What was understood can be said again.
fn round_trip<M: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) {
    let Ok(messages) = decode::<M>(data) else { return };
    let frames = encode(&messages).expect("what was decoded can be encoded");
    let again: Vec<M> = frames.iter().flat_map(|frame| decode(frame).expect("our own frame")).collect();
    assert_eq!(messages, again);
}

/// A frame of a worker, its hello included.
pub fn worker_message(data: &[u8]) {
    round_trip::<WorkerMessage>(data);
}

/// A frame of a client, its hello included.
pub fn client_message(data: &[u8]) {
    round_trip::<ClientMessage>(data);
}

/// A frame that a worker gets.
pub fn server_message(data: &[u8]) {
    round_trip::<ServerMessage>(data);
}

/// A frame that a client gets.
pub fn client_reply(data: &[u8]) {
    round_trip::<ClientReply>(data);
}

fn harmless(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?} moves the cursor");
}

/// A `map` template in the first line, its inputs in the others; and the same as an argument tail.
pub fn template(data: &[u8]) {
    let mut lines = data.split_str("\n");
    let source = lines.next().unwrap_or_default();
    let inputs: Vec<BString> = lines.map(BString::from).collect();
    if let Ok(parsed) = Template::parse(source.as_bstr()) {
        let rendered = parsed.render(&inputs, 7);
        rendered.display();
        rendered.argv();
    }
    let words: Vec<BString> = data.split_str(" ").map(BString::from).collect();
    if let Ok(tail) = inputs::parse_tail(&words) {
        assert!(!tail.sources.is_empty());
        let _ = Template::from_words(&tail.command);
    }
    for nul in [false, true] {
        if let Ok(records) = inputs::split_records(data, nul) {
            assert!(records.iter().all(|record| !record.contains(&0)), "no argument holds a NUL");
        }
    }
}

/// A configuration file, and what stands behind options.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    crate::config::file::parse("dcluster.toml".as_ref(), &text);
    // What is printed for a number says the same when it is read.
    if let Ok(seconds) = parse_duration(&text) {
        assert_eq!(parse_duration(&crate::config::units::human_duration(seconds)).ok(), Some(seconds), "{text:?}");
    }
    if let Ok(bytes) = parse_size(&text) {
        assert_eq!(parse_size(&crate::config::units::exact_size(bytes)).ok(), Some(bytes), "{text:?}");
    }
    if let Ok(array) = short(&text).parse::<ArraySpec>() {
        assert!(array.indexes.is_valid(), "{text:?}");
    }
    if let Ok(selections) = Selection::parse(short(&text)) {
        assert!(!selections.is_empty());
    }
}

/// An array of ten million is fine and slow: of longer words only the first ones are taken.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(6)]
}
