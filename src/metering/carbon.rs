//! Grams of carbon dioxide, by the Software Carbon Intensity of ISO/IEC 21031: what energy came with, by the intensity of
//! the grid, and what making the machine took, by how much of its life has passed. Nothing where settings do not say them.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::config::MeteringConfig;
use crate::units::Nanojoules;

/// What the settings know of both.
#[derive(Debug)]
pub(super) struct Carbon {
    intensity: Intensity,
    /// Grams of a second of the machine's life.
    pub(super) embodied_per_second: Option<f64>,
}

/// Grams per kWh.
#[derive(Debug)]
enum Intensity {
    Unknown,
    Constant(f64),
    Series(Series),
}

/// Lines of a time in seconds since 1970, a comma, and the grams per kWh from then on.
#[derive(Debug)]
struct Series {
    path: PathBuf,
    modified: Option<SystemTime>,
    points: Vec<(u64, f64)>,
}

impl Carbon {
    pub(super) fn of(config: &MeteringConfig) -> Self {
        let intensity = if !config.carbon_intensity_path.as_os_str().is_empty() {
            Intensity::Series(Series { path: config.carbon_intensity_path.clone(), modified: None, points: Vec::new() })
        } else if config.carbon_intensity > 0.0 {
            Intensity::Constant(config.carbon_intensity)
        } else {
            Intensity::Unknown
        };
        let lifetime = config.carbon_lifetime.0.as_secs_f64();
        let embodied_per_second = (config.carbon_embodied > 0.0).then(|| config.carbon_embodied / lifetime);
        Self { intensity, embodied_per_second }
    }

    pub(super) fn has_intensity(&self) -> bool {
        !matches!(self.intensity, Intensity::Unknown)
    }

    /// What the grid's electricity comes with now. Reads the file again where it has changed.
    pub(super) fn grams_per_kwh(&mut self, now: SystemTime) -> Option<f64> {
        match &mut self.intensity {
            Intensity::Unknown => None,
            Intensity::Constant(grams) => Some(*grams),
            Intensity::Series(series) => series.at(now),
        }
    }
}

impl Series {
    fn at(&mut self, now: SystemTime) -> Option<f64> {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified != self.modified {
            self.modified = modified;
            self.points = self.read();
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let known = self.points.partition_point(|(from, _)| *from <= now);
        known.checked_sub(1).map(|last| self.points[last].1)
    }

    /// Nothing of a file that cannot be read, or has a line that is none: told when it was changed to that.
    fn read(&self) -> Vec<(u64, f64)> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "carbon intensity cannot be read");
                return Vec::new();
            }
        };
        match parse(&text) {
            Ok(points) => points,
            Err(line) => {
                let expected = "seconds since 1970, a comma, grams per kWh, in order of time";
                tracing::warn!(path = %self.path.display(), line, expected, "carbon intensity cannot be read");
                Vec::new()
            }
        }
    }
}

/// The points, or the number of the first line that is none.
fn parse(text: &str) -> Result<Vec<(u64, f64)>, usize> {
    let mut points: Vec<(u64, f64)> = Vec::new();
    for (index, line) in text.lines().enumerate().take(POINTS_MAX) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let point = line.split_once(',').and_then(|(from, grams)| {
            let grams = grams.trim().parse::<f64>().ok().filter(|grams| grams.is_finite() && *grams >= 0.0)?;
            Some((from.trim().parse::<u64>().ok()?, grams))
        });
        let follows = |point: &(u64, f64)| points.last().is_none_or(|last| last.0 < point.0);
        points.push(point.filter(follows).ok_or(index + 1)?);
    }
    Ok(points)
}

/// What an energy came with.
#[expect(clippy::cast_precision_loss, reason = "for a counter that is a float")]
pub(super) fn grams(energy: Nanojoules, per_nanojoule: f64) -> f64 {
    energy.0 as f64 * per_nanojoule
}

pub(super) const NANOJOULES_PER_KWH: f64 = 3.6e15;
/// Ten years of hours.
const POINTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn nothing_is_said_where_nothing_is_known() {
        let mut carbon = Carbon::of(&Config::default().metering);
        assert!(!carbon.has_intensity() && carbon.embodied_per_second.is_none());
        assert_eq!(carbon.grams_per_kwh(at(0)), None);
    }

    #[test]
    fn a_kilowatt_hour_has_its_grams() {
        let mut config = Config::default().metering;
        (config.carbon_intensity, config.carbon_embodied) = (360.0, 1_000.0);
        config.carbon_lifetime = crate::units::Span(Duration::from_secs(2000));
        let mut carbon = Carbon::of(&config);
        let joule = grams(Nanojoules(1_000_000_000), carbon.grams_per_kwh(at(0)).unwrap() / NANOJOULES_PER_KWH);
        assert!((joule - 1e-4).abs() < 1e-12, "{joule}");
        assert_eq!(carbon.embodied_per_second, Some(0.5));
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("intensity.csv");
        let mut config = Config::default().metering;
        config.carbon_intensity_path.clone_from(&path);
        let mut carbon = Carbon::of(&config);
        let mut kwh = |seconds| carbon.grams_per_kwh(at(seconds));
        assert_eq!(kwh(0), None, "there is no file yet");
        fs::write(&path, "# from, g/kWh\n100, 300\n200,50.0\n").unwrap();
        assert_eq!([99, 100, 199, 200, 9999].map(&mut kwh), [None, Some(300.0), Some(300.0), Some(50.0), Some(50.0)]);
        let later = fs::metadata(&path).unwrap().modified().unwrap() + Duration::from_secs(2);
        fs::write(&path, "100,20\n").unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(kwh(200), Some(20.0));
        fs::remove_file(&path).unwrap();
        assert_eq!(kwh(200), None);
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for (text, line) in [("x", 1), ("1,2\n\n3", 3), ("1,-2", 1), ("5,1\n4,1", 2), ("1,nan", 1), ("1,inf", 1)] {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
        assert_eq!(parse(""), Ok(vec![]));
    }
}
