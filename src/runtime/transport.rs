//! Connections between server, workers and clients: keys, mutual TLS 1.3, frames of messages.
//!
//! The one place that builds TLS configurations. A peer proves itself by a certificate of the
//! cluster's own CA; its role and the cluster's id stand in the certificate (`<role>.<cluster id>`).
//! Validity runs from 1970 to 2099 on purpose: authority comes from the ledger, not from dates,
//! since nodes exist whose clocks stand at 1970.

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use zeroize::Zeroizing;

/// Largest frame after the hello, in bytes; `reliability.md` section 10.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Largest frame that a client may send, in bytes: a submission comes whole, and must fit into one journal frame.
pub const CLIENT_FRAME_BYTES_MAX: usize = 60 << 20;
/// Most messages in a frame.
pub const FRAME_MESSAGES_MAX: usize = 65_536;
/// Most maps and lists inside each other; deeper ones would need as much stack as a peer likes.
const NESTING_MAX: usize = 32;
const ALPN: &[u8] = b"dcluster/1";

/// Who a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The server.
    Server,
    /// A worker: may take and report tasks.
    Worker,
    /// A client: may do what a user may.
    Client,
}

impl Role {
    /// Returns the name a certificate of this role carries.
    fn subject(self, cluster_id: &str) -> String {
        let role = match self {
            Self::Server => "server",
            Self::Worker => "worker",
            Self::Client => "client",
        };
        format!("{role}.{cluster_id}")
    }
}

/// Text that must not show up anywhere: no `Debug`, no `Display`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// Returns the secret itself, for the one place that writes it to its file or hands it to TLS.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Credential {
    /// The certificate (PEM).
    pub certificate: String,
    /// Its private key (PEM).
    pub key: Secret,
}

/// The certificate authority of one cluster.
pub struct Authority {
    certificate: String,
    key: Secret,
    cluster_id: String,
}

/// What can go wrong with keys and TLS.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// TLS refuses what it was given.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A file that should hold keys does not.
    #[error("the key material is damaged: {0}")]
    Damaged(String),
}

impl Authority {
    /// Makes the authority of a new cluster (ECDSA P-256).
    pub fn create(cluster_id: &str) -> Result<Self, KeyError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = authority_params(cluster_id)?.self_signed(&key)?.pem();
        Ok(Self { certificate, key: Secret::new(key.serialize_pem()), cluster_id: cluster_id.to_owned() })
    }

    /// Reads an authority back.
    pub fn load(cluster_id: &str, certificate: String, key: Secret) -> Self {
        Self { certificate, key, cluster_id: cluster_id.to_owned() }
    }

    /// Returns the certificate (PEM), which is no secret.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the key (PEM).
    pub fn key(&self) -> &Secret {
        &self.key
    }

    /// Issues a credential for a role.
    pub fn issue(&self, role: Role) -> Result<Credential, KeyError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer = Issuer::new(authority_params(&self.cluster_id)?, KeyPair::from_pem(self.key.reveal())?);
        let mut params = validity(CertificateParams::new(vec![role.subject(&self.cluster_id)])?);
        params.extended_key_usages = vec![match role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Worker | Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Credential { certificate, key: Secret::new(key.serialize_pem()) })
    }
}

fn authority_params(cluster_id: &str) -> Result<CertificateParams, KeyError> {
    let mut params = validity(CertificateParams::new(Vec::<String>::new())?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("dcluster {cluster_id}"));
    Ok(params)
}

fn validity(mut params: CertificateParams) -> CertificateParams {
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 12, 31);
    params
}

fn roots(ca: &str) -> Result<RootCertStore, KeyError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca)?)?;
    Ok(roots)
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, KeyError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| KeyError::Damaged(error.to_string()))
}

fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, KeyError> {
    PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes()).map_err(|error| KeyError::Damaged(error.to_string()))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns the TLS configuration of the server: TLS 1.3, client certificates of our CA required,
/// no tickets, no resumption.
pub fn server_config(authority: &Authority) -> Result<ServerConfig, KeyError> {
    let own = authority.issue(Role::Server)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority.certificate())?), provider())
        .build()
        .map_err(|error| KeyError::Damaged(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate(&own.certificate)?], private_key(&own.key)?)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Returns the TLS configuration of a worker or client.
pub fn client_config(ca: &str, own: &Credential) -> Result<ClientConfig, KeyError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(vec![certificate(&own.certificate)?], private_key(&own.key)?)?;
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Returns the name that the server of a cluster proves.
pub fn server_name(cluster_id: &str) -> Result<ServerName<'static>, KeyError> {
    ServerName::try_from(Role::Server.subject(cluster_id)).map_err(|error| KeyError::Damaged(error.to_string()))
}

