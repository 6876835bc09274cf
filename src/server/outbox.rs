//! Holds what must not leave the server before the records it rests on are durable. Pure.
//!
//! Order on one connection is kept: behind something that waits, everything for that peer waits.

use super::core::{ConnectionId, Outgoing, Output, Turn};
use crate::ledger::Order;
use crate::runtime::control::ClientReply;
use std::collections::{BTreeSet, VecDeque};

/// Something that may leave now.
#[derive(Debug)]
pub(super) enum Release {
    /// A message.
    Send(ConnectionId, Outgoing),
    /// A connection to close after what was sent on it.
    Close(ConnectionId),
    /// Something to do outside.
    Order(Order),
}

/// What waits, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<(Turn, Release)>,
}

impl Outbox {
    /// Takes in what a turn produced.
    pub(super) fn put(&mut self, turn: Turn, output: &mut Output) {
        for (connection, request) in output.withdrawn.drain(..) {
            self.waiting.retain(|(_, item)| !matches!(item, Release::Send(to, Outgoing::Client(ClientReply::Reply { id, .. })) if *to == connection && *id == request));
        }
        let sends = output.sends.drain(..);
        self.waiting.extend(sends.map(|(connection, after, message)| (after, Release::Send(connection, message))));
        self.waiting.extend(output.close.drain(..).map(|connection| (0, Release::Close(connection))));
        self.waiting.extend(output.orders.drain(..).map(|order| (turn, Release::Order(order))));
    }

    /// Returns what may leave, now that all turns up to `durable` are on disk.
    pub(super) fn release(&mut self, durable: Turn) -> Vec<Release> {
        let mut free = Vec::new();
        let mut held: BTreeSet<ConnectionId> = BTreeSet::new();
        let mut kept = VecDeque::new();
        for (after, item) in std::mem::take(&mut self.waiting) {
            let connection = match &item {
                Release::Send(connection, _) | Release::Close(connection) => Some(*connection),
                Release::Order(_) => None,
            };
            let blocked = connection.is_some_and(|connection| held.contains(&connection));
            if after <= durable && !blocked {
                free.push(item);
            } else {
                held.extend(connection);
                kept.push_back((after, item));
            }
        }
        self.waiting = kept;
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::protocol::ServerMessage;

    fn stop(grace_seconds: u64) -> Outgoing {
        Outgoing::Worker(ServerMessage::Stop { grace_seconds })
    }

    #[test]
    fn order_on_a_connection_is_kept_and_others_pass() {
        let (one, two) = (ConnectionId(1), ConnectionId(2));
        let mut outbox = Outbox::default();
        let mut output = Output {
            sends: vec![(one, 5, stop(1)), (one, 0, stop(2)), (two, 0, stop(3))],
            close: vec![one],
            orders: vec![Order::Find],
            ..Output::default()
        };
        outbox.put(5, &mut output);
        let free = outbox.release(4);
        assert!(matches!(free.as_slice(), [Release::Send(connection, _)] if *connection == two));
        // What is taken back never leaves; another answer follows.
        let reply = |id| {
            let reply = Box::new(crate::runtime::control::Reply::Scaled);
            Outgoing::Client(ClientReply::Reply { id, reply })
        };
        let client = ConnectionId(3);
        outbox.put(7, &mut Output { sends: vec![(client, 7, reply(1))], ..Output::default() });
        let withdrawn = vec![(client, 1)];
        outbox.put(8, &mut Output { withdrawn, sends: vec![(client, 0, reply(3))], ..Output::default() });
        let free = outbox.release(4);
        let ids = free.iter().map(|release| match release {
            Release::Send(_, Outgoing::Client(ClientReply::Reply { id, .. })) => *id,
            _ => 0,
        });
        assert_eq!(ids.collect::<Vec<_>>(), [3]);
        let free = outbox.release(5);
        assert!(matches!(
            free.as_slice(),
            [Release::Send(..), Release::Send(..), Release::Close(_), Release::Order(Order::Find)]
        ));
    }
}
