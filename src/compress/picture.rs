//! The report as a picture: for each layer what is left of its bytes, multiply-adds and time, and of its responses' error.

use std::borrow::Cow;
use std::fmt::Write;

use super::report::Report;

/// A picture in SVG, for light and for dark grounds.
pub(super) fn of(report: &Report) -> String {
    let lines = lines(report);
    let height = TOP + LINE * lines.len() + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n{STYLE}\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    head(&mut svg, report);
    let errors = || lines.iter().filter_map(|line| line.errors);
    for (column, name) in ["bytes", "multiply-adds", "time", "error of responses"].into_iter().enumerate() {
        let shows = |line: &Line<'_>| line.parts.get(column).map_or(line.errors.is_some(), Option::is_some);
        if lines.iter().any(shows) {
            text(&mut svg, [left(column), TOP - LINE / 2], "quiet", name);
        }
    }
    let worst = errors().flat_map(|(cut, fitted)| [cut.unwrap_or(0.0), fitted]).fold(f64::MIN_POSITIVE, f64::max);
    for (place, line) in lines.iter().enumerate() {
        draw(&mut svg, TOP + LINE * place, line, worst);
    }
    svg.push_str("</svg>\n");
    svg
}

/// What a line of the picture shows.
struct Line<'a> {
    name: Cow<'a, str>,
    /// What is left of bytes, multiply-adds and time.
    parts: [Option<f64>; 3],
    /// By cutting and rounding alone, where that is known, and as it was fitted.
    errors: Option<(Option<f64>, f64)>,
}

/// Layers that became two, then all that were compressed.
fn lines(report: &Report) -> Vec<Line<'_>> {
    let part = |[before, after]: [f64; 2]| (before > 0.0).then(|| after / before);
    let factored = report.factored.iter().map(|layer| {
        let weights = part(layer.weights.map(|weights| weights as f64));
        Line {
            name: format!("{} as two", layer.name).into(),
            parts: [weights, weights, None],
            errors: layer.error.map(|error| (None, error)),
        }
    });
    let compressed = report.layers.iter().map(|row| {
        let bytes = part(row.bytes.map(|bytes| bytes as f64));
        let macs = row.macs.and_then(|macs| part(macs.map(|macs| macs as f64)));
        let time = row.microseconds[0].zip(row.microseconds[1]).and_then(|(before, after)| part([before, after]));
        let errors = row.errors.map(|[cut, fitted]| (Some(cut), fitted));
        Line { name: (&row.name).into(), parts: [bytes, macs, time], errors }
    });
    factored.chain(compressed).collect()
}

/// What was done, and what it came to.
fn head(svg: &mut String, report: &Report) {
    text(svg, [MARGIN, MARGIN + LINE / 2], "title", &report.recipe);
    let [bytes, times] = [report.bytes.map(|bytes| bytes as f64 / 1e6), report.milliseconds];
    let mut told = format!("{:.2} to {:.2} MB, {:.3} to {:.3} ms", bytes[0], bytes[1], times[0], times[1]);
    if let Some([before, after]) = report.compared.as_ref().and_then(|compared| compared.accuracy) {
        let _ = write!(told, ", accuracy {:.2} to {:.2} %", 100.0 * before, 100.0 * after);
    }
    text(svg, [MARGIN, MARGIN + 3 * LINE / 2], "", &told);
    let with_keys = report.layers.iter().any(|row| row.errors.is_some());
    for (place, (class, key)) in [("cut", "cut and rounded alone"), ("kept", "as fitted")].iter().enumerate() {
        if with_keys {
            let (x, y) = (left(ERRORS), MARGIN + LINE * place + 2);
            rectangle(svg, [x, y], [LINE / 2, LINE / 2], class);
            text(svg, [x + LINE, y + LINE / 2], "quiet", key);
        }
    }
}

