//! Sensors of power in the hwmon tree of Linux. They tell watts of a moment, or a mean of the last ones; what was used
//! between two readings is taken to be the mean of both times the time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Source, SourceError, names, read_number, read_text};
use crate::metering::counter::{Counter, Domain, Zone};
use crate::metering::moment::Moment;
use crate::units::Nanojoules;

#[derive(Debug)]
pub(super) struct Hwmon {
    sensors: Vec<PathBuf>,
    domain: Domain,
    /// When it was last read, in nanowatts of all sensors, and what has been used until then.
    last: Option<(Duration, u64)>,
    used: Nanojoules,
}

impl Hwmon {
    /// Takes one device with all its sensors: that of the whole machine where there is one, else the first that is not a
    /// graphics card's. Two devices might count the same watts.
    pub(super) fn open(root: &Path) -> Result<Self, SourceError> {
        let unreadable =
            |source| SourceError::Unreadable { path: root.to_owned(), expected: "a folder of sensors", source };
        let mut found = Vec::new();
        for device in names(root, "hwmon").map_err(unreadable)? {
            let folder = root.join(device);
            let name = read_text(&folder.join("name"), "the name of a device").unwrap_or_default();
            let sensors = sensors(&folder).unwrap_or_default();
            if !sensors.is_empty() && !GRAPHICS.contains(&name.as_str()) {
                found.push((name != WHOLE_MACHINE, sensors));
            }
        }
        // Stable: the first of its kind stays the first.
        found.sort_by_key(|(is_part, _)| *is_part);
        let absent = || SourceError::Absent { path: root.to_owned(), expected: "a device with a sensor of power" };
        let (is_part, sensors) = found.into_iter().next().ok_or_else(absent)?;
        let domain = if is_part { Domain::Package } else { Domain::Psys };
        Ok(Self { sensors, domain, last: None, used: Nanojoules::ZERO })
    }
}

/// A sensor's mean where it has one, else what it says of the moment.
fn sensors(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let files = names(folder, "power")?;
    let means: Vec<&String> = files.iter().filter(|file| file.ends_with("_average")).collect();
    let has_mean = |file: &str| means.iter().any(|mean| mean.split('_').next() == file.split('_').next());
    let inputs = files.iter().filter(|file| file.ends_with("_input") && !has_mean(file));
    Ok(means.iter().copied().chain(inputs).map(|file| folder.join(file)).collect())
}

impl Source for Hwmon {
    fn read(&mut self, moment: &Moment) -> Result<Vec<Zone>, SourceError> {
        let mut nanowatts = 0u64;
        for sensor in &self.sensors {
            let microwatts = read_number(sensor, MICROWATTS)?;
            nanowatts = nanowatts.saturating_add(microwatts.saturating_mul(1000));
        }
        if let Some((at, before)) = self.last {
            let mean = before / 2 + nanowatts / 2;
            self.used.0 = self.used.0.saturating_add(Nanojoules::of_power(mean, moment.at.saturating_sub(at)).0);
        }
        self.last = Some((moment.at, nanowatts));
        let name = "power".to_owned();
        Ok(vec![Zone { name, domain: self.domain, value: self.used, counter: Counter::Endless }])
    }
}

const MICROWATTS: &str = "a whole number of microwatts";
/// The device of the ACPI power meter.
const WHOLE_MACHINE: &str = "power_meter";
const GRAPHICS: &[&str] = &["amdgpu", "i915", "nouveau", "radeon", "xe"];
