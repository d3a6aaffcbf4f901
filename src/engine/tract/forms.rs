//! How many rows of a batch run together: learned at warm-up, where sizes whose rows would come out different from
//! rows run alone are never chosen. Which plan runs them is not known here.

use std::time::Duration;

use smallvec::SmallVec;

/// The sizes a batch is cut into.
#[derive(Clone, Debug, Default)]
pub(super) struct Forms {
    pub(super) single: Single,
    /// By the rows that are left: how many run next. Empty before anything was learned: one at a time.
    next: Vec<usize>,
    /// Time of the rows by their number.
    time: Vec<Duration>,
}

/// How a row runs that nobody joins. tract multiplies a matrix with one vector by another kernel than with several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Single {
    /// On a plan made for one row.
    #[default]
    Row,
    /// On the plan for any number of rows.
    Whole,
    /// There too, and twice: for the same kernels, and so the same bits, as in company.
    Pair,
}

/// Sizes that may be run together, each with its time.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) single: Single,
    /// Begins with one row.
    pub(super) sizes: Vec<(usize, Duration)>,
}

impl Forms {
    /// The fastest way for every number of rows up to `rows_max`. The families' answers may differ in their last bits,
    /// so the first is only given up for one that is faster beyond the noise of a measurement: a restart is then not
    /// likely to change a model's answers.
    pub(super) fn fastest(families: &[Family], rows_max: usize) -> Self {
        let mut best: Option<Self> = None;
        for forms in families.iter().map(|family| Self::of(family, rows_max)) {
            if best.as_ref().is_none_or(|best| forms.mean_row_time() * 4 < best.mean_row_time() * 3) {
                best = Some(forms);
            }
        }
        best.unwrap_or_default()
    }

    /// Sizes that add up to `rows`.
    pub(super) fn cut(&self, rows: usize) -> SmallVec<[usize; 8]> {
        let mut sizes = SmallVec::new();
        let mut left = rows;
        while left > 0 {
            let known = left.min(self.next.len().saturating_sub(1));
            let size = self.next.get(known).copied().unwrap_or(1).max(1);
            sizes.push(size);
            left -= size;
        }
        sizes
    }

    /// Time of so many rows on one core, if it was learned.
    pub(super) fn time(&self, rows: usize) -> Option<Duration> {
        let last = self.time.len().checked_sub(1).filter(|last| *last > 0)?;
        let whole = u32::try_from(rows / last).ok()?;
        Some(self.time[last] * whole + self.time[rows % last])
    }

    fn of(family: &Family, rows_max: usize) -> Self {
        let mut next = vec![0];
        let mut time = vec![Duration::ZERO];
        for rows in 1..=rows_max {
            let fitting = family.sizes.iter().filter(|(size, _)| *size <= rows);
            let best = fitting.map(|&(size, cost)| (time[rows - size] + cost, size)).min_by_key(|(cost, _)| *cost);
            let (cost, size) = best.unwrap_or((Duration::MAX, 1));
            next.push(size);
            time.push(cost);
        }
        Self { single: family.single, next, time }
    }

    /// Time per row, averaged over the sizes 1, 2, 4 and so on, all of which are taken to be as likely.
    fn mean_row_time(&self) -> Duration {
        let sizes = (0..usize::BITS).map(|bit| 1usize << bit).take_while(|size| *size < self.time.len());
        sizes.map(|size| self.time[size] / u32::try_from(size).unwrap_or(u32::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn family(single: Single, sizes: &[(usize, u64)]) -> Family {
        let sizes = sizes.iter().map(|&(size, micros)| (size, Duration::from_micros(micros))).collect();
        Family { single, sizes }
    }

    #[test]
    fn nothing_learned_runs_row_by_row() {
        assert_eq!(Forms::default().cut(3)[..], [1, 1, 1]);
        assert_eq!(Forms::default().time(3), None);
    }

    #[test]
    fn the_faster_form_is_chosen_for_each_size() {
        // Two rows together are slower than two alone, eight are faster.
        let forms = Forms::fastest(&[family(Single::Row, &[(1, 10), (2, 25), (8, 40)])], 16);
        assert_eq!(forms.cut(2)[..], [1, 1]);
        assert_eq!(forms.cut(8)[..], [8]);
        assert_eq!(forms.cut(9).iter().sum::<usize>(), 9);
        assert_eq!(forms.time(9), Some(Duration::from_micros(50)));
        assert_eq!(forms.cut(100).iter().sum::<usize>(), 100);
        assert_eq!(forms.time(40), Some(Duration::from_micros(200)));
    }

    #[test]
    fn one_family_serves_all_sizes() {
        let rows = family(Single::Row, &[(1, 10)]);
        let whole = family(Single::Whole, &[(1, 12), (2, 13), (4, 14)]);
        assert_eq!(Forms::fastest(&[rows.clone(), whole.clone()], 4).single, Single::Whole);
        assert_eq!(Forms::fastest(&[rows, whole], 1).single, Single::Row);
    }

    proptest! {
        #[test]
        fn cuts_add_up(sizes in prop::collection::vec((2usize..20, 1u64..100), 0..4), rows_max in 1usize..40, rows in 0usize..200) {
            let sizes: Vec<_> = std::iter::once((1, 5)).chain(sizes).collect();
            let forms = Forms::fastest(&[family(Single::Row, &sizes)], rows_max);
            let cut = forms.cut(rows);
            prop_assert_eq!(cut.iter().sum::<usize>(), rows);
            prop_assert!(cut.iter().all(|size| sizes.iter().any(|(known, _)| known == size)));
        }
    }
}