fn draw(svg: &mut String, top: usize, line: &Line<'_>, worst: f64) {
    let base = top + LINE * 2 / 3;
    text(svg, [MARGIN, base], "name", &line.name);
    for (column, part) in line.parts.iter().enumerate() {
        let Some(part) = part else { continue };
        rectangle(svg, [left(column), top], [BAR, LINE - GAP], "all");
        rectangle(svg, [left(column), top], [width(*part), LINE - GAP], "kept");
        let digits = usize::from(*part < 0.1);
        text(svg, [left(column) + BAR + GAP, base], "quiet", &format!("{:.digits$} %", 100.0 * part));
    }
    if let Some((cut, fitted)) = line.errors {
        let half = (LINE - GAP) / 2;
        if let Some(cut) = cut {
            rectangle(svg, [left(ERRORS), top], [width(cut / worst), half], "cut");
        }
        rectangle(svg, [left(ERRORS), top + half], [width(fitted / worst), half], "kept");
        text(svg, [left(ERRORS) + BAR + GAP, base], "quiet", &format!("{fitted:.3}"));
    }
}

/// Where a column begins.
fn left(column: usize) -> usize {
    NAMES + column * COLUMN
}

/// Of a bar that is a part of the longest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
fn width(part: f64) -> usize {
    (part.clamp(0.0, 1.0) * BAR as f64).round() as usize
}

fn rectangle(svg: &mut String, [x, y]: [usize; 2], [width, height]: [usize; 2], class: &str) {
    let _ = writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>");
}

/// The middle of what is too long is left out; a pointer over it shows all.
fn text(svg: &mut String, [x, y]: [usize; 2], class: &str, text: &str) {
    let letters: Vec<char> = text.chars().collect();
    let most = if class == "name" { NAME_LETTERS } else { TITLE_LETTERS };
    let escaped = |letters: &[char]| letters.iter().collect::<String>().replace('&', "&amp;").replace('<', "&lt;");
    let (shown, title) = match letters.len() > most {
        true => {
            let (first, last) = (escaped(&letters[..most / 3]), escaped(&letters[letters.len() - most * 2 / 3..]));
            (format!("{first}\u{2026}{last}"), format!("<title>{}</title>", escaped(&letters)))
        }
        false => (escaped(&letters), String::new()),
    };
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{title}{shown}</text>");
}

/// In pixels.
const WIDTH: usize = NAMES + (ERRORS + 1) * COLUMN;
const NAMES: usize = 210;
const COLUMN: usize = 185;
const BAR: usize = 120;
const TOP: usize = 90;
const LINE: usize = 20;
const GAP: usize = 6;
const MARGIN: usize = 16;

/// The column behind the parts.
const ERRORS: usize = 3;

/// Letters that fit before the first bar, and into a line.
const NAME_LETTERS: usize = 24;
const TITLE_LETTERS: usize = 84;

const STYLE: &str = "<style>
.ground{fill:#fff} text{fill:#222} .quiet{fill:#666} .title{font-size:14px;font-weight:600}
.all{fill:#e4e4e4} .kept{fill:#2f5c9e} .cut{fill:#dfa04a}
@media (prefers-color-scheme:dark){
.ground{fill:#161616} text{fill:#ddd} .quiet{fill:#999} .all{fill:#383838} .kept{fill:#7aa7e8} .cut{fill:#b9772a}}
</style>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_keep_their_ends() {
        let mut svg = String::new();
        text(&mut svg, [1, 2], "name", "a<b");
        assert_eq!(svg, "<text class=\"name\" x=\"1\" y=\"2\">a&lt;b</text>\n");
        svg.clear();
        let name = "/backbone/layer3/layer3.22/conv2/Conv";
        text(&mut svg, [1, 2], "name", name);
        let shown = "/backbon\u{2026}r3.22/conv2/Conv";
        assert_eq!(svg, format!("<text class=\"name\" x=\"1\" y=\"2\"><title>{name}</title>{shown}</text>\n"));
    }
}
