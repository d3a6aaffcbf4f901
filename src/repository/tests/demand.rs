//! Models that load when requests ask for them: a thousand bytes each in memory, unless their file says otherwise.

use arc_swap::Guard;
use tokio::time::{Instant, sleep};

use super::*;

async fn house(bytes_max: u64, files: &[(&str, &str)], change: impl FnOnce(&mut RepositoryConfig)) -> House {
    let with = |config: &mut RepositoryConfig| {
        config.demand_bytes_max = ByteSize(bytes_max);
        config.settle_time = Span::default();
        change(config);
    };
    House::with(Control::Demand, files, with).await
}

const THREE: &[(&str, &str)] =
    &[("a/1/model.onnx", "rows n,1"), ("b/1/model.onnx", "rows n,2"), ("c/1/model.onnx", "rows n,3")];

impl House {
    pub(super) async fn demand(&self, name: &str) -> Result<Arc<Catalog>, RepositoryError> {
        // Times of use are told apart by milliseconds.
        sleep(Duration::from_millis(2)).await;
        timeout(LONG, self.repository.demand(&model(name), None)).await.unwrap().map(Guard::into_inner)
    }

    /// Asks without waiting.
    pub(super) fn demanding(&self, name: &str) -> JoinHandle<Result<Arc<Catalog>, RepositoryError>> {
        let (repository, name) = (Arc::clone(&self.repository), model(name));
        tokio::spawn(async move { repository.demand(&name, None).await.map(Guard::into_inner) })
    }

    pub(super) fn loaded(&self) -> Vec<String> {
        self.repository.index(true).into_iter().map(|line| line.name.to_string()).collect()
    }
}

#[tokio::test]
async fn the_longest_unused_makes_room() {
    let house = house(2000, THREE, |_| {}).await;
    assert_eq!((house.loaded(), house.engine.loads()), (vec![], 0), "nobody has asked");
    house.demand("a").await.unwrap();
    house.demand("b").await.unwrap();
    assert_eq!(house.loaded(), ["a", "b"]);
    house.demand("c").await.unwrap();
    assert_eq!(house.loaded(), ["b", "c"]);
    assert_eq!(house.index()[0], "a/1 UNAVAILABLE unloaded");
    house.demand("b").await.unwrap();
    assert_eq!(house.engine.loads(), 3, "who is there is not loaded again");
    house.demand("a").await.unwrap();
    assert_eq!(house.loaded(), ["a", "c"], "b was loaded before c, and nobody has used either");
    assert!(house.repository.would_load(&model("b")) && !house.repository.would_load(&model("c")));
    // Who looks for it is told that there is none.
    house.demand("nobody").await.unwrap();
}

