//! The report as a picture: for each layer, how many bytes and products are left, and what is left of its responses.

use std::fmt::Write;

use super::report::{Report, Row};

/// A picture in SVG.
pub(super) fn of(report: &Report) -> String {
    let height = TOP + LINE * report.layers.len() + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let title = format!("{}: {} to {} bytes", report.recipe, report.bytes[0], report.bytes[1]);
    text(&mut svg, MARGIN, MARGIN, &title);
    let heads = ["bytes left", "multiply-accumulates left", "error of responses (cut alone; fitted)"];
    for (column, head) in heads.iter().enumerate() {
        text(&mut svg, NAMES + column * COLUMN, TOP - MARGIN / 2, head);
    }
    let worst = report.layers.iter().filter_map(|row| row.errors).flatten().fold(f64::MIN_POSITIVE, f64::max);
    for (place, row) in report.layers.iter().enumerate() {
        line(&mut svg, TOP + LINE * place, row, worst);
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, top: usize, row: &Row, worst: f64) {
    text(svg, MARGIN, top + LINE / 2, &row.name);
    let part = |[before, after]: [f64; 2]| after / before.max(1.0);
    bar(svg, [NAMES, top], LINE - GAP, 1.0, PALE);
    bar(svg, [NAMES, top], LINE - GAP, part(row.bytes.map(|bytes| bytes as f64)), DARK);
    bar(svg, [NAMES + COLUMN, top], LINE - GAP, 1.0, PALE);
    bar(svg, [NAMES + COLUMN, top], LINE - GAP, part(row.macs.map(|macs| macs as f64)), DARK);
    if let Some([cut, fitted]) = row.errors {
        bar(svg, [NAMES + 2 * COLUMN, top], (LINE - GAP) / 2, cut / worst, MIDDLE);
        bar(svg, [NAMES + 2 * COLUMN, top + (LINE - GAP) / 2], (LINE - GAP) / 2, fitted / worst, DARK);
    }
}

/// A bar of some part of the whole width of its column.
fn bar(svg: &mut String, [left, top]: [usize; 2], height: usize, part: f64, colour: &str) {
    let width = part.clamp(0.0, 1.0) * (COLUMN - MARGIN) as f64;
    let _ =
        writeln!(svg, "<rect x=\"{left}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>");
}

fn text(svg: &mut String, left: usize, base: usize, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{base}\">{escaped}</text>");
}

/// In pixels.
const WIDTH: usize = NAMES + 3 * COLUMN;
const NAMES: usize = 220;
const COLUMN: usize = 240;
const TOP: usize = 60;
const LINE: usize = 22;
const GAP: usize = 6;
const MARGIN: usize = 20;

const PALE: &str = "#dddddd";
const MIDDLE: &str = "#e0a040";
const DARK: &str = "#305090";
