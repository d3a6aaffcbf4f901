//! Ensembles in a whole repository: they wait for the models they need, and go and come with them.

use super::*;

/// Runs `a`, then `b`.
const TWO: (&str, &str) =
    ("e/manifest.toml", "[[steps]]\nmodel = \"a\"\noutputs = { y = \"between\" }\n[[steps]]\nmodel = \"b\"\n");
const A: (&str, &str) = ("a/1/model.onnx", "rows n,2");
const B: (&str, &str) = ("b/1/model.onnx", "rows n,2");

impl House {
    fn failed(&self, model: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| {
            line.starts_with("kinglet_model_loads_total{")
                && line.contains(&format!("model=\"{model}\""))
                && line.contains("failed")
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Builds that metrics tell of.
    fn gauges(&self) -> usize {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        text.lines().filter(|line| line.starts_with("kinglet_model_memory_bytes{")).count()
    }
}

fn steps(build: &Variant) -> Vec<String> {
    let step = |step: &Step| format!("{} {}/{}", step.name, step.build.model, step.build.version);
    build.ensemble.iter().flat_map(|ensemble| ensemble.steps.iter().map(step)).collect()
}

#[tokio::test]
async fn an_ensemble_serves_what_its_models_do() {
    for control in [Control::None, Control::Poll] {
        let house = House::new(control, &[A, TWO, B]).await;
        assert_eq!(house.index(), ["a/1 READY", "b/1 READY", "e/1 READY"]);
        let served = house.served("e").unwrap();
        assert_eq!(steps(&served), ["a a/1", "b b/1"]);
        assert_eq!(served.signature.inputs[0].name, "x");
        assert_eq!(served.signature.outputs[0].name, "y");
        assert_eq!(served.plan.memory_bytes(), 0, "steps count their own");
        // As many rows as its steps take.
        let step = house.served("a").unwrap();
        assert_eq!((served.rows_max(), step.rows_max()), (step.rows_max(), Some(step.batch_size_max())));
    }
}

#[tokio::test]
async fn a_triton_ensemble_is_read_as_it_is() {
    let config = r#"
        name: "e" platform: "ensemble" max_batch_size: 8
        input [ { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] } ]
        output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] } ]
        ensemble_scheduling { step [
            { model_name: "b" model_version: 1 input_map { key: "x" value: "mid" } output_map { key: "y" value: "OUT" } },
            { model_name: "a" model_version: -1 input_map { key: "x" value: "IN" } output_map { key: "y" value: "mid" } }
        ] }
    "#;
    // Version folders of ensembles are empty, and git keeps none.
    for version in ["e/1/.keep", "e/readme.txt"] {
        let house = House::new(Control::None, &[A, B, ("e/config.pbtxt", config), (version, "")]).await;
        let served = house.served("e").unwrap();
        assert_eq!(steps(&served), ["a a/1", "b b/1"]);
        assert_eq!(served.settings.rows_alone_max, Some(8));
        let told = triton::to_json(&triton::model_config(&served));
        assert_eq!(told["platform"], "ensemble");
        assert_eq!((&told["max_batch_size"], &told["input"][0]["dims"]), (&8.into(), &vec![2].into()));
        let step = &told["ensemble_scheduling"]["step"][1];
        assert_eq!(step["model_name"], "b");
        assert_eq!((&step["model_version"], &step["input_map"]["x"]), (&1.into(), &"mid".into()));
    }
    let wrong =
        config.replace("TYPE_FP32 dims: [ 2 ] } ]\n        ensemble", "TYPE_FP32 dims: [ 3 ] } ]\n        ensemble");
    let house = House::new(Control::None, &[A, B, ("e/config.pbtxt", &wrong)]).await;
    assert_eq!(house.index()[2], "e/1 UNAVAILABLE config.pbtxt: output[0].dims: \"OUT\": expected [2], got [3]");
}

