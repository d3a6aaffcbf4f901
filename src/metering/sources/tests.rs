//! Every source on a made-up tree of files: what it reads, and what it says of what it cannot read.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::metering::counter::{Counter, Domain, Dropped};
use crate::units::Nanojoules;

/// A powercap tree on disk.
struct Tree(TempDir);

const MAX: &str = "262143328850";

impl Tree {
    fn new(zones: &[(&str, &str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (folder, name, microjoules) in zones {
            tree.add(folder, name, microjoules);
        }
        tree
    }

    fn add(&self, folder: &str, name: &str, microjoules: &str) {
        let path = self.0.path().join(folder);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("name"), format!("{name}\n")).unwrap();
        fs::write(path.join("max_energy_range_uj"), format!("{MAX}\n")).unwrap();
        self.set(folder, microjoules);
    }

    fn set(&self, folder: &str, microjoules: &str) {
        fs::write(self.0.path().join(folder).join("energy_uj"), format!("{microjoules}\n")).unwrap();
    }

    fn read(&self) -> Result<Vec<Zone>, SourceError> {
        powercap::Powercap::open(self.0.path()).read(&Moment::default())
    }

    fn reading(&self, seconds: u64) -> Reading {
        Reading { at: Duration::from_secs(seconds), zones: self.read().unwrap() }
    }

    fn config(&self, source: SourceChoice) -> MeteringConfig {
        let nowhere = self.0.path().join("nowhere");
        let powercap_path = self.0.path().to_owned();
        MeteringConfig { source, powercap_path, hwmon_path: nowhere, ..Config::default().metering }
    }
}

fn used(domains: &[(Domain, u64)]) -> Vec<(Domain, Nanojoules)> {
    domains.iter().map(|(domain, used)| (*domain, Nanojoules(*used))).collect()
}

#[test]
fn packages_and_what_is_in_them() {
    let tree = Tree::new(&[
        ("intel-rapl:0", "package-0", "100"),
        ("intel-rapl:0/intel-rapl:0:0", "core", "40"),
        ("intel-rapl:0/intel-rapl:0:1", "uncore", "5"),
        ("intel-rapl:0/intel-rapl:0:2", "dram", "20"),
        ("intel-rapl:1", "package-1-die-1", "300"),
        ("intel-rapl:2", "psys", "900"),
        ("intel-rapl-mmio:0", "package-0", "100"),
        ("intel-rapl:0/intel-rapl:0:3", "something new", "7"),
    ]);
    // As in /sys/class: zones within zones stand beside them too.
    symlink(tree.0.path().join("intel-rapl:0/intel-rapl:0:2"), tree.0.path().join("intel-rapl:0:2")).unwrap();
    let before = tree.reading(0);
    assert_eq!(before.zones[0].counter, Counter::Wraps { max: Nanojoules(262_143_328_850_000) });
    tree.set("intel-rapl:0", "150");
    tree.set("intel-rapl:0/intel-rapl:0:0", "60");
    tree.set("intel-rapl:0/intel-rapl:0:2", "27");
    tree.set("intel-rapl:1", "330");
    tree.set("intel-rapl:2", "2000");
    let difference = tree.reading(1).since(&before).unwrap();
    assert_eq!(difference.total, Nanojoules(87_000), "packages and memory, nothing twice");
    let mut domains = difference.domains;
    domains.sort_unstable();
    use Domain::{Core, Dram, Package, Psys, Uncore};
    assert_eq!(domains, used(&[(Package, 80_000), (Dram, 7000), (Core, 20_000), (Uncore, 0), (Psys, 1_100_000)]));
}

#[test]
fn the_whole_machine_counts_where_no_package_does() {
    let tree = Tree::new(&[("intel-rapl:0", "psys", "10")]);
    let before = tree.reading(0);
    tree.set("intel-rapl:0", "30");
    assert_eq!(tree.reading(1).since(&before).unwrap().total, Nanojoules(20_000));
}

#[test]
fn a_counter_comes_to_its_end() {
    let tree = Tree::new(&[("intel-rapl:0", "package-0", "262143328800")]);
    let before = tree.reading(0);
    tree.set("intel-rapl:0", "25");
    assert_eq!(tree.reading(1).since(&before).unwrap().total, Nanojoules(75_000));
    tree.set("intel-rapl:0", "24");
    let back = tree.reading(2).since(&Reading { at: Duration::from_secs(1), ..tree_at(&tree, "25") });
    assert_eq!(back, Err(Dropped::Backwards));
}

fn tree_at(tree: &Tree, microjoules: &str) -> Reading {
    let now = fs::read_to_string(tree.0.path().join("intel-rapl:0/energy_uj")).unwrap();
    tree.set("intel-rapl:0", microjoules);
    let reading = tree.reading(1);
    tree.set("intel-rapl:0", now.trim());
    reading
}

#[test]
fn a_tree_of_a_host_for_its_guest_needs_a_counter_only() {
    let tree = Tree::new(&[]);
    let zone = tree.0.path().join("intel-rapl:0");
    fs::create_dir_all(&zone).unwrap();
    fs::write(zone.join("energy_uj"), "42").unwrap();
    let zones = tree.read().unwrap();
    let (name, domain, value, counter) =
        ("intel-rapl:0".to_owned(), Domain::Package, Nanojoules(42_000), Counter::Endless);
    assert_eq!(zones, [Zone { name, domain, value, counter }]);
}

#[test]
fn packages_come_and_go() {
    let tree = Tree::new(&[("intel-rapl:0", "package-0", "1"), ("intel-rapl:1", "package-1", "1")]);
    let both = tree.reading(0);
    fs::remove_dir_all(tree.0.path().join("intel-rapl:1")).unwrap();
    let one = tree.reading(1);
    assert_eq!(one.since(&both), Err(Dropped::Zones));
    tree.add("intel-rapl:1", "package-1", "5");
    assert_eq!(tree.reading(2).since(&one), Err(Dropped::Zones));
    fs::remove_dir_all(tree.0.path()).unwrap();
    let error = tree.read().unwrap_err();
    assert!(with_causes(&error).contains("expected a folder of power zones: No such file"), "{}", with_causes(&error));
}

#[test]
fn garbage_is_shown() {
    let tree = Tree::new(&[("intel-rapl:0", "package-0", "many")]);
    let error = tree.read().unwrap_err().to_string();
    assert!(error.ends_with("energy_uj: expected a whole number of microjoules, got \"many\""), "{error}");
    for garbage in ["", "-5", "1.5", "99999999999999999999", "18446744073709551615", &"7".repeat(100)] {
        tree.set("intel-rapl:0", garbage);
        assert!(matches!(tree.read(), Err(SourceError::Garbage { .. })), "{garbage:?}");
    }
    tree.set("intel-rapl:0", "1");
    fs::write(tree.0.path().join("intel-rapl:0/max_energy_range_uj"), "?").unwrap();
    assert!(matches!(tree.read(), Err(SourceError::Garbage { .. })));
    let nothing = Tree::new(&[("intel-rapl:0", "core", "1")]).read().unwrap_err().to_string();
    assert!(
        nothing.ends_with("expected a zone intel-rapl:<n> of a package or of the whole machine, got none"),
        "{nothing}"
    );
}

#[test]
fn a_counter_for_root_alone_is_named_as_such() {
    let tree = Tree::new(&[("intel-rapl:0", "package-0", "1")]);
    let path = tree.0.path().join("intel-rapl:0/energy_uj");
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let error = SourceError::Unreadable { path: path.clone(), expected: "x", source: denied };
    let error = powercap::root_only(error).to_string();
    assert!(
        error.contains("root alone") && error.contains("CVE-2020-8694") && error.contains("docs/energy.md"),
        "{error}"
    );
    // Root reads everything; everybody else is refused by the file itself.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_err() {
        assert!(matches!(tree.read(), Err(SourceError::RootOnly { .. })));
    }
}

