//! Sums of products over named axes.

/// An equation of Einstein's, as the standard writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Contraction {
    /// The axes of each operand.
    pub(in crate::engine) terms: Vec<Vec<Label>>,
    pub(in crate::engine) out: Vec<Label>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Label {
    Axis(char),
    /// All axes that have no name, counted from the last.
    Others,
}

impl Contraction {
    /// Without an arrow the output has the axes that stand once, in the order of the alphabet, behind those without names.
    pub(in crate::engine) fn read(equation: &str) -> Option<Self> {
        let equation: String = equation.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (terms, out) = match equation.split_once("->") {
            Some((terms, out)) => (terms, Some(labels(out)?)),
            None => (equation.as_str(), None),
        };
        let terms = terms.split(',').map(labels).collect::<Option<Vec<_>>>()?;
        let all = || terms.iter().flatten().copied();
        let out = out.unwrap_or_else(|| {
            let once = |label: &Label| *label != Label::Others && all().filter(|other| other == label).count() == 1;
            let mut named: Vec<char> = all()
                .filter(once)
                .filter_map(|label| if let Label::Axis(name) = label { Some(name) } else { None })
                .collect();
            named.sort_unstable();
            let others = all().find(|label| *label == Label::Others);
            others.into_iter().chain(named.into_iter().map(Label::Axis)).collect()
        });
        let known =
            out.iter().enumerate().all(|(at, label)| all().any(|other| other == *label) && !out[..at].contains(label));
        known.then_some(Self { terms, out })
    }
}

fn labels(term: &str) -> Option<Vec<Label>> {
    let mut labels = Vec::new();
    let mut rest = term;
    while let Some(letter) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            if labels.contains(&Label::Others) {
                return None;
            }
            labels.push(Label::Others);
            rest = behind;
        } else {
            labels.push(Label::Axis(Some(letter).filter(char::is_ascii_alphabetic)?));
            rest = &rest[1..];
        }
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_read() {
        let axes = |text: &str| text.chars().map(Label::Axis).collect::<Vec<_>>();
        let read = Contraction::read(" ij, jk ").unwrap();
        assert_eq!((read.terms, read.out), (vec![axes("ij"), axes("jk")], axes("ik")));
        let read = Contraction::read("...ii->...i").unwrap();
        assert_eq!(read.out, [Label::Others, Label::Axis('i')]);
        for wrong in ["i->j", "i->ii", "i..->i", "...i...", "1->1"] {
            assert_eq!(Contraction::read(wrong), None, "{wrong}");
        }
    }
}