/// Returns the role in a verified client certificate; `None` when it is of another cluster or has no
/// role that may connect.
pub fn peer_role(chain: &[CertificateDer<'_>], cluster_id: &str) -> Option<Role> {
    let leaf = webpki::EndEntityCert::try_from(chain.first()?).ok()?;
    [Role::Worker, Role::Client].into_iter().find(|role| {
        ServerName::try_from(role.subject(cluster_id))
            .is_ok_and(|name| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    })
}

/// A connection that carries lists of messages.
pub struct Channel<S> {
    framed: Framed<S, LengthDelimitedCodec>,
}

/// The sending half of a [`Channel`].
pub struct Sender<K>(K);
/// The receiving half of a [`Channel`].
pub struct Receiver<T>(T);

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// Wraps a stream; `frame_bytes_max` bounds what a peer can make us hold.
    pub fn new(stream: S, frame_bytes_max: usize) -> Self {
        let framed = LengthDelimitedCodec::builder().max_frame_length(frame_bytes_max).new_framed(stream);
        Self { framed }
    }

    /// Raises the bound after the peer's hello was read.
    pub fn allow(&mut self, frame_bytes_max: usize) {
        self.framed.codec_mut().set_max_frame_length(frame_bytes_max);
    }

    /// Sends messages as few frames.
    pub async fn send<M: Serialize>(&mut self, messages: &[M]) -> io::Result<()> {
        for frame in encode(messages)? {
            self.framed.feed(frame).await?;
        }
        SinkExt::<Bytes>::flush(&mut self.framed).await
    }

    /// Receives the next frame; `None` when the peer closed.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<Vec<M>>> {
        self.framed.next().await.transpose()?.map(|frame| decode(&frame)).transpose()
    }

    /// Splits into halves that may be used by two tasks.
    pub fn split(
        self,
    ) -> (
        Sender<impl Sink<Bytes, Error = io::Error> + Unpin>,
        Receiver<impl Stream<Item = io::Result<bytes::BytesMut>> + Unpin>,
    ) {
        let (sink, stream) = self.framed.split();
        (Sender(sink), Receiver(stream))
    }
}

impl<K: Sink<Bytes, Error = io::Error> + Unpin> Sender<K> {
    /// Sends messages as few frames.
    pub async fn send<M: Serialize>(&mut self, messages: &[M]) -> io::Result<()> {
        for frame in encode(messages)? {
            self.0.feed(frame).await?;
        }
        self.0.flush().await
    }

    /// Says goodbye to the peer (TLS `close_notify`).
    pub async fn close(&mut self) -> io::Result<()> {
        self.0.close().await
    }
}

impl<T: Stream<Item = io::Result<bytes::BytesMut>> + Unpin> Receiver<T> {
    /// Receives the next frame; `None` when the peer closed.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<Vec<M>>> {
        self.0.next().await.transpose()?.map(|frame| decode(&frame)).transpose()
    }
}

/// Packs messages into frames of at most [`FRAME_BYTES_MAX`] bytes: halves the list until it fits.
///
/// # Errors
///
/// If a message cannot be encoded.
pub fn encode<M: Serialize>(messages: &[M]) -> io::Result<Vec<Bytes>> {
    let whole = rmp_serde::to_vec_named(messages).map_err(io::Error::other)?;
    if whole.len() <= FRAME_BYTES_MAX && messages.len() <= FRAME_MESSAGES_MAX {
        return Ok(vec![whole.into()]);
    }
    if messages.len() == 1 {
        // One large message (a submission with many inputs): the bound of the connection decides.
        return Ok(vec![whole.into()]);
    }
    let (first, rest) = messages.split_at(messages.len() / 2);
    let mut frames = encode(first)?;
    frames.extend(encode(rest)?);
    Ok(frames)
}

/// Takes a frame apart. A list that announces too many messages is refused before any of them is read.
///
/// # Errors
///
/// `InvalidData` when a bound is broken or the bytes are no messages of this kind.
pub fn decode<M: DeserializeOwned>(frame: &[u8]) -> io::Result<Vec<M>> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidData, error);
    // Only a list of this form, `array 32`, can be longer than 65,535.
    if let [0xdd, length @ ..] = frame
        && let Some(length) = length.first_chunk()
        && u32::from_be_bytes(*length) as usize > FRAME_MESSAGES_MAX
    {
        return Err(refuse("too many messages in a frame".into()));
    }
    let mut decoder = rmp_serde::Deserializer::from_read_ref(frame);
    // It refuses the level at which its count is used up.
    decoder.set_max_depth(NESTING_MAX + 1);
    serde::Deserialize::deserialize(&mut decoder).map_err(|error| refuse(error.into()))
}