/// The moments of a clock that the test drives; each change of the tree belongs to one.
fn clock(mut change: impl FnMut(u64)) -> impl FnMut(Duration) -> io::Result<Moment> {
    let (mut at, mut count) = (Duration::ZERO, 0);
    move |step| {
        at += step;
        change(count);
        count += 1;
        Ok(Moment { at, ..Moment::default() })
    }
}

#[test]
fn the_first_source_that_counts_is_taken() {
    let tree = Tree::new(&[("intel-rapl:0", "package-0", "0")]);
    let moves = clock(|count| tree.set("intel-rapl:0", &(count * 1000).to_string()));
    let chosen = choose(&tree.config(SourceChoice::Auto), moves).unwrap().unwrap();
    assert_eq!((chosen.kind, chosen.coefficients), (Kind::Powercap, None));
    // Counters that stand still, as where a machine only seems to have them, are passed over.
    let chosen = choose(&tree.config(SourceChoice::Auto), clock(|_| ())).unwrap().unwrap();
    assert_eq!(chosen.kind, Kind::Model);
    assert!(chosen.coefficients.is_some());
}

#[test]
fn a_source_that_is_named_works_or_says_why_not() {
    let tree = Tree::new(&[]);
    let named = |source| choose(&tree.config(source), clock(|_| ())).map(|opened| opened.map(|opened| opened.kind));
    assert_eq!(named(SourceChoice::None).unwrap(), None);
    assert_eq!(named(SourceChoice::Model).unwrap(), Some(Kind::Model));
    for (source, why) in [
        (SourceChoice::Powercap, "the source \"powercap\" does not work: "),
        (SourceChoice::Hwmon, "nowhere: expected a folder of sensors: No such file"),
        (SourceChoice::File, "metering.file_path: expected a path for the source \"file\", got an empty one"),
    ] {
        let error = with_causes(&named(source).unwrap_err());
        assert!(error.contains(why), "{error}");
    }
    tree.add("intel-rapl:0", "package-0", "5");
    assert_eq!(named(SourceChoice::Powercap).unwrap(), Some(Kind::Powercap), "even where it stands still");
}

