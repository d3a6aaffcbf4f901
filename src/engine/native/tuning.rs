//! Which of the kernels that make the same bits runs a product fastest: measured when a model loads, within a budget, and
//! kept beside the model for the next load.
//!
//! A choice depends on the processor, in the file's name, and on the geometry of the product, in its key, but not on what
//! the weights are: a model that changed keeps the choices that still apply. The file is not trusted: what is in it only
//! decides between candidates, and one that is broken is measured again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kinglet_kernels::{Level, Window};
use serde::{Deserialize, Serialize};

use crate::engine::LoadOptions;
use crate::engine::beneath::Folder;
use crate::engine::graph::op::Spatial;
use crate::engine::pool::lock;
use crate::engine::replaced::replace;

/// The choices of one load.
#[derive(Debug)]
pub(super) struct Tuning {
    known: Mutex<Known>,
    /// The folder that they are read from, and whether they are kept there.
    folder: Option<PathBuf>,
    keeps: bool,
    level: String,
}

#[derive(Debug)]
struct Known {
    /// What is left of the time to measure.
    left: Duration,
    chosen: BTreeMap<String, usize>,
    /// How many of them this load has measured.
    measured: usize,
}

/// What a file of choices holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Kernels change between versions.
    version: String,
    level: String,
    /// By product, the width of its panels in vectors.
    widths: BTreeMap<String, usize>,
}

impl Tuning {
    /// With what was kept of earlier loads.
    pub(super) fn begin(options: &LoadOptions, level: Level) -> Self {
        let known = Known { left: options.tuning_time_max, chosen: BTreeMap::new(), measured: 0 };
        let tuning = Self {
            known: Mutex::new(known),
            folder: options.choices_folder.clone().filter(|_| !options.tuning_time_max.is_zero()),
            keeps: options.keep_choices,
            level: level.to_string(),
        };
        if let Some(folder) = &tuning.folder
            && let Some(kept) = read(folder, &file_name())
            && kept.version == VERSION
            && kept.level == tuning.level
        {
            lock(&tuning.known).chosen = kept.widths;
        }
        tuning
    }

    /// Whether choices may have to be measured: there is time, and no file of earlier ones.
    pub(super) fn may_measure(&self) -> bool {
        let known = lock(&self.known);
        !known.left.is_zero() && known.chosen.is_empty()
    }

    /// Packs a product with the width of panels that runs fastest: one that is known, one that is measured while there is
    /// time, or the one that a rule says. `prepare` makes what runs a packed one once.
    pub(super) fn choose<K, R: FnMut(&K)>(
        &self,
        product: &str,
        widths: RangeInclusive<usize>,
        pack: impl Fn(Option<usize>) -> K,
        prepare: impl FnOnce() -> R,
    ) -> K {
        // One at a time: others would be measured too.
        let mut known = lock(&self.known);
        let kept = known.chosen.get(product).copied().filter(|width| widths.contains(width));
        if kept.is_some() || widths.start() == widths.end() || known.left.is_zero() {
            drop(known);
            return pack(kept);
        }
        let started = Instant::now();
        let mut run = prepare();
        let mut candidates: Vec<_> = widths.map(|width| (Duration::MAX, width, pack(Some(width)))).collect();
        for _ in 0..ROUNDS {
            for (least, _, packed) in &mut candidates {
                let before = Instant::now();
                run(packed);
                *least = before.elapsed().min(*least);
            }
        }
        known.left = known.left.saturating_sub(started.elapsed());
        known.measured += 1;
        match candidates.into_iter().min_by_key(|(least, ..)| *least) {
            Some((_, width, packed)) => {
                known.chosen.insert(product.to_owned(), width);
                packed
            }
            None => pack(None),
        }
    }

