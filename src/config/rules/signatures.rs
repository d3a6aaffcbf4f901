//! What settings of signatures must be to decide anything.

use super::{Broken, Config, impossible, wrong};
use crate::integrity::{Policy, relative};

pub(super) fn broken(config: &Config) -> Vec<Broken> {
    let signatures = &config.signatures;
    let mut broken = Vec::new();
    let trusts_nobody = signatures.keys.is_empty() && signatures.certificates.is_empty();
    if signatures.policy != Policy::Off && trusts_nobody {
        let text = format!(
            "at least one file in signatures.keys or signatures.certificates where signatures.policy is \"{}\"",
            signatures.policy
        );
        let keys = vec!["signatures.policy", "signatures.keys", "signatures.certificates"];
        broken.push(Broken { keys, cause: impossible(text) });
    }
    if !signatures.identities.is_empty() && signatures.certificates.is_empty() {
        let text = "signatures.certificates where signatures.identities is set".to_owned();
        broken.push(Broken { keys: vec!["signatures.identities", "signatures.certificates"], cause: impossible(text) });
    }
    if signatures.file.contains('/') || relative(&signatures.file).is_none() {
        broken.push(wrong("signatures.file", "a plain file name", &format!("{:?}", signatures.file)));
    }
    if let Some(path) = signatures.ignored.iter().find(|path| relative(path).is_none()) {
        broken.push(wrong("signatures.ignored", "paths within a model's folder", &format!("{path:?}")));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn signatures_values() {
        let mut whole = Config::default();
        whole.signatures.policy = Policy::Require;
        whole.signatures.certificates = vec!["root.pem".into()];
        whole.signatures.identities = vec!["release@example.com".into()];
        assert!(broken(&whole).is_empty());
        let nobody = |config: &mut Config| config.signatures.policy = Policy::Warn;
        check(nobody, &["signatures.policy", "signatures.keys", "signatures.certificates"], "at least one file");
        let whose = |config: &mut Config| config.signatures.identities = vec!["a".into()];
        check(whose, &["signatures.identities", "signatures.certificates"], "signatures.certificates where");
        check(|config| config.signatures.file = "a/b".into(), &["signatures.file"], "a plain file name");
        check(|config| config.signatures.ignored = vec!["../a".into()], &["signatures.ignored"], "paths within");
        check(|config| config.signatures.resources_max = 0, &["signatures.resources_max"], "at least 1");
    }
}
