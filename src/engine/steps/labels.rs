//! The labels step: the highest scores of each row, with their names.

use serde::Deserialize;

use super::{Built, Step, StepLimits, batch_axis, files, tensor, wrong};
use crate::engine::sealed::Within;
use crate::engine::{BatchInput, Cores, Dim, EngineError, Merging, TensorSpec};
use crate::tensor::{DType, Shape, Tensor, by_number, highest};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LabelsSettings {
    pub names: Option<Vec<String>>,
    /// A file with one name a line.
    pub names_file: Option<String>,
    /// How many of the highest; all, where there are fewer.
    #[serde(default = "one")]
    pub top: usize,
    #[serde(default)]
    pub activation: Activation,
    /// Classes with less have no label.
    pub score_min: Option<f32>,
}

/// What scores become first.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    #[default]
    None,
    Softmax,
    Sigmoid,
}

#[derive(Debug)]
struct Labels {
    names: Vec<String>,
    top: usize,
    activation: Activation,
    score_min: Option<f32>,
    limits: StepLimits,
}

pub(super) fn build(settings: &LabelsSettings, within: Within<'_>, limits: &StepLimits) -> Result<Built, EngineError> {
    let names = match (&settings.names, &settings.names_file) {
        (Some(names), None) => names.clone(),
        (None, Some(file)) => {
            let text = files::read_text("labels", within, file, limits)?;
            text.lines().map(str::to_owned).collect()
        }
        _ => return Err(wrong("labels", "either names or names_file")),
    };
    if names.is_empty() || settings.top == 0 {
        return Err(wrong("labels", "at least one name and a top of at least 1"));
    }
    let top = settings.top.min(names.len());
    let spec = |name: &str, dtype: DType, extent: usize| TensorSpec {
        name: name.into(),
        dtype,
        dims: vec![batch_axis(), Dim::Fixed(extent)],
    };
    let inputs = vec![spec("scores", DType::F32, names.len())];
    let outputs =
        vec![spec("labels", DType::Bytes, top), spec("scores", DType::F32, top), spec("indices", DType::I64, top)];
    let memory_bytes = names.iter().map(|name| name.len() as u64).sum();
    let step = Box::new(Labels {
        names,
        top,
        activation: settings.activation,
        score_min: settings.score_min,
        limits: limits.clone(),
    });
    Ok(Built { name: "labels", inputs, outputs, merging: Merging::Rows, memory_bytes, step })
}

impl Step for Labels {
    fn run(&self, inputs: &[BatchInput], _cores: &Cores) -> Result<Vec<Tensor>, EngineError> {
        let (rows, classes) = (inputs[0].shape.rows(), self.names.len());
        let longest = self.names.iter().map(String::len).max().unwrap_or(0);
        self.limits.check_run(rows, self.top.saturating_mul(longest + ELEMENT_BYTES))?;
        let given = inputs[0].to_tensor();
        let (mut labels, mut scores, mut indices) = (Vec::new(), Vec::new(), Vec::new());
        for row in given.bytes().as_chunks::<4>().0.chunks_exact(classes) {
            let mut row: Vec<f32> = row.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            self.activation.apply(&mut row);
            for index in highest(&row, self.top, |a, b| by_number(f64::from(a), f64::from(b))) {
                let named = self.score_min.is_none_or(|least| row[index] >= least);
                labels.push(if named { self.names[index].as_str() } else { "" });
                scores.extend(row[index].to_le_bytes());
                let index = if named { i64::try_from(index).unwrap_or(i64::MAX) } else { -1 };
                indices.extend(index.to_le_bytes());
            }
        }
        let shape = Shape::new(&[rows, self.top]);
        let labels = Tensor::from_elements(shape.clone(), labels.into_iter().map(str::as_bytes))
            .expect("names come from a file within a limit, one for each place");
        Ok(vec![labels, tensor(DType::F32, shape.clone(), scores), tensor(DType::I64, shape, indices)])
    }
}

impl Activation {
    fn apply(self, row: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Sigmoid => row.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
            Self::Softmax => {
                let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|score| *score = (*score - greatest).exp());
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|score| *score /= sum);
            }
        }
    }
}

fn one() -> usize {
    1
}

