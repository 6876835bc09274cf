//! The bounds on connections, over streams in memory and on a virtual clock.

use super::*;
use crate::runtime::control::Request;
use crate::runtime::protocol::Capacity;
use crate::runtime::transport::FRAME_MESSAGES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

fn reception() -> (Reception, mpsc::Receiver<Input>) {
    let (to_core, inputs) = mpsc::channel(5000);
    (Reception::new(to_core, "abcd", 1), inputs)
}

/// A peer of this role that was let in and has said nothing yet.
async fn connect(reception: &Reception, role: Role) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 20);
    let place = reception.gate.enter().await;
    let bound = if role == Role::Client { HELLO_BYTES_MAX } else { WORKER_HELLO_BYTES_MAX };
    tokio::spawn(reception.clone().admit(role, Channel::new(near, bound), place));
    far
}

fn client_hello(version: String) -> ClientMessage {
    ClientMessage::Hello(ClientHello { protocol: PROTOCOL_VERSION, version })
}

fn worker_hello(version: String) -> WorkerMessage {
    WorkerMessage::Hello(WorkerHello {
        protocol: PROTOCOL_VERSION,
        version,
        job: None,
        nonce: "00".to_owned(),
        hellos: 1,
        id: None,
        epoch: 0,
        recorded: 0,
        node: "n1".to_owned(),
        pid: 1,
        capacity: Capacity { cores: 1, memory_bytes: 1, gpus: 0, numa: Vec::new() },
        seconds_left: None,
        running: Vec::new(),
        draining: false,
    })
}

