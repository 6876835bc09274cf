//! What waits to be read by a peer, bounded. The core's loop holds the [`Peer`] of each connection, the task that
//! writes to it holds the [`Mail`].

use super::core::Outgoing;
use crate::runtime::protocol::{ServerMessage, Start};
use crate::runtime::transport::encoded_size;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Bytes that may wait for one peer; who does not read them is disconnected.
const UNREAD_BYTES_MAX: usize = 16 << 20;
/// Messages that go into one list.
const LIST_MAX: usize = 4096;
/// A dismissed peer has so long to take what was still said.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// The way to a peer. Dropping it closes the connection, after what was sent.
#[derive(Debug)]
pub struct Peer {
    sender: mpsc::UnboundedSender<(usize, Outgoing)>,
    unread: Arc<AtomicUsize>,
    _held: oneshot::Sender<()>,
}

/// What a peer is to be sent.
#[derive(Debug)]
pub struct Mail {
    receiver: mpsc::UnboundedReceiver<(usize, Outgoing)>,
    unread: Arc<AtomicUsize>,
    taken: usize,
}

/// The peer does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unread;

/// Makes both ends; the third resolves when the [`Peer`] is dropped.
pub(super) fn peer() -> (Peer, Mail, oneshot::Receiver<()>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (held, dropped) = oneshot::channel();
    let unread = Arc::new(AtomicUsize::new(0));
    (Peer { sender, unread: Arc::clone(&unread), _held: held }, Mail { receiver, unread, taken: 0 }, dropped)
}

impl Peer {
    /// Queues a message; one always fits an empty queue.
    pub(super) fn send(&self, message: Outgoing) -> Result<(), Unread> {
        let size = size(&message);
        let before = self.unread.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > UNREAD_BYTES_MAX {
            return Err(Unread);
        }
        // A peer that is gone will be reported as disconnected.
        let _ = self.sender.send((size, message));
        Ok(())
    }
}

impl Mail {
    /// Waits for messages; none when the [`Peer`] was dropped. Those of the last call count as read.
    pub(super) async fn next(&mut self) -> Vec<Outgoing> {
        self.unread.fetch_sub(std::mem::take(&mut self.taken), Ordering::Relaxed);
        let mut batch = Vec::new();
        self.receiver.recv_many(&mut batch, LIST_MAX).await;
        self.taken = batch.iter().map(|(size, _)| size).sum();
        batch.into_iter().map(|(_, message)| message).collect()
    }
}

/// Returns about how many bytes a message has; those that come by the thousand are not encoded for it.
fn size(message: &Outgoing) -> usize {
    match message {
        Outgoing::Worker(ServerMessage::Assign { starts, .. }) => {
            let values = |start: &Start| start.input.iter().map(|value| value.len() + 5).sum::<usize>();
            64 + starts.iter().map(|start| 24 + values(start)).sum::<usize>()
        }
        Outgoing::Worker(ServerMessage::Recorded { runs, .. }) => 64 + 9 * runs.len(),
        Outgoing::Worker(message) => encoded_size(message),
        Outgoing::Client(reply) => encoded_size(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::control::{ClientReply, ErrorKind, Reply};

    fn text(bytes: usize) -> Outgoing {
        let reply = Reply::Error { kind: ErrorKind::Usage, what: "x".repeat(bytes), fix: None };
        Outgoing::Client(ClientReply::Reply { id: 1, reply: Box::new(reply) })
    }

    #[tokio::test]
    async fn unread_output_is_bounded() {
        let (peer, mut mail, _) = peer();
        let around = size(&text(70_000)) - 70_000;
        let half = UNREAD_BYTES_MAX / 2 - around;
        peer.send(text(half)).unwrap();
        peer.send(text(half)).unwrap();
        assert_eq!(peer.unread.load(Ordering::Relaxed), UNREAD_BYTES_MAX, "at the bound");
        assert_eq!(mail.next().await.len(), 2);
        // Taken is not read yet.
        assert_eq!(peer.send(text(0)), Err(Unread));
    }

    #[tokio::test]
    async fn one_byte_past_the_bound_is_refused_and_read_output_is_forgotten() {
        let (sender, mut mail, _) = peer();
        let around = size(&text(70_000)) - 70_000;
        sender.send(text(UNREAD_BYTES_MAX / 2 - around)).unwrap();
        assert_eq!(sender.send(text(UNREAD_BYTES_MAX / 2 - around + 1)), Err(Unread));
        let (sender, mut other, _) = peer();
        sender.send(text(UNREAD_BYTES_MAX + 1)).expect("alone, anything fits");
        assert_eq!(other.next().await.len(), 1);
        assert!(tokio::time::timeout(Duration::from_millis(5), other.next()).await.is_err());
        assert_eq!(sender.unread.load(Ordering::Relaxed), 0);
        assert_eq!(mail.next().await.len(), 1);
    }

    #[tokio::test]
    async fn dropping_a_peer_ends_its_mail() {
        let (peer, mut mail, dropped) = peer();
        peer.send(text(1)).unwrap();
        drop(peer);
        assert!(dropped.await.is_err());
        assert_eq!((mail.next().await.len(), mail.next().await.len()), (1, 0));
    }
}
