//! Which of the kernels that make the same bits runs a product fastest: measured when a model loads, within a budget, and
//! kept beside the model for the next load.
//!
//! A choice depends on the processor, in the file's name, and on the geometry of the product and how many weights are zero,
//! in its key, but not on what the weights are: a model that changed keeps the choices that still apply. The file is not trusted: what is in it only
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
    /// By product, which candidate: the width of its panels in vectors, for one.
    kernels: BTreeMap<String, usize>,
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
            lock(&tuning.known).chosen = kept.kernels;
        }
        tuning
    }

    /// Whether choices may have to be measured: there is time, and no file of earlier ones.
    pub(super) fn may_measure(&self) -> bool {
        let known = lock(&self.known);
        !known.left.is_zero() && known.chosen.is_empty()
    }

    /// Packs a product as the candidate that runs fastest: one that is known, one that is measured while there is time, or
    /// `None`, which is what a rule says. `pack` makes nothing of a candidate that is not worth a try; `prepare` makes what
    /// runs a packed one once.
    pub(super) fn choose<K, R: FnMut(&K)>(
        &self,
        product: &str,
        candidates: &RangeInclusive<usize>,
        pack: &impl Fn(Option<usize>) -> Option<K>,
        prepare: impl FnOnce() -> R,
    ) -> Option<K> {
        let kept = lock(&self.known).chosen.get(product).copied().filter(|kept| candidates.contains(kept));
        if let Some(packed) = kept.and_then(|kept| pack(Some(kept))) {
            return Some(packed);
        }
        // One at a time: others would be measured too.
        let mut known = lock(&self.known);
        if candidates.start() == candidates.end() || known.left.is_zero() {
            return None;
        }
        let started = Instant::now();
        let mut run = prepare();
        let packed = |candidate| Some((Duration::MAX, candidate, pack(Some(candidate))?));
        let mut packed: Vec<_> = candidates.clone().filter_map(packed).collect();
        for _ in 0..ROUNDS {
            for (least, _, packed) in &mut packed {
                let before = Instant::now();
                run(packed);
                *least = before.elapsed().min(*least);
            }
        }
        known.left = known.left.saturating_sub(started.elapsed());
        known.measured += 1;
        let shortest = packed.iter().map(|(least, ..)| *least).min()?;
        let (_, candidate, packed) = packed.into_iter().rfind(|(least, ..)| *least <= shortest.mul_f64(LEVEL))?;
        known.chosen.insert(product.to_owned(), candidate);
        Some(packed)
    }

    /// Keeps what was measured for the next load. A folder that cannot be written is no fault.
    pub(super) fn keep(&self) {
        let known = lock(&self.known);
        let is_new = self.keeps && known.measured > 0;
        let Some(folder) = self.folder.as_ref().filter(|_| is_new) else { return };
        let kept = Kept { version: VERSION.to_owned(), level: self.level.clone(), kernels: known.chosen.clone() };
        if let Err(error) = write(folder, &file_name(), &kept) {
            tracing::debug!(folder = %folder.display(), %error, "choices of kernels are not kept");
        }
    }

    /// For people: how many kernels were chosen by measurement.
    pub(super) fn told(&self) -> String {
        let known = lock(&self.known);
        match (known.chosen.len(), known.measured) {
            (0, _) => String::new(),
            (known, 0) => format!("; kernels of {known} products as kept"),
            (known, measured) => format!("; kernels of {known} products by measurement, {measured} of them now"),
        }
    }
}

/// The name of a product: what it costs depends on nothing else.
pub(super) fn product(operation: &str, [taps, depth, columns]: [usize; 3], window: &Window) -> String {
    format!("{operation} {taps}x{depth}x{columns} {} pixels {}x{}", window.pixels(), window.stride[0], window.stride[1])
}

