//! Loads that wait for one another, overtake one another, or are too many; and what a load that came to nothing leaves.

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::*;
use crate::repository::entry::Request;
use crate::repository::giving_back::GivingBack;
use crate::repository::lifecycle::{Actor, Command};

#[tokio::test]
async fn loads_of_one_model_join_and_follow_each_other() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,2 gated")]).await;
    let loads: Vec<_> = (0..20).map(|_| house.ask("a", LoadOverride::default())).collect();
    house.obeyed().await;
    house.engine.gate.open(2);
    for load in loads {
        load.await.unwrap().unwrap();
    }
    assert_eq!(house.engine.loads(), 2, "the first, and one for all who asked while it ran");
}

/// A load that joins no other.
fn alone() -> LoadOverride {
    LoadOverride { config_json: Some("{}".into()), ..LoadOverride::default() }
}

/// How many of some loads were refused for their number; the others must succeed.
async fn refused(loads: Vec<JoinHandle<Result<(), RepositoryError>>>) -> usize {
    let mut refused = 0;
    for load in loads {
        if let Err(error) = load.await.unwrap() {
            assert_eq!(error.code(), ErrorCode::Overloaded, "{error}");
            refused += 1;
        }
    }
    refused
}

#[tokio::test]
async fn too_many_different_loads_are_refused() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,2 gated")]).await;
    let loads = (0..12).map(|_| house.ask("a", alone())).collect();
    house.obeyed().await;
    house.engine.gate.open(9);
    assert_eq!(refused(loads).await, 3, "one runs, eight wait");
}

#[tokio::test]
async fn too_many_loads_of_all_models_together_are_refused() {
    let files = ["a", "b", "c", "d"].map(|name| (format!("{name}/1/model.onnx"), "rows n,2 gated"));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let house = House::with(Control::Explicit, &files, |config| config.loads_waiting_max = 4).await;
    let mut loads: Vec<_> = ["a", "a", "b", "c", "d", "unknown"].map(|name| house.ask(name, alone())).into();
    house.obeyed().await;
    assert!(!house.index().iter().any(|line| line.starts_with("unknown")), "what is refused leaves no trace");
    let error = house.ask("d", LoadOverride::default()).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "4 loads run or wait already, repository.loads_waiting_max allows no more");
    house.repository.unload(model("c"), false).await.unwrap();
    assert!(house.ask("d", alone()).await.unwrap().is_err(), "an overtaken load still holds its files");
    let overtaken = loads.remove(3);
    assert_eq!(overtaken.await.unwrap(), Err(RepositoryError::Overtaken(model("c"))));
    house.engine.gate.open(5);
    assert_eq!(refused(loads).await, 2);
    house.load("d").await.unwrap();
}

#[tokio::test]
async fn plain_loads_join_a_full_line() {
    let files = [("a/1/model.onnx", "rows n,2 gated")];
    let house = House::with(Control::Explicit, &files, |config| config.loads_waiting_max = 2).await;
    let loads = (0..5).map(|_| house.ask("a", LoadOverride::default())).collect();
    house.obeyed().await;
    house.engine.gate.open(2);
    assert_eq!(refused(loads).await, 0);
}

#[tokio::test]
async fn an_unload_overtakes_a_load() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,2 gated")]).await;
    let load = house.ask("a", LoadOverride::default());
    house.until("loading", |house| house.index() == ["a/- LOADING"]).await;
    house.repository.unload(model("a"), false).await.unwrap();
    assert_eq!(load.await.unwrap(), Err(RepositoryError::Overtaken(model("a"))));
    house.engine.gate.open(1);
    let again = house.ask("a", LoadOverride::default());
    house.engine.begun(2).await;
    house.obeyed().await;
    assert!(house.served("a").is_none(), "the load's late end changes nothing");
    house.engine.gate.open(1);
    again.await.unwrap().unwrap();
    assert!(house.served("a").is_some());
}

#[tokio::test]
async fn files_that_change_under_a_load_are_refused() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,1 gated")]).await;
    let load = house.ask("a", LoadOverride::default());
    house.engine.begun(1).await;
    house.write(&[("a/1/weights", "new")]);
    house.engine.gate.open(1);
    let error = load.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "failed to load model \"a\": version 1: files changed while they were loaded");
    assert!(house.served("a").is_none());
}

/// An actor that does only what a test makes it do.
struct Puppet {
    actor: Actor,
    engine: FakeEngine,
    metrics: Arc<Metrics>,
    folder: TempDir,
}

