//! Rules of TLS that no file needs to be read for.

use super::{Broken, Config, impossible};
use crate::frontend::tls::config::Secured;

pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let tls = &config.tls;
    let mut broken = Vec::new();
    if tls.is_on() == tls.key.as_os_str().is_empty() {
        let text = "both of tls.certificate and tls.key, or none of them".to_owned();
        broken.push(Broken { keys: vec!["tls.certificate", "tls.key"], cause: impossible(text) });
    }
    if tls.asks_clients() && !tls.is_on() {
        let text = "tls.certificate where tls.client_authorities is set".to_owned();
        broken.push(Broken { keys: vec!["tls.client_authorities", "tls.certificate"], cause: impossible(text) });
    }
    if tls.is_on() && tls.listeners.is_empty() {
        let text =
            "at least one of \"http\", \"grpc\" and \"admin\" in tls.listeners where tls.certificate is set".to_owned();
        broken.push(Broken { keys: vec!["tls.listeners", "tls.certificate"], cause: impossible(text) });
    }
    let http = &config.http.listen;
    let is_shared = http.tcp().is_some() && http.is_shared_with(&config.grpc.listen);
    if is_shared && tls.covers(Secured::Http) != tls.covers(Secured::Grpc) {
        let text = format!(
            "tls.listeners to name both of \"http\" and \"grpc\", or none of them, where they share an address ({http})"
        );
        broken.push(Broken { keys: vec!["tls.listeners", "grpc.listen"], cause: impossible(text) });
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn tls_values() {
        let pair = |config: &mut Config| {
            config.tls.certificate = "server.pem".into();
            config.tls.key = "server.key".into();
        };
        let mut whole = Config::default();
        pair(&mut whole);
        assert!(broken(&whole).is_empty());
        for wrong in
            [(|config: &mut Config| config.tls.certificate = "server.pem".into()) as fn(&mut Config), |config| {
                config.tls.key = "server.key".into()
            }]
        {
            check(wrong, &["tls.certificate", "tls.key"], "both of");
        }
        let authorities = |config: &mut Config| config.tls.client_authorities = "clients.pem".into();
        check(authorities, &["tls.client_authorities", "tls.certificate"], "tls.certificate where");
        let halves = |config: &mut Config| {
            pair(config);
            config.grpc.listen = config.http.listen.clone();
            config.tls.listeners = vec![Secured::Http];
        };
        check(halves, &["tls.listeners", "grpc.listen"], "both of");
        let nobody = |config: &mut Config| {
            pair(config);
            config.tls.listeners.clear();
        };
        check(nobody, &["tls.listeners", "tls.certificate"], "at least one of");
        let mut apart = Config::default();
        halves(&mut apart);
        // The system finds two ports.
        (apart.http.listen, apart.grpc.listen) = ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
        assert!(broken(&apart).is_empty());
    }
}
