//! Merges the layers key by key and remembers where each value was set, so that an error can name it.
//!
//! Knows the keys from `config/default.toml` alone, and a value's type from its default.

use std::collections::BTreeMap;

use toml::Value;
use toml::de::DeTable;

use super::environment::{PREFIX, key_of_standard, variable_of};
use super::nearest::nearest;
use super::rules::Broken;
use super::{Cause, Config, DEFAULTS, Place, Problem};

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user typed it: `--http`.
    name: &'static str,
    key: &'static str,
    values: Vec<String>,
}

impl Flag {
    /// A list takes every value; anything else takes the last.
    pub fn new<S: Into<String>>(name: &'static str, key: &'static str, values: impl IntoIterator<Item = S>) -> Self {
        Self { name, key, values: values.into_iter().map(Into::into).collect() }
    }
}

/// Every key with its value and the place that set it.
pub(super) struct Settings(BTreeMap<String, Setting>);

struct Setting {
    default: Value,
    value: Value,
    place: Place,
}

impl Settings {
    pub(super) fn of_defaults() -> Self {
        let rooms: toml::Table = toml::from_str(DEFAULTS).expect("config/default.toml is parsed by a test");
        let mut settings = BTreeMap::new();
        for (room, fields) in rooms {
            for (field, value) in fields.as_table().into_iter().flatten() {
                let setting = Setting { default: value.clone(), value: value.clone(), place: Place::Default };
                settings.insert(format!("{room}.{field}"), setting);
            }
        }
        Self(settings)
    }

