//! The outcomes as a chart.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::common::{Spread, range};
use crate::experiment::Outcome;

/// Draws the loss on the validation set over the steps, with a standard deviation to either side.
pub(crate) fn draw(path: &Path, rates: &[f64], outcomes: &[Vec<Outcome>]) -> Result<()> {
    draw_losses(path, rates, outcomes)
        .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn draw_losses(
    path: &Path,
    rates: &[f64],
    outcomes: &[Vec<Outcome>],
) -> Result<(), Box<dyn std::error::Error>> {
    let seeds = outcomes.first().map_or(0, Vec::len);
    let curves: Vec<Vec<(f64, Spread)>> = outcomes.iter().map(|o| curve(o)).collect();
    let points = || curves.iter().flatten();
    let root = SVGBackend::new(path, (760, 440)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("Text never seen (mean and standard deviation, {seeds} seeds)");
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            range(points().map(|(step, _)| *step), 0.04, 0.04),
            range(points().flat_map(|(_, spread)| spread.ends()), 0.1, 0.1),
        )?;
    chart
        .configure_mesh()
        .x_desc("steps")
        .y_desc("nats a character, validation set")
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 14))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.1}"))
        .light_line_style(WHITE)
        .draw()?;
    for (i, (rate, points)) in rates.iter().zip(&curves).enumerate() {
        let color = Palette99::pick(i);
        let line = points.iter().map(|(step, spread)| (*step, spread.mean));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(format!("p = {rate}"))
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], Palette99::pick(i).stroke_width(2))
            });
        chart.draw_series(points.iter().map(|(step, spread)| {
            let [low, high] = spread.ends();
            ErrorBar::new_vertical(*step, low, spread.mean, high, color.filled(), 6)
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(root.present()?)
}

/// The loss after each number of steps, over the seeds.
fn curve(outcomes: &[Outcome]) -> Vec<(f64, Spread)> {
    let Some(first) = outcomes.first() else {
        return Vec::new();
    };
    let steps = first.validation.iter().enumerate();
    steps
        .map(|(i, (step, _))| {
            let losses = outcomes.iter().map(|outcome| outcome.validation[i].1);
            (*step as f64, Spread::of(losses))
        })
        .collect()
}
