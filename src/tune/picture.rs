//! A report as a picture: time against cost of every setting, the Pareto front, and the limit.

use std::fmt::Write;

use super::report::{Report, Row};

/// A picture in SVG, for light and for dark grounds.
pub(super) fn of(report: &Report) -> String {
    let cost = |row: &Row| if report.energy_source.is_some() { row.millijoules } else { row.cpu_ms };
    let all = report.rows.iter().filter_map(|row| Some((row, row.p99_ms, cost(row)?)));
    let points: Vec<(&Row, f64, f64)> = all.filter(|(_, ms, cost)| *ms > 0.0 && *cost > 0.0).collect();
    let times = Axis::of(points.iter().map(|point| point.1).chain([report.p99_ms]), [LEFT, WIDTH - MARGIN]);
    let costs = Axis::of(points.iter().map(|point| point.2), [HEIGHT - BOTTOM, TOP]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n{STYLE}\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    let title = report.model.replace('&', "&amp;").replace('<', "&lt;");
    text(&mut svg, [MARGIN, 24.0], "title", &title);
    text(&mut svg, [MARGIN, 42.0], "quiet", &report.found());
    for (value, at) in times.marks() {
        line(&mut svg, [at, TOP, at, HEIGHT - BOTTOM], "grid");
        text(&mut svg, [at - 8.0, HEIGHT - BOTTOM + 16.0], "quiet", &value);
    }
    for (value, at) in costs.marks() {
        line(&mut svg, [LEFT, at, WIDTH - MARGIN, at], "grid");
        text(&mut svg, [MARGIN, at + 4.0], "quiet", &value);
    }
    let unit = match report.energy_quality {
        Some(quality) => format!("mJ a request ({quality})"),
        None => "ms of CPU a request".to_owned(),
    };
    text(&mut svg, [MARGIN, TOP - 10.0], "quiet", &unit);
    text(&mut svg, [WIDTH - MARGIN - 60.0, HEIGHT - 8.0], "quiet", "p99, ms");
    let limit = times.at(report.p99_ms);
    line(&mut svg, [limit, TOP, limit, HEIGHT - BOTTOM], "limit");
    let mut front: Vec<[f64; 2]> = Vec::new();
    for (row, ms, cost) in &points {
        let place = [times.at(*ms), costs.at(*cost)];
        if row.is_pareto {
            front.push(place);
        }
        let class = if row.is_finalist { "kept" } else { "all" };
        let Row { variant, batch_size_max, queue_delay_us, cores_max, .. } = row;
        let build = variant.as_deref().unwrap_or("own build");
        let [x, y] = place;
        let _ = writeln!(
            svg,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{build}, batch {batch_size_max}, delay \
             {queue_delay_us} us, cores {cores_max}: p99 {ms:.3} ms, {cost:.4}</title></circle>"
        );
    }
    front.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let path: Vec<String> = front.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(svg, "<polyline class=\"front\" points=\"{}\"/>\n</svg>", path.join(" "));
    svg
}

/// A logarithmic scale over a length in pixels.
struct Axis {
    least: f64,
    most: f64,
    pixels: [f64; 2],
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let (least, most) = values.fold((f64::INFINITY, 0.0_f64), |(least, most), it| (least.min(it), most.max(it)));
        // Some room on either side, and something to show where there is nothing.
        if least > most {
            Self { least: 0.1, most: 10.0, pixels }
        } else {
            Self { least: least / 1.2, most: most * 1.2, pixels }
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.least).ln() / (self.most / self.least).ln();
        self.pixels[0] + share * (self.pixels[1] - self.pixels[0])
    }

    /// 1, 2 and 5 of every power of ten.
    fn marks(&self) -> Vec<(String, f64)> {
        let powers = (-6..7).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let within = powers.filter(|value| (self.least..=self.most).contains(value));
        within.map(|value| (format!("{}", (value * 1e6).round() / 1e6), self.at(value))).collect()
    }
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], class: &str) {
    let _ = writeln!(svg, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
}

fn text(svg: &mut String, [x, y]: [f64; 2], class: &str, text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}

/// In pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 80.0;
const BOTTOM: f64 = 40.0;
const MARGIN: f64 = 16.0;

const STYLE: &str = "<style>
.ground{fill:#fff} text{fill:#222} .quiet{fill:#666} .title{font-size:14px;font-weight:600}
.grid{stroke:#e4e4e4} .limit{stroke:#b3261e;stroke-dasharray:5 4} .front{fill:none;stroke:#2f5c9e;stroke-width:1.5}
.all{fill:#c4c4c4} .kept{fill:#2f5c9e}
@media (prefers-color-scheme:dark){
.ground{fill:#161616} text{fill:#ddd} .quiet{fill:#999} .grid{stroke:#333} .all{fill:#555} .kept{fill:#7aa7e8} .front{stroke:#7aa7e8}}
</style>
";
