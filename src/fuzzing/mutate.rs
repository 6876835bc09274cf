//! Small changes of bytes, most of them aware of MessagePack: a length that lies, a number at its end, a
//! value of another kind, deep nesting. The same seed makes the same bytes.

use fastrand::Rng;
use std::ops::Range;

/// Values that stand where others stood.
const VALUES: &[&[u8]] = &[
    b"\xc0",                                 // nil
    b"\xc3",                                 // true
    b"\x00",                                 // 0
    b"\x01",                                 // 1
    b"\x02",                                 // 2
    b"\x03",                                 // 3
    b"\xff",                                 // -1
    b"\xce\xff\xff\xff\xff",                 // 2^32 - 1
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", // 2^64 - 1
    b"\xcf\x00\x00\x01\x00\x00\x00\x00\x00", // first run of epoch 1
    b"\xcf\x00\x00\x01\x00\x00\x00\x00\x01", // its second
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", // -2^63
    b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", // infinity
    b"\xa0",                                 // ""
    b"\xa1\x00",                             // "\0"
    b"\xa3\x1b[2",                           // a terminal escape
    b"\x90",                                 // []
    b"\x80",                                 // {}
    b"\xdd\xff\xff\xff\xff",                 // a list of 2^32 - 1
    b"\xdf\xff\xff\xff\xff",                 // a map of 2^32 - 1
    b"\xdb\xff\xff\xff\xff",                 // a text of 4 GiB
    b"\xc6\xff\xff\xff\xff",                 // bytes, 4 GiB
    b"\xc9\xff\xff\xff\xff\x01",             // an extension of 4 GiB
];

/// So many of them are numbers, nil or booleans.
const PLAIN: usize = 12;

/// Bytes and texts that mean something in other formats.
const PIECES: &[&[u8]] = &[
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"99999999999999999999",
    b"4294967295",
    b"[0-4294967295]",
    b"-1",
    b"{}",
    b"{1}",
    b"{99}",
    b"'",
    b"\"",
    b"$(",
    b"\n",
    b"|",
    b"\0",
    b"\x1b[2J",
    b"\xc2\x9b",
    b"DCJ1",
    b"DCL1",
];

/// The head of a value: how long it is with its own bytes, and how many values belong to it.
fn head(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let marker = *bytes.get(at)?;
    let number = |width: usize| {
        let digits = bytes.get(at + 1..at + 1 + width).unwrap_or_default();
        digits.iter().fold(0usize, |number, digit| number << 8 | usize::from(*digit))
    };
    Some(match marker {
        0x80..=0x8f => (1, 2 * usize::from(marker & 0x0f)),
        0x90..=0x9f => (1, usize::from(marker & 0x0f)),
        0xa0..=0xbf => (1 + usize::from(marker & 0x1f), 0),
        0xc4 | 0xd9 => (2 + number(1), 0),
        0xc5 | 0xda => (3 + number(2), 0),
        0xc6 | 0xdb => (5 + number(4), 0),
        0xcc | 0xd0 => (2, 0),
        0xdc => (3, number(2)),
        0xde => (3, 2 * number(2)),
        0xcd | 0xd1 => (3, 0),
        0xdd => (5, number(4)),
        0xdf => (5, number(4).saturating_mul(2)),
        0xca | 0xce | 0xd2 => (5, 0),
        0xcb | 0xcf | 0xd3 => (9, 0),
        _ => (1, 0),
    })
}

/// Returns where the values of MessagePack begin and end, heads of lists and maps by themselves.
fn values(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((length, _)) = head(bytes, at) {
        let end = at.saturating_add(length).min(bytes.len());
        found.push(at..end);
        at = end;
    }
    found
}

/// Whether a value is a number, nil or a boolean: another one may stand in its place.
fn is_plain(bytes: &[u8], value: &Range<usize>) -> bool {
    bytes.get(value.start).is_some_and(|marker| matches!(marker, 0..=0x7f | 0xc0..=0xc3 | 0xca..=0xd3 | 0xe0..))
}

