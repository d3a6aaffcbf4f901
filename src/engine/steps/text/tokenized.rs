//! Texts through Hugging Face's tokenizers: cut, counted and padded.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, PostProcessor, Tokenizer, TruncationParams};

use super::super::{Built, Step, StepLimits, batch_axis, elements, files, in_rows, tensor, wrong};
use super::{PaddedTo, TextOutput, TextSettings};
use crate::engine::sealed::Within;
use crate::engine::{BatchInput, Cores, Dim, EngineError, Merging, TensorSpec};
use crate::tensor::{DType, Shape, Tensor};

#[derive(Debug)]
struct Text {
    tokenizer: Tokenizer,
    add_special_tokens: bool,
    padding: PaddingParams,
    outputs: Vec<TextOutput>,
    limits: StepLimits,
}

/// What stands for one text, not yet padded.
struct Tokens {
    ids: Vec<u32>,
    types: Vec<u32>,
}

pub(in crate::engine::steps) fn build(
    settings: &TextSettings,
    within: Within<'_>,
    limits: &StepLimits,
) -> Result<Built, EngineError> {
    if settings.outputs.is_empty() || duplicate(&settings.outputs) {
        return Err(wrong("text", "outputs, each of them once"));
    }
    let file = files::read("text", within, &settings.file, limits)?;
    let mut tokenizer = read(&file, &settings.file)?;
    let tokens_max = truncate(&mut tokenizer, settings)?;
    let padding = padding(&tokenizer, settings, tokens_max)?;
    tokenizer.with_padding(None);
    let (tokens, merging) = match padding.strategy {
        PaddingStrategy::Fixed(_) => (Dim::Fixed(padded(&padding, 0)), Merging::Rows),
        PaddingStrategy::BatchLongest => {
            let reason = "texts are padded to the longest of a request".into();
            (Dim::Free(Some("tokens".into())), Merging::Alone { operator: "text".into(), reason })
        }
    };
    let inputs = vec![TensorSpec { name: "text".into(), dtype: DType::Bytes, dims: vec![batch_axis()] }];
    let spec = |output: &TextOutput| TensorSpec {
        name: output.name().into(),
        dtype: DType::I64,
        dims: vec![batch_axis(), tokens.clone()],
    };
    let outputs = settings.outputs.iter().map(spec).collect();
    let step = Box::new(Text {
        tokenizer,
        add_special_tokens: settings.add_special_tokens,
        padding,
        outputs: settings.outputs.clone(),
        limits: limits.clone(),
    });
    Ok(Built { name: "text", inputs, outputs, merging, memory_bytes: file.len() as u64, step })
}

impl Step for Text {
    fn run(&self, inputs: &[BatchInput], cores: &Cores) -> Result<Vec<Tensor>, EngineError> {
        let texts = elements(&inputs[0]);
        let rows = texts.len();
        let tokens =
            in_rows(rows, cores, &|row| self.tokens(texts[row]).map_err(|reason| format!("text {row}: {reason}")))?;
        let length = padded(&self.padding, tokens.iter().map(|tokens| tokens.ids.len()).max().unwrap_or(0));
        if let Some(row) = tokens.iter().position(|tokens| tokens.ids.len() > length) {
            let got = tokens[row].ids.len();
            return Err(EngineError::InvalidContents(format!(
                "text {row}: expected at most {length} tokens, got {got}"
            )));
        }
        self.limits.check_run(rows, length.saturating_mul(self.outputs.len() * size_of::<i64>()))?;
        let output = |output: &TextOutput| {
            let bytes = tokens.iter().flat_map(|tokens| self.row(*output, tokens, length)).flat_map(i64::to_le_bytes);
            tensor(DType::I64, Shape::new(&[rows, length]), bytes.collect())
        };
        Ok(self.outputs.iter().map(output).collect())
    }
}

impl Text {
    fn tokens(&self, text: &[u8]) -> Result<Tokens, String> {
        let most = self.limits.text_bytes_max;
        if text.len() > most {
            return Err(format!("expected at most {most} bytes, got {}", text.len()));
        }
        let text =
            str::from_utf8(text).map_err(|error| format!("expected UTF-8, it ends at byte {}", error.valid_up_to()))?;
        let encoded = guarded(|| self.tokenizer.encode_fast(text, self.add_special_tokens));
        let encoded = encoded.ok_or("the tokenizer cannot take it")?;
        Ok(Tokens { ids: encoded.get_ids().to_vec(), types: encoded.get_type_ids().to_vec() })
    }