/// Of a label's length, a score and an index.
const ELEMENT_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use std::fs;

    use std::path::Path;

    use super::*;
    use crate::engine::LoadOptions;
    use crate::engine::testing::{answer, execute, tensor as floats, values};

    fn labels(settings: &str, folder: &Path) -> Result<Box<dyn crate::engine::Plan>, EngineError> {
        let settings = toml::from_str(&format!("labels = {{ {settings} }}")).unwrap();
        super::super::plan(&settings, folder, &LoadOptions::default())
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor.elements().map(|element| String::from_utf8(element.to_vec()).unwrap()).collect()
    }

    fn indices(tensor: &Tensor) -> Vec<i64> {
        tensor.bytes().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }

    fn check(settings: &str, given: &[f32], names: &[&str], scores: &[f32], places: &[i64]) {
        let plan = labels(&format!("names = [\"a\", \"b\", \"c\"], {settings}"), Path::new(".")).unwrap();
        assert_eq!(plan.merging(), &Merging::Rows);
        let got = answer(plan, vec![floats(&[given.len() / 3, 3], given)]).unwrap();
        assert_eq!(
            (texts(&got[0]), indices(&got[2])),
            (names.iter().map(ToString::to_string).collect(), places.to_vec())
        );
        let near = |(got, expected): (&f32, &f32)| match expected {
            expected if expected.is_nan() => got.is_nan(),
            expected if expected.is_infinite() => got.is_infinite(),
            expected => (got - expected).abs() < 1e-6,
        };
        assert!(values(&got[1]).iter().zip(scores).all(near), "{:?} {scores:?}", values(&got[1]));
        assert_eq!(got[0].shape(), got[1].shape());
    }

    #[test]
    fn the_highest_have_their_names() {
        check("", &[0.1, 0.7, 0.2, 3.0, 1.0, 2.0], &["b", "a"], &[0.7, 3.0], &[1, 0]);
        check("top = 2", &[0.1, 0.7, 0.2], &["b", "c"], &[0.7, 0.2], &[1, 2]);
        check("top = 9", &[0.5, 0.5, 0.5], &["a", "b", "c"], &[0.5, 0.5, 0.5], &[0, 1, 2]);
        check(
            "top = 3",
            &[f32::NAN, -1.0, f32::INFINITY],
            &["c", "b", "a"],
            &[f32::INFINITY, -1.0, f32::NAN],
            &[2, 1, 0],
        );
        // numpy: exp(x - max) / sum, and 1 / (1 + exp(-x)).
        check(
            "top = 3, activation = \"softmax\"",
            &[1.0, 2.0, 3.0],
            &["c", "b", "a"],
            &[0.665_240_94, 0.244_728_48, 0.090_030_57],
            &[2, 1, 0],
        );
        check("top = 2, activation = \"sigmoid\"", &[0.0, -2.0, 88.0], &["c", "a"], &[1.0, 0.5], &[2, 0]);
        check("top = 1, activation = \"softmax\"", &[1000.0, -1000.0, 0.0], &["a"], &[1.0], &[0]);
        check("top = 3, activation = \"softmax\"", &[f32::NAN, 1.0, 2.0], &["a", "b", "c"], &[f32::NAN; 3], &[0, 1, 2]);
        check("top = 3, score_min = 0.5", &[0.1, 0.7, 0.2], &["b", "", ""], &[0.7, 0.2, 0.1], &[1, -1, -1]);
        check("top = 2, score_min = 0.5", &[f32::NAN, 0.5, f32::NAN], &["b", ""], &[0.5, f32::NAN], &[1, -1]);
    }

    #[test]
    fn rows_are_their_own() {
        let plan = labels("names = [\"a\", \"bc\"], top = 2", Path::new(".")).unwrap();
        let entries = vec![
            vec![floats(&[1, 2], &[1.0, 2.0])],
            vec![floats(&[0, 2], &[])],
            vec![floats(&[2, 2], &[4.0, 3.0, 5.0, 6.0])],
        ];
        let shares = execute(plan, entries, true).1.unwrap().shares;
        assert_eq!(
            shares.iter().map(|share| texts(&share[0])).collect::<Vec<_>>(),
            [vec!["bc", "a"], vec![], vec!["a", "bc", "bc", "a"]]
        );
        assert_eq!(&shares[1][0].shape()[..], [0, 2]);
    }

    #[test]
    fn names_come_from_a_file_and_are_as_many_as_classes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("names.txt"), "sugar maple\r\nGröße\n").unwrap();
        let scores = |classes: usize| vec![floats(&[1, classes], &vec![0.0; classes])];
        let plan = labels("names_file = \"names.txt\", top = 5", folder.path()).unwrap();
        assert_eq!(texts(&answer(plan, scores(2)).unwrap()[0]), ["sugar maple", "Größe"]);
        let plan = labels("names_file = \"names.txt\"", folder.path()).unwrap();
        let refused = answer(plan, scores(3)).unwrap_err().to_string();
        assert!(refused.ends_with("input \"scores\": expected shape [batch,2], got [1,3]"), "{refused}");
        fs::write(folder.path().join("latin"), b"Gr\xf6\xdfe").unwrap();
        fs::write(folder.path().join("empty"), b"").unwrap();
        for (settings, reason) in [
            ("", "expects either names or names_file"),
            ("names = [\"a\"], names_file = \"names.txt\"", "expects either names or names_file"),
            ("names = []", "expects at least one name and a top of at least 1"),
            ("names_file = \"empty\"", "expects at least one name and a top of at least 1"),
            ("names = [\"a\"], top = 0", "expects at least one name and a top of at least 1"),
            ("names_file = \"latin\"", "expects UTF-8 in \"latin\""),
        ] {
            assert_eq!(
                labels(settings, folder.path()).unwrap_err().to_string(),
                format!("invalid step: labels {reason}")
            );
        }
    }
}
