//! The text step: texts become numbers of tokens, by a tokenizer.json as Hugging Face writes it.

#[cfg_attr(not(feature = "tokenizers"), path = "absent.rs")]
mod tokenized;

use serde::Deserialize;

pub(super) use tokenized::build;

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TextSettings {
    #[serde(default = "tokenizer_file")]
    pub file: String,
    /// Longer texts are cut; absent: what the file says.
    pub tokens_max: Option<usize>,
    /// Absent: what the file says, else the longest.
    pub padding: Option<PaddedTo>,
    pub multiple_of: Option<usize>,
    /// Absent: what the file says, else token 0.
    pub pad_token: Option<String>,
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
    #[serde(default = "usual_outputs")]
    pub outputs: Vec<TextOutput>,
}

/// How long all texts of a request become.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PaddedTo {
    /// As the longest of them.
    Longest,
    /// As long as texts may be: `tokens_max`.
    Fixed,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum TextOutput {
    #[serde(rename = "input_ids")]
    Ids,
    #[serde(rename = "attention_mask")]
    Mask,
    #[serde(rename = "token_type_ids")]
    Types,
}

fn tokenizer_file() -> String {
    "tokenizer.json".into()
}

fn yes() -> bool {
    true
}

fn usual_outputs() -> Vec<TextOutput> {
    vec![TextOutput::Ids, TextOutput::Mask]
}