#[tokio::test]
async fn a_load_by_request_loads_what_is_needed() {
    let house = House::new(Control::Explicit, &[A, B, TWO]).await;
    house.load("e").await.unwrap();
    assert_eq!(house.index(), ["a/1 READY", "b/1 READY", "e/1 READY"]);
    house.repository.unload(model("e"), false).await.unwrap();
    assert!(house.served("a").is_some() && house.served("b").is_some());
    house.load("e").await.unwrap();
    assert_eq!(house.engine.loads(), 2, "what serves is not loaded again");
    house.repository.unload(model("e"), true).await.unwrap();
    assert_eq!(house.index(), ["a/1 UNAVAILABLE unloaded", "b/1 UNAVAILABLE unloaded", "e/1 UNAVAILABLE unloaded"]);
    assert_eq!(house.gauges(), 0);
}

#[tokio::test]
async fn what_is_wrong_names_the_step() {
    let none =
        ("e/manifest.toml", "[[steps]]\nmodel = \"a\"\noutputs = { y = \"t\" }\n[[steps]]\nmodel = \"nobody\"\n");
    let version = ("v/manifest.toml", "[[steps]]\nmodel = \"a\"\nversion = 7\n");
    let broken = ("w/manifest.toml", "[[steps]]\nmodel = \"bad\"\n");
    let house = House::new(Control::None, &[A, none, version, broken, ("bad/1/model.onnx", "rows n,1 broken")]).await;
    let expected = [
        "a/1 READY",
        "bad/1 UNAVAILABLE invalid model: model.onnx is broken",
        "e/1 UNAVAILABLE step \"nobody\": model \"nobody\" is not found in the repository",
        "v/1 UNAVAILABLE step \"a\": model \"a\" has no version 7 that is ready",
        "w/1 UNAVAILABLE step \"bad\": model \"bad\" is not ready: invalid model: model.onnx is broken",
    ];
    assert_eq!(house.index(), expected);
    let wide = ("b/1/model.onnx", "rows n,3");
    let house = House::new(Control::Explicit, &[A, wide, TWO]).await;
    let error = house.load("e").await.unwrap_err();
    let told = "failed to load model \"e\": version 1: step \"b\": input \"x\" expects FP32 [n,3], got \"between\" from step \"a\", which is FP32 [n,2]";
    assert_eq!((error.to_string().as_str(), error.code()), (told, ErrorCode::InvalidArgument));
    let house = House::with(Control::None, &[A, B, TWO], |config| config.ensemble_steps_max = 1).await;
    assert!(
        house.index()[2].contains("at most 1 steps, those of ensembles among them included, got 2"),
        "{:?}",
        house.index()
    );
}

#[tokio::test]
async fn ensembles_that_wait_for_one_another_are_refused() {
    let runs = |model: &str| format!("[[steps]]\nmodel = \"{model}\"\n");
    let (to_f, to_e, own) = (runs("f"), runs("e"), runs("s"));
    let circle = [("e/manifest.toml", &*to_f), ("f/manifest.toml", &*to_e), ("s/manifest.toml", &*own)];
    for control in [Control::None, Control::Explicit] {
        let house = House::new(control, &circle).await;
        if control == Control::Explicit {
            house.load("e").await.unwrap_err();
            house.load("s").await.unwrap_err();
        }
        let index = house.index().join("\n");
        assert!(
            index.contains("ensembles wait for one another: \"e\" -> \"f\" -> \"e\"")
                || index.contains("ensembles wait for one another: \"f\" -> \"e\" -> \"f\""),
            "{index}"
        );
        assert!(index.contains("s/1 UNAVAILABLE ensembles wait for one another: \"s\" -> \"s\""), "{index}");
        assert_eq!(index.matches("READY").count(), 0, "{index}");
    }
}

