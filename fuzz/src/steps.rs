//! What clients send to the steps before a network: images, and texts.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use kinglet::engine::steps::{self, StepSettings};
use kinglet::engine::{Batch, LoadOptions, Plan, Pool};
use kinglet::tensor::{Shape, Tensor};

type Ready = (Pool, Vec<Arc<dyn Plan>>);

pub fn image(bytes: &[u8]) {
    thread_local!(static READY: OnceCell<Ready> = const { OnceCell::new() });
    READY.with(|ready| run(ready.get_or_init(|| made(&IMAGES)), bytes));
}

pub fn text(bytes: &[u8]) {
    thread_local!(static READY: OnceCell<Ready> = const { OnceCell::new() });
    READY.with(|ready| run(ready.get_or_init(|| made(&TEXTS)), bytes));
}

fn made(settings: &[&str]) -> Ready {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/steps");
    let options = LoadOptions { image_pixels_max: 1 << 16, ..LoadOptions::default() };
    let plan = |text: &&str| {
        let settings: StepSettings = toml::from_str(text).expect("the settings are valid");
        Arc::from(steps::plan(&settings, &folder, &options).expect("the files are there"))
    };
    (Pool::start(Some(1)), settings.iter().map(plan).collect())
}

fn run((pool, plans): &Ready, bytes: &[u8]) {
    for plan in plans {
        let input = Tensor::from_elements(Shape::new(&[1]), [bytes].into_iter()).expect("one element");
        let (plan, batch) = (Arc::clone(plan), Batch::merge(&[vec![input]], vec![1]));
        // A panic that the step catches has ended this program already.
        let _ = pool.wait_for(move |cores| plan.run(&batch, cores).is_ok());
    }
}

const IMAGES: [&str; 2] = [
    "image = { width = 8, height = 6, fit = \"crop\", resize_to = 16, white = 1.0, mean = [0.4, 0.4, 0.4], std = [0.2, 0.2, 0.2] }",
    "image = { height = 11, fit = \"height\", width_max = 90, datatype = \"UINT8\" }",
];
const TEXTS: [&str; 3] = [
    "text = { file = \"wordpiece.json\", outputs = [\"input_ids\", \"attention_mask\"] }",
    "text = { file = \"bpe.json\", outputs = [\"input_ids\"] }",
    "text = { file = \"unigram.json\", outputs = [\"input_ids\"] }",
];
