//! Files that a step names, beneath the folder of its version.

use super::{StepLimits, wrong};
use crate::engine::EngineError;
use crate::engine::beneath::Folder;
use crate::engine::sealed::Within;
use std::io::Read;

/// All of a file, where it is not larger than the limit.
pub(super) fn read(step: &str, within: Within<'_>, name: &str, limits: &StepLimits) -> Result<Vec<u8>, EngineError> {
    let unread = |error: std::io::Error| EngineError::InvalidStep(format!("{step} cannot read {name:?}: {error}"));
    let most = limits.file_bytes_max;
    let too_large = |size: u64| wrong(step, &format!("a file of at most {most} bytes, {name:?} has {size}"));
    if let Some(sealed) = within.find(name).map_err(unread)? {
        let length = sealed.len() as u64;
        return if length > most { Err(too_large(length)) } else { Ok(sealed.into()) };
    }
    let opened = Folder::open(within.folder).and_then(|folder| folder.open_configured(name)).map_err(unread)?;
    let mut bytes = Vec::new();
    // Read to one byte more, for files that grow meanwhile.
    let length = opened.file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(unread)?;
    if length as u64 > most {
        return Err(too_large(opened.size));
    }
    Ok(bytes)
}

/// As `read`, of a text.
pub(super) fn read_text(
    step: &str,
    within: Within<'_>,
    name: &str,
    limits: &StepLimits,
) -> Result<String, EngineError> {
    let bytes = read(step, within, name, limits)?;
    String::from_utf8(bytes).map_err(|_| wrong(step, &format!("UTF-8 in {name:?}")))
}