/// Returns where the elements of a list of messages begin and end; none when it is no list.
fn elements(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let Some((mut at, count)) = head(bytes, 0).filter(|_| matches!(bytes[0], 0x90..=0x9f | 0xdc | 0xdd)) else {
        return found;
    };
    for _ in 0..count {
        let start = at;
        let mut left = 1usize;
        while left > 0 {
            let Some((length, inner)) = head(bytes, at) else { return found };
            at = at.saturating_add(length);
            left = (left - 1).saturating_add(inner);
        }
        found.push(start..at.min(bytes.len()));
    }
    found
}

fn some(rng: &mut Rng, length: usize) -> Range<usize> {
    let (one, other) = (rng.usize(..=length), rng.usize(..=length));
    one.min(other)..one.max(other)
}

/// Makes another list of the messages of two.
fn reorder(rng: &mut Rng, bytes: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mine = elements(bytes);
    let theirs = elements(other);
    let all: Vec<&[u8]> =
        mine.iter().map(|at| &bytes[at.clone()]).chain(theirs.iter().map(|at| &other[at.clone()])).collect();
    if all.is_empty() {
        return None;
    }
    let count = rng.u16(1..12);
    let mut out = vec![0xdc];
    out.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        out.extend_from_slice(all[rng.usize(..all.len())]);
    }
    Some(out)
}

/// Puts other numbers in the places of numbers.
fn change_numbers(rng: &mut Rng, out: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.usize(0..4) {
        let plain: Vec<Range<usize>> = values(out).into_iter().filter(|value| is_plain(out, value)).collect();
        let theirs: Vec<Range<usize>> = values(other).into_iter().filter(|value| is_plain(other, value)).collect();
        if plain.is_empty() {
            return;
        }
        let place = plain[rng.usize(..plain.len())].clone();
        let new = match rng.u8(..3) {
            0 if !theirs.is_empty() => other[theirs[rng.usize(..theirs.len())].clone()].to_vec(),
            1 => out[plain[rng.usize(..plain.len())].clone()].to_vec(),
            _ => VALUES[rng.usize(..PLAIN)].to_vec(),
        };
        drop(out.splice(place, new));
    }
}

/// Returns a changed copy of `bytes`; `other` is another input of the same kind.
pub(super) fn mutate(rng: &mut Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if rng.bool() {
        // Messages that are whole, in another order and with other numbers.
        out = reorder(rng, bytes, other).unwrap_or(out);
        change_numbers(rng, &mut out, other);
        if rng.u8(..4) > 0 {
            return out;
        }
    }
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..=out.len());
        match rng.u8(..14) {
            0 if at < out.len() => out[at] ^= 1 << rng.u8(..8),
            1 if at < out.len() => out[at] = rng.u8(..),
            2 => out.truncate(at),
            3 => {
                let part = some(rng, out.len());
                drop(out.drain(part));
            }
            4 => {
                let part = out[some(rng, out.len())].to_vec();
                drop(out.splice(at..at, part));
            }
            5 => drop(out.splice(at..at, PIECES[rng.usize(..PIECES.len())].iter().copied())),
            6 => {
                out.truncate(at);
                out.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
            7 => {
                let depth = [2, 31, 32, 33, 5000][rng.usize(..5)];
                drop(out.splice(at..at, std::iter::repeat_n([0x91, 0x81][rng.usize(..2)], depth)));
            }
            _ => {
                let (mine, theirs) = (values(&out), values(other));
                if mine.is_empty() {
                    continue;
                }
                let place = mine[rng.usize(..mine.len())].clone();
                let new = match rng.u8(..4) {
                    0 if !theirs.is_empty() => other[theirs[rng.usize(..theirs.len())].clone()].to_vec(),
                    1 => out[mine[rng.usize(..mine.len())].clone()].to_vec(),
                    _ => VALUES[rng.usize(..VALUES.len())].to_vec(),
                };
                drop(out.splice(place, new));
            }
        }
    }
    out
}
