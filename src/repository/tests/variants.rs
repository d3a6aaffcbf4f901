//! Variants of a version: found, loaded, kept, replaced and unloaded with it, whatever becomes of any of them.

use super::*;
use crate::infer::VariantName;
use crate::repository::catalog::LookupError;

fn variant(name: &str) -> VariantName {
    name.parse().unwrap()
}

impl House {
    /// What answers for a variant of the newest version.
    fn find(&self, name: &str, wanted: &str) -> Result<Arc<Variant>, LookupError> {
        self.repository.catalog().find_variant(&model(name), None, Some(&variant(wanted))).cloned()
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("a/1/variants")
    }
}

const OWN: (&str, &str) = ("a/1/model.onnx", "rows n,1");
const SMALL: (&str, &str) = ("a/1/variants/small/model.safetensors", "rows n,1");
const BROKEN: (&str, &str) = ("a/1/variants/broken/model.onnx", "rows n,1 broken");

#[tokio::test]
async fn variants_load_with_their_version() {
    let empty = ("a/1/variants/empty/notes.txt", "");
    let others = [("a/1/variants/bad name/model.onnx", ""), ("a/1/variants/file", ""), ("a/1/variants/.hidden/x", "")];
    let house = House::new(Control::None, &[&[OWN, SMALL, BROKEN, empty][..], &others[..]].concat()).await;
    let expected = "a/1 READY variants: broken UNAVAILABLE (invalid model: model.onnx is broken), \
                    empty UNAVAILABLE (it has no model.onnx or model.safetensors), small READY";
    assert_eq!(house.index(), [expected]);
    let small = house.find("a", "small").unwrap();
    assert_eq!(
        (small.name.as_ref(), small.settings.model_file.as_str()),
        (Some(&variant("small")), "model.safetensors")
    );
    let own = house.served("a").unwrap();
    assert!(own.name.is_none() && Arc::ptr_eq(&own.statistics, &small.statistics));
    let errors = ["broken", "other"].map(|name| house.find("a", name).unwrap_err().to_string());
    assert_eq!(
        errors,
        [
            "model \"a\" version 1 variant \"broken\" is not ready: invalid model: model.onnx is broken",
            "model \"a\" version 1 has no variant \"other\", expected \"broken\" or \"empty\" or \"small\"",
        ]
    );
    let text = String::from_utf8(house.metrics.render()).unwrap();
    for (label, count) in [("model=\"a\",version=\"1\"", 1), ("model=\"a\",variant=\"small\",version=\"1\"", 1)] {
        let ready = text.lines().filter(|line| *line == format!("kinglet_model_ready{{{label}}} 1")).count();
        assert_eq!(ready, count, "{label}");
    }
    assert!(!text.contains("variant=\"broken\""));
    assert!(text.contains("kinglet_model_builds_failed{model=\"a\"} 2"));
}

#[tokio::test]
async fn a_model_without_variants_has_none() {
    let house =
        House::new(Control::None, &[OWN, ("flat/model.onnx", "rows n,1"), ("variants/1/model.onnx", "rows n,1")]).await;
    assert_eq!(house.index(), ["a/1 READY", "flat/1 READY", "variants/1 READY"]);
    assert_eq!(
        house.find("a", "x").unwrap_err().to_string(),
        "model \"a\" version 1 has no variant \"x\", expected none"
    );
}

#[tokio::test]
async fn a_model_without_version_folders_has_variants_too() {
    let house =
        House::new(Control::None, &[("f/model.onnx", "rows n,1"), ("f/variants/v/model.onnx", "rows n,2")]).await;
    assert_eq!(house.index(), ["f/1 READY variants: v READY"]);
}

#[tokio::test]
async fn changes_reach_the_variant_that_changed_and_no_other() {
    let house = House::new(Control::Poll, &[OWN, SMALL]).await;
    let (own, small) = (house.served("a").unwrap(), house.find("a", "small").unwrap());
    let same = |house: &House| {
        Arc::ptr_eq(&own, &house.served("a").unwrap()) && Arc::ptr_eq(&small, &house.find("a", "small").unwrap())
    };
    house.write(&[("a/1/variants/wide/model.onnx", "rows n,3")]);
    house.until("a new one", |house| house.index() == ["a/1 READY variants: small READY, wide READY"]).await;
    assert!(same(&house));
    house.write(&[("a/1/variants/wide/model.onnx", "rows n,30 broken")]);
    let failed = "a/1 READY variants: small READY, \
                  wide READY (reload failed: invalid model: model.onnx is broken)";
    house.until("what failed goes on", |house| house.index() == [failed]).await;
    assert_eq!(width(&house.find("a", "wide").unwrap()), "[n,3]");
    fs::remove_dir_all(house.files().join("wide")).unwrap();
    house.until("gone", |house| house.index() == ["a/1 READY variants: small READY"]).await;
    assert!(same(&house));
    assert!(
        !String::from_utf8(house.metrics.render())
            .unwrap()
            .contains("kinglet_model_ready{model=\"a\",variant=\"wide\"")
    );
    house.write(&[("a/1/model.onnx", "rows n,11")]);
    house.until("the own one", |house| width(&house.served("a").unwrap()) == "[n,11]").await;
    assert!(Arc::ptr_eq(&small, &house.find("a", "small").unwrap()));
    house.write(&[("a/1/model.onnx", "rows n,111 broken")]);
    house.until("own failed", |house| house.index()[0].starts_with("a/1 READY reload failed")).await;
    assert!(Arc::ptr_eq(&small, &house.find("a", "small").unwrap()), "what served before goes on as a whole");
}

#[tokio::test]
async fn an_unload_waits_for_requests_of_every_variant() {
    let house = House::new(Control::Explicit, &[OWN, SMALL]).await;
    house.load("a").await.unwrap();
    let held = house.find("a", "small").unwrap();
    house.repository.unload(model("a"), false).await.unwrap();
    house.until("taken out", |house| house.index() == ["a/1 UNLOADING"]).await;
    drop(held);
    house.until("left", |house| house.index() == ["a/1 UNAVAILABLE unloaded"]).await;
    house.load("a").await.unwrap();
    assert!(house.find("a", "small").is_ok());
}

#[tokio::test]
async fn a_version_has_a_limited_number_of_them() {
    let more = ("a/1/variants/zeta/model.onnx", "rows n,1");
    let house = House::with(Control::None, &[OWN, SMALL, more], |config| config.variants_max = 1).await;
    let expected = "a/1 READY variants: small READY, zeta UNAVAILABLE (repository.variants_max allows no more than 1)";
    assert_eq!(house.index(), [expected]);
    assert_eq!(house.engine.loads(), 2);
}

#[tokio::test]
async fn a_variant_folder_that_leads_elsewhere_is_none() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), &[("model.onnx", "rows n,1")]);
    let house = House::new(Control::Explicit, &[OWN, SMALL]).await;
    std::os::unix::fs::symlink(outside.path(), house.files().join("link")).unwrap();
    house.load("a").await.unwrap();
    let expected = "a/1 READY variants: link UNAVAILABLE (it has no model.onnx or model.safetensors), small READY";
    assert_eq!(house.index(), [expected]);
}
