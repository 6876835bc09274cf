//! A client's connection to the server of a cluster: the unix socket on the same host, else TLS.

use crate::cluster::Folder;
use crate::error::{Kind, Problem};
use crate::runtime::control::{ClientHello, ClientMessage, ClientReply, ErrorKind, Reply, Request};
use crate::runtime::dial::dial;
use crate::runtime::protocol::PROTOCOL_VERSION;
use crate::runtime::transport::{CLIENT_FRAME_BYTES_MAX, Channel, Role};
use crate::server::listen::connect_unix;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// A server that has not greeted after this long does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection; one request at a time.
pub struct Client {
    channel: Channel<Box<dyn Stream>>,
    next: u32,
    cluster: String,
}

impl Client {
    /// Connects to a server that runs.
    ///
    /// # Errors
    ///
    /// `Err(None)` when nobody answers; a problem when somebody answers who is not usable.
    pub async fn connect(folder: &Folder) -> Result<Self, Option<Problem>> {
        timeout(PATIENCE, Self::greet(folder)).await.unwrap_or_else(|_| {
            let problem =
                Problem::new(Kind::Unreachable, format!("the server of cluster {} does not answer", folder.name()))
                    .why("its process is there but stopped, or its host is overloaded")
                    .done("jobs and tasks go on")
                    .fix("dcluster up --take-over  (safe: starts another; the old one stops by itself)");
            Err(Some(problem))
        })
    }

    async fn greet(folder: &Folder) -> Result<Self, Option<Problem>> {
        let stream: Box<dyn Stream> = match connect_unix(folder).await {
            Ok(stream) => Box::new(stream),
            Err(_) => {
                let Ok(access) = folder.access(Role::Client) else { return Err(None) };
                match dial(&access, None).await {
                    Ok((stream, _)) => Box::new(stream),
                    Err(_) => return Err(None),
                }
            }
        };
        let mut client =
            Self { channel: Channel::new(stream, CLIENT_FRAME_BYTES_MAX), next: 1, cluster: folder.name().to_owned() };
        let hello = ClientHello { protocol: PROTOCOL_VERSION, version: env!("CARGO_PKG_VERSION").to_owned() };
        client.channel.send(&[ClientMessage::Hello(hello)]).await.map_err(|_| None)?;
        match client.channel.receive::<ClientReply>().await {
            Ok(Some(replies)) => match replies.into_iter().next() {
                Some(ClientReply::Welcome { .. }) => Ok(client),
                Some(ClientReply::Reply { reply, .. }) => Err(Some(client.refused(*reply))),
                None => Err(None),
            },
            _ => Err(None),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// What the server refused, or that it went away.
    pub async fn ask(&mut self, request: Request) -> Result<Reply, Problem> {
        let id = self.next;
        self.next += 1;
        let message = ClientMessage::Request { id, request: Box::new(request) };
        self.channel.send(&[message]).await.map_err(|error| self.gone(&error))?;
        loop {
            let replies = self.channel.receive::<ClientReply>().await.map_err(|error| self.gone(&error))?;
            let Some(replies) = replies else { return Err(self.gone(&io::ErrorKind::UnexpectedEof.into())) };
            for reply in replies {
                if let ClientReply::Reply { id: answered, reply } = reply
                    && answered == id
                {
                    return match *reply {
                        Reply::Error { .. } => Err(self.refused(*reply)),
                        reply => Ok(reply),
                    };
                }
            }
        }
    }

    fn gone(&self, error: &io::Error) -> Problem {
        let problem = Problem::new(Kind::Unreachable, format!("the server of cluster {} went away", self.cluster))
            .says(error.to_string())
            .done("what it had accepted is on disk and goes on");
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                problem.why("a message was larger than the 60 MiB a request may have")
            }
            _ => problem.fix("dcluster status  (brings the server back)"),
        }
    }

    fn refused(&self, reply: Reply) -> Problem {
        match reply {
            Reply::Error { kind, what, fix } => {
                let kind = match kind {
                    ErrorKind::Usage => Kind::Usage,
                    ErrorKind::TryAgain => Kind::TryAgain,
                };
                let problem = Problem::new(kind, what);
                match fix {
                    Some(fix) => problem.fix(fix),
                    None => problem,
                }
            }
            other => unexpected(&other),
        }
    }
}

/// An answer that does not belong to the question: a bug, or a server of another version.
pub fn unexpected(reply: &Reply) -> Problem {
    let text: String = format!("{reply:?}").chars().take(60).collect();
    Problem::new(Kind::Internal, "the server gave an answer that makes no sense here").says(text)
}
