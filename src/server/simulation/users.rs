//! Users on two hosts: they submit, send again, cancel, retry, look, wait, scale, take the cluster down and up;
//! their commands bring a server back that does not answer.

use super::checker::Sent;
use super::links::{Peer, Read};
use super::process::JOBS;
use super::world::World;
use crate::config::spec::Adapt;
use crate::runtime::control::{ClientHello, ClientMessage, ClientReply, DownMode, ErrorKind, Reply, Request};
use crate::runtime::ids::{ArrayId, TaskId};
use crate::runtime::protocol::{Body, Command, Indexes, Needs, PROTOCOL_VERSION, Submission, TaskRef};
use crate::selection::Selection;
use crate::server::core::ConnectionId;
use std::collections::BTreeMap;

/// Submissions of a run.
const SENT_MAX: usize = 30;
/// How long a user waits for an answer before the command is interrupted.
const PATIENCE: u64 = 20_000;
const WAIT: u64 = 5_000;

/// Somebody at a terminal.
#[derive(Default)]
pub(super) struct Client {
    link: Option<ConnectionId>,
    /// Of the server it talks to.
    epoch: u32,
    asked: BTreeMap<u32, Asked>,
    outgoing: Vec<ClientMessage>,
    said_down: bool,
}

/// A request without an answer.
pub(super) struct Asked {
    request: Request,
    pub(super) at: u64,
}

/// `down` was said.
pub(super) struct Down {
    mode: DownMode,
    /// When `up` is said; `None` while it is not down.
    up_at: Option<u64>,
    for_good: bool,
}

impl World {
    pub(super) fn users(&mut self) {
        for who in 0..self.clients.len() {
            self.hear_client(who);
            self.reach(who);
        }
        self.submit_something();
        let who = self.rng.usize(..self.clients.len());
        if self.rng.u8(..30) == 0 {
            // A page somewhere, as `tasks` asks for one after the other.
            let array = ArrayId(self.rng.u32(..=self.truth.sent.len() as u32));
            let after = (array.0 > 0).then_some(TaskId { array, element: 0 });
            let limit = self.rng.u32(1..40);
            self.ask(who, Request::Tasks { tasks: Vec::new(), kinds: Vec::new(), after, limit });
        }
        if self.rng.u8(..30) == 0 {
            self.ask(who, Request::Wait { tasks: Vec::new(), timeout: WAIT });
        }
        self.change_something(who);
        self.down_and_up(who);
        for who in 0..self.clients.len() {
            let messages = std::mem::take(&mut self.clients[who].outgoing);
            if let Some(link) = self.clients[who].link {
                self.transmit(link, false, &messages);
            }
        }
    }

    fn ask(&mut self, who: usize, request: Request) {
        let client = &mut self.clients[who];
        if client.link.is_none() {
            return;
        }
        self.truth.next_request += 1;
        let id = self.truth.next_request;
        client.asked.insert(id, Asked { request: request.clone(), at: self.now });
        client.outgoing.push(ClientMessage::Request { id, request: Box::new(request) });
    }

    /// Connects, or brings the server back.
    fn reach(&mut self, who: usize) {
        let now = self.now;
        let tired = |asked: &Asked| {
            let patience = match asked.request {
                Request::Wait { .. } => PATIENCE + WAIT,
                Request::Down { .. } => 300_000,
                _ => PATIENCE,
            };
            now > asked.at + patience
        };
        if self.clients[who].asked.values().any(tired) {
            self.mark("a user lost patience");
            self.hang_up(who);
        }
        if self.clients[who].link.is_some() || self.rng.u8(..10) > 0 {
            return;
        }
        let host = who;
        let access = self.access.and_then(|access| self.servers.get(&access));
        let found = access.filter(|server| server.serving.is_some() && server.stopped_until.is_none());
        if let Some(server) = found.map(|server| server.id) {
            let link = self.connect(server, Peer::Client(who));
            let client = &mut self.clients[who];
            (client.link, client.said_down) = (Some(link), false);
            let hello = ClientHello { protocol: PROTOCOL_VERSION, version: String::new() };
            client.outgoing.push(ClientMessage::Hello(hello));
            return;
        }
        let stopped = access.is_some_and(|server| server.stopped_until.is_some());
        let busy = self.servers.values().any(|server| server.host == host && server.stopped_until.is_none());
        if busy || self.servers.len() > 3 || self.says_down(host) || self.lease(host).is_none() {
            // The first server is started by `up`, not by just any command.
            if self.lease(host).is_none() && !busy && self.servers.is_empty() {
                self.start_server(host, true, false);
            }
            return;
        }
        let by_force = stopped && self.rng.u32(..100) < self.swarm.force;
        self.start_server(host, false, by_force);
    }

    fn hang_up(&mut self, who: usize) {
        if let Some(link) = self.clients[who].link.take() {
            self.peer_closes(link);
        }
        self.clients[who].asked.clear();
        self.clients[who].outgoing.clear();
    }

