//! The report as one page: plots and a table, readable in a browser without network.

use std::fmt::Write as _;

use crate::case::size_label;
use crate::report::{Report, Row, ratio};

/// Colours that are told apart on light and dark ground, also by those who do not see all colours.
const COLOURS: [&str; 8] = [
    "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#8c7ae6", "#d55e00", "#0072b2", "#999999",
];

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/filter.js");

/// The page, complete in itself: it refers to nothing outside.
#[must_use]
pub fn page(report: &Report) -> String {
    let backends = distinct(&report.rows, |row| row.backend.as_str());
    let mut body = String::new();
    let mut contents = String::new();
    for op in distinct(&report.rows, |row| row.op.as_str()) {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.op == op).collect();
        let mut rates = distinct(&rows, |row| row.p.to_bits());
        rates.sort_unstable();
        for p in rates.into_iter().map(f64::from_bits) {
            let rows: Vec<&Row> = rows.iter().copied().filter(|row| row.p == p).collect();
            let anchor = format!("{op}-{p}");
            let _ = write!(
                contents,
                "<a href=\"#{anchor}\">{}, p = {p}</a> ",
                escape(op)
            );
            let _ = writeln!(body, "<h2 id=\"{anchor}\">{}, p = {p}</h2>", escape(op));
            body.push_str(&section(&rows, &backends));
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>sorix: dropout against a memory copy</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>Dropout against a memory copy</h1>\n{machine}\
         <p>Each bar is the time of a call divided by the time of a copy of the same bytes by the \
         same threads, the median over samples taken in turn. The scale is logarithmic and bars \
         begin at 1.00, a copy: <b>a bar that points down is faster than a copy</b>, one that points \
         up is slower. The mask of <code>fill_mask</code> is compared with a copy of the tensor it \
         masks. A star in the table says that the copy strays: it took over twice, or under half, \
         what copies of its size took beside the other rows.</p>\n<nav>{contents}<a href=\"#rows\">all rows</a></nav>\n{legend}{body}{table}\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        machine = machine(report),
        legend = legend(&backends),
        table = table(&report.rows),
    )
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let facts = [
        ("processor", machine.cpu.clone()),
        ("threads at once", machine.cores.to_string()),
        ("last-level cache", mib(machine.llc_bytes)),
        ("memory", mib(machine.memory_bytes)),
        ("system", format!("{}, {}", machine.os, machine.arch)),
        ("compiler", machine.rustc.clone()),
        ("sorix", machine.sorix.clone()),
        (
            "run",
            if machine.quick {
                "quick (few samples)"
            } else {
                "full"
            }
            .into(),
        ),
    ];
    let mut list = String::from("<dl>\n");
    for (name, value) in facts {
        let _ = writeln!(
            list,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    list + "</dl>\n"
}

fn legend(backends: &[&str]) -> String {
    let mut legend = String::from("<p class=\"legend\">");
    for (i, backend) in backends.iter().enumerate() {
        let colour = colour(i);
        let _ = write!(
            legend,
            "<span><i style=\"background:{colour}\"></i>{}</span> ",
            escape(backend)
        );
    }
    legend + "</p>\n"
}

/// The plots of one kernel at one probability: one per dtype and number of threads, to one scale.
fn section(rows: &[&Row], backends: &[&str]) -> String {
    let axis = Axis::over(rows.iter().map(|row| row.ratio));
    let mut plots = String::from("<div class=\"plots\">\n");
    let mut threads = distinct(rows, |row| row.threads);
    threads.sort_unstable();
    for threads in threads {
        for dtype in distinct(rows, |row| row.dtype.as_str()) {
            let here = |row: &&Row| row.threads == threads && row.dtype == dtype;
            let rows: Vec<&Row> = rows.iter().copied().filter(here).collect();
            if rows.is_empty() {
                continue;
            }
            let s = if threads == 1 { "" } else { "s" };
            let title = format!("{}, {threads} thread{s}", escape(dtype));
            let _ = writeln!(
                plots,
                "<figure><figcaption>{title}</figcaption>{}</figure>",
                plot(&title, &rows, backends, &axis)
            );
        }
    }
    plots + "</div>\n"
}

const PLOT_HEIGHT: f64 = 190.0;
const BAR: f64 = 22.0;
const GROUP_GAP: f64 = 12.0;
/// Room for the axis at the left, the sizes below, and labels above and below the bars.
const LEFT: f64 = 36.0;
const BOTTOM: f64 = 20.0;
const LABEL: f64 = 14.0;

/// A logarithmic scale that holds 1 and all ratios of a section.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(ratios: impl Iterator<Item = f64> + Clone) -> Self {
        let low = ratios.clone().fold(0.8, f64::min).log2();
        let high = ratios.fold(1.25, f64::max).log2();
        Self { low, high }
    }

    fn y(&self, ratio: f64) -> f64 {
        let share = (ratio.log2() - self.low) / (self.high - self.low);
        LABEL + (1.0 - share) * (PLOT_HEIGHT - 2.0 * LABEL)
    }

    /// Round ratios to draw lines at: powers of 2, of 4 or of 10, about six at most.
    fn ticks(&self) -> Vec<f64> {
        let octaves = self.high - self.low;
        let base: f64 = match octaves {
            o if o <= 6.0 => 2.0,
            o if o <= 12.0 => 4.0,
            _ => 10.0,
        };
        let step = base.log2();
        let first = (self.low / step).ceil() as i32;
        let last = (self.high / step).floor() as i32;
        (first..=last).map(|power| base.powi(power)).collect()
    }
}