#[tokio::test]
async fn many_first_requests_load_once() {
    let house = house(2000, &[("a/1/model.onnx", "rows n,1 gated")], |_| {}).await;
    let first: Vec<_> = (0..10).map(|_| house.demanding("a")).collect();
    house.engine.begun(1).await;
    let late = house.demanding("a");
    house.engine.gate.open(1);
    for asked in first.into_iter().chain([late]) {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(house.engine.loads(), 1);
}

#[tokio::test]
async fn what_requests_hold_is_still_taken() {
    let house = house(1500, THREE, |_| {}).await;
    // What both take is known then.
    house.demand("b").await.unwrap();
    house.demand("a").await.unwrap();
    house.until("b has made room", |house| house.loaded() == ["a"]).await;
    let held = house.served("a").unwrap();
    let asked = house.demanding("b");
    house.until("a is leaving", |house| house.index()[0] == "a/1 UNLOADING").await;
    house.obeyed().await;
    assert_eq!(house.engine.loads(), 2, "b waits for the last request of a");
    drop(held);
    asked.await.unwrap().unwrap();
    assert_eq!(house.loaded(), ["b"]);
}

#[tokio::test]
async fn pinned_models_are_there_from_the_start_and_stay() {
    let house = house(2000, THREE, |config| config.pinned = vec!["b".into()]).await;
    assert_eq!(house.loaded(), ["b"]);
    for name in ["a", "c", "a"] {
        house.demand(name).await.unwrap();
        assert!(house.served("b").is_some());
    }
    assert_eq!(house.loaded(), ["a", "b"]);
}

#[tokio::test]
async fn what_does_not_fit_is_found_out_once_and_harms_nobody() {
    let files = [("a/1/model.onnx", "rows n,1"), ("large/1/model.onnx", "rows n,2 takes5000")];
    let house = house(2000, &files, |_| {}).await;
    house.demand("a").await.unwrap();
    let once = house.demand("large").await.unwrap();
    assert!(once.find(&model("large"), None).is_ok(), "who waited for it gets it");
    drop(once);
    house.until("it is dropped", |house| house.loaded() == ["a"]).await;
    for _ in 0..3 {
        let error = house.demand("large").await.unwrap_err();
        assert_eq!(error, RepositoryError::NoMemory { model: model("large"), limit: 2000 });
        assert_eq!(error.code(), ErrorCode::Unavailable);
    }
    assert_eq!((house.engine.loads(), house.loaded()), (2, vec!["a".to_owned()]));
    house.write(&[("large/1/model.onnx", "rows n,2 takes500")]);
    house.repository.rescan().await.unwrap();
    house.demand("large").await.unwrap();
}

#[tokio::test]
async fn waiting_has_an_end_and_a_limit() {
    let files = [("a/1/model.onnx", "rows n,1 gated"), ("b/1/model.onnx", "rows n,1")];
    let change = |config: &mut RepositoryConfig| {
        config.demand_waiting_max = 1;
        config.demand_wait_max = Span(Duration::from_millis(50));
    };
    let house = house(2000, &files, change).await;
    let waiting = house.demanding("a");
    house.engine.begun(1).await;
    assert_eq!(house.demand("b").await.unwrap_err(), RepositoryError::ManyWait { limit: 1 });
    let late = RepositoryError::NotYet { model: model("a"), waited: Duration::from_millis(50) };
    assert_eq!(waiting.await.unwrap().unwrap_err(), late);
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    let late = house.repository.demand(&model("a"), deadline).await.unwrap_err();
    assert_eq!((&late, late.code()), (&RepositoryError::TooLate(model("a")), ErrorCode::DeadlineExceeded));
    house.engine.gate.open(1);
    house.until("it is there for others", |house| house.loaded() == ["a"]).await;
    house.demand("a").await.unwrap();
}

#[tokio::test]
async fn a_failure_is_told_until_the_files_change() {
    let house = house(2000, &[("a/1/model.onnx", "rows n,1 broken")], |_| {}).await;
    for _ in 0..3 {
        let error = house.demand("a").await.unwrap_err();
        assert!(matches!(&error, RepositoryError::NotReady { reason, .. } if reason.contains("broken")), "{error}");
        assert_eq!(error.code(), ErrorCode::Unavailable);
    }
    assert_eq!(house.engine.loads(), 1);
    assert!(!house.repository.would_load(&model("a")));
    house.write(&[("a/1/model.onnx", "rows n,12")]);
    house.repository.rescan().await.unwrap();
    assert!(house.repository.would_load(&model("a")));
    house.demand("a").await.unwrap();
}

#[tokio::test]
async fn a_smaller_limit_holds_at_once() {
    let house = house(2000, THREE, |_| {}).await;
    house.demand("a").await.unwrap();
    house.demand("b").await.unwrap();
    let mut smaller = config(house.folder.path().to_owned(), Control::Demand);
    smaller.demand_bytes_max = ByteSize(1000);
    let Loading { batching, options, .. } = loading(&house.engine, &house.metrics);
    house.repository.reconfigure(smaller, batching, options, None).await.unwrap();
    assert_eq!(house.loaded(), ["b"]);
}

#[tokio::test]
async fn changed_files_are_what_the_next_request_gets() {
    let house = house(2000, THREE, |config| config.pinned = vec!["b".into()]).await;
    house.demand("a").await.unwrap();
    house.write(&[("a/1/model.onnx", "rows n,11"), ("b/1/model.onnx", "rows n,12")]);
    house.repository.rescan().await.unwrap();
    house.until("b is replaced", |house| house.served("b").is_some_and(|b| width(&b) == "[n,12]")).await;
    house.demand("a").await.unwrap();
    assert_eq!(width(&house.served("a").unwrap()), "[n,11]");
    fs::remove_dir_all(house.folder.path().join("a")).unwrap();
    house.repository.rescan().await.unwrap();
    assert!(house.index().iter().all(|line| !line.starts_with("a/")));
}