    pub(super) fn read_file(&mut self, name: &str, text: &str) -> Vec<Problem> {
        let place = |offset: usize| Place::File { name: name.to_owned(), line: line_of(text, offset) };
        let parsed = DeTable::parse(text).and_then(|spans| Ok((spans, toml::from_str::<toml::Table>(text)?)));
        let (spans, values) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                let place = place(error.span().map_or(0, |span| span.start));
                let cause = Cause::Syntax { message: error.message().replace('\n', ", ") };
                return vec![Problem { place, key: String::new(), cause }];
            }
        };
        let mut problems = Vec::new();
        for (room, fields) in spans.get_ref() {
            let value = &values[room.get_ref().as_ref()];
            let (Some(fields), Some(value)) = (fields.get_ref().as_table(), value.as_table()) else {
                problems.push(self.not_a_room(place(room.span().start), room.get_ref(), value));
                continue;
            };
            if !self.rooms().any(|known| known == room.get_ref()) {
                problems.push(self.unknown(place(room.span().start), room.get_ref(), self.rooms()));
                continue;
            }
            for field in fields.keys() {
                let key = format!("{}.{}", room.get_ref(), field.get_ref());
                let value = value[field.get_ref().as_ref()].clone();
                problems.extend(self.set(place(field.span().start), &key, value).err());
            }
        }
        problems
    }

    pub(super) fn read_environment(&mut self, variables: Vec<(String, Option<String>)>) -> Vec<Problem> {
        let keys: BTreeMap<String, String> = self.0.keys().map(|key| (variable_of(key), key.clone())).collect();
        let (ours, others): (Vec<_>, Vec<_>) = variables.into_iter().partition(|(name, _)| name.starts_with(PREFIX));
        let standard = others.into_iter().filter(|(name, _)| key_of_standard(name).is_some());
        // Ours come last, and therefore count.
        let all = standard.chain(ours);
        all.filter_map(|(variable, text)| {
            let place = Place::Environment { variable: variable.clone() };
            let known = keys.get(&variable).map(String::as_str).or_else(|| key_of_standard(&variable));
            let Some(key) = known else {
                let meant = variable[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
                return Some(self.unknown(place, &meant, self.0.keys().map(String::as_str)));
            };
            let Some(text) = text else {
                return Some(wrong(place, key, "UTF-8", "other bytes"));
            };
            let elements = text.split(',').map(|element| element.trim().to_owned()).filter(|text| !text.is_empty());
            self.set_text(place, key, &text, elements.collect()).err()
        })
        .collect()
    }

    pub(super) fn read_flags(&mut self, flags: &[Flag]) -> Vec<Problem> {
        let set = |flag: &Flag| {
            let text = flag.values.last()?;
            self.set_text(Place::Flag { name: flag.name }, flag.key, text, flag.values.clone()).err()
        };
        flags.iter().filter_map(set).collect()
    }

    /// The typed settings. A value of the wrong type is reported and gives way to its default, so that one mistake
    /// does not hide the next.
    pub(super) fn typed(&mut self) -> (Config, Vec<Problem>) {
        let mut problems = Vec::new();
        loop {
            let error = match serde_path_to_error::deserialize(Value::Table(self.as_rooms())) {
                Ok(config) => return (config, problems),
                Err(error) => error,
            };
            let path = error.path().to_string();
            let key = path.split('[').next().unwrap_or_default();
            let setting = self.0.get_mut(key).filter(|setting| setting.place != Place::Default);
            let setting = setting.expect("the defaults have every key in its type, a test holds them to it");
            let cause = reworded(error.inner().message(), &setting.value);
            problems.push(Problem { place: setting.place.clone(), key: key.to_owned(), cause });
            setting.value = setting.default.clone();
            setting.place = Place::Default;
        }
    }

    /// Names the strongest place that set one of the keys of a broken rule.
    pub(super) fn blame(&self, broken: Broken) -> Problem {
        let place = |key: &str| self.0.get(key).map_or(Place::Default, |setting| setting.place.clone());
        let first = broken.keys[0];
        // The first key wins a tie, so it comes last: `max_by_key` takes the last of equals.
        let strength = |key: &&&str| match place(key) {
            Place::Default => 0,
            Place::File { .. } => 1,
            Place::Environment { .. } => 2,
            Place::Flag { .. } => 3,
        };
        let key = broken.keys.iter().rev().max_by_key(strength).copied().unwrap_or(first);
        Problem { place: place(key), key: key.to_owned(), cause: broken.cause }
    }

    fn set(&mut self, place: Place, key: &str, value: Value) -> Result<(), Problem> {
        match self.0.get_mut(key) {
            Some(setting) => {
                setting.value = value;
                setting.place = place;
                Ok(())
            }
            None => Err(self.unknown(place, key, self.0.keys().map(String::as_str))),
        }
    }

    /// A text becomes a value of the type that the key's default has.
    fn set_text(&mut self, place: Place, key: &str, text: &str, elements: Vec<String>) -> Result<(), Problem> {
        let refuse = |expected| wrong(place.clone(), key, expected, &format!("{text:?}"));
        let value = match self.0.get(key).map(|setting| &setting.default) {
            Some(Value::Array(_)) => Value::Array(elements.into_iter().map(Value::String).collect()),
            Some(Value::Float(_)) => Value::Float(text.parse().map_err(|_| refuse("a number"))?),
            Some(Value::Integer(_)) => Value::Integer(text.parse().map_err(|_| refuse("a whole number"))?),
            Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_| refuse("true or false"))?),
            _ => Value::String(text.to_owned()),
        };
        self.set(place, key, value)
    }

    fn as_rooms(&self) -> toml::Table {
        let mut rooms = toml::Table::new();
        for (key, setting) in &self.0 {
            let (room, field) = key.split_once('.').expect("keys are made of a room and a field");
            let fields = rooms.entry(room).or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(fields) = fields {
                fields.insert(field.to_owned(), setting.value.clone());
            }
        }
        rooms
    }

    fn rooms(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().filter_map(|key| Some(key.split_once('.')?.0))
    }

    /// Something other than a table at the top of the file.
    fn not_a_room(&self, place: Place, key: &str, value: &Value) -> Problem {
        if self.rooms().any(|room| room == key) {
            return wrong(place, key, "a table", &value.to_string());
        }
        self.unknown(place, key, self.0.keys().map(String::as_str))
    }

    fn unknown<'k>(&'k self, place: Place, key: &str, known: impl Iterator<Item = &'k str> + Clone) -> Problem {
        let nearest = nearest(key, known).map(str::to_owned);
        Problem { place, key: key.to_owned(), cause: Cause::UnknownKey { nearest } }
    }
}

fn wrong(place: Place, key: &str, expected: &str, got: &str) -> Problem {
    let cause = Cause::Wrong { expected: expected.to_owned(), got: got.to_owned() };
    Problem { place, key: key.to_owned(), cause }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Turns what serde says (`invalid type: integer 5, expected usize`) into words for the person who wrote the value.
fn reworded(message: &str, value: &Value) -> Cause {
    let expected = message.split_once("expected ").map_or(message, |(_, expected)| expected);
    // Units say themselves what came.
    let expected = expected.split(", got ").next().unwrap_or(expected).replace('`', "");
    let expected = match PHRASES.iter().find(|(serde, _)| *serde == expected) {
        Some((_, phrase)) => (*phrase).to_owned(),
        None => expected,
    };
    Cause::Wrong { expected, got: value.to_string() }
}

const PHRASES: &[(&str, &str)] = &[
    ("usize", "a whole number from 0"),
    ("u64", "a whole number from 0"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("path string", "a path"),
    ("string only", "a string"),
];