fn plot(title: &str, rows: &[&Row], backends: &[&str], axis: &Axis) -> String {
    let mut sizes = distinct(rows, |row| row.elements);
    sizes.sort_unstable();
    let present: Vec<(usize, &str)> = backends
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, backend)| rows.iter().any(|row| row.backend == *backend))
        .collect();
    let group = present.len() as f64 * BAR;
    let width = LEFT + sizes.len() as f64 * (group + GROUP_GAP) + GROUP_GAP;
    let height = PLOT_HEIGHT + BOTTOM;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{title}\">\n"
    );
    for tick in axis.ticks() {
        let y = axis.y(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{x}\" y=\"{y:.1}\">{tick}</text>",
            x = LEFT - 4.0,
        );
    }
    let one = axis.y(1.0);
    for (i, &size) in sizes.iter().enumerate() {
        let left = LEFT + GROUP_GAP + i as f64 * (group + GROUP_GAP);
        for (slot, &(index, backend)) in present.iter().enumerate() {
            let Some(row) = rows
                .iter()
                .find(|row| row.elements == size && row.backend == backend)
            else {
                continue;
            };
            let x = left + slot as f64 * BAR;
            let y = axis.y(row.ratio);
            let label_y = if row.ratio < 1.0 { y + 9.0 } else { y - 3.0 };
            let _ = writeln!(
                svg,
                "<g><title>{}, {} elements: {} copies, {:.4} ns per element</title>\
                 <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
                 <text class=\"value\" x=\"{:.1}\" y=\"{label_y:.1}\">{}</text></g>",
                escape(backend),
                size_label(size),
                ratio(row.ratio),
                row.ns_per_element,
                x + 1.0,
                y.min(one),
                BAR - 2.0,
                (y - one).abs().max(1.0),
                colour(index),
                x + BAR / 2.0,
                ratio(row.ratio),
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"size\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left + group / 2.0,
            height - 5.0,
            size_label(size)
        );
    }
    let _ = write!(
        svg,
        "<line class=\"copy\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{one:.1}\" y2=\"{one:.1}\"/>\n</svg>"
    );
    svg
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "<h2 id=\"rows\">All rows</h2>\n<p><input id=\"filter\" type=\"search\" \
         placeholder=\"filter, for instance: forward f32 avx2\" aria-label=\"filter rows\"></p>\n\
         <div class=\"scroll\"><table>\n<thead><tr><th>op</th><th>p</th><th>dtype</th>\
         <th>backend</th><th>threads</th><th>elements</th><th>ns per element</th>\
         <th>copy, ns per element</th><th>ratio</th></tr></thead>\n<tbody>\n",
    );
    for row in rows {
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{:.4}</td><td>{:.4}</td><td>{}</td></tr>",
            escape(&row.op),
            row.p,
            escape(&row.dtype),
            escape(&row.backend),
            row.threads,
            size_label(row.elements),
            row.ns_per_element,
            row.copy_ns_per_element,
            row.cell(),
        );
    }
    table + "</tbody>\n</table></div>\n"
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// The distinct values of a field, in order of appearance.
fn distinct<'r, R: 'r, V: PartialEq>(
    rows: impl IntoIterator<Item = &'r R>,
    field: impl Fn(&'r R) -> V,
) -> Vec<V> {
    let mut values = Vec::new();
    for value in rows.into_iter().map(field) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    fn report() -> Report {
        let row = |backend: &str, elements, ratio| Row {
            op: "forward".into(),
            dtype: "f32".into(),
            backend: backend.into(),
            threads: 1,
            elements,
            p: 0.1,
            ns_per_element: 0.25 * ratio,
            copy_ns_per_element: 0.25,
            ratio,
            roof: "copy".into(),
            copy_strays: None,
        };
        let mut machine = Machine::here(true);
        machine.cpu = "<one> & \"only\"".into();
        Report {
            machine,
            rows: vec![
                row("avx2", 1 << 16, 1.26),
                row("portable", 1 << 16, 4.0),
                row("avx2", 1 << 20, 0.9),
                row("peer:candle", 1 << 16, 116.0),
            ],
            steps: Vec::new(),
        }
    }

    #[test]
    fn the_page_refers_to_nothing_outside() {
        let page = page(&report());
        for reference in ["http:", "https:", "src=", "@import", "url(", "<link"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn the_page_shows_every_row_and_escapes_what_is_not_ours() {
        let page = page(&report());
        assert_eq!(page.matches("<tr><td>").count(), 4);
        assert_eq!(page.matches("<rect").count(), 4);
        assert_eq!(page.matches("class=\"copy\"").count(), 1);
        assert!(page.contains("&lt;one&gt; &amp; &quot;only&quot;"));
        assert!(page.contains("avx2, 1Mi elements: 0.90 copies"));
    }

    #[test]
    fn bars_that_are_faster_than_a_copy_point_down() {
        let axis = Axis::over([0.5, 4.0].into_iter());
        assert!(axis.y(0.5) > axis.y(1.0) && axis.y(1.0) > axis.y(4.0));
        assert_eq!(axis.ticks(), [0.5, 1.0, 2.0, 4.0]);
    }
}
