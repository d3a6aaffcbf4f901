//! What the settings of dialects must be to be served.

use super::{Broken, Config, impossible, wrong};
use crate::infer::ModelName;

pub(super) fn broken(config: &Config) -> impl Iterator<Item = Broken> {
    let dialects = &config.dialects;
    let (health, predict) = ("dialects.vertex_health_route", "dialects.vertex_predict_route");
    let routes = [(health, &dialects.vertex_health_route), (predict, &dialects.vertex_predict_route)];
    let no_path = routes.into_iter().filter(|(_, route)| dialects.vertex && !route.starts_with('/'));
    let no_path = no_path.map(|(key, _)| Broken {
        keys: vec![key, "dialects.vertex"],
        cause: impossible(format!("a path that begins with \"/\" in {key}, for dialects.vertex")),
    });
    let is_same = dialects.vertex && dialects.vertex_predict_route == dialects.vertex_health_route;
    let is_same = (is_same && dialects.vertex_health_route.starts_with('/')).then(|| Broken {
        keys: vec![predict, health],
        cause: impossible(format!("another path in {predict} than in {health}")),
    });
    let name = &dialects.default_model;
    let no_name = (!name.is_empty() && name.parse::<ModelName>().is_err())
        .then(|| wrong("dialects.default_model", "the name of a model, or none", &format!("{name:?}")));
    no_path.chain(is_same).chain(no_name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::*;

    #[test]
    fn dialects_values() {
        check(
            |config| config.dialects.default_model = "a/b".into(),
            &["dialects.default_model"],
            "the name of a model",
        );
        let vertex = |health: &'static str, predict: &'static str| {
            move |config: &mut Config| {
                config.dialects.vertex = true;
                config.dialects.vertex_health_route = health.into();
                config.dialects.vertex_predict_route = predict.into();
            }
        };
        let health = ["dialects.vertex_health_route", "dialects.vertex"];
        check(vertex("health", "/predict"), &health, "begins with \"/\"");
        let predict = ["dialects.vertex_predict_route", "dialects.vertex"];
        check(vertex("/health", ""), &predict, "begins with \"/\"");
        let both = ["dialects.vertex_predict_route", "dialects.vertex_health_route"];
        check(vertex("/a", "/a"), &both, "another path");
    }
}
