//! The table of calls against every route and every RPC there is, and the guard's answers.

use std::fs;

use http::StatusCode;
use prost_reflect::DescriptorPool;
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::digest::Digest;
use crate::frontend::rest::openapi_tests::all_patterns;
use crate::proto::{DESCRIPTOR_SET, SERVING_DESCRIPTOR_SET};
use crate::telemetry::AccessMetrics;

const METHODS: [Method; 4] = [Method::GET, Method::HEAD, Method::POST, Method::DELETE];

fn need<'a>(method: &Method, path: &'a str) -> Option<Need<'a>> {
    calls::need(method, path, &None)
}

#[tokio::test]
async fn every_route_has_a_row() {
    let patterns = all_patterns().await;
    assert!(patterns.len() > 70, "{}", patterns.len());
    for pattern in patterns {
        let path = pattern.replace("{model}", "m").replace(['{', '}'], "");
        for method in METHODS {
            let need = need(&method, &path);
            assert!(need.is_some(), "{method} {pattern} has no row in calls.rs");
            // Whoever is asked for a model is asked for that one.
            if pattern.contains("{model}")
                && let Some(Need::Does(verb, what)) = need
                && verb != Verb::Admin
            {
                assert_eq!(what, What::Model("m".into()), "{method} {pattern}");
            }
        }
    }
}

#[test]
fn every_rpc_has_a_row() {
    let mut calls = 0;
    for set in [DESCRIPTOR_SET, SERVING_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        let pool = DescriptorPool::decode(set).unwrap();
        for service in pool.services() {
            for call in service.methods() {
                calls += 1;
                let path = format!("/{}/{}", service.full_name(), call.name());
                let need = need(&Method::POST, &path).unwrap_or_else(|| panic!("{path} has no row in calls.rs"));
                let input = call.input();
                let names_a_model =
                    ["model_name", "model_spec"].iter().any(|field| input.get_field_by_name(field).is_some())
                        || (input.name().starts_with("Model") && input.get_field_by_name("name").is_some());
                let is_asked = matches!(need, Need::Does(_, What::SomeModel) | Need::Does(Verb::Admin, _));
                assert!(is_asked || !names_a_model, "{path} names a model that nobody asks for");
            }
        }
    }
    assert!(calls > 30, "{calls}");
    assert_eq!(need(&Method::POST, "/inference.GRPCInferenceService/New"), None);
}

#[test]
fn paths_are_read_as_routers_read_them() {
    let infer = |name: &'static str| Some(Need::Does(Verb::Infer, What::Model(name.into())));
    for (path, wanted) in [
        ("/v2/models/a/infer", infer("a")),
        ("/v2/models/%61/infer", infer("a")),
        ("/v2/models/a%2Fb/infer", infer("a/b")),
        ("/v2/models/versions/infer", infer("versions")),
        ("/v2/models/a/versions/1/infer", infer("a")),
        ("/v2/models/stats/infer", infer("stats")),
        ("/v1/models/a:predict", infer("a")),
        ("/v1/models/a%3Apredict", infer("a")),
        ("/v1/models/a:b:predict", infer("a:b")),
        ("/v1/models/a/versions/1:predict", infer("a")),
        ("/v2/models/a/trace/setting", Some(calls::OPERATORS)),
        ("/v2/repository/models/a/load", Some(Need::Does(Verb::Load, What::Model("a".into())))),
        ("/v2/repository/r/models/a/unload", Some(Need::Does(Verb::Load, What::Model("a".into())))),
        ("/v2/repository/models/models/a/load", Some(Need::Does(Verb::Load, What::Model("a".into())))),
        ("/v2/models/a/infer/", None),
        ("//v2/models/a/infer", None),
        ("/V2/models/a/infer", None),
        ("/%76%32/models/a/infer", None),
        ("/v2/models/a/versions/1/2/3/4/5/6/7/infer", None),
        ("", None),
        ("*", None),
    ] {
        assert_eq!(need(&Method::POST, path), wanted, "{path}");
    }
    let vertex = Some(["/v2/models/a".to_owned(), "/v2/health/live".to_owned()]);
    let asked = |path| calls::need(&Method::POST, path, &vertex);
    assert_eq!(asked("/v2/models/a"), Some(Need::Open(Public::Health)));
    assert_eq!(asked("/v2/health/live"), Some(Need::Does(Verb::Infer, What::SomeModel)));
}

