//! The repository as a whole, on real folders, with an engine that reads lines of text.

mod demand;
mod ensembles;
mod lines;
mod unloading;
mod variants;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fake::FakeEngine;
use super::*;
use crate::config::Config;
use crate::engine::{LoadOptions, Pool};
use crate::error::ErrorCode;
use crate::infer::{ModelName, VersionId};
use crate::integrity::Trust;
use crate::metering::Meter;
use crate::telemetry::Metrics;
use crate::units::{ByteSize, Span};

struct House {
    folder: TempDir,
    engine: FakeEngine,
    metrics: Arc<Metrics>,
    repository: Arc<Repository>,
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn config(path: PathBuf, control: Control) -> RepositoryConfig {
    RepositoryConfig {
        paths: vec![path],
        control,
        poll_interval: Span(Duration::from_millis(20)),
        settle_time: Span(Duration::from_millis(100)),
        load_at_start: Vec::new(),
        loads_max: 1,
        loads_waiting_max: 16,
        variants_max: 32,
        ensemble_steps_max: 16,
        temporary_path: "/tmp".into(),
        model_name: String::new(),
        start_with_failures: true,
        pinned: Vec::new(),
        demand_bytes_max: ByteSize(1 << 20),
        demand_waiting_max: 16,
        demand_wait_max: Span(LONG),
    }
}

fn loading(engine: &FakeEngine, metrics: &Arc<Metrics>) -> Loading {
    Loading {
        engine: Arc::new(engine.clone()),
        options: LoadOptions { model_bytes_max: 1000, ..LoadOptions::default() },
        batching: BatchingConfig {
            batch_size_max: 32,
            queue_delay_max: Span::default(),
            queue_requests_max: 512,
            queue_bytes_max: ByteSize(1 << 20),
        },
        pool: Pool::start(Some(2)),
        metrics: Arc::clone(metrics),
        meter: Meter::silent(&Config::default().metering, metrics),
        trust: Arc::new(Trust::none()),
    }
}

impl House {
    async fn new(control: Control, files: &[(&str, &str)]) -> Self {
        Self::with(control, files, |_| {}).await
    }

    async fn with(control: Control, files: &[(&str, &str)], change: impl FnOnce(&mut RepositoryConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), files);
        let mut config = config(folder.path().to_owned(), control);
        change(&mut config);
        let (engine, metrics) = (FakeEngine::default(), Arc::default());
        let repository = Repository::start(config, loading(&engine, &metrics)).await.unwrap();
        timeout(LONG, repository.wait_loaded()).await.unwrap().unwrap();
        Self { folder, engine, metrics, repository }
    }

    fn write(&self, files: &[(&str, &str)]) {
        write(self.folder.path(), files);
    }

    async fn load(&self, name: &str) -> Result<(), RepositoryError> {
        self.repository.load(model(name), LoadOverride::default()).await
    }

    /// Asks for a load without waiting for it.
    fn ask(&self, name: &str, over: LoadOverride) -> JoinHandle<Result<(), RepositoryError>> {
        let (repository, name) = (Arc::clone(&self.repository), model(name));
        tokio::spawn(async move { repository.load(name, over).await })
    }

    /// Returns when all that was asked for before has reached the actor: it obeys in order.
    async fn obeyed(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.repository.rescan().await.unwrap();
    }

    fn series(&self, model: &str) -> usize {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        text.lines().filter(|line| line.contains(&format!("model=\"{model}\""))).count()
    }

    fn served(&self, name: &str) -> Option<Arc<Variant>> {
        self.repository.catalog().find(&model(name), None).ok().cloned()
    }

    /// The index as `name/version STATE reason`, with variants.
    fn index(&self) -> Vec<String> {
        let line = |line: IndexEntry| {
            let version = line.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
            let state = line.state.map_or("-", State::as_str);
            format!("{}/{version} {state} {}", line.name, line.told()).trim_end().to_owned()
        };
        self.repository.index(false).into_iter().map(line).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let mut changes = self.repository.changes();
        let wait = async {
            while !done(self) {
                changes.changed().await.unwrap();
            }
        };
        assert!(timeout(LONG, wait).await.is_ok(), "never: {what}; index {:?}", self.index());
    }
}

fn model(name: &str) -> ModelName {
    name.parse().unwrap()
}

