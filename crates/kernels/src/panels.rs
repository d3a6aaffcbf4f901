//! How wide the panels of packed weights are.

/// The width, in vectors, that computes the fewest empty lanes and loads the least for so many columns. `rows` are those
/// of a full tile, by vectors less one.
pub(crate) fn width_for(rows: impl Fn(usize) -> usize, widest: usize, lanes: usize, columns: usize) -> usize {
    let vectors = columns.div_ceil(lanes).max(1);
    // Loads per multiply-add of a full tile, times the vectors computed.
    let cost = |width: usize| -> f32 {
        let loads = |width: usize| {
            let rows = rows(width - 1) as f32;
            width as f32 * (1.0 + (rows + width as f32) / (rows * width as f32))
        };
        let (full, rest) = (vectors / width, vectors % width);
        full as f32 * loads(width) + if rest > 0 { loads(rest) } else { 0.0 }
    };
    (1..=widest).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(1)
}
