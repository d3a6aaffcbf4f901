//! Both sides of TLS over real connections, with certificates of an authority that is made here.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::config::{Demand, Secured, VersionMin};
use super::*;
use crate::telemetry::Metrics;
use crate::units::Span;

/// An authority, and a folder with what it has issued.
struct House {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    metrics: Metrics,
}

impl House {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let house = Self { authority, folder: tempfile::tempdir().unwrap(), metrics: Metrics::new() };
        fs::write(house.path("authority.pem"), house.authority.pem()).unwrap();
        house.issue("server");
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>.key`.
    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_authorities: PathBuf::new(),
            client_certificates: Demand::Required,
            listeners: vec![Secured::Http],
            version_min: VersionMin::Tls12,
            reload_interval: Span(Duration::from_secs(3600)),
        }
    }

    fn start(&self, change: impl FnOnce(&mut TlsConfig)) -> Result<Tls, TlsError> {
        let mut config = self.config();
        change(&mut config);
        Tls::start(&config, self.metrics.tls.clone()).map(|tls| tls.expect("a certificate is configured"))
    }

    fn trusted(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    /// Trusts the authority; shows a certificate where one is named.
    fn client(&self, shown: Option<&str>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.trusted());
        let mut client = match shown {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let read = |ending: &str| fs::read(self.path(&format!("{name}.{ending}"))).unwrap();
                let chain = vec![CertificateDer::from_pem_slice(&read("pem")).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&read("key")).unwrap()).unwrap()
            }
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        client
    }

    fn failed(&self) -> u64 {
        self.metrics.tls.reloads_failed.get()
    }
}

/// Takes one connection and echoes five bytes over it.
async fn echo(tls: &Tls, time_max: Duration) -> (SocketAddr, JoinHandle<Result<(), HandshakeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = tls.clone();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = accept(stream, &tls, time_max).await?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        Ok(stream.shutdown().await?)
    });
    (address, served)
}

/// The certificate that the server has shown.
async fn ask(tls: &Tls, client: ClientConfig) -> std::io::Result<CertificateDer<'static>> {
    let (address, served) = echo(tls, LONG).await;
    let stream = TcpStream::connect(address).await?;
    let mut stream =
        TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    stream.write_all(b"hello").await?;
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await?;
    assert_eq!((&bytes, stream.get_ref().1.alpn_protocol()), (b"hello", Some(&b"h2"[..])));
    served.await.unwrap().unwrap();
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

#[tokio::test]
async fn a_certificate_is_taken_anew_when_its_files_change() {
    let house = House::new();
    let tls = house.start(|_| {}).unwrap();
    let first = ask(&tls, house.client(None)).await.unwrap();
    house.issue("server");
    assert_eq!(ask(&tls, house.client(None)).await.unwrap(), first, "nobody has looked yet");
    tls.0.look();
    assert_ne!(ask(&tls, house.client(None)).await.unwrap(), first);
    assert_eq!(house.failed(), 0);
}

/// As a cluster mounts secrets: a folder's link is changed in one step.
#[tokio::test]
async fn files_may_be_links_that_are_changed_and_are_looked_at_by_themselves() {
    let house = House::new();
    let [old, new, now] = ["old", "new", "now"].map(|name| house.path(name));
    for folder in [&old, &new] {
        fs::create_dir(folder).unwrap();
        house.issue("server");
        for file in ["server.pem", "server.key"] {
            fs::rename(house.path(file), folder.join(file)).unwrap();
        }
    }
    symlink(&old, &now).unwrap();
    let tls = house.start(|config| {
        (config.certificate, config.key) = (now.join("server.pem"), now.join("server.key"));
        config.reload_interval = Span(Duration::from_millis(20));
    });
    let tls = tls.unwrap();
    let first = ask(&tls, house.client(None)).await.unwrap();
    symlink(&new, house.path("next")).unwrap();
    fs::rename(house.path("next"), &now).unwrap();
    for _ in 0..200 {
        if ask(&tls, house.client(None)).await.unwrap() != first {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the certificate was not taken anew");
}

#[tokio::test]
async fn files_that_do_not_go_together_leave_what_serves() {
    let house = House::new();
    let tls = house.start(|_| {}).unwrap();
    let first = ask(&tls, house.client(None)).await.unwrap();
    house.issue("other");
    fs::copy(house.path("other.pem"), house.path("server.pem")).unwrap();
    tls.0.look();
    assert_eq!((ask(&tls, house.client(None)).await.unwrap() == first, house.failed()), (true, 1));
    tls.0.look();
    assert_eq!(house.failed(), 1, "told once");
    // The key comes a moment later.
    fs::copy(house.path("other.key"), house.path("server.key")).unwrap();
    tls.0.look();
    assert_ne!(ask(&tls, house.client(None)).await.unwrap(), first);
    fs::remove_file(house.path("server.key")).unwrap();
    tls.0.look();
    assert_eq!((ask(&tls, house.client(None)).await.is_ok(), house.failed()), (true, 2));
    tls.0.look();
    assert_eq!(house.failed(), 2, "told once");
}

#[tokio::test]
async fn clients_show_certificates_where_they_must() {
    let house = House::new();
    house.issue("client");
    let stranger = House::new();
    let demanding = |demand| {
        house.start(|config| {
            (config.client_authorities, config.client_certificates) = (house.path("authority.pem"), demand)
        })
    };
    for (demand, without) in [(Demand::Required, false), (Demand::Optional, true)] {
        let tls = demanding(demand).unwrap();
        assert!(ask(&tls, house.client(Some("client"))).await.is_ok(), "{demand:?}");
        assert_eq!(ask(&tls, house.client(None)).await.is_ok(), without, "{demand:?}");
        // Of an authority that is not known.
        fs::copy(stranger.path("server.pem"), house.path("stranger.pem")).unwrap();
        fs::copy(stranger.path("server.key"), house.path("stranger.key")).unwrap();
        assert!(ask(&tls, house.client(Some("stranger"))).await.is_err(), "{demand:?}");
    }
}

#[tokio::test]
async fn an_old_version_may_be_refused() {
    let house = House::new();
    for (version_min, taken) in [(VersionMin::Tls12, true), (VersionMin::Tls13, false)] {
        let tls = house.start(|config| config.version_min = version_min).unwrap();
        let old = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS12]);
        let mut old = old.unwrap().with_root_certificates(house.trusted()).with_no_client_auth();
        old.alpn_protocols = vec![b"h2".to_vec()];
        assert_eq!(ask(&tls, old).await.is_ok(), taken, "{version_min:?}");
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_and_who_says_nothing_is_not_waited_for() {
    let house = House::new();
    let tls = house.start(|_| {}).unwrap();
    let (address, served) = echo(&tls, LONG).await;
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.ends_with("expects TLS (https://), got plain HTTP\"}\n"),
        "{answer}"
    );
    drop(plain);
    assert!(matches!(served.await.unwrap(), Err(HandshakeError::Plain)));

    let (address, served) = echo(&tls, Duration::from_millis(50)).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    assert!(matches!(served.await.unwrap(), Err(HandshakeError::Slow)));

    let (address, served) = echo(&tls, LONG).await;
    drop(TcpStream::connect(address).await.unwrap());
    assert!(matches!(served.await.unwrap(), Err(HandshakeError::Silent)));

    let (address, served) = echo(&tls, LONG).await;
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(b"\x05\x01\x00 what is this").await.unwrap();
    assert!(matches!(served.await.unwrap(), Err(HandshakeError::Broken(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_is_answered_whatever_the_files_are_now() {
    let house = House::new();
    let greet = |config: &TlsConfig, address| {
        block_in_place(|| -> std::io::Result<String> {
            use std::io::{Read, Write};
            let mut secure = connect(config, std::net::TcpStream::connect(address)?)?;
            secure.write_all(b"hello")?;
            let mut answer = String::new();
            secure.read_to_string(&mut answer).map(|_| answer)
        })
    };
    let tls = house.start(|_| {}).unwrap();
    fs::write(house.path("server.pem"), "not yet").unwrap();
    let (address, _) = echo(&tls, LONG).await;
    assert_eq!(greet(&house.config(), address).unwrap(), "hello");
    house.issue("server");
    // Its own certificate is shown where one must be, and not where it would be refused.
    let stranger = House::new();
    for (authority, demand, answered) in
        [(&house, Demand::Required, true), (&stranger, Demand::Optional, true), (&stranger, Demand::Required, false)]
    {
        let mut config = house.config();
        (config.client_authorities, config.client_certificates) = (authority.path("authority.pem"), demand);
        let tls = Tls::start(&config, house.metrics.tls.clone()).unwrap().unwrap();
        let (address, _) = echo(&tls, LONG).await;
        assert_eq!(greet(&config, address).is_ok(), answered, "{demand:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_files_is_told() {
    let house = House::new();
    house.issue("other");
    fs::write(house.path("text.pem"), "no PEM").unwrap();
    let wrong = |change: &dyn Fn(&mut TlsConfig)| house.start(change).unwrap_err().to_string();
    for (told, words) in [
        (wrong(&|config| config.certificate = house.path("none.pem")), &["cannot read", "none.pem"][..]),
        (
            wrong(&|config| config.certificate = house.path("text.pem")),
            &["expected a certificate", "text.pem", "found none"],
        ),
        (wrong(&|config| config.key = house.path("server.pem")), &["expected a private key", "server.pem"]),
        (wrong(&|config| config.key = house.path("other.key")), &["server.pem", "other.key", "do not go together"]),
        (wrong(&|config| config.client_authorities = house.path("text.pem")), &["expected a certificate", "text.pem"]),
    ] {
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
    let off = TlsConfig { certificate: PathBuf::new(), ..house.config() };
    assert!(Tls::start(&off, house.metrics.tls.clone()).unwrap().is_none());
}

#[tokio::test]
async fn metrics_say_when_the_certificate_ends() {
    let house = House::new();
    let text = |house: &House| String::from_utf8(house.metrics.render()).unwrap();
    assert!(!text(&house).contains("kinglet_tls_certificate_not_after_timestamp_seconds "), "none is served");
    let _tls = house.start(|_| {}).unwrap();
    // What the library that issues them takes for "for ever": the first day of 4096.
    assert!(
        text(&house).contains("kinglet_tls_certificate_not_after_timestamp_seconds 67090118400"),
        "{}",
        text(&house)
    );
}

const LONG: Duration = Duration::from_secs(10);