#[tokio::test]
async fn an_ensemble_of_ensembles_counts_all_steps() {
    let outer = ("o/manifest.toml", "[[steps]]\nmodel = \"e\"\n[[steps]]\nmodel = \"b\"\noutputs = { y = \"z\" }\n");
    let house = House::new(Control::None, &[A, B, TWO, outer]).await;
    assert_eq!(steps(&house.served("o").unwrap()), ["e e/1", "b b/1"]);
    let house = House::with(Control::None, &[A, B, TWO, outer], |config| config.ensemble_steps_max = 3).await;
    assert!(house.index()[3].contains("got 4"), "{:?}", house.index());
}

#[tokio::test]
async fn a_new_build_of_a_model_renews_its_ensembles() {
    let house = House::new(Control::Explicit, &[A, B, TWO]).await;
    house.load("e").await.unwrap();
    let first = house.served("e").unwrap();
    house.load("a").await.unwrap();
    house
        .until("the ensemble runs the new build", |house| {
            let (ensemble, a) = (house.served("e").unwrap(), house.served("a").unwrap());
            Arc::ptr_eq(&ensemble.ensemble.as_ref().unwrap().steps[0].build, &a)
        })
        .await;
    let second = house.served("e").unwrap();
    assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&first.statistics, &second.statistics));
    // One that does not fit any more is told of, and what served goes on.
    house.write(&[("a/1/model.onnx", "rows n,9")]);
    house.load("a").await.unwrap();
    house.until("the reason is told", |house| house.index()[2].contains("reload failed: step \"b\"")).await;
    assert!(Arc::ptr_eq(&house.served("e").unwrap(), &second));
    house.obeyed().await;
    assert_eq!(house.failed("e"), 1, "it is not tried again before something changes");
    house.write(&[("a/1/model.onnx", "rows n,2")]);
    house.load("a").await.unwrap();
    house.until("all is well again", |house| house.index()[2] == "e/1 READY").await;
}

#[tokio::test]
async fn ensembles_go_and_come_with_their_models() {
    let outer = ("o/manifest.toml", "[[steps]]\nmodel = \"e\"\n");
    let house = House::new(Control::Explicit, &[A, B, TWO, outer]).await;
    house.load("o").await.unwrap();
    let held = house.served("e").unwrap();
    house.repository.unload(model("b"), false).await.unwrap();
    assert_eq!(house.served("e").map(|build| build.version), None);
    drop(held);
    let gone = [
        "b/1 UNAVAILABLE unloaded",
        "e/1 UNAVAILABLE step \"b\": model \"b\" is not ready: unloaded",
        "o/1 UNAVAILABLE step \"e\": model \"e\" is not ready: unloaded",
    ];
    house.until("all have gone", |house| house.index()[1..] == gone).await;
    house.load("b").await.unwrap();
    house.until("all are back", |house| house.served("o").is_some()).await;
    house.repository.unload(model("o"), false).await.unwrap();
    house.repository.unload(model("b"), false).await.unwrap();
    house.load("b").await.unwrap();
    house.until("the inner one is back", |house| house.served("e").is_some()).await;
    assert!(house.served("o").is_none(), "who was unloaded by request stays so");
}

#[tokio::test]
async fn files_of_a_step_lie_beside_the_ensemble() {
    let own =
        ("e/manifest.toml", "[[steps]]\nfile = \"first.onnx\"\noutputs = { y = \"t\" }\n[[steps]]\nmodel = \"b\"\n");
    let file = ("e/3/first.onnx", "rows n,2 takes700");
    let house = House::new(Control::Explicit, &[own, file, B]).await;
    house.load("e").await.unwrap();
    let served = house.served("e").unwrap();
    assert_eq!(steps(&served), ["first e/3", "b b/1"]);
    let step = served.own_steps().next().unwrap();
    assert_eq!((step.name.as_ref().unwrap().as_str(), step.plan.memory_bytes()), ("first", 700));
    assert!(!Arc::ptr_eq(&step.statistics, &served.statistics), "a step counts by itself");
    assert_eq!(house.gauges(), 3, "of the whole, its own step and the other model");
    drop(served);
    house.repository.unload(model("e"), true).await.unwrap();
    assert_eq!((house.index()[1].as_str(), house.gauges()), ("e/3 UNAVAILABLE unloaded", 0));
    house.write(&[("e/3/first.onnx", "rows n,2 broken")]);
    let error = house.load("e").await.unwrap_err().to_string();
    assert!(error.ends_with("step \"first\": invalid model: first.onnx is broken"), "{error}");
    house.write(&[("e/manifest.toml", "[[steps]]\nfile = \"../../b/1/model.onnx\"\n")]);
    let error = house.load("e").await.unwrap_err().to_string();
    assert!(error.contains("steps[0].file: expected a plain file name"), "{error}");
}