impl Puppet {
    async fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), files);
        let (engine, metrics) = (FakeEngine::default(), Arc::default());
        let (change, _) = watch::channel(0);
        let (finish, _) = watch::channel(None);
        let config = config(folder.path().to_owned(), Control::Explicit);
        let actor = Actor::start(config, loading(&engine, &metrics), Arc::default(), change, finish).await.unwrap();
        Self { actor, engine, metrics, folder }
    }

    fn load(&mut self) {
        self.actor.load(&model("a"), Request::default());
    }

    fn unload(&mut self) {
        let (reply, _) = oneshot::channel();
        self.actor.obey(Command::Unload { name: model("a"), dependents: false, reply });
    }

    async fn step(&mut self) {
        let event = self.actor.tasks.join_next().await.unwrap().unwrap();
        self.actor.ended(event);
    }

    fn due(&self) -> Option<Duration> {
        self.actor.giving_back.due().map(|due| due.duration_since(Instant::now()))
    }
}

#[tokio::test(start_paused = true)]
async fn memory_goes_back_after_a_load_that_failed() {
    let mut puppet = Puppet::new(&[("a/1/model.onnx", "rows n,2 broken")]).await;
    puppet.load();
    assert_eq!(puppet.due(), None);
    puppet.step().await;
    assert_eq!(puppet.due(), Some(SECOND));
    tokio::time::advance(SECOND / 2).await;
    puppet.load();
    puppet.step().await;
    assert_eq!(puppet.due(), Some(SECOND / 2), "the next failure does not put it off");
}

#[tokio::test(start_paused = true)]
async fn memory_goes_back_after_a_load_that_was_overtaken() {
    let mut puppet = Puppet::new(&[("a/1/model.onnx", "rows n,2 gated")]).await;
    puppet.load();
    puppet.engine.begun(1).await;
    puppet.unload();
    assert_eq!(puppet.due(), None);
    puppet.engine.gate.open(1);
    puppet.step().await;
    assert_eq!(puppet.due(), Some(SECOND));
    let text = String::from_utf8(puppet.metrics.render()).unwrap();
    assert!(!text.contains(r#"kinglet_model_memory_bytes{model="a""#), "the build never served: {text}");
}

#[tokio::test(start_paused = true)]
async fn memory_goes_back_when_a_version_has_a_new_build() {
    let mut puppet = Puppet::new(&[("a/1/model.onnx", "rows n,2")]).await;
    puppet.load();
    puppet.step().await;
    assert_eq!(puppet.due(), Some(SECOND), "what a load read and did not keep");
    let held = puppet.actor.catalog.load().find(&model("a"), None).ok().cloned().unwrap();
    write(puppet.folder.path(), &[("a/1/model.onnx", "rows n,3")]);
    puppet.load();
    puppet.step().await;
    puppet.actor.giving_back = GivingBack::default();
    assert_eq!(puppet.due(), None, "a request still holds the old build");
    drop(held);
    puppet.step().await;
    assert_eq!(puppet.due(), Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_actor_gives_memory_back_once_at_a_time() {
    let mut puppet = Puppet::new(&[("a/1/model.onnx", "rows n,2 gated"), ("b/1/model.onnx", "rows n,2 broken")]).await;
    puppet.actor.giving_back.ask(Instant::now() - SECOND);
    puppet.load();
    puppet.engine.begun(1).await;
    let (commands, received) = mpsc::channel(1);
    // The first waits for the loader's only thread; a second one must not queue behind it.
    let tasks = {
        puppet.actor.give_back();
        puppet.actor.giving_back.ask(Instant::now() - SECOND);
        puppet.actor.tasks.len()
    };
    assert_eq!((puppet.actor.giving_back.due(), tasks), (None, 2));
    let run = tokio::spawn(puppet.actor.run(received));
    puppet.engine.gate.open(1);
    drop(commands);
    run.await.unwrap();
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_load_may_name_a_folder_beneath_the_repository() {
    let house = House::new(Control::Explicit, &[("deep/down/model/1/model.onnx", "rows n,2")]).await;
    let at = |folder: PathBuf| LoadOverride { folder: Some(folder), ..LoadOverride::default() };
    let root = house.folder.path().to_owned();
    house.repository.load(model("other"), at(root.join("deep/down/model"))).await.unwrap();
    assert!(house.served("other").is_some());
    for (folder, code) in [
        (root.join("deep/../../elsewhere"), ErrorCode::InvalidArgument),
        ("/etc".into(), ErrorCode::InvalidArgument),
        (root.join("deep/nothing"), ErrorCode::InvalidArgument),
        (root.join("deep"), ErrorCode::NotFound),
    ] {
        let error = house.repository.load(model("another"), at(folder.clone())).await.unwrap_err();
        assert_eq!(error.code(), code, "{}: {error}", folder.display());
    }
}
