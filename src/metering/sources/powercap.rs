//! The powercap tree of Linux, as the system has it or as a host gives one to its guest: `intel-rapl:0/energy_uj` and the
//! like. AMD's processors are in it under Intel's name.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Source, SourceError, names, read_microjoules, read_text};
use crate::metering::counter::{Counter, Domain, Zone};
use crate::metering::moment::Moment;

#[derive(Debug)]
pub(super) struct Powercap {
    root: PathBuf,
}

impl Powercap {
    pub(super) fn open(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Zones by name with their folders. They stand in one folder, or within each other; most systems have both. Looked up
    /// anew each time: packages come and go.
    fn folders(&self) -> Result<BTreeMap<String, PathBuf>, SourceError> {
        let listed = |folder: &Path| {
            let expected = "a folder of power zones";
            let unreadable = |source| SourceError::Unreadable { path: folder.to_owned(), expected, source };
            names(folder, PREFIX).map_err(unreadable)
        };
        let mut folders = BTreeMap::new();
        for name in listed(&self.root)? {
            let folder = self.root.join(&name);
            for within in listed(&folder)? {
                folders.insert(within.clone(), folder.join(within));
            }
            folders.insert(name, folder);
        }
        Ok(folders)
    }
}

impl Source for Powercap {
    fn read(&mut self, _: &Moment) -> Result<Vec<Zone>, SourceError> {
        let zones: Vec<Zone> = self
            .folders()?
            .iter()
            .filter_map(|(name, folder)| zone(name, folder).transpose())
            .collect::<Result<_, _>>()?;
        let counts = |zone: &Zone| matches!(zone.domain, Domain::Package | Domain::Psys);
        if !zones.iter().any(counts) {
            let expected = "a zone intel-rapl:<n> of a package or of the whole machine";
            return Err(SourceError::Absent { path: self.root.clone(), expected });
        }
        Ok(zones)
    }
}

/// Nothing for a zone of a kind that is not known.
fn zone(name: &str, folder: &Path) -> Result<Option<Zone>, SourceError> {
    let Some(domain) = domain(name, folder)? else { return Ok(None) };
    let microjoules = |file: &str| read_microjoules(&folder.join(file), MICROJOULES);
    let value = microjoules("energy_uj").map_err(root_only)?;
    let counter = match microjoules("max_energy_range_uj") {
        Ok(max) => Counter::Wraps { max },
        // A host that gives its guest a tree need not have counters that end.
        Err(error) if is_absent(&error) => Counter::Endless,
        Err(error) => return Err(error),
    };
    Ok(Some(Zone { name: name.to_owned(), domain, value, counter }))
}

/// A zone without a name is a package where it stands in no other.
fn domain(zone: &str, folder: &Path) -> Result<Option<Domain>, SourceError> {
    let name = match read_text(&folder.join("name"), "the name of a power zone") {
        Err(error) if is_absent(&error) && zone.matches(':').count() == 1 => "package".to_owned(),
        name => name?,
    };
    Ok(match name.as_str() {
        "dram" => Some(Domain::Dram),
        "core" => Some(Domain::Core),
        "uncore" => Some(Domain::Uncore),
        "psys" => Some(Domain::Psys),
        package if package.starts_with("package") => Some(Domain::Package),
        _ => None,
    })
}

fn is_absent(error: &SourceError) -> bool {
    matches!(error, SourceError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

pub(super) fn root_only(error: SourceError) -> SourceError {
    match error {
        SourceError::Unreadable { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            SourceError::RootOnly { path }
        }
        other => other,
    }
}

/// Of zones of the processors' own counters; `intel-rapl-mmio:0` shows the first of them a second time.
const PREFIX: &str = "intel-rapl:";
const MICROJOULES: &str = "a whole number of microjoules";
