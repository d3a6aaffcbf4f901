//! The table against the routers, and the documents against themselves.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Request, header};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::document::{COMPONENTS, server_paths};
use super::table::{self, TAGS};
use super::*;
use crate::config::Config;
use crate::frontend::{admin, rest};
use crate::repository::config::Control;
use crate::telemetry::config::LogLevel;
use crate::telemetry::logs::Logs;
use crate::tensor::DType;

type Calls = BTreeSet<(String, String)>;

fn config(is_all_on: bool) -> Config {
    let mut config = Config::default();
    config.repository.control = Control::Explicit;
    config.repository.paths.clear();
    config.admin.ui = is_all_on;
    (config.dialects.v1, config.dialects.sagemaker) = (is_all_on, is_all_on);
    config
}

/// The patterns of a router's routes: axum tells them nowhere else.
fn patterns<S>(router: &Router<S>) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let named = shown.split("RouteId(").filter_map(|part| part.split_once("): \"")?.1.split_once('"'));
    let own = named.map(|(pattern, _)| pattern).filter(|pattern| !pattern.contains("__private") && *pattern != "/");
    own.map(str::to_owned).collect()
}

/// Of all routes of all listeners, whatever is served.
pub(crate) async fn all_patterns() -> BTreeSet<String> {
    let config = config(true);
    let frontend = crate::app::build(&config, Logs::new(LogLevel::Error)).await.unwrap();
    let rest = patterns(&rest::router(frontend.clone(), &config.http));
    rest.into_iter().chain(patterns(&admin::router(frontend, mpsc::channel(1).0, &config.admin))).collect()
}

/// The verbs of a path, as its answer to another one tells them.
async fn verbs(router: &Router, path: &str) -> Vec<String> {
    let request = Request::options(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let allowed = response.headers().get(header::ALLOW).unwrap_or_else(|| panic!("{path}: {}", response.status()));
    let verbs = allowed.to_str().unwrap().split(',').filter(|verb| *verb != "HEAD");
    verbs.map(str::to_ascii_lowercase).collect()
}

/// Calls for programs: no page for people, nothing that is only refused, and `/v2` in one spelling.
async fn routed(router: &Router) -> Calls {
    let unserved = patterns(&rest::unserved());
    let mut calls = Calls::new();
    for pattern in patterns(router) {
        let is_page =
            pattern == "/v2/" || pattern.ends_with("/docs") || PAGES.iter().any(|page| pattern.starts_with(page));
        if !unserved.contains(&pattern) && !is_page {
            let path = pattern.replace(['{', '}'], "");
            calls.extend(verbs(router, &path).await.into_iter().map(|verb| (pattern.clone(), verb)));
            if pattern.starts_with("/v1/models/") && !pattern.ends_with("/metadata") {
                for verb in [":predict", ":classify", ":regress"] {
                    let allowed = verbs(router, &format!("{path}{verb}")).await;
                    calls.extend(allowed.into_iter().map(|method| (format!("{pattern}{verb}"), method)));
                }
            }
        }
    }
    calls
}

fn described(served: &Served) -> Calls {
    let paths = server_paths(served);
    paths.calls().map(|(path, verb)| (path.to_owned(), verb.to_owned())).collect()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    for is_all_on in [true, false] {
        let config = config(is_all_on);
        let frontend = crate::app::build(&config, Logs::new(LogLevel::Error)).await.unwrap();
        let router = rest::router(frontend.clone(), &config.http);
        let calls = routed(&router).await;
        assert!(calls.len() > 30, "{calls:?}");
        assert_eq!(calls, described(&Served::over_rest(&config.dialects)));
        let router = admin::router(frontend, mpsc::channel(1).0, &config.admin);
        assert_eq!(routed(&router).await, described(&Served::to_operators(config.admin.ui)));
    }
}

#[test]
fn paths_that_a_platform_chooses_go_before_others() {
    let mut dialects = Config::default().dialects;
    dialects.vertex = true;
    (dialects.vertex_health_route, dialects.vertex_predict_route) = ("/v2".into(), "/predict".into());
    let calls = described(&Served::over_rest(&dialects));
    assert!(calls.contains(&("/predict".into(), "post".into())));
    let paths = server_paths(&Served::over_rest(&dialects));
    let written = serde_json::to_value(&paths).unwrap();
    assert_eq!(written["/v2"]["get"]["operationId"], "vertexHealth");
}

#[tokio::test]
async fn a_listener_may_serve_no_documents() {
    let mut config = config(true);
    (config.http.docs, config.admin.docs) = (false, false);
    let frontend = crate::app::build(&config, Logs::new(LogLevel::Error)).await.unwrap();
    let rest = rest::router(frontend.clone(), &config.http);
    let admin = admin::router(frontend, mpsc::channel(1).0, &config.admin);
    for pattern in patterns(&rest).union(&patterns(&admin)) {
        assert!(!pattern.contains("docs") && !pattern.contains("openapi"), "{pattern}");
    }
}

#[test]
fn what_rows_refer_to_is_there() {
    let all = Served { infers: true, v1: true, sagemaker: true, ..Served::to_operators(true) };
    let mut ids = BTreeSet::new();
    for served in [Served { is_admin: false, ..all.clone() }, all] {
        for operation in table::operations(&served) {
            assert!(TAGS.iter().any(|(tag, _)| *tag == operation.tag), "{}", operation.id);
            assert!(!operation.summary.is_empty() && !operation.answers.is_empty(), "{}", operation.id);
        }
        let written = serde_json::to_value(server_paths(&served)).unwrap();
        let operations = written.as_object().unwrap().values().flat_map(|verbs| verbs.as_object().unwrap().values());
        ids.clear();
        for operation in operations {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            check_references(operation);
        }
    }
    check_references(&COMPONENTS);
}

/// Some examples are made for a model.
fn check_references(value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref") {
                let pointer = target.as_str().unwrap().strip_prefix("#/components").unwrap();
                let is_made = pointer.starts_with("/examples/");
                assert!(is_made || COMPONENTS.pointer(pointer).is_some(), "{pointer}");
            }
            fields.values().for_each(check_references);
        }
        Value::Array(items) => items.iter().for_each(check_references),
        _ => {}
    }
}

#[test]
fn datatypes_are_the_servers() {
    let named = DType::ALL.map(DType::name).map(Value::from);
    assert_eq!(COMPONENTS["schemas"]["Datatype"]["enum"], Value::from(named.to_vec()));
}

/// For people.
const PAGES: &[&str] = &["/docs", "/ui"];
