//! The known key that a mistyped one most likely meant.

/// The known key with the same field, else one that it begins, else the one fewest edits away, if that is near enough
/// to be a typo.
pub(super) fn nearest<'k>(wrong: &str, known: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let field = |key: &str| key.rsplit('.').next().map(str::to_owned);
    if let Some(moved) = known.clone().find(|key| field(key) == field(wrong)) {
        return Some(moved);
    }
    if let Some(longer) = known.clone().find(|key| wrong.contains('.') && key.starts_with(wrong)) {
        return Some(longer);
    }
    let (edits, key) = known.map(|key| (edits(wrong, key), key)).min()?;
    (edits <= (wrong.len() / 3).max(2)).then_some(key)
}

/// Insertions, deletions and replacements of a byte that turn one text into the other.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, wanted) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("drain", "drain", 0)] {
            assert_eq!((edits(from, to), edits(to, from)), (wanted, wanted), "{from} {to}");
        }
    }

    #[test]
    fn only_what_looks_like_a_typo_is_suggested() {
        let known = ["http.listen", "limits.rank_max", "drain.delay"];
        for (wrong, wanted) in [
            ("htp.listen", Some("http.listen")),
            ("rank_max", Some("limits.rank_max")),
            ("drain.dely", Some("drain.delay")),
            ("limits.rank", Some("limits.rank_max")),
            ("weather.tomorrow", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, known.into_iter()), wanted, "{wrong}");
        }
    }
}
