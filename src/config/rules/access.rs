//! What settings of access must have beside one another.

use super::{Broken, Config, impossible};

pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let access = &config.access;
    let mut broken = Vec::new();
    for (key, text) in [
        ("access.token_issuer", &access.token_issuer),
        ("access.token_audience", &access.token_audience),
        ("access.token_tenant_claim", &access.token_tenant_claim),
        ("access.token_scopes_claim", &access.token_scopes_claim),
    ] {
        if access.takes_tokens() && text.is_empty() {
            let cause = impossible(format!("{key} where access.jwks_file is set"));
            broken.push(Broken { keys: vec![key, "access.jwks_file"], cause });
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn tokens_need_an_issuer_and_an_audience() {
        let issuer = |config: &mut Config| {
            config.access.jwks_file = "keys.json".into();
            config.access.token_audience = "kinglet".into();
        };
        check(issuer, &["access.token_issuer", "access.jwks_file"], "access.token_issuer where");
        let claim = |config: &mut Config| {
            config.access.jwks_file = "keys.json".into();
            config.access.token_issuer = "issuer".into();
            config.access.token_audience = "kinglet".into();
            config.access.token_tenant_claim.clear();
        };
        check(claim, &["access.token_tenant_claim", "access.jwks_file"], "access.token_tenant_claim where");
    }
}
