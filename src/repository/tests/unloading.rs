//! How a build that no longer serves ends: the index follows it until its last request has let go.

use std::fs;

use super::{House, model};
use crate::repository::Control;

#[tokio::test]
async fn a_version_unloads_until_its_last_request_has_left() {
    let house = House::new(Control::Explicit, &[("a/1/model.onnx", "rows n,1")]).await;
    house.load("a").await.unwrap();
    house.repository.unload(model("a"), false).await.unwrap();
    assert_eq!(house.index(), ["a/1 UNAVAILABLE unloaded"], "nothing is waited for where nothing runs");
    house.load("a").await.unwrap();
    let first = house.served("a").unwrap();
    house.write(&[("a/2/model.onnx", "rows n,2")]);
    house.load("a").await.unwrap();
    assert_eq!(house.index(), ["a/1 UNLOADING", "a/2 READY"], "a replaced version too");
    let second = house.served("a").unwrap();
    house.write(&[("a/2/model.onnx", "rows n,2 broken")]);
    house.load("a").await.unwrap_err();
    assert_eq!(house.index()[0], "a/1 UNLOADING", "a load of another version changes nothing about it");
    drop(first);
    house.until("the replaced version has gone", |house| house.index()[0] == "a/1 UNAVAILABLE unloaded").await;
    house.repository.unload(model("a"), false).await.unwrap();
    house.write(&[("a/2/model.onnx", "rows n,22")]);
    house.load("a").await.unwrap();
    let third = house.served("a").unwrap();
    house.repository.unload(model("a"), false).await.unwrap();
    assert_eq!(house.index(), ["a/2 UNLOADING"], "what was replaced is told of until the next load");
    drop(second);
    house.obeyed().await;
    assert_eq!(house.index(), ["a/2 UNLOADING"], "the end of an earlier build is not that of the last");
    drop(third);
    house.until("the last build has gone", |house| house.index() == ["a/2 UNAVAILABLE unloaded"]).await;
}

#[tokio::test]
async fn a_model_whose_files_are_gone_is_listed_until_its_last_request_has_left() {
    let house = House::new(Control::Poll, &[("a/1/model.onnx", "rows n,1"), ("b/1/model.onnx", "rows n,1")]).await;
    let held = house.served("a").unwrap();
    fs::remove_dir_all(house.folder.path().join("a")).unwrap();
    house.until("unloading", |house| house.index() == ["a/1 UNLOADING", "b/1 READY"]).await;
    let mut changes = house.repository.changes();
    changes.mark_unchanged();
    for _ in 0..3 {
        house.repository.rescan().await.unwrap();
    }
    assert!(!changes.has_changed().unwrap(), "further looks at the disk are no news");
    drop(held);
    house.until("gone", |house| house.index() == ["b/1 READY"]).await;
}