fn width(variant: &Variant) -> String {
    variant.signature.inputs[0].shown_dims()
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_there_at_the_start_is_served() {
    let house = House::new(
        Control::None,
        &[
            ("a/1/model.onnx", "rows n,1"),
            ("a/2/model.onnx", "rows n,2"),
            ("b/7/model.onnx", "alone 1,2"),
            ("c/1/model.onnx", "rows n,2 broken"),
            ("d/notes.txt", ""),
            ("e/manifest.toml", "[batching]\nsize = 3"),
            ("e/1/model.onnx", "rows n,2"),
            ("f/1/weights", ""),
            ("g/1/model.onnx", "rows n,2 panic"),
            ("h/1/model.onnx", "rows n,2 fails"),
            ("i/1/model.onnx", "rows n,2 lies"),
            ("j/1/model.onnx", "rows n,2 crashes"),
        ],
    )
    .await;
    assert_eq!(
        house.index(),
        [
            "a/2 READY",
            "b/7 READY",
            "c/1 UNAVAILABLE invalid model: model.onnx is broken",
            "e/- UNAVAILABLE manifest.toml:2: batching.size: unknown field `size`, expected one of `batch_size_max`, \
             `queue_delay_max`, `preferred`, `preserve_ordering`, `priority_levels`, `default_priority`, \
             `queue_timeout`, `timeout_action`, `allow_timeout_override`, `queue_requests_max`, `queue_bytes_max`, \
             `priority_queues`",
            "f/- UNAVAILABLE version 1 has no model.onnx or model.safetensors",
            "g/1 UNAVAILABLE the engine panicked while reading the model",
            "h/1 UNAVAILABLE warm-up \"zeros\" failed: the run failed: on purpose",
            "i/1 UNAVAILABLE output \"y\" does not match the model's signature: expected FP32 [n,2] for 1 rows, \
             got FP32 [1]",
            "j/1 UNAVAILABLE the engine panicked while warming up the model",
        ]
    );
    assert_eq!(house.repository.index(true).len(), 2);
    assert_eq!(house.served("a").unwrap().version, VersionId(2));
    let metrics = String::from_utf8(house.metrics.render()).unwrap();
    assert!(metrics.contains(r#"kinglet_model_ready{model="a",version="2"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"kinglet_model_memory_bytes{model="a",version="2"} 1000"#));
    assert!(metrics.contains(r#"kinglet_model_loads_total{model="c",outcome="failed"} 1"#));
    assert!(!metrics.contains(r#"kinglet_model_ready{model="c""#));
    assert!(metrics.contains(r#"kinglet_queue_requests_max{model="a",version="2"} 512"#));
    for (name, failed) in [("a", 0), ("c", 1), ("e", 1)] {
        let line = format!("kinglet_model_builds_failed{{model=\"{name}\"}} {failed}");
        assert!(metrics.contains(&line), "expected {line}");
    }
}

#[tokio::test]
async fn without_explicit_control_requests_to_load_are_refused() {
    for mode in [Control::None, Control::Poll] {
        let house = House::new(mode, &[("a/1/model.onnx", "rows n,2")]).await;
        let refused = house.load("a").await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::PermissionDenied);
        assert_eq!(house.repository.unload(model("a"), false).await, Err(RepositoryError::Refused { mode }));
        assert_eq!(house.engine.loads(), 1);
    }
}

#[tokio::test]
async fn failures_of_the_start_can_be_fatal() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("a/1/model.onnx", "rows n,2 broken")]);
    let config = RepositoryConfig { start_with_failures: false, ..config(folder.path().to_owned(), Control::None) };
    let with = loading(&FakeEngine::default(), &Arc::default());
    let repository = Repository::start(config.clone(), with.clone()).await.unwrap();
    let failed = repository.wait_loaded().await.unwrap_err();
    assert_eq!(failed.to_string(), "models failed to load: a: version 1: invalid model: model.onnx is broken");
    let nowhere = RepositoryConfig { paths: vec![folder.path().join("none")], ..config };
    assert!(matches!(Repository::start(nowhere, with).await, Err(RepositoryError::Start { .. })));
}

#[tokio::test]
async fn explicit_control_loads_and_unloads() {
    let files = [("a/1/model.onnx", "rows n,2"), ("b/1/model.onnx", "rows n,2")];
    let house = House::with(Control::Explicit, &files, |config| config.load_at_start = vec!["b".into()]).await;
    assert_eq!(house.index(), ["a/- -", "b/1 READY"]);
    house.load("a").await.unwrap();
    assert_eq!(house.index(), ["a/1 READY", "b/1 READY"]);
    let held = house.served("a").unwrap();
    house.repository.unload(model("a"), false).await.unwrap();
    assert_eq!(house.index(), ["a/1 UNLOADING", "b/1 READY"]);
    assert!(house.served("a").is_none());
    assert_eq!(Arc::strong_count(&held), 1, "only the request on its way holds the build");
    drop(held);
    house.until("the last request has left", |house| house.index()[0] == "a/1 UNAVAILABLE unloaded").await;
    let metrics = String::from_utf8(house.metrics.render()).unwrap();
    assert!(!metrics.contains(r#"kinglet_model_ready{model="a""#) && !metrics.contains(r#"requests_max{model="a""#));
    for unknown in [house.load("z").await, house.repository.unload(model("z"), true).await] {
        assert_eq!(unknown, Err(RepositoryError::UnknownModel(model("z"))));
    }
    assert_eq!(house.index().len(), 2, "an unknown model leaves no trace");
    house.write(&[("c/1/model.onnx", "rows n,3")]);
    house.load("c").await.unwrap();
    house.until("new folders are listed", |house| house.index().len() == 3).await;
}

#[tokio::test]
async fn a_failed_reload_leaves_the_old_build_serving() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,1")]).await;
    house.load("a").await.unwrap();
    let old = house.served("a").unwrap();
    house.write(&[("a/1/model.onnx", "rows n,2 broken")]);
    let failed = house.load("a").await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::InvalidArgument);
    assert_eq!(failed.to_string(), "failed to load model \"a\": version 1: invalid model: model.onnx is broken");
    assert!(Arc::ptr_eq(&old, &house.served("a").unwrap()));
    assert_eq!(house.index(), ["a/1 READY reload failed: invalid model: model.onnx is broken"]);
    house.write(&[("a/2/model.onnx", "rows n,3 fails")]);
    assert!(house.load("a").await.is_err());
    assert!(Arc::ptr_eq(&old, &house.served("a").unwrap()), "a new version that fails does not end the old one");
    let says_failed = |builds| {
        let line = format!("kinglet_model_builds_failed{{model=\"a\"}} {builds}");
        String::from_utf8(house.metrics.render()).unwrap().contains(&line)
    };
    assert!(says_failed(1));
    house.write(&[("a/config.pbtxt", "max_batch_sise: 1")]);
    let failed = house.load("a").await.unwrap_err();
    assert!(matches!(failed, RepositoryError::Config { .. }), "{failed}");
    assert!(house.index()[0].starts_with("a/1 READY reload failed: config.pbtxt:1: field 'max_batch_sise'"));
    house.write(&[("a/config.pbtxt", ""), ("a/2/model.onnx", "rows n,3")]);
    house.load("a").await.unwrap();
    assert_eq!(house.index(), ["a/1 UNLOADING", "a/2 READY"]);
    assert_eq!(width(&house.served("a").unwrap()), "[n,3]");
    assert!(says_failed(0));
    house.write(&[("a/2/model.onnx", "rows n,3 fails")]);
    assert!(house.load("a").await.is_err() && says_failed(1));
    house.repository.unload(model("a"), false).await.unwrap();
    assert!(says_failed(0), "nothing is wanted of it any more");
}

#[tokio::test]
async fn reloads_keep_the_counts() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,1")]).await;
    house.load("a").await.unwrap();
    let old = house.served("a").unwrap();
    house.load("a").await.unwrap();
    let new = house.served("a").unwrap();
    assert!(!Arc::ptr_eq(&old, &new) && Arc::ptr_eq(&old.statistics, &new.statistics));
}

#[tokio::test]
async fn files_and_configuration_can_come_with_the_request() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,2")]).await;
    house.load("a").await.unwrap();
    let over = |config: &str, files: &[(&str, &'static str)]| LoadOverride {
        config_json: Some(config.to_owned()),
        files: files.iter().map(|(name, text)| ((*name).to_owned(), Bytes::from_static(text.as_bytes()))).collect(),
        ..LoadOverride::default()
    };
    let load = |name, over| house.repository.load(model(name), over);
    load("a", over(r#"{"max_batch_size": 4}"#, &[])).await.unwrap();
    assert_eq!(house.served("a").unwrap().batch_size_max(), 4);
    load("a", over("{}", &[("5/model.onnx", "rows n,9")])).await.unwrap();
    assert_eq!(
        (house.served("a").unwrap().version, width(&house.served("a").unwrap())),
        (VersionId(5), "[n,9]".into())
    );
    let before = house.served("a").unwrap();
    for (wrong, code) in [
        (over("{}", &[("../1/model.onnx", "rows n,1")]), ErrorCode::InvalidArgument),
        (over("{}", &[("1/model.onnx", "rows n,1 broken")]), ErrorCode::InvalidArgument),
        (over("{", &[("1/model.onnx", "rows n,1")]), ErrorCode::InvalidArgument),
        (LoadOverride { config_json: None, ..over("", &[("1/model.onnx", "rows n,1")]) }, ErrorCode::InvalidArgument),
        (over(&" ".repeat(10), &[("1/model.onnx", LARGE)]), ErrorCode::PayloadTooLarge),
    ] {
        let error = load("a", wrong).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.to_string().contains("/tmp"), "{error}");
        assert!(Arc::ptr_eq(&before, &house.served("a").unwrap()));
    }
    load("new", over("{}", &[("1/model.onnx", "rows n,3")])).await.unwrap();
    assert!(house.index().contains(&"new/1 READY".to_owned()), "{:?}", house.index());
    assert!(house.series("new") > 0);
    house.repository.unload(model("new"), false).await.unwrap();
    assert!(!house.index().iter().any(|line| line.starts_with("new/")), "nothing of it is left");
    assert_eq!(house.series("new"), 0, "clients must not fill the metrics with names");
    load("broken", over("{}", &[("1/model.onnx", "rows n,3 broken")])).await.unwrap_err();
    house.repository.rescan().await.unwrap();
    assert_eq!(house.series("broken"), 0);
    house.load("a").await.unwrap();
    assert_eq!(house.served("a").unwrap().version, VersionId(1), "a plain load returns to the disk");
}

const LARGE: &str = match std::str::from_utf8(&[b'x'; 1001]) {
    Ok(text) => text,
    Err(_) => "",
};

#[tokio::test]
async fn polling_follows_the_disk() {
    let house = House::new(Control::Poll, &[("a/1/model.onnx", "rows n,1"), ("b/1/model.onnx", "rows n,1")]).await;
    assert_eq!(house.index(), ["a/1 READY", "b/1 READY"]);
    let unchanged = house.served("b").unwrap();
    house.write(&[("a/2/model.onnx", "rows n,2"), ("c/1/model.onnx", "rows n,3")]);
    let expected = ["a/1 UNAVAILABLE unloaded", "a/2 READY", "b/1 READY", "c/1 READY"];
    house.until("new version and model", |house| house.index() == expected).await;
    house.write(&[("a/2/model.onnx", "rows n,22 broken")]);
    house.until("failed reload", |house| house.index()[0].starts_with("a/2 READY reload failed")).await;
    assert_eq!(width(&house.served("a").unwrap()), "[n,2]");
    let loads = house.engine.loads();
    for _ in 0..5 {
        house.repository.rescan().await.unwrap();
    }
    assert_eq!(house.engine.loads(), loads, "a failure is not tried again before the files change");
    fs::remove_dir_all(house.folder.path().join("a/2")).unwrap();
    house.until("the version before", |house| house.index()[0] == "a/1 READY").await;
    fs::remove_dir_all(house.folder.path().join("a")).unwrap();
    house.until("gone", |house| house.index() == ["b/1 READY", "c/1 READY"]).await;
    assert!(Arc::ptr_eq(&unchanged, &house.served("b").unwrap()), "what has not changed is left alone");
    let mut changes = house.repository.changes();
    changes.mark_unchanged();
    assert!(
        timeout(Duration::from_millis(150), changes.changed()).await.is_err(),
        "a look that finds nothing is no news"
    );
}

#[tokio::test]
async fn a_version_that_is_kept_is_not_loaded_again() {
    let all = ("a/manifest.toml", "[versions]\npolicy = 'all'");
    let house = House::new(Control::Poll, &[all, ("a/1/model.onnx", "rows n,1")]).await;
    let first = house.served("a").unwrap();
    house.write(&[("a/2/model.onnx", "rows n,2")]);
    house.until("both", |house| house.index() == ["a/1 READY", "a/2 READY"]).await;
    let catalog = house.repository.catalog();
    assert!(Arc::ptr_eq(&first, catalog.find(&model("a"), Some(VersionId(1))).unwrap()));
    house.write(&[("a/manifest.toml", "[versions]\npolicy = 'specific'\nspecific = [1, 9]")]);
    let expected = ["a/1 READY", "a/2 UNLOADING", "a/9 UNAVAILABLE version 9 has no model.onnx or model.safetensors"];
    house.until("what is missing is said", |house| house.index() == expected).await;
    drop(catalog);
    assert!(!Arc::ptr_eq(&first, &house.served("a").unwrap()), "new settings make a new build");
}

#[tokio::test]
async fn a_file_being_written_is_not_loaded() {
    // Far longer than the looks below take, so that a slow machine does not make one of them look like the end.
    let settle = |config: &mut RepositoryConfig| config.settle_time = Span(Duration::from_millis(1500));
    let house = House::with(Control::Poll, &[("a/1/model.onnx", "rows n,1")], settle).await;
    let path = house.folder.path().join("a/2");
    fs::create_dir(&path).unwrap();
    // Half of it would load: only waiting tells that it is not the whole.
    let whole = "rows n,2 and some words more that are written slowly";
    for end in 8..whole.len() {
        fs::write(path.join("model.onnx"), &whole[..end]).unwrap();
        house.repository.rescan().await.unwrap();
        assert_eq!(house.engine.loads(), 1, "after {end} bytes");
    }
    house.until("the whole file", |house| house.index() == ["a/1 UNAVAILABLE unloaded", "a/2 READY"]).await;
    assert_eq!(house.engine.loads(), 2);
    house.write(&[("b/1/model.onnx.part", "rows n,1"), ("b/manifest.toml", "")]);
    house.until("seen", |house| house.index().get(2).is_some_and(|line| line.starts_with("b/- UNAVAILABLE"))).await;
    fs::rename(house.folder.path().join("b/1/model.onnx.part"), house.folder.path().join("b/1/model.onnx")).unwrap();
    house.until("renamed", |house| house.index()[1..] == ["a/2 READY", "b/1 READY"]).await;
}

#[tokio::test]
async fn a_vanished_repository_unloads_nothing() {
    let house = House::new(Control::Poll, &[("m/a/1/model.onnx", "rows n,1")]).await;
    assert_eq!(house.index(), Vec::<String>::new(), "one level too high");
    let inner = RepositoryConfig { ..config(house.folder.path().join("m"), Control::Poll) };
    let with = loading(&house.engine, &house.metrics);
    let (batching, options) = (with.batching, with.options);
    house.repository.reconfigure(inner, batching, options, None).await.unwrap();
    house.until("the new path", |house| house.index() == ["a/1 READY"]).await;
    fs::rename(house.folder.path().join("m"), house.folder.path().join("n")).unwrap();
    assert!(house.repository.rescan().await.is_err());
    assert_eq!(house.index(), ["a/1 READY"]);
}

#[tokio::test]
async fn a_rescan_loads_what_has_changed_in_any_mode_but_explicit() {
    let house = House::new(Control::None, &[("a/1/model.onnx", "rows n,1")]).await;
    house.write(&[("a/1/model.onnx", "rows n,22")]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    assert_eq!((house.engine.loads(), width(&house.served("a").unwrap())), (1, "[n,1]".into()), "nobody asked");
    house.repository.rescan().await.unwrap();
    house.until("reloaded", |house| width(&house.served("a").unwrap()) == "[n,22]").await;
}

#[tokio::test]
async fn warm_up_requests_run_before_a_build_serves() {
    let manifest = "[[warm_up]]\nname = 'w'\nrows = 3\ncount = 2\n\
                    inputs.x = { datatype = 'FP32', dims = [2], file = 'x.raw' }\n";
    let files = [("a/1/model.onnx", "rows n,2"), ("a/manifest.toml", manifest), ("a/warmup/x.raw", "12345678")];
    let house = House::new(Control::Explicit, &files).await;
    house.load("a").await.unwrap();
    assert_eq!(house.engine.log(), ["load 1/model.onnx", "run 3", "run 3", "run 1"]);
    for (replacement, expected) in [
        (manifest.replace("x.raw", "y.raw"), "warmup/y.raw: the warm-up file is missing"),
        (manifest.replace("[2]", "[3]"), "warm-up \"w\": input \"x\" expects shape [n,2], got [3,3]"),
        (manifest.replace("FP32", "INT8"), "warm-up \"w\": input \"x\": expected FP32, got INT8"),
        (manifest.replace("inputs.x", "inputs.z"), "warm-up \"w\": expected the model's inputs, \"x\", got \"z\""),
        (
            manifest.replace("count = 2", "count = 99999"),
            "warm-up: expected at most 10000 runs of all requests together, got 99999",
        ),
        (manifest.replace("rows = 3", "rows = 99"), "warm-up \"w\": expected at most 32 rows, got 99"),
    ] {
        house.write(&[("a/manifest.toml", &replacement)]);
        let error = house.load("a").await.unwrap_err().to_string();
        assert_eq!(error, format!("failed to load model \"a\": version 1: {expected}"));
    }
}

#[tokio::test]
async fn stopping_ends_the_actor_and_leaves_what_serves() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,1")]).await;
    house.load("a").await.unwrap();
    house.repository.stop().await;
    assert_eq!(house.load("a").await, Err(RepositoryError::Stopped));
    assert!(house.served("a").is_some());
    house.repository.stop().await;
}
