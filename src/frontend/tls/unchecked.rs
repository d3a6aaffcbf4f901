//! The client of `kinglet healthcheck`. It asks whether a server answers, sends nothing and believes little, so that it does not ask
//! whose certificate it is shown: files that have just changed would make a server look ill that serves with those before.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

use super::config::{Demand, TlsConfig};
use super::files::{certificates, read};
use super::provider;

/// A secure connection to whoever answers.
#[derive(Debug)]
pub struct Secure(StreamOwned<ClientConnection, TcpStream>);

/// Where clients must show a certificate by these settings, the server's own is shown, which may do.
///
/// # Errors
/// When that certificate or its key cannot be read.
pub fn connect(config: &TlsConfig, stream: TcpStream) -> io::Result<Secure> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())));
    let is_demanded = config.asks_clients() && config.client_certificates == Demand::Required;
    let client = if is_demanded {
        let chain = read(&config.certificate).and_then(|text| certificates(&config.certificate, &text));
        let key = read(&config.key).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(io::Error::other)?;
        builder.with_client_auth_cert(chain.map_err(io::Error::other)?, key).map_err(io::Error::other)?
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from("localhost").expect("a valid name");
    let connection = ClientConnection::new(Arc::new(client), name).map_err(io::Error::other)?;
    Ok(Secure(StreamOwned::new(connection, stream)))
}

impl Read for Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