/// Returns how many bytes a message has on the wire, without making them.
pub fn encoded_size<M: Serialize>(message: &M) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be encoded will not be sent either.
    let _ = rmp_serde::encode::write_named(&mut count, message);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    async fn handshake(server: ServerConfig, client: ClientConfig, name: &str) -> io::Result<Option<Role>> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from(format!("server.{name}")).expect("a name");
        let id = "abcd".to_owned();
        let (accepted, connected) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        connected?;
        let stream = accepted?;
        Ok(stream.get_ref().1.peer_certificates().and_then(|chain| peer_role(chain, &id)))
    }

    #[tokio::test]
    async fn roles_are_read_from_certificates() {
        let authority = Authority::create("abcd").expect("authority");
        for role in [Role::Worker, Role::Client] {
            let own = authority.issue(role).expect("credential");
            let client = client_config(authority.certificate(), &own).expect("client");
            let seen = handshake(server_config(&authority).expect("server"), client, "abcd").await.expect("handshake");
            assert_eq!(seen, Some(role));
        }
    }

    #[tokio::test]
    async fn strangers_are_refused() {
        let ours = Authority::create("abcd").expect("authority");
        let theirs = Authority::create("abcd").expect("authority");
        let foreign = theirs.issue(Role::Client).expect("credential");
        // A foreign certificate, with our CA pinned.
        let client = client_config(ours.certificate(), &foreign).expect("client");
        assert!(handshake(server_config(&ours).expect("server"), client, "abcd").await.is_err());
        // A foreign server: the client refuses it.
        let own = ours.issue(Role::Client).expect("credential");
        let client = client_config(ours.certificate(), &own).expect("client");
        assert!(handshake(server_config(&theirs).expect("server"), client, "abcd").await.is_err());
        // The server of another cluster with the same CA name.
        let client = client_config(ours.certificate(), &own).expect("client");
        assert!(handshake(server_config(&ours).expect("server"), client, "efgh").await.is_err());
    }

    #[test]
    fn a_server_certificate_is_no_pass() {
        let authority = Authority::create("abcd").expect("authority");
        let own = authority.issue(Role::Server).expect("credential");
        assert_eq!(peer_role(&[certificate(&own.certificate).expect("der")], "abcd"), None);
    }

    #[tokio::test]
    async fn frames_are_bounded() {
        // A text of 70,000 bytes has a head of five, its list one of one.
        for (text, fine) in [(FRAME_BYTES_MAX - 6, true), (FRAME_BYTES_MAX - 5, false)] {
            let (near, far) = tokio::io::duplex(FRAME_BYTES_MAX + 100);
            let mut sender = Channel::new(near, FRAME_BYTES_MAX + 1);
            let mut receiver = Channel::new(far, FRAME_BYTES_MAX);
            sender.send(&["x".repeat(text)]).await.expect("sent");
            assert_eq!(receiver.receive::<String>().await.is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        /// A list in a list in a list …
        fn nested(levels: usize) -> Vec<u8> {
            let mut bytes = vec![0x91; levels];
            bytes.push(0xc0);
            bytes
        }
        // One level is the list of messages itself.
        assert!(decode::<serde::de::IgnoredAny>(&nested(NESTING_MAX)).is_ok());
        assert!(decode::<serde::de::IgnoredAny>(&nested(NESTING_MAX + 1)).is_err());
        assert!(decode::<serde::de::IgnoredAny>(&nested(1 << 20)).is_err());
    }

    #[test]
    fn messages_are_counted_before_they_are_read() {
        for (count, fine) in [(FRAME_MESSAGES_MAX, true), (FRAME_MESSAGES_MAX + 1, false)] {
            let list = rmp_serde::to_vec(&vec![0u8; count]).expect("list");
            assert_eq!(decode::<u8>(&list).is_ok(), fine, "{count}");
        }
        // What is announced and does not come costs nothing.
        assert!(decode::<u8>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn many_messages_become_several_frames() {
        let messages = vec![0u8; FRAME_MESSAGES_MAX + 1];
        let frames = encode(&messages).expect("frames");
        assert_eq!(frames.len(), 2);
        let back: Vec<u8> = frames.iter().flat_map(|frame| decode::<u8>(frame).expect("list")).collect();
        assert_eq!(back, messages);
    }
}