struct Door {
    guard: Guard,
    _folder: TempDir,
}

fn door(change: impl FnOnce(&mut Config), address: &str) -> Door {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    change(&mut config);
    if config.access.tenants_file.as_os_str() == "here" {
        config.access.tenants_file = folder.path().join("tenants.toml");
        let tenants = format!(
            "[tenants.a]\nscopes = [\"infer:m\"]\nkeys = [{{ name = \"k\", sha256 = \"{}\" }}]\n\
             [tenants.root]\nscopes = [\"*\"]\nkeys = [{{ name = \"k\", sha256 = \"{}\" }}]",
            Digest::of(b"key"),
            Digest::of(b"root"),
        );
        fs::write(&config.access.tenants_file, tenants).unwrap();
    }
    let access = Access::start(&config.access, AccessMetrics::apart()).unwrap();
    let guard = Guard::new(access, Browsers::default(), Some(&config.dialects), &address.parse().unwrap());
    Door { guard, _folder: folder }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let builder = Request::builder().method(method).uri(path);
    headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
}

impl Door {
    #[expect(clippy::result_large_err, reason = "as admit has it")]
    fn asked(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<bool, Response<Body>> {
        self.guard.admit(&mut request(method, path, headers), None).map(|audited| audited.is_some())
    }

    fn status(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.asked(method, path, headers).map_or_else(|refused| refused.status().as_u16(), |_| 200)
    }
}

const KEY: (&str, &str) = ("authorization", "Bearer key");
const ROOT: (&str, &str) = ("x-api-key", "root");

#[tokio::test]
async fn every_route_is_denied_by_default() {
    let door = door(|config| config.access.tenants_file = "here".into(), "127.0.0.1:1");
    for pattern in all_patterns().await {
        let path = pattern.replace(['{', '}'], "");
        let is_open = path.contains("/health/") || path == "/ping" || path == "/metrics";
        for method in METHODS {
            let wanted = if is_open { 200 } else { 401 };
            assert_eq!(door.status(method.as_str(), &path, &[]), wanted, "{method} {pattern}");
            assert_eq!(door.status(method.as_str(), &path, &[ROOT]), 200, "{method} {pattern}");
            assert_eq!(door.status(method.as_str(), &path, &[("x-api-key", "other")]), wanted, "{method} {pattern}");
        }
    }
}

#[tokio::test]
async fn scopes_are_asked_for() {
    let door = door(|config| config.access.tenants_file = "here".into(), "unix:/s");
    for (method, path, status) in [
        ("POST", "/v2/models/m/infer", 200),
        ("GET", "/v2/models/m", 200),
        ("GET", "/v2", 200),
        ("POST", "/v2/repository/index", 200),
        ("POST", "/v2/models/n/infer", 403),
        ("GET", "/v2/models/n/config", 403),
        ("POST", "/v2/repository/models/m/load", 403),
        ("POST", "/v2/logging", 403),
        ("POST", "/admin/config/reload", 403),
        ("GET", "/ui/", 403),
        ("POST", "/v2/systemsharedmemory/region/r/register", 403),
        ("GET", "/new/route", 403),
    ] {
        assert_eq!(door.status(method, path, &[KEY]), status, "{method} {path}");
        assert_eq!(door.status(method, path, &[ROOT]), 200, "{method} {path}");
    }
    // Changes are told in the audit log, reads are not.
    assert!(door.asked("POST", "/v2/repository/models/m/load", &[ROOT]).unwrap());
    assert!(!door.asked("GET", "/v2/logging", &[ROOT]).unwrap());
    assert!(!door.asked("POST", "/v2/models/m/infer", &[ROOT]).unwrap());
}

#[tokio::test]
async fn refusals_have_the_form_of_their_protocol() {
    let door = door(|config| config.access.tenants_file = "here".into(), "127.0.0.1:1");
    let refused = |path: &str, kind: &str| door.asked("POST", path, &[("content-type", kind)]).unwrap_err();
    let rest = refused("/v2/models/m/infer", "application/json");
    assert_eq!(rest.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(rest.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"kinglet\"");
    let page = door.asked("GET", "/ui/", &[]).unwrap_err();
    assert!(page.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic"));
    let of_page = door.asked("POST", "/v2/repository/index", &[("sec-fetch-site", "same-origin")]).unwrap_err();
    assert!(of_page.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic"));
    for kind in ["application/grpc", "application/grpc-web+proto"] {
        let grpc = refused("/inference.GRPCInferenceService/ModelInfer", kind);
        assert_eq!(grpc.status(), StatusCode::OK);
        assert_eq!(
            (&grpc.headers()["grpc-status"], &grpc.headers()["content-type"]),
            (&"16".parse().unwrap(), &kind.parse().unwrap())
        );
    }
}

#[tokio::test]
async fn a_password_is_taken_from_own_pages_alone() {
    let door = door(|config| config.access.tenants_file = "here".into(), "127.0.0.1:1");
    // "x:root"
    let basic = ("authorization", "Basic eDpyb290");
    assert_eq!(door.status("GET", "/ui/", &[basic]), 200);
    assert_eq!(
        door.status("POST", "/v2/models/m/infer", &[basic, ("host", "127.0.0.1:1"), ("origin", "http://127.0.0.1:1")]),
        200
    );
    assert_eq!(
        door.status("POST", "/v2/models/m/infer", &[basic, ("host", "127.0.0.1:1"), ("origin", "http://evil.example")]),
        403
    );
    assert_eq!(door.status("POST", "/v2/models/m/infer", &[basic, ("sec-fetch-site", "cross-site")]), 403);
    // A page that was given a key may use it wherever it stands: no browser adds it.
    assert_eq!(door.status("POST", "/v2/models/m/infer", &[ROOT, ("origin", "http://app.example")]), 200);
}

#[tokio::test]
async fn addresses_that_others_reach_are_guarded_where_nobody_is_known() {
    let control = ("POST", "/v2/repository/models/m/load");
    let calls = [control, ("POST", "/v2/logging"), ("GET", "/ui/"), ("POST", "/admin/config/reload")];
    for private in ["127.0.0.1:1", "[::1]:1", "unix:/s"] {
        let door = door(|_| {}, private);
        assert!(calls.iter().all(|(method, path)| door.status(method, path, &[]) == 200), "{private}");
    }
    for public in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
        let guarded = door(|_| {}, public);
        assert!(calls.iter().all(|(method, path)| guarded.status(method, path, &[]) == 403), "{public}");
        for open in
            ["/v2/models/m/infer", "/v2/repository/index", "/v2/models/m", "/metrics", "/docs/", "/v2/health/live"]
        {
            assert_eq!(guarded.status("POST", open, &[]), 200, "{open}");
        }
        let open = door(|config| config.access.open_control = true, public);
        assert!(calls.iter().all(|(method, path)| open.status(method, path, &[]) == 200), "{public}");
    }
}

#[tokio::test]
async fn what_is_public_is_a_setting() {
    let nothing = door(
        |config| {
            config.access.tenants_file = "here".into();
            config.access.public.clear();
        },
        "127.0.0.1:1",
    );
    for path in ["/v2/health/ready", "/metrics", "/openapi.json", "/grpc.health.v1.Health/Check"] {
        assert_eq!(nothing.status("GET", path, &[]), 401, "{path}");
        assert_eq!(nothing.status("GET", path, &[KEY]), 200, "{path}");
    }
    let docs = |config: &mut Config| {
        config.access.tenants_file = "here".into();
        config.access.public = vec![Public::Docs];
    };
    assert_eq!(door(docs, "127.0.0.1:1").status("GET", "/openapi.json", &[]), 200);
}
