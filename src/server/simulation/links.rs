//! Connections: bytes in order, each way, with delays; they are reset, cut without a word, held back.

use super::world::World;
use crate::runtime::transport::{decode, encode};
use crate::server::core::ConnectionId;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;

/// A server process; never used twice.
pub(super) type ServerId = u64;

/// Who talks to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    Machine(u32),
    Client(usize),
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    frames: VecDeque<(u64, Bytes)>,
    /// When the reader sees the end, once all frames have arrived.
    ends_at: Option<u64>,
    /// The reader has seen it, or reads no more.
    over: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) server: ServerId,
    pub(super) peer: Peer,
    pub(super) to_server: Pipe,
    pub(super) to_peer: Pipe,
    /// The first message has been read.
    pub(super) greeted: bool,
    /// Nothing passes any more, and nobody is told; what TCP of the peer notices, and when.
    pub(super) silent: Option<u64>,
    /// No frame arrives before.
    pub(super) held_until: u64,
}

/// What a reader finds.
pub(super) enum Read<M> {
    Messages(Vec<M>),
    End,
}

impl Pipe {
    fn push(&mut self, at: u64, frame: Bytes) {
        let at = self.frames.back().map_or(0, |(at, _)| *at).max(at);
        if self.ends_at.is_none() && !self.over {
            self.frames.push_back((at, frame));
        }
    }

    /// The writer ends.
    fn end(&mut self, at: u64) {
        let at = self.frames.back().map_or(0, |(at, _)| *at).max(at);
        self.ends_at.get_or_insert(at);
    }

    fn read<M: DeserializeOwned>(&mut self, now: u64) -> Option<Read<M>> {
        if self.over {
            return None;
        }
        if let Some((at, _)) = self.frames.front() {
            if *at > now {
                return None;
            }
            let (_, frame) = self.frames.pop_front().expect("looked at");
            return Some(Read::Messages(decode(&frame).expect("what we encoded")));
        }
        if self.ends_at.is_some_and(|at| at <= now) {
            self.over = true;
            return Some(Read::End);
        }
        None
    }
}

impl Link {
    pub(super) fn is_over(&self) -> bool {
        self.to_server.over && self.to_peer.over
    }
}

impl World {
    fn delay(&mut self) -> u64 {
        if self.swarm.slow && self.faults { self.rng.u64(1..1500) } else { self.rng.u64(1..40) }
    }

    /// Opens a connection to a server that accepts it.
    pub(super) fn connect(&mut self, server: ServerId, peer: Peer) -> ConnectionId {
        self.next_link += 1;
        let (to_server, to_peer) = Default::default();
        let link = Link { server, peer, to_server, to_peer, greeted: false, silent: None, held_until: 0 };
        self.links.insert(ConnectionId(self.next_link), link);
        ConnectionId(self.next_link)
    }

    /// Messages leave the peer, or the server, as frames of the real codec.
    pub(super) fn transmit<M: Serialize>(&mut self, id: ConnectionId, from_server: bool, messages: &[M]) {
        if messages.is_empty() {
            return;
        }
        let delay = self.delay();
        let frames = encode(messages).expect("messages always encode");
        for frame in &frames {
            self.trace_bytes(if from_server { "to peer" } else { "to server" }, id.0, frame);
        }
        let now = self.now;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.silent.is_none()) else { return };
        let at = (now + delay).max(link.held_until);
        let pipe = if from_server { &mut link.to_peer } else { &mut link.to_server };
        for frame in frames {
            pipe.push(at, frame);
        }
    }

    pub(super) fn read_at_server<M: DeserializeOwned>(&mut self, id: ConnectionId) -> Option<Read<M>> {
        self.links.get_mut(&id)?.to_server.read(self.now)
    }

    pub(super) fn read_at_peer<M: DeserializeOwned>(&mut self, id: ConnectionId) -> Option<Read<M>> {
        let now = self.now;
        let link = self.links.get_mut(&id)?;
        if link.silent.is_some_and(|at| at <= now) {
            link.to_peer.over = true;
            return Some(Read::End);
        }
        link.to_peer.read(now)
    }

    /// The server closes after what it sent, or is gone.
    pub(super) fn server_closes(&mut self, id: ConnectionId) {
        let at = self.now + self.delay();
        if let Some(link) = self.links.get_mut(&id) {
            link.to_server.over = true;
            if link.silent.is_none() {
                link.to_peer.end(at);
            }
        }
    }

    /// The peer closes after what it sent, or is gone.
    pub(super) fn peer_closes(&mut self, id: ConnectionId) {
        let at = self.now + self.delay();
        if let Some(link) = self.links.get_mut(&id) {
            link.to_peer.over = true;
            // The other end of a half-open one will find out by itself.
            if link.silent.is_none() {
                link.to_server.end(at);
            }
        }
    }

    /// Of what is under way a part arrives.
    fn lose_frames(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        for pipe in [&mut link.to_server, &mut link.to_peer] {
            let kept = self.rng.usize(..=pipe.frames.len());
            pipe.frames.truncate(kept);
        }
    }

    /// Both ends see an error.
    pub(super) fn reset(&mut self, id: ConnectionId) {
        self.lose_frames(id);
        let at = self.now + self.delay();
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.silent.is_none()) {
            link.to_server.end(at);
            link.to_peer.end(at);
        }
    }

    /// Nothing passes any more, and neither end is told. TCP of the peer gives up much later.
    pub(super) fn silence(&mut self, id: ConnectionId) {
        self.lose_frames(id);
        let notices = self.now + self.rng.u64(5_000..900_000);
        if let Some(link) = self.links.get_mut(&id) {
            link.silent.get_or_insert(notices);
        }
    }

    /// Frames are held back for a while; TCP sends them again.
    pub(super) fn hold(&mut self, id: ConnectionId, until: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.held_until = link.held_until.max(until);
            for (at, _) in link.to_server.frames.iter_mut().chain(&mut link.to_peer.frames) {
                *at = (*at).max(until);
            }
        }
    }

    pub(super) fn links_of(&self, peer: Peer) -> Vec<ConnectionId> {
        self.links.iter().filter(|(_, link)| link.peer == peer).map(|(id, _)| *id).collect()
    }

    pub(super) fn links_to(&self, server: ServerId) -> Vec<ConnectionId> {
        self.links.iter().filter(|(_, link)| link.server == server).map(|(id, _)| *id).collect()
    }

    pub(super) fn sweep_links(&mut self) {
        let now = self.now;
        self.links.retain(|_, link| !link.is_over());
        for link in self.links.values_mut() {
            // The kernel of a server that will never read again.
            link.to_server.over |= link.silent.is_some_and(|at| at + 900_000 <= now);
        }
    }
}
