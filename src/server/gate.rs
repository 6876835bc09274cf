//! Bounds on connections that have not proved who they are. Called by the listeners (`server::listen`).
//!
//! A stranger takes a place until its first message is read, and a handshake of its address while keys are
//! checked; who finds none waits, and is never banned: a node may start 128 workers at once. While places
//! run out, who has sent nothing yet gives way soon, so that idle sockets do not keep workers out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Connections that have not proved who they are; more stay in the backlog.
pub(super) const STRANGERS_MAX: usize = 512;
/// Handshakes of one address at once; more wait for their turn.
const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;
/// For the handshake, and again for the first message.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// For the first bytes of a handshake while more than half of the places are taken: a peer sends them at once.
pub(super) const FIRST_BYTES_CROWDED: Duration = Duration::from_millis(250);
/// For the rest of it, which takes round trips, while more than half of the places are taken.
pub(super) const HANDSHAKE_CROWDED: Duration = Duration::from_secs(1);
/// What a peer may send before it has proved who it is; a handshake has less than 4 KiB.
pub(super) const STRANGER_BYTES_MAX: usize = 32 << 10;

/// The places for strangers.
#[derive(Clone)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    handshakes: Arc<Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A handshake of an address, until it is dropped.
pub(super) struct Turn {
    gate: Gate,
    address: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// Makes a gate with all places free.
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(STRANGERS_MAX)), handshakes: Arc::default() }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> Place {
        let permit = Arc::clone(&self.places).acquire_owned().await;
        Place(permit.expect("the semaphore is never closed"))
    }

    /// Waits until this address may shake hands.
    pub(super) async fn turn(&self, address: IpAddr) -> Turn {
        let turns = Arc::clone(
            self.handshakes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(address)
                .or_insert_with(|| Arc::new(Semaphore::new(HANDSHAKES_PER_ADDRESS_MAX))),
        );
        let mut turn = Turn { gate: self.clone(), address, permit: None };
        turn.permit = Some(turns.acquire_owned().await.expect("the semaphore is never closed"));
        turn
    }

    fn is_crowded(&self) -> bool {
        self.places.available_permits() < STRANGERS_MAX / 2
    }

    /// Waits for a stranger to do its part: [`PATIENCE`] long, or `crowded` while places run out. `None` when
    /// it took too long.
    pub(super) async fn wait<T>(&self, crowded: Duration, part: impl Future<Output = T>) -> Option<T> {
        let mut part = pin!(part);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout(crowded, &mut part).await {
                Ok(done) => return Some(done),
                Err(_) if self.is_crowded() || Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut handshakes = self.gate.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody of this address holds or awaits a turn: the map must not grow with every address seen.
        if handshakes.get(&self.address).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            handshakes.remove(&self.address);
        }
    }
}

/// A stream that gives up once a stranger has sent more than [`STRANGER_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct Rationed<S> {
    stream: S,
    /// `None` = no bound any more.
    left: Option<usize>,
}

impl<S> Rationed<S> {
    /// Begins to count.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, left: Some(STRANGER_BYTES_MAX) }
    }

    /// The peer has proved who it is: stops counting.
    pub(super) fn lift(&mut self) {
        self.left = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rationed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(into.filled().len() - before) else {
                into.set_filled(before);
                return Poll::Ready(Err(std::io::Error::other("too many bytes before the peer proved itself")));
            };
            *left = rest;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rationed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn is_ready<T>(work: impl Future<Output = T>) -> bool {
        timeout(Duration::from_millis(1), work).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_beyond_the_bound_wait() {
        let gate = Gate::new();
        let mut places = Vec::new();
        for _ in 0..STRANGERS_MAX {
            places.push(gate.enter().await);
        }
        assert!(!is_ready(gate.enter()).await, "one past the bound waits");
        places.pop();
        assert!(is_ready(gate.enter()).await, "and is served when one leaves");
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_of_one_address_wait_and_others_pass() {
        let gate = Gate::new();
        let mut turns = Vec::new();
        for _ in 0..HANDSHAKES_PER_ADDRESS_MAX {
            turns.push(gate.turn(HERE).await);
        }
        assert!(!is_ready(gate.turn(HERE)).await);
        assert!(is_ready(gate.turn(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))).await);
        turns.pop();
        assert!(is_ready(gate.turn(HERE)).await);
        drop(turns);
        assert!(gate.handshakes.lock().unwrap().is_empty(), "no address is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_strangers_give_way_when_it_is_crowded() {
        let gate = Gate::new();
        let begun = Instant::now();
        assert_eq!(gate.wait(FIRST_BYTES_CROWDED, std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_millis(), PATIENCE.as_millis());
        let mut places = Vec::new();
        for _ in 0..STRANGERS_MAX / 2 {
            places.push(gate.enter().await);
        }
        assert!(!gate.is_crowded());
        places.push(gate.enter().await);
        let begun = Instant::now();
        assert_eq!(gate.wait(FIRST_BYTES_CROWDED, std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_millis(), FIRST_BYTES_CROWDED.as_millis());
    }

    #[tokio::test]
    async fn what_a_stranger_sends_is_bounded() {
        for (more, fine) in [(0, true), (1, false)] {
            let (near, mut far) = tokio::io::duplex(STRANGER_BYTES_MAX + 1);
            far.write_all(&vec![0; STRANGER_BYTES_MAX + more]).await.unwrap();
            drop(far);
            let read = Rationed::new(near).read_to_end(&mut Vec::new()).await;
            assert_eq!(read.is_ok(), fine, "{more} past the bound");
        }
    }
}
