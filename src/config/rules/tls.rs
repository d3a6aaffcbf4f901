//! Rules of TLS that no file needs to be read for.

use std::path::Path;

use super::{Broken, Config, impossible};
use crate::frontend::tls::config::Secured;

pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let tls = &config.tls;
    let is_set = |path: &Path| !path.as_os_str().is_empty();
    let mut broken = Vec::new();
    if tls.is_on() != is_set(&tls.key) {
        let text = "both of tls.certificate and tls.key, or none of them".to_owned();
        broken.push(Broken { keys: vec!["tls.certificate", "tls.key"], cause: impossible(text) });
    }
    if is_set(&tls.client_authorities) && !tls.is_on() {
        let text = "tls.certificate where tls.client_authorities is set".to_owned();
        broken.push(Broken { keys: vec!["tls.client_authorities", "tls.certificate"], cause: impossible(text) });
    }
    if config.http.listen == config.grpc.listen && tls.covers(Secured::Http) != tls.covers(Secured::Grpc) {
        let text = format!(
            "tls.listeners to name both of \"http\" and \"grpc\", or none of them, where they share an address ({})",
            config.http.listen
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
        check(pair, &[], "");
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
    }
}