    /// Keeps what was measured for the next load. A folder that cannot be written is no fault.
    pub(super) fn keep(&self) {
        let known = lock(&self.known);
        let is_new = self.keeps && known.measured > 0;
        let Some(folder) = self.folder.as_ref().filter(|_| is_new) else { return };
        let kept = Kept { version: VERSION.to_owned(), level: self.level.clone(), widths: known.chosen.clone() };
        if let Err(error) = write(folder, &file_name(), &kept) {
            tracing::debug!(folder = %folder.display(), %error, "choices of kernels are not kept");
        }
    }

    /// For people: how many kernels were chosen by measurement.
    pub(super) fn told(&self) -> String {
        let known = lock(&self.known);
        match (known.chosen.len(), known.measured) {
            (0, _) => String::new(),
            (known, 0) => format!("; widths of {known} products as kept"),
            (known, measured) => format!("; widths of {known} products by measurement, {measured} of them now"),
        }
    }
}

/// The name of a product: what it costs depends on nothing else.
pub(super) fn product(operation: &str, [taps, depth, columns]: [usize; 3], window: &Window) -> String {
    format!("{operation} {taps}x{depth}x{columns} {} pixels {}x{}", window.pixels(), window.stride[0], window.stride[1])
}

/// A window like that of a convolution, of few enough pixels to be measured quickly and enough to be many tiles.
pub(super) fn probe(spatial: &Spatial, out: [usize; 2], channels: usize, macs_per_pixel: usize) -> Window {
    let &Spatial { kernel, stride, dilation, .. } = spatial;
    let pixels = (MEASURED_MACS / macs_per_pixel.max(1)).max(MEASURED_PIXELS_MIN);
    let across = out[1].min(pixels);
    let lines = out[0].min(pixels.div_ceil(across.max(1)));
    let seen = |out: usize, axis: usize| out.saturating_sub(1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1;
    let size = [seen(lines, 0), seen(across, 1)];
    Window { kernel, stride, dilation, out: [lines, across], ..Window::image(1, size, channels) }
}

/// Rows of a product likewise.
pub(super) fn probe_rows(rows: usize, depth: usize, columns: usize) -> Window {
    Window::rows(rows.min((MEASURED_MACS / (depth * columns).max(1)).max(MEASURED_PIXELS_MIN)), depth)
}

fn read(folder: &Path, name: &str) -> Option<Kept> {
    let opened = Folder::open(folder).ok()?.open_configured(name).ok()?;
    let mut text = String::new();
    opened.file.take(KEPT_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write(folder: &Path, name: &str, kept: &Kept) -> std::io::Result<()> {
    let text = serde_json::to_vec_pretty(kept)?;
    replace(&folder.join(name), |file| file.write_all(&text))
}

/// Hidden, so that a repository takes it for no change of the model.
fn file_name() -> String {
    format!(".kinglet-kernels-{}.json", processor())
}

/// What tells processors apart: maker, family, model and stepping.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        let value = line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim();
        value.chars().filter(char::is_ascii_alphanumeric).collect::<String>()
    };
    ["vendor_id", "cpu family", "model", "stepping"].map(field).join("-")
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs of each candidate, by turns; the shortest counts.
const ROUNDS: usize = 4;

/// Multiply-adds of one run: a tenth of a millisecond with AVX2.
const MEASURED_MACS: usize = 4 << 20;
const MEASURED_PIXELS_MIN: usize = 24;

/// A model has far fewer products.
const KEPT_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::engine::graph::op::Padding;
    use crate::engine::testing::options;

    /// A candidate that takes as long as its width says.
    fn chosen(tuning: &Tuning, product: &str, slow: usize) -> (usize, bool) {
        let ran = Cell::new(false);
        let width = tuning.choose(
            product,
            1..=3,
            |width| width.unwrap_or(0),
            || {
                |width: &usize| {
                    ran.set(true);
                    std::thread::sleep(Duration::from_micros(if *width == slow { 50 } else { 500 }));
                }
            },
        );
        (width, ran.get())
    }

    fn with(time: Duration, folder: &Path) -> LoadOptions {
        LoadOptions { tuning_time_max: time, choices_folder: Some(folder.to_owned()), keep_choices: true, ..options() }
    }

    #[test]
    fn the_fastest_is_taken_and_kept_for_the_next_load() {
        let folder = tempfile::tempdir().unwrap();
        let level = Level::all().last().unwrap();
        let options = with(Duration::from_secs(10), folder.path());
        let tuning = Tuning::begin(&options, level);
        assert_eq!(chosen(&tuning, "a", 2), (2, true));
        assert_eq!(chosen(&tuning, "a", 1), (2, false));
        assert_eq!(chosen(&tuning, "b", 3), (3, true));
        assert_eq!(tuning.told(), "; widths of 2 products by measurement, 2 of them now");
        tuning.keep();
        let next = Tuning::begin(&options, level);
        assert_eq!((chosen(&next, "a", 1), chosen(&next, "b", 1)), ((2, false), (3, false)));
        assert_eq!(next.told(), "; widths of 2 products as kept");
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [file_name().as_str()]);
        // Another instruction set has other kernels.
        assert_eq!(chosen(&Tuning::begin(&options, Level::all().next().unwrap()), "a", 1), (1, true));
    }

    #[test]
    fn nothing_is_measured_without_time() {
        let folder = tempfile::tempdir().unwrap();
        let tuning = Tuning::begin(&with(Duration::ZERO, folder.path()), Level::all().last().unwrap());
        assert_eq!(chosen(&tuning, "a", 2), (0, false));
        tuning.keep();
        assert_eq!((fs::read_dir(folder.path()).unwrap().count(), tuning.told()), (0, String::new()));
    }

    #[test]
    fn a_command_that_looks_at_a_model_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let options = LoadOptions { keep_choices: false, ..with(Duration::from_secs(10), folder.path()) };
        let tuning = Tuning::begin(&options, Level::all().last().unwrap());
        assert_eq!(chosen(&tuning, "a", 2), (2, true));
        tuning.keep();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn time_runs_out() {
        let folder = tempfile::tempdir().unwrap();
        let tuning = Tuning::begin(&with(Duration::from_millis(1), folder.path()), Level::all().last().unwrap());
        assert_eq!((chosen(&tuning, "a", 2), chosen(&tuning, "b", 2)), ((2, true), (0, false)));
    }

    #[test]
    fn a_broken_file_and_a_folder_that_is_not_there_are_no_faults() {
        let folder = tempfile::tempdir().unwrap();
        let level = Level::all().last().unwrap();
        let widths = |width: usize| format!(r#"{{"version":"{VERSION}","level":"{level}","widths":{{"a":{width}}}}}"#);
        for broken in ["{", "[]", &widths(9), &widths(3).replace(VERSION, "0")] {
            fs::write(folder.path().join(file_name()), broken).unwrap();
            let tuning = Tuning::begin(&with(Duration::from_secs(10), folder.path()), level);
            assert_eq!(chosen(&tuning, "a", 2), (2, true), "{broken}");
        }
        fs::write(folder.path().join(file_name()), widths(3)).unwrap();
        let tuning = Tuning::begin(&with(Duration::from_secs(10), folder.path()), level);
        assert_eq!(chosen(&tuning, "a", 2), (3, false));
        let gone = Tuning::begin(&with(Duration::from_secs(10), &folder.path().join("none")), level);
        assert_eq!(chosen(&gone, "a", 2), (2, true));
        gone.keep();
    }

    #[test]
    fn what_is_measured_is_short() {
        let padding = Padding::Given { before: [1, 4], after: [1, 4] };
        let spatial = Spatial { axes: 2, kernel: [3, 5], stride: [2, 1], dilation: [1, 2], padding };
        let short = probe(&spatial, [28, 56], 7, 1 << 16);
        assert_eq!((short.images, short.out, short.size, short.pad), (1, [2, 56], [5, 64], [0, 0]));
        assert_eq!([probe_rows(1000, 256, 256).out, probe_rows(3, 256, 256).out], [[1, 64], [1, 3]]);
    }
}