    /// One row of an output, padded.
    fn row(&self, output: TextOutput, tokens: &Tokens, length: usize) -> Vec<i64> {
        let (values, pad): (Vec<i64>, u32) = match output {
            TextOutput::Ids => (tokens.ids.iter().map(|&id| id.into()).collect(), self.padding.pad_id),
            TextOutput::Mask => (vec![1; tokens.ids.len()], 0),
            TextOutput::Types => (tokens.types.iter().map(|&kind| kind.into()).collect(), self.padding.pad_type_id),
        };
        let beside = vec![pad.into(); length - values.len()];
        match self.padding.direction {
            PaddingDirection::Right => [values, beside].concat(),
            PaddingDirection::Left => [beside, values].concat(),
        }
    }
}

impl TextOutput {
    fn name(self) -> &'static str {
        match self {
            Self::Ids => "input_ids",
            Self::Mask => "attention_mask",
            Self::Types => "token_type_ids",
        }
    }
}

fn read(file: &[u8], name: &str) -> Result<Tokenizer, EngineError> {
    guarded(|| Tokenizer::from_bytes(file))
        .ok_or_else(|| wrong("text", &format!("a tokenizer in {name:?}, it is broken")))
}

/// Sets where texts are cut, and tells it. Only the first piece is of use, so that pieces need not overlap.
fn truncate(tokenizer: &mut Tokenizer, settings: &TextSettings) -> Result<Option<usize>, EngineError> {
    let said = tokenizer.get_truncation().cloned();
    let Some(tokens_max) = settings.tokens_max.or(said.as_ref().map(|said| said.max_length)) else { return Ok(None) };
    let added = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
    let least = if settings.add_special_tokens { added + 1 } else { 1 }.max(added);
    if tokens_max < least {
        return Err(wrong("text", &format!("tokens_max of at least {least}, got {tokens_max}")));
    }
    let params = TruncationParams { max_length: tokens_max, stride: 0, ..said.unwrap_or_default() };
    tokenizer.with_truncation(Some(params)).map_err(|_| wrong("text", "another tokens_max"))?;
    Ok(Some(tokens_max))
}

fn padding(
    tokenizer: &Tokenizer,
    settings: &TextSettings,
    tokens_max: Option<usize>,
) -> Result<PaddingParams, EngineError> {
    let mut padding = tokenizer.get_padding().cloned().unwrap_or_default();
    match (settings.padding, tokens_max) {
        (Some(PaddedTo::Longest), _) => padding.strategy = PaddingStrategy::BatchLongest,
        (Some(PaddedTo::Fixed), Some(tokens_max)) => padding.strategy = PaddingStrategy::Fixed(tokens_max),
        (Some(PaddedTo::Fixed), None) => return Err(wrong("text", "tokens_max with padding = \"fixed\"")),
        (None, _) => {}
    }
    if let Some(multiple) = settings.multiple_of {
        padding.pad_to_multiple_of = Some(multiple);
    }
    if let Some(multiple) = padding.pad_to_multiple_of.filter(|multiple| !(1..=MULTIPLE_MAX).contains(multiple)) {
        return Err(wrong("text", &format!("multiple_of from 1 to {MULTIPLE_MAX}, got {multiple}")));
    }
    if let PaddingStrategy::Fixed(fixed) = padding.strategy
        && !(1..=TOKENS_MAX).contains(&fixed)
    {
        return Err(wrong("text", &format!("from 1 to {TOKENS_MAX} tokens, got {fixed}")));
    }
    if let Some(token) = &settings.pad_token {
        let unknown = || wrong("text", &format!("a pad_token that the tokenizer has, got {token:?}"));
        padding.pad_id = tokenizer.token_to_id(token).ok_or_else(unknown)?;
    }
    Ok(padding)
}

/// What texts of which the longest has so many tokens become.
fn padded(padding: &PaddingParams, longest: usize) -> usize {
    let length = match padding.strategy {
        PaddingStrategy::Fixed(length) => length,
        PaddingStrategy::BatchLongest => longest,
    };
    padding.pad_to_multiple_of.map_or(length, |multiple| length.next_multiple_of(multiple))
}

/// The tokenizer is others' code and its file is a stranger's: a panic is that file's or that text's.
fn guarded<T, E>(call: impl FnOnce() -> Result<T, E>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()?.ok()
}

fn duplicate(outputs: &[TextOutput]) -> bool {
    outputs.iter().enumerate().any(|(place, output)| outputs[..place].contains(output))
}