/// Windows to measure products over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// Of few enough pixels to be measured quickly and enough to be many tiles.
    pub(super) window: Window,
    /// Of as many more as weights that are mostly zero need to be seen at their best.
    pub(super) longer: Window,
    /// The least pixels that the product will ever run over.
    pub(super) pixels_min: usize,
}

impl Probe {
    /// Windows like that of a convolution.
    pub(super) fn image(spatial: &Spatial, out: [usize; 2], channels: usize, macs_per_pixel: usize) -> Self {
        let window = |pixels_min| image(spatial, out, channels, measured(macs_per_pixel, pixels_min));
        Self { window: window(PIXELS_MIN), longer: window(LONGER_PIXELS_MIN), pixels_min: out[0] * out[1] }
    }

    /// Rows of a product likewise, of which there are so many or `least`.
    pub(super) fn rows([rows, least]: [usize; 2], depth: usize, columns: usize) -> Self {
        let window = |pixels_min| Window::rows(rows.min(measured(depth * columns, pixels_min)), depth);
        Self { window: window(PIXELS_MIN), longer: window(LONGER_PIXELS_MIN), pixels_min: least }
    }

    /// With other windows of the same pixels.
    pub(super) fn map(self, window: impl Fn(&Window) -> Window) -> Self {
        Self { window: window(&self.window), longer: window(&self.longer), ..self }
    }
}

/// Pixels that are measured.
fn measured(macs_per_pixel: usize, pixels_min: usize) -> usize {
    (MEASURED_MACS / macs_per_pixel.max(1)).max(pixels_min)
}

fn image(spatial: &Spatial, out: [usize; 2], channels: usize, pixels: usize) -> Window {
    let &Spatial { kernel, stride, dilation, .. } = spatial;
    let across = out[1].min(pixels);
    let lines = out[0].min(pixels.div_ceil(across.max(1)));
    let seen = |out: usize, axis: usize| out.saturating_sub(1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1;
    let size = [seen(lines, 0), seen(across, 1)];
    Window { kernel, stride, dilation, out: [lines, across], ..Window::image(1, size, channels) }
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

/// Of candidates that take as long, but for noise, the last has the widest panels or leaves out the most: what is read from
/// memory for one row it reads fastest.
const LEVEL: f64 = 1.03;

/// Multiply-adds of one run: a tenth of a millisecond with AVX2.
const MEASURED_MACS: usize = 4 << 20;
const PIXELS_MIN: usize = 24;
const LONGER_PIXELS_MIN: usize = 64;

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
        let width = tuning.choose(product, &(1..=3), &|width| width, || {
            |width: &usize| {
                ran.set(true);
                std::thread::sleep(Duration::from_micros(if *width == slow { 50 } else { 500 }));
            }
        });
        (width.unwrap_or(0), ran.get())
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
        assert_eq!(tuning.told(), "; kernels of 2 products by measurement, 2 of them now");
        tuning.keep();
        let next = Tuning::begin(&options, level);
        assert_eq!((chosen(&next, "a", 1), chosen(&next, "b", 1)), ((2, false), (3, false)));
        assert_eq!(next.told(), "; kernels of 2 products as kept");
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
        let widths = |width: usize| format!(r#"{{"version":"{VERSION}","level":"{level}","kernels":{{"a":{width}}}}}"#);
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
        let short = Probe::image(&spatial, [28, 56], 7, 1 << 16);
        let Window { images, out, size, pad, .. } = short.window;
        assert_eq!((images, out, size, pad), (1, [2, 56], [5, 64], [0, 0]));
        assert_eq!((short.longer.out, short.pixels_min), ([2, 56], 28 * 56));
        assert_eq!(Probe::image(&spatial, [28, 56], 7, 1 << 19).longer.out, [2, 56]);
        let rows = |rows| Probe::rows([rows, 1], 512, 512);
        let out = |probe: Probe| [probe.window.out, probe.longer.out];
        assert_eq!([out(rows(1000)), out(rows(3))], [[[1, 24], [1, 64]], [[1, 3], [1, 3]]]);
    }
}