/// One frame of exactly `bytes` bytes: a hello whose version is as long as that takes.
fn hello_of<M: serde::Serialize>(bytes: usize, hello: impl Fn(String) -> M) -> Vec<u8> {
    let around = rmp_serde::to_vec_named(&[hello("x".repeat(70_000))]).unwrap().len() - 70_000;
    // A shorter text has a shorter head.
    let head = if bytes < 65_536 { 2 } else { 0 };
    let body = rmp_serde::to_vec_named(&[hello("x".repeat(bytes + head - around))]).unwrap();
    assert_eq!(body.len(), bytes);
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// Sends bytes; returns whether the connection is still there a moment later.
async fn survives(stream: &mut DuplexStream, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.write(rest).await {
            Ok(count) if count > 0 => rest = &rest[count..],
            _ => return false,
        }
    }
    let mut byte = [0; 1];
    loop {
        match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await {
            Ok(Ok(1)) => {}
            Ok(_) => return false,
            Err(_) => return true,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_proves_itself_and_says_nothing_is_closed_after_five_seconds() {
    for role in [Role::Client, Role::Worker] {
        let (reception, _inputs) = reception();
        let mut stream = connect(&reception, role).await;
        let begun = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(begun.elapsed().as_millis(), 5_000);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_message_of_a_client_is_bounded() {
    let (reception, _inputs) = reception();
    let mut stream = connect(&reception, Role::Client).await;
    assert!(survives(&mut stream, &hello_of(HELLO_BYTES_MAX, client_hello)).await);
    let mut stream = connect(&reception, Role::Client).await;
    assert!(!survives(&mut stream, &hello_of(HELLO_BYTES_MAX + 1, client_hello)).await);
}

#[tokio::test(start_paused = true)]
async fn the_first_message_of_a_worker_is_bounded() {
    let (reception, mut inputs) = reception();
    let mut stream = connect(&reception, Role::Worker).await;
    assert!(survives(&mut stream, &hello_of(WORKER_HELLO_BYTES_MAX, worker_hello)).await);
    assert!(matches!(inputs.recv().await, Some(Input::Worker(..))));
    let mut stream = connect(&reception, Role::Worker).await;
    assert!(!survives(&mut stream, &hello_of(WORKER_HELLO_BYTES_MAX + 1, worker_hello)).await);
}

#[tokio::test(start_paused = true)]
async fn frames_after_the_hello_are_bounded_by_role() {
    for (role, bound) in [(Role::Client, CLIENT_FRAME_BYTES_MAX), (Role::Worker, FRAME_BYTES_MAX)] {
        for (more, fine) in [(0, true), (1, false)] {
            let (reception, _inputs) = reception();
            let mut stream = connect(&reception, role).await;
            let hello = match role {
                Role::Client => hello_of(1000, client_hello),
                _ => hello_of(1000, worker_hello),
            };
            assert!(survives(&mut stream, &hello).await);
            // The announced length is enough: nothing of that size is waited for.
            let length = u32::try_from(bound + more).unwrap().to_be_bytes();
            assert_eq!(survives(&mut stream, &length).await, fine, "{role:?} {more}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_frame_are_bounded() {
    for (more, fine) in [(0, true), (1, false)] {
        let (reception, mut inputs) = reception();
        let mut stream = connect(&reception, Role::Worker).await;
        assert!(survives(&mut stream, &hello_of(1000, worker_hello)).await);
        let Some(Input::Worker(_, _, _peer)) = inputs.recv().await else { panic!("no hello") };
        let body = rmp_serde::to_vec_named(&vec![WorkerMessage::Draining; FRAME_MESSAGES_MAX + more]).unwrap();
        assert_eq!(survives(&mut stream, &framed(&body)).await, fine);
        let count = match inputs.recv().await {
            Some(Input::FromWorker(_, messages)) => messages.len(),
            _ => 0,
        };
        assert_eq!(count, if fine { FRAME_MESSAGES_MAX } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn one_client_too_many_is_told_the_number() {
    let (reception, mut inputs) = reception();
    let mut clients = Vec::new();
    for number in 1..=CLIENTS_MAX + 1 {
        let mut channel = Channel::new(connect(&reception, Role::Client).await, FRAME_BYTES_MAX);
        channel.send(&[client_hello(String::new())]).await.unwrap();
        let reply = channel.receive::<ClientReply>().await.unwrap().unwrap().remove(0);
        match reply {
            ClientReply::Welcome { .. } => assert!(number <= CLIENTS_MAX),
            ClientReply::Reply { reply, .. } => {
                assert_eq!(number, CLIENTS_MAX + 1);
                assert!(
                    matches!(*reply, Reply::Error { kind: ErrorKind::TryAgain, what, .. } if what.contains("1024"))
                );
            }
        }
        clients.push(channel);
    }
    // One that leaves makes room.
    clients.truncate(CLIENTS_MAX - 1);
    while !matches!(inputs.recv().await, Some(Input::Disconnected(_))) {}
    let mut channel = Channel::new(connect(&reception, Role::Client).await, FRAME_BYTES_MAX);
    tokio::time::sleep(Duration::from_millis(1)).await;
    channel.send(&[client_hello(String::new())]).await.unwrap();
    assert!(matches!(channel.receive::<ClientReply>().await.unwrap().unwrap()[0], ClientReply::Welcome { .. }));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_answered_whatever_the_core_does() {
    let (reception, mut inputs) = reception();
    let mut channel = Channel::new(connect(&reception, Role::Worker).await, FRAME_BYTES_MAX);
    channel.send(&[worker_hello(String::new())]).await.unwrap();
    // The core takes the hello and does nothing.
    let Some(Input::Worker(_, _, _peer)) = inputs.recv().await else { panic!("no hello") };
    for _ in 0..3 {
        channel.send(&[WorkerMessage::Heartbeat]).await.unwrap();
        assert_eq!(channel.receive::<ServerMessage>().await.unwrap().unwrap(), [ServerMessage::Heartbeat]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_peer_that_does_not_read_is_cut_off() {
    let (reception, mut inputs) = reception();
    let (near, mut far) = tokio::io::duplex(1 << 10);
    let place = reception.gate.enter().await;
    tokio::spawn(reception.clone().admit(Role::Client, Channel::new(near, HELLO_BYTES_MAX), place));
    far.write_all(&hello_of(1000, client_hello)).await.unwrap();
    let Some(Input::Client(_, peer)) = inputs.recv().await else { panic!("no hello") };
    let reply = Reply::Error { kind: ErrorKind::Usage, what: "x".repeat(1 << 20), fix: None };
    assert!(peer.send(Outgoing::Client(ClientReply::Reply { id: 1, reply: Box::new(reply) })).is_ok());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(inputs.try_recv().is_err(), "slow readers are waited for");
    let begun = Instant::now();
    drop(peer);
    assert!(matches!(inputs.recv().await, Some(Input::Disconnected(_))));
    assert_eq!(begun.elapsed().as_millis(), FAREWELL.as_millis());
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_hello_is_not_obeyed() {
    let (reception, mut inputs) = reception();
    let mut channel = Channel::new(connect(&reception, Role::Client).await, FRAME_BYTES_MAX);
    let request = ClientMessage::Request { id: 1, request: Box::new(Request::Scale { jobs: 7 }) };
    channel.send(&[request, client_hello(String::new())]).await.unwrap();
    assert!(channel.receive::<ClientReply>().await.unwrap().is_none());
    assert!(matches!(inputs.recv().await, Some(Input::Disconnected(_))));
}

#[tokio::test(start_paused = true)]
async fn another_protocol_is_refused_with_both_numbers() {
    let (reception, _inputs) = reception();
    let mut channel = Channel::new(connect(&reception, Role::Client).await, FRAME_BYTES_MAX);
    let hello = ClientHello { protocol: PROTOCOL_VERSION + 1, version: "9.9.9".to_owned() };
    channel.send(&[ClientMessage::Hello(hello)]).await.unwrap();
    let reply = channel.receive::<ClientReply>().await.unwrap().unwrap().remove(0);
    let ClientReply::Reply { id: 0, reply } = reply else { panic!("{reply:?}") };
    let Reply::Error { kind: ErrorKind::Usage, what, .. } = *reply else { panic!("{reply:?}") };
    assert!(what.contains(&format!("protocol {}", PROTOCOL_VERSION + 1)), "{what}");
    assert!(what.contains(&format!("the server {PROTOCOL_VERSION}")), "{what}");
}

#[tokio::test(start_paused = true)]
async fn unanswered_requests_of_a_client_are_bounded() {
    let (reception, mut inputs) = reception();
    let mut channel = Channel::new(connect(&reception, Role::Client).await, FRAME_BYTES_MAX);
    channel.send(&[client_hello(String::new())]).await.unwrap();
    channel.receive::<ClientReply>().await.unwrap();
    let Some(Input::Client(_, peer)) = inputs.recv().await else { panic!("no hello") };
    let request = |id| ClientMessage::Request { id, request: Box::new(Request::Status) };
    let bound = u32::try_from(REQUESTS_MAX).unwrap();
    let all: Vec<ClientMessage> = (1..=bound + 1).map(request).collect();
    channel.send(&all).await.unwrap();
    for id in 1..=bound {
        assert!(matches!(inputs.recv().await, Some(Input::Request(_, asked, _)) if asked == id));
    }
    let next = tokio::time::timeout(Duration::from_secs(60), inputs.recv());
    assert!(next.await.is_err(), "one past the bound waits");
    let reply = ClientReply::Reply { id: 1, reply: Box::new(Reply::Scaled) };
    assert!(peer.send(Outgoing::Client(reply)).is_ok());
    assert!(matches!(inputs.recv().await, Some(Input::Request(_, asked, _)) if asked == bound + 1));
}