/// Of a text that is padded to a fixed length; none that is trained takes more.
const TOKENS_MAX: usize = 1 << 20;
const MULTIPLE_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::super::testing::{folder, step, step_with};
    use super::*;
    use crate::engine::testing::{answer, execute};
    use crate::engine::{LoadOptions, Plan};

    /// What Hugging Face's tokenizers make of texts (`tests/fixtures/steps/make.py`).
    #[derive(Deserialize)]
    struct Expected {
        texts: Vec<String>,
        alone: Vec<Vec<i64>>,
        cut_to_7_without_special_tokens: Vec<Vec<i64>>,
        together: Vec<Vec<i64>>,
        mask: Vec<Vec<i64>>,
        types: Vec<Vec<i64>>,
    }

    const TOKENIZERS: [&str; 3] = ["wordpiece", "bpe", "unigram"];

    fn expected(name: &str) -> Expected {
        let file = fs::read(folder().join("texts.json")).unwrap();
        serde_json::from_slice::<HashMap<String, Expected>>(&file).unwrap().remove(name).unwrap()
    }

    fn texts_of(texts: &[impl AsRef<[u8]>]) -> Tensor {
        Tensor::from_elements(Shape::new(&[texts.len()]), texts.iter().map(AsRef::as_ref)).unwrap()
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
        let numbers = tensor.bytes().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect::<Vec<_>>();
        let length = tensor.shape()[1];
        (0..tensor.shape()[0]).map(|row| numbers[row * length..][..length].to_vec()).collect()
    }

    fn refused(plan: Box<dyn Plan>, texts: &[&[u8]]) -> String {
        match answer(plan, vec![texts_of(texts)]) {
            Err(EngineError::InvalidContents(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_are_cut_as_hugging_face_does() {
        for name in TOKENIZERS {
            let Expected { texts, alone, cut_to_7_without_special_tokens: cut, together, mask, types } = expected(name);
            let longest = format!("text = {{ file = \"{name}.json\", padding = \"longest\", multiple_of = 1 }}");
            let short = format!(
                "text = {{ file = \"{name}.json\", padding = \"longest\", multiple_of = 1, tokens_max = 7, add_special_tokens = false }}"
            );
            for (settings, expected) in [(longest, alone), (short, cut)] {
                for (text, expected) in texts.iter().zip(expected) {
                    let got = answer(step(&settings).unwrap(), vec![texts_of(&[text])]).unwrap();
                    assert_eq!(rows(&got[0]), [expected], "{name} {text:?}");
                }
            }
            let all = "[\"token_type_ids\", \"attention_mask\", \"input_ids\"]";
            let plan = step(&format!("text = {{ file = \"{name}.json\", outputs = {all} }}")).unwrap();
            let got = answer(plan, vec![texts_of(&texts)]).unwrap();
            assert_eq!([rows(&got[0]), rows(&got[1]), rows(&got[2])], [types, mask, together], "{name}");
        }
    }

    #[test]
    fn a_fixed_length_merges_and_the_longest_does_not() {
        let check = |settings: &str, tokens: Option<usize>| {
            let plan = step(&format!("text = {{ {settings} }}")).unwrap();
            assert_eq!(plan.merging() == &Merging::Rows, tokens.is_some(), "{settings}");
            let fixed = plan
                .signature()
                .outputs
                .iter()
                .all(|output| output.dims[1] == tokens.map_or(Dim::Free(Some("tokens".into())), Dim::Fixed));
            assert!(fixed, "{settings}: {:?}", plan.signature().outputs);
        };
        check("file = \"wordpiece.json\"", Some(20));
        check("file = \"wordpiece.json\", padding = \"fixed\"", Some(16));
        check("file = \"wordpiece.json\", padding = \"fixed\", tokens_max = 9, multiple_of = 8", Some(16));
        check("file = \"wordpiece.json\", padding = \"longest\"", None);
        check("file = \"bpe.json\"", None);
        check("file = \"unigram.json\"", None);
        check("file = \"unigram.json\", padding = \"fixed\", tokens_max = 9", Some(9));
        let settings = "text = { file = \"wordpiece.json\" }";
        let (short, long) = (texts_of(&["fox"]), texts_of(&["the quick brown fox jumps over the lazy dog", "hello"]));
        let alone = |text: &Tensor| answer(step(settings).unwrap(), vec![text.clone()]).unwrap();
        let shares =
            execute(step(settings).unwrap(), vec![vec![short.clone()], vec![long.clone()]], true).1.unwrap().shares;
        assert_eq!(shares, [alone(&short), alone(&long)]);
    }

    #[test]
    fn a_pad_token_is_looked_up() {
        let plan =
            step("text = { file = \"wordpiece.json\", padding = \"fixed\", tokens_max = 4, pad_token = \"[UNK]\" }")
                .unwrap();
        let got = answer(plan, vec![texts_of(&[""])]).unwrap();
        assert_eq!((rows(&got[0]), rows(&got[1])), (vec![vec![2, 3, 1, 1]], vec![vec![1, 1, 0, 0]]));
    }

    #[test]
    fn texts_that_cannot_be_taken_are_named() {
        let settings = "text = { file = \"wordpiece.json\" }";
        assert_eq!(
            refused(step(settings).unwrap(), &[b"fox", b"caf\xc3"]),
            "text 1: expected UTF-8, it ends at byte 3"
        );
        let options = LoadOptions { text_bytes_max: 3, ..LoadOptions::default() };
        assert_eq!(
            refused(step_with(settings, &options).unwrap(), &[b"fox", b"four"]),
            "text 1: expected at most 3 bytes, got 4"
        );
        let options = LoadOptions { arena_bytes_max: 639, ..LoadOptions::default() };
        let plan = step_with(settings, &options).unwrap();
        let large = answer(plan, vec![texts_of(&["a", "b"])]).unwrap_err().to_string();
        assert!(large.ends_with("the outputs of 2 rows need 640 bytes, the limit is 639"), "{large}");
    }

    #[test]
    fn settings_that_cannot_be_followed_are_refused() {
        let check = |settings: &str, reason: &str| {
            let refused = step(&format!("text = {{ {settings} }}")).unwrap_err().to_string();
            assert_eq!(refused, format!("invalid step: text {reason}"));
        };
        let wordpiece = "file = \"wordpiece.json\"";
        check("", "cannot read \"tokenizer.json\": No such file or directory (os error 2)");
        check(
            "file = \"../steps/wordpiece.json\"",
            "cannot read \"../steps/wordpiece.json\": Invalid cross-device link (os error 18)",
        );
        check("file = \"texts.json\"", "expects a tokenizer in \"texts.json\", it is broken");
        check(&format!("{wordpiece}, tokens_max = 2"), "expects tokens_max of at least 3, got 2");
        check(
            &format!("{wordpiece}, tokens_max = 1, add_special_tokens = false"),
            "expects tokens_max of at least 2, got 1",
        );
        check("file = \"bpe.json\", padding = \"fixed\"", "expects tokens_max with padding = \"fixed\"");
        check(
            "file = \"bpe.json\", padding = \"fixed\", tokens_max = 2000000",
            "expects from 1 to 1048576 tokens, got 2000000",
        );
        check("file = \"bpe.json\", multiple_of = 0", "expects multiple_of from 1 to 65536, got 0");
        check(
            &format!("{wordpiece}, pad_token = \"<pad>\""),
            "expects a pad_token that the tokenizer has, got \"<pad>\"",
        );
        check(&format!("{wordpiece}, outputs = []"), "expects outputs, each of them once");
        check(&format!("{wordpiece}, outputs = [\"input_ids\", \"input_ids\"]"), "expects outputs, each of them once");
        let options = LoadOptions { step_file_bytes_max: 100, ..LoadOptions::default() };
        let refused = step_with(&format!("text = {{ {wordpiece} }}"), &options).unwrap_err().to_string();
        assert!(
            refused.starts_with("invalid step: text expects a file of at most 100 bytes, \"wordpiece.json\" has "),
            "{refused}"
        );
    }

    /// A tokenizer from a changed file, where it can be read, and an answer, whatever it is.
    fn harmless(file: &[u8], text: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer.json"), file).unwrap();
        let settings = toml::from_str("text = { tokens_max = 8 }").unwrap();
        let Ok(plan) = super::super::super::plan(&settings, folder.path(), &LoadOptions::default()) else { return };
        let _ = answer(plan, vec![texts_of(&[text])]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        #[test]
        fn any_text_has_tokens(texts in prop::collection::vec(".{0,60}", 1..4), name in prop::sample::select(&TOKENIZERS[..])) {
            let got = answer(step(&format!("text = {{ file = \"{name}.json\" }}")).unwrap(), vec![texts_of(&texts)]).unwrap();
            prop_assert_eq!(got[0].shape(), got[1].shape());
            prop_assert_eq!(got[0].shape().rows(), texts.len());
        }

        #[test]
        fn changed_tokenizers_do_no_harm(
            name in prop::sample::select(&TOKENIZERS[..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"0123456789-,:[]{}\"aT"[..])), 1..4),
            text in ".{0,40}",
        ) {
            let mut file = fs::read(folder().join(format!("{name}.json"))).unwrap();
            for (place, byte) in changes {
                let place = place.index(file.len());
                file[place] = byte;
            }
            harmless(&file, &text);
        }
    }
}
