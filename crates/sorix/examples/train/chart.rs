//! The outcomes as a chart.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::common::{Spread, range};
use crate::experiment::Outcome;
use crate::summary::{LAST, METRICS, Metric, Moment, STOPPED};

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SERIES: [(Moment, RGBColor, f64); 2] = [
    (STOPPED, RGBColor(0, 90, 160), -0.008),
    (LAST, RGBColor(200, 80, 0), 0.008),
];

/// Room above the data, in parts of its height.
const LEGEND: f64 = 0.35;

/// Draws both metrics over the drop probability, with a standard deviation to either side.
pub(crate) fn draw(path: &Path, rates: &[f64], outcomes: &[Vec<Outcome>]) -> Result<()> {
    let seeds = outcomes.first().map_or(0, Vec::len);
    let root = SVGBackend::new(path, (960, 440)).into_drawing_area();
    let error = |error| anyhow!("cannot draw {}: {error}", path.display());
    let title = format!(
        "Red wines never seen, by drop probability (mean and standard deviation, {seeds} seeds)"
    );
    let fill = || -> Result<(), Box<dyn std::error::Error>> {
        root.fill(&WHITE)?;
        let body = root.titled(&title, ("sans-serif", 20))?;
        for (panel, metric) in body.split_evenly((1, METRICS.len())).iter().zip(METRICS) {
            draw_metric(panel, &metric, rates, outcomes)?;
        }
        Ok(root.present()?)
    };
    fill().map_err(error)
}

fn draw_metric(
    panel: &Panel<'_>,
    metric: &Metric,
    rates: &[f64],
    outcomes: &[Vec<Outcome>],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = |moment: &Moment| -> Vec<(f64, Spread)> {
        let spread = |outcomes: &Vec<Outcome>| {
            let values = outcomes
                .iter()
                .map(|outcome| (metric.of)(&(moment.of)(outcome)));
            Spread::of(values)
        };
        rates
            .iter()
            .copied()
            .zip(outcomes.iter().map(spread))
            .collect()
    };
    let all: Vec<(f64, Spread)> = SERIES
        .iter()
        .flat_map(|(moment, ..)| points(moment))
        .collect();
    let ends = all.iter().flat_map(|(_, spread)| spread.ends());
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            range(rates.iter().copied(), 0.06, 0.06),
            range(ends, 0.1, LEGEND),
        )?;
    chart
        .configure_mesh()
        .x_desc("drop probability p")
        .y_desc(format!("{} on the test set", metric.name))
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 14))
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|x| format!("{x:.1}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    for (moment, color, shift) in &SERIES {
        let points = points(moment);
        let line = points
            .iter()
            .map(|(rate, spread)| (rate + shift, spread.mean));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(moment.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|(rate, spread)| {
            let [low, high] = spread.ends();
            ErrorBar::new_vertical(rate + shift, low, spread.mean, high, color.filled(), 8)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
