//! An engine for tests whose model files are a line of text, such as `rows n,2 gated`.
//!
//! The first word says whether requests may be merged, the second gives the shape of input `x` and output `y`; words
//! after that make the load or the run misbehave. The plan answers with its input.

use std::fs;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::batch::scatter;
use crate::engine::{
    Batch, Cores, Dim, Engine, EngineError, Executed, LoadOptions, Merging, ModelFile, Part, Plan, Signature,
    TensorSpec,
};
use crate::infer::ComputeTimes;
use crate::tensor::{DType, Shape, Tensor};

#[derive(Clone, Debug, Default)]
pub(super) struct FakeEngine {
    /// What was done, in order: `load <file>`, `run <rows>`.
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) gate: Gate,
    begun: Arc<watch::Sender<usize>>,
}

/// Where loads of files with the word `gated` wait until a test lets them through.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<(Mutex<usize>, Condvar)>);

#[derive(Debug)]
pub(super) struct FakePlan {
    pub(super) signature: Signature,
    pub(super) merging: Merging,
    words: Vec<String>,
    log: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The loads that were begun.
    pub(super) fn loads(&self) -> usize {
        self.log().iter().filter(|line| line.starts_with("load")).count()
    }

    /// Waits until so many loads have begun.
    pub(super) async fn begun(&self, loads: usize) {
        self.begun.subscribe().wait_for(|&begun| begun >= loads).await.unwrap();
    }

    pub(super) fn plan(&self, text: &str) -> FakePlan {
        let mut words = text.split_whitespace().map(str::to_owned);
        let merging = match words.next().as_deref() {
            Some("rows") => Merging::Rows,
            _ => Merging::Alone { operator: "ReduceMean mean".into(), reason: "it mixes rows".into() },
        };
        let dims = words.next().unwrap_or_default();
        let dim = |word: &str| word.parse().map_or_else(|_| Dim::Free(Some(word.to_owned())), Dim::Fixed);
        let dims: Vec<Dim> = dims.split(',').filter(|word| !word.is_empty()).map(dim).collect();
        let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::F32, dims: dims.clone() };
        let signature = Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] };
        FakePlan { signature, merging, words: words.collect(), log: Arc::clone(&self.log) }
    }
}

impl Gate {
    /// Lets this many more loads through.
    pub(super) fn open(&self, loads: usize) {
        *self.0.0.lock().unwrap() += loads;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        let mut open = self.0.1.wait_while(closed, |loads| *loads == 0).unwrap();
        *open -= 1;
    }
}

impl Engine for FakeEngine {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn load(&self, model: &ModelFile, _: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        let path = model.folder.join(&model.file);
        let shown = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|error| EngineError::InvalidModel(format!("{shown}: {error}")))?;
        let last = model.folder.file_name().unwrap().to_string_lossy().into_owned();
        self.log.lock().unwrap().push(format!("load {last}/{}", model.file));
        let plan = self.plan(&text);
        self.begun.send_modify(|begun| *begun += 1);
        if plan.word("gated").is_some() {
            self.gate.pass();
        }
        assert!(plan.word("panic").is_none(), "on purpose");
        match plan.word("broken") {
            Some(_) => Err(EngineError::InvalidModel(format!("{shown} is broken"))),
            None => Ok(Box::new(plan)),
        }
    }
}

impl FakePlan {
    /// What follows `prefix` in a word of the file.
    fn word(&self, prefix: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(prefix))
    }
}

impl Plan for FakePlan {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        &[]
    }

    fn memory_bytes(&self) -> u64 {
        self.word("takes").and_then(|bytes| bytes.parse().ok()).unwrap_or(1000)
    }

    fn random_operator(&self) -> Option<&str> {
        self.word("draws").map(|_| "Multinomial")
    }

    fn run(&self, batch: &Batch, _: &Cores) -> Result<Executed, EngineError> {
        self.log.lock().unwrap().push(format!("run {}", batch.rows_total()));
        if self.word("fails").is_some() {
            return Err(EngineError::Failed("on purpose".into()));
        }
        assert!(self.word("crashes").is_none(), "on purpose");
        let mut outputs: Vec<Tensor> = batch.inputs.iter().map(crate::engine::BatchInput::to_tensor).collect();
        if self.word("lies").is_some() {
            outputs = vec![Tensor::new(DType::F32, Shape::new(&[1]), vec![0; 4].into()).unwrap()];
        }
        let shares = scatter(&outputs, &batch.rows);
        Ok(Executed { shares, times: ComputeTimes::default(), helper_cpu: Duration::ZERO })
    }

    fn warm_up(&self, _: usize, _: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}