#[test]
fn a_file_is_a_meter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meter");
    let mut meter = file::Meter::open(&path);
    let mut read = || meter.read(&Moment::default()).map(|zones| (zones[0].domain, zones[0].value));
    assert!(matches!(read(), Err(SourceError::Unreadable { .. })));
    fs::write(&path, " 17\n").unwrap();
    assert_eq!(read().unwrap(), (Domain::Meter, Nanojoules(17_000)));
    fs::write(&path, "17 J").unwrap();
    assert!(matches!(read(), Err(SourceError::Garbage { .. })));
}

#[test]
fn sensors_are_summed_over_time() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let open = || hwmon::Hwmon::open(root.path());
    assert!(matches!(open(), Err(SourceError::Absent { .. })));
    write("hwmon0/name", "amdgpu\n");
    write("hwmon0/power1_average", "90000000");
    assert!(matches!(open(), Err(SourceError::Absent { .. })), "a graphics card is not what serves");
    write("hwmon1/name", "zenpower\n");
    for (file, watts) in
        [("power1_input", "10000000"), ("power2_input", "99"), ("power2_average", "5000000"), ("power1_cap", "1")]
    {
        write(&format!("hwmon1/{file}"), watts);
    }
    let mut hwmon = open().unwrap();
    let at = |hwmon: &mut hwmon::Hwmon, seconds| {
        let moment = Moment { at: Duration::from_secs(seconds), ..Moment::default() };
        let zone = hwmon.read(&moment).unwrap().remove(0);
        (zone.domain, zone.value.0 / 1_000_000)
    };
    assert_eq!(at(&mut hwmon, 5), (Domain::Package, 0));
    assert_eq!(at(&mut hwmon, 7), (Domain::Package, 30_000), "15 W for two seconds");
    write("hwmon1/power1_input", "20000000");
    assert_eq!(at(&mut hwmon, 8), (Domain::Package, 50_000), "the mean of 15 and 25 W for one");
    write("hwmon1/power1_input", "hot");
    assert!(matches!(hwmon.read(&Moment::default()), Err(SourceError::Garbage { .. })));

    write("hwmon2/name", "power_meter\n");
    write("hwmon2/power1_average", "200000000");
    let mut whole = open().unwrap();
    assert_eq!((at(&mut whole, 0), at(&mut whole, 1)), ((Domain::Psys, 0), (Domain::Psys, 200_000)));
}