#[tokio::test]
async fn new_files_are_polled() {
    let house = House::new(Control::Poll, &[TWO, A]).await;
    house.until("what is missing is told", |house| house.index()[1].contains("model \"b\" is not found")).await;
    house.write(&[B]);
    house.until("the ensemble serves", |house| house.served("e").is_some()).await;
    fs::remove_dir_all(house.folder.path().join("a")).unwrap();
    house.until("it went with the model", |house| house.served("e").is_none()).await;
}

#[tokio::test]
async fn on_demand_all_models_are_in_memory_together() {
    let files = &[
        A,
        B,
        TWO,
        ("c/1/model.onnx", "rows n,3"),
        ("f/manifest.toml", "[[steps]]\nmodel = \"a\"\noutputs = { y = \"t\" }\n[[steps]]\nmodel = \"c\"\n"),
    ];
    let house = House::with(Control::Demand, files, |config| {
        config.demand_bytes_max = ByteSize(2000);
        config.settle_time = Span::default();
    })
    .await;
    assert_eq!(house.engine.loads(), 0);
    house.demand("e").await.unwrap();
    assert_eq!(house.loaded(), ["a", "b", "e"]);
    house.demand("c").await.unwrap();
    let loaded = house.loaded();
    assert!(
        loaded.len() == 2 && loaded.contains(&"c".to_owned()),
        "one made room, and the ensemble went along: {loaded:?}"
    );
    assert!(house.repository.would_load(&model("e")));
    house.demand("e").await.unwrap();
    assert_eq!(house.loaded(), ["a", "b", "e"]);
    let error = house.demand("f").await.unwrap_err().to_string();
    assert!(error.contains("step \"c\": input \"x\" expects FP32 [n,3]"), "{error}");
    // Many ask for several at a time; none of them holds what it got.
    let ask = |name: &&str| {
        let asked = house.demanding(name);
        tokio::spawn(async move { asked.await.unwrap().map(drop) })
    };
    let asked: Vec<_> = ["e", "c", "e", "b", "c", "e"].iter().map(ask).collect();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn on_demand_what_cannot_fit_together_is_refused() {
    let house = House::with(Control::Demand, &[A, B, TWO], |config| {
        config.demand_bytes_max = ByteSize(1500);
        config.settle_time = Span::default();
    })
    .await;
    // What both take is known then.
    house.demand("a").await.unwrap();
    house.demand("b").await.unwrap();
    let error = house.demand("e").await.unwrap_err();
    assert!(error.to_string().contains("does not fit: repository.demand_bytes_max is 1500 bytes"), "{error}");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    house.demand("a").await.unwrap();
}

#[tokio::test]
async fn what_is_an_ensemble_no_more_stands_by_itself() {
    let house = House::new(Control::Explicit, &[A, B, TWO]).await;
    house.load("e").await.unwrap();
    fs::remove_file(house.folder.path().join("e/manifest.toml")).unwrap();
    house.write(&[("e/1/model.onnx", "rows n,5")]);
    house.load("e").await.unwrap();
    assert!(house.served("e").unwrap().ensemble.is_none());
    house.repository.unload(model("a"), false).await.unwrap();
    assert!(house.served("e").is_some());
}
