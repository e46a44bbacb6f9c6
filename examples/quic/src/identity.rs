//! What all generations have in common: the certificate with its key, and a secret. They are files, so that they outlive each process.
//!
//! From the secret come the keys of stateless resets and of address tokens. With one key for all, a generation can tell the clients of a
//! killed one that their connections are gone, and a token of one is good with the next.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig, VarInt};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::protocol::ALPN;

const CERTIFICATE: &str = "certificate.der";
const KEY: &str = "key.der";
const SECRET: &str = "secret";

/// The name that the certificate is for.
pub const NAME: &str = "localhost";

/// A connection of which nothing is heard ends after this time, unless the server says less.
pub const IDLE: Duration = Duration::from_secs(30);
/// So often a client that waits says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The server sends no more of a file than this beyond what the client has read.
const WINDOW: u32 = 32 << 10;

/// What the server has, read from a directory.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    secret: Vec<u8>,
}

impl Identity {
    /// Makes one, in files that only this user can read.
    ///
    /// # Errors
    ///
    /// They cannot be made, or are there already.
    pub fn create(directory: &Path) -> Result<(), Box<dyn Error>> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| "the system has no random numbers")?;
        for (name, bytes) in [(CERTIFICATE, made.cert.der().as_ref()), (KEY, made.signing_key.serialized_der()), (SECRET, &secret)] {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))?.write_all(bytes)?;
        }
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn read(directory: &Path) -> io::Result<Identity> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
        };
        Ok(Identity { certificate: read(CERTIFICATE)?.into(), key: read(KEY)?.into(), secret: read(SECRET)? })
    }

    /// For connections that come in.
    ///
    /// # Errors
    ///
    /// The certificate is none, or the key is not its own.
    pub fn server(&self, idle: Duration) -> Result<ServerConfig, Box<dyn Error>> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // A file may be asked for twice: who sends a request again gains nothing.
        tls.max_early_data_size = u32::MAX;
        let tokens = hkdf::Salt::new(hkdf::HKDF_SHA256, b"address tokens").extract(&self.secret);
        let mut config = ServerConfig::new(Arc::new(QuicServerConfig::try_from(tls)?), Arc::new(tokens));
        config.transport_config(Arc::new(transport(idle, None)?));
        Ok(config)
    }

    /// For the socket of the server.
    pub fn endpoint(&self) -> EndpointConfig {
        let resets = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), b"stateless resets");
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, resets.as_ref())));
        // All clients of a killed generation are to be told, not fifty a second. A reset is smaller than what it answers.
        config.min_reset_interval(Duration::ZERO);
        config
    }

    /// For clients, which trust this certificate and no other.
    ///
    /// # Errors
    ///
    /// The certificate is none.
    pub fn client(&self, protocols: Vec<Vec<u8>>) -> Result<ClientConfig, Box<dyn Error>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = protocols;
        tls.enable_early_data = true;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport(IDLE, Some(KEEP_ALIVE))?));
        Ok(config)
    }
}

fn transport(idle: Duration, keep_alive: Option<Duration>) -> Result<TransportConfig, Box<dyn Error>> {
    let mut config = TransportConfig::default();
    config.max_idle_timeout(Some(idle.try_into()?)).keep_alive_interval(keep_alive);
    config.stream_receive_window(VarInt::from_u32(WINDOW)).max_concurrent_bidi_streams(VarInt::from_u32(100));
    Ok(config)
}
