//! A file into which somebody's own meter writes how many microjoules it has counted so far.

use std::path::{Path, PathBuf};

use super::{Source, SourceError, read_microjoules};
use crate::metering::counter::{Counter, Domain, Zone};
use crate::metering::moment::Moment;

#[derive(Debug)]
pub(super) struct Meter {
    path: PathBuf,
}

impl Meter {
    pub(super) fn open(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Source for Meter {
    fn read(&mut self, _: &Moment) -> Result<Vec<Zone>, SourceError> {
        let value = read_microjoules(&self.path, MICROJOULES)?;
        Ok(vec![Zone { name: "meter".to_owned(), domain: Domain::Meter, value, counter: Counter::Endless }])
    }
}

const MICROJOULES: &str = "a whole number of microjoules, counted from some time on";