    fn hear_client(&mut self, who: usize) {
        while let Some(link) = self.clients[who].link
            && let Some(read) = self.read_at_peer::<ClientReply>(link)
        {
            match read {
                Read::End => self.hang_up(who),
                Read::Messages(replies) => {
                    for reply in replies {
                        match reply {
                            ClientReply::Welcome { epoch, .. } => self.clients[who].epoch = epoch,
                            ClientReply::Reply { id, reply } => {
                                if let Some(asked) = self.clients[who].asked.remove(&id) {
                                    self.on_reply(who, asked, *reply);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn on_reply(&mut self, who: usize, asked: Asked, reply: Reply) {
        let epoch = self.clients[who].epoch;
        match (asked.request, reply) {
            (Request::Submit { key, .. }, Reply::Submitted { array }) => self.acknowledged(&key, array, epoch),
            (Request::Submit { key, .. }, Reply::Error { kind, what, .. }) => {
                assert_eq!(kind, ErrorKind::TryAgain, "{key}: {what}");
                self.mark("a submission was refused for now");
            }
            (Request::Cancel { tasks }, Reply::Changed { .. }) => {
                for selection in tasks {
                    self.on_cancelled(selection.array, epoch);
                }
            }
            (Request::Retry { .. }, Reply::Changed { .. }) => self.truth.retried_at = self.now,
            (Request::Tasks { .. }, Reply::Tasks { tasks, .. }) => self.on_page(&tasks, asked.at, epoch),
            _ => {}
        }
    }

    /// Whether a retry is under way, whose effect nobody can tell yet.
    pub(super) fn retry_is_open(&self) -> bool {
        // Of a connection that ended, too, as long as a server may read on.
        let asked = self.clients.iter().flat_map(|client| client.asked.values());
        asked.into_iter().any(|asked| matches!(asked.request, Request::Retry { .. }))
            || self.truth.retry_links.iter().any(|link| {
                self.links.contains_key(link) && self.clients.iter().all(|client| client.link != Some(*link))
            })
    }

    /// What users had asked a server that dies.
    pub(super) fn in_flight(&self, link: ConnectionId) -> Vec<&'static str> {
        let client = self.clients.iter().find(|client| client.link == Some(link));
        let requests = client.into_iter().flat_map(|client| client.asked.values());
        let kinds = requests.map(|asked| match asked.request {
            Request::Submit { .. } => "submission in flight when the server died",
            Request::Cancel { .. } => "cancel in flight when the server died",
            Request::Retry { .. } => "retry in flight when the server died",
            Request::Down { .. } => "server died while it went down",
            _ => "question in flight when the server died",
        });
        kinds.collect()
    }

    fn request(&mut self) -> crate::runtime::protocol::Request {
        crate::runtime::protocol::Request {
            cores: [1, 1, 1, 2, 3][self.rng.usize(..5)],
            memory_bytes: [0, 0, 1 << 30, 3 << 30][self.rng.usize(..4)],
            ..Default::default()
        }
    }

    fn submission(&mut self, key: &str, short: bool) -> Submission {
        let nodes = if self.swarm.several_nodes && self.rng.u8(..6) == 0 { 2 } else { 1 };
        let mut variants = vec![self.request()];
        if nodes == 1 && self.rng.u8(..5) == 0 {
            variants.push(self.request());
        }
        let count = if short { self.rng.u32(1..60) } else { self.rng.u32(1..9) };
        let body = Body {
            command: Command::Argv(vec!["true".into()]),
            // By this a start is known.
            name: key.to_owned(),
            cwd: "/".into(),
            env: BTreeMap::new(),
            stdin: None,
            stdout: Default::default(),
            stderr: Default::default(),
            time_limit_seconds: None,
            needs: Needs { variants, nodes },
            indexes: Indexes::Range { first: 0, count, step: 1 },
            umask: 0o022,
        };
        let known: Vec<ArrayId> = self.truth.sent.iter().filter_map(|sent| sent.acknowledged).collect();
        let after = match known.is_empty() || self.rng.u8(..3) > 0 {
            true => Vec::new(),
            false => vec![TaskRef::Array(known[self.rng.usize(..known.len())])],
        };
        let retries = self.rng.u32(..4);
        Submission { body, inputs: Vec::new(), priority: 0, retries, time_request_seconds: None, after, at_most: None }
    }

    fn submit_something(&mut self) {
        if self.truth.sent.len() < SENT_MAX && self.lot(200, 10_000) {
            let key = format!("k{}", self.truth.sent.len());
            // Short ones are sent ahead to their workers.
            let short = self.rng.u8(..4) == 0;
            let submission = self.submission(&key, short);
            let task_max = if short { 300 } else { self.swarm.task_max };
            self.truth.sent.push(Sent::new(key, submission, task_max));
        }
        // The first time, or again after whatever happened to the answer.
        if self.truth.sent.is_empty() || self.rng.u8(..10) > 0 {
            return;
        }
        let which = self.rng.usize(..self.truth.sent.len());
        let who = self.rng.usize(..self.clients.len());
        if self.clients[who].link.is_none() {
            return;
        }
        let epoch = self.clients[who].epoch;
        let sent = &mut self.truth.sent[which];
        let again = sent.acknowledged.is_none() && sent.sent_to.is_some_and(|before| before < epoch);
        let twice = sent.acknowledged.is_some();
        sent.sent_to.get_or_insert(epoch);
        let (key, submission) = (sent.key.clone(), Box::new(sent.submission.clone()));
        if again {
            self.mark("a submission without an answer was sent to the next server");
        }
        if twice {
            self.mark("a submission was sent twice");
        }
        self.ask(who, Request::Submit { key, submission });
    }

    fn change_something(&mut self, who: usize) {
        let (cancel, retry, scale) = (self.swarm.cancel, self.swarm.retry, self.swarm.scale);
        if self.down.is_some() || self.clients[who].link.is_none() {
            return;
        }
        if self.lot(scale, 10_000) {
            let jobs = self.rng.u32(..5);
            self.truth.wanted_max = self.truth.wanted_max.max(jobs as usize);
            if self.rng.bool() {
                self.ask(who, Request::Scale { jobs });
            } else {
                self.mark("the number of jobs follows the load");
                let adapt = Adapt {
                    min: self.rng.u32(..=jobs),
                    max: jobs,
                    efficiency_percent: self.rng.u32(5..=95),
                    idle_timeout_seconds: self.rng.bool().then(|| self.rng.u64(1..60)),
                    max_pending: None,
                    rate_per_minute: None,
                };
                self.ask(who, Request::Adapt { adapt });
            }
        } else if !self.faults && self.now > self.truth.scaled_at + 120_000 {
            // The user looks after what went wrong.
            self.truth.scaled_at = self.now;
            self.ask(who, Request::Scale { jobs: JOBS });
        }
        let known: Vec<ArrayId> = self.truth.sent.iter().filter_map(|sent| sent.acknowledged).collect();
        if known.is_empty() {
            return;
        }
        let array = known[self.rng.usize(..known.len())];
        let tasks = vec![Selection { array, indexes: None }];
        if self.lot(cancel, 10_000) {
            self.truth.given_up.insert(array);
            self.ask(who, Request::Cancel { tasks });
        } else if self.lot(retry, 10_000) && !self.truth.given_up.contains(&array) {
            self.mark("a retry");
            // It revives what depends on it, too.
            for sent in &mut self.truth.sent {
                sent.extra += sent.submission.retries + 1;
            }
            self.truth.retried_at = self.now;
            self.truth.retry_links.extend(self.clients[who].link);
            self.ask(who, Request::Retry { tasks });
        }
    }

    fn down_and_up(&mut self, who: usize) {
        if self.down.is_none() && self.swarm.cycle && self.faults && self.now > 90_000 {
            self.swarm.cycle = false;
            let mode = [DownMode::Stop, DownMode::Drain, DownMode::Now][self.rng.usize(..3)];
            self.down = Some(Down { mode, up_at: None, for_good: false });
        }
        if self.down.is_some() && !self.is_down && self.servers.is_empty() && self.says_down(who) {
            self.mark("server killed after it closed the cluster");
            self.on_closed(0);
        }
        let Some(down) = &mut self.down else { return };
        if let Some(at) = down.up_at {
            if at <= self.now && !down.for_good {
                // Again if nothing comes of it.
                down.up_at = Some(at + 30_000);
                self.start_server(who, true, false);
            }
            if self.is_open() {
                self.mark("down and up again");
                self.down = None;
            }
            return;
        }
        if !self.faults && matches!(down.mode, DownMode::Drain) {
            // The user does not wait for ever.
            down.mode = DownMode::Stop;
            self.clients[who].said_down = false;
        }
        let mode = down.mode;
        if self.clients[who].link.is_some() && !std::mem::replace(&mut self.clients[who].said_down, true) {
            self.ask(who, Request::Down { mode });
        }
    }

    /// The user takes it down for good.
    pub(super) fn take_down(&mut self) {
        self.down = Some(Down { mode: DownMode::Stop, up_at: None, for_good: true });
    }

    /// A server says that nothing is left.
    pub(super) fn on_closed(&mut self, server: u64) {
        self.is_down = true;
        if self.servers.is_empty() {
            self.check_nothing_left();
        }
        if self.access == Some(server) {
            self.access = None;
        }
        let at = self.now + self.rng.u64(..20_000);
        if let Some(down) = &mut self.down {
            down.up_at.get_or_insert(at);
        }
    }

    pub(super) fn has_settled_users(&self) -> bool {
        let open = self.truth.sent.iter().any(|sent| sent.acknowledged.is_none());
        self.down.is_none() && !open && !self.retry_is_open()
    }
}
