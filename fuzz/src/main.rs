//! Loads whatever bytes come as an ONNX model, or as a native model file where they begin like one, and runs what loads on zeros.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kinglet::engine::{Batch, Dim, LoadOptions, ModelFile, by_name};
use kinglet::tensor::{Shape, Tensor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(model) = written(bytes) else { return };
    let options = LoadOptions {
        model_bytes_max: 1 << 20,
        arena_bytes_max: 16 << 20,
        loop_rounds_max: 100,
        warm_up_time_max: Duration::from_millis(1),
        ..LoadOptions::default()
    };
    let engine = by_name("auto").expect("the server has it");
    let Ok(plan) = engine.load(&model, &options) else { return };
    let inputs: Option<Vec<Tensor>> = plan.signature().inputs.iter().map(|spec| {
        let shape: Shape = spec.dims.iter().map(|dim| if let Dim::Fixed(extent) = dim { *extent } else { 2 }).collect();
        let elements = shape.iter().try_fold(1usize, |all, extent| all.checked_mul(*extent))?;
        let bytes = elements.checked_mul(spec.dtype.size()?).filter(|bytes| *bytes <= 1 << 20)?;
        Tensor::new(spec.dtype, shape, Bytes::from(vec![0; bytes])).ok()
    }).collect();
    let Some(inputs) = inputs else { return };
    let rows = inputs.first().map_or(1, |input| input.shape().rows());
    // Whether it runs or says why not is all the same: it must not panic.
    let _ = plan.layers(&Batch::merge(&[inputs], vec![rows]), 1);
});

thread_local! {
    /// Files in memory, written anew for every model.
    static SCRATCH: RefCell<Option<(PathBuf, [Option<File>; 2])>> = const { RefCell::new(None) };
}

const NAMES: [&str; 2] = ["model.onnx", "model.safetensors"];

fn written(bytes: &[u8]) -> Option<ModelFile> {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.is_none() {
            let folder = std::env::temp_dir().join(format!("kinglet-fuzz-{}", std::process::id()));
            std::fs::create_dir_all(&folder).ok()?;
            let files = NAMES.map(|name| File::create(folder.join(name)).ok());
            *scratch = Some((folder, files));
        }
        let (folder, files) = scratch.as_ref()?;
        // A native file begins with the length of its header, which is an object.
        let which = usize::from(bytes.get(8) == Some(&b'{'));
        let file = files[which].as_ref()?;
        file.set_len(0).ok()?;
        file.write_all_at(bytes, 0).ok()?;
        Some(ModelFile { folder: folder.clone(), file: NAMES[which].into() })
    })
}
