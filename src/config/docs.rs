//! The page `docs/config.md`, printed from the comments of `config/default.toml` and the table of keys.

use std::fmt::Write as _;

use super::environment::{standard_of, variable_of};
use super::{DEFAULTS, keys};

pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut comment = String::new();
    let mut room = "";
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            room = name;
            page.push_str(&heading(room, comment.trim()));
            comment.clear();
        } else if let Some((field, default)) = line.split_once(" = ") {
            page.push_str(&row(&format!("{room}.{field}"), default, comment.trim()));
            comment.clear();
        } else {
            // The comment at the head of the file speaks of the file, not of a key.
            comment.clear();
        }
    }
    page
}

fn heading(room: &str, comment: &str) -> String {
    format!(
        "\n## {room}\n\n{comment}\n\n\
         | key | default | meaning | reload | variable |\n|---|---|---|---|---|\n"
    )
}

fn row(key: &str, default: &str, comment: &str) -> String {
    let takes = keys::ALL.iter().find(|known| known.name == key).map_or("", |known| known.takes.as_str());
    let comment = comment.replace('|', "\\|").replace('<', "&lt;");
    let mut row = String::new();
    let standard = standard_of(key).map(|name| format!(", `{name}`")).unwrap_or_default();
    let variable = variable_of(key);
    writeln!(row, "| `{key}` | `{default}` | {comment} | {takes} | `{variable}`{standard} |")
        .expect("writing to text cannot fail");
    row
}

const INTRODUCTION: &str = "\
# Configuration

Printed from `config/default.toml` and the table of keys in `src/config/keys.rs`; a test compares.

The defaults are compiled in. A file given with `--config`, or else named by the variable `KINGLET_CONFIG`, overrides
them, a variable `KINGLET__ROOM__FIELD` overrides the file, a flag overrides the variable. Variables of OpenTelemetry and
Vertex AI that stand beside ours below count too; ours override them. Lists are separated by commas in a variable and
given by repeating a flag. Relative paths start at the working directory.

Durations carry a unit (`ns`, `us`, `ms`, `s`, `m`, `h`), sizes too (`B`, `KiB`, `MiB`, `GiB`, `TiB`). An unknown key, a
missing unit, a value of the wrong type and a combination that cannot work are errors that name the file with the line,
the variable or the flag; the server does not start, and on a reload nothing changes.

The column *reload* says what a changed value needs: `at once` applies to requests that begin after the reload,
`next connection` to connections opened after it, `next load` to models loaded after it; `restart` is refused by name
until the server is restarted.
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_explained() {
        let page = markdown();
        for key in keys::ALL {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
            let cells: Vec<_> = row.unwrap_or_else(|| panic!("{} is missing", key.name)).split(" | ").collect();
            assert_eq!(cells.len(), 5, "{cells:?}");
            assert!(cells[2].ends_with('.'), "{} has no sentence of its own: {}", key.name, cells[2]);
        }
        let sections: Vec<_> = page.split("\n## ").skip(1).collect();
        for section in &sections {
            assert!(section.lines().nth(2).is_some_and(|line| line.ends_with('.')), "{section}");
        }
        let rooms: BTreeSet<_> = keys::ALL.iter().filter_map(|key| key.name.split('.').next()).collect();
        assert_eq!(sections.len(), rooms.len());
    }
}
