use crate::{EvaluationError, Rates, Report};
use plotters::prelude::*;
use std::path::Path;

/// The least rate that is drawn.
const FLOOR: f64 = 1e-4;

/// Draws the detection error trade-off, `det.svg`.
pub(crate) fn draw(report: &Report, directory: &Path) -> Result<(), EvaluationError> {
    let path = directory.join("det.svg");
    trade_off(report, &path).map_err(|error| EvaluationError::Plot(error.to_string()))
}

fn trade_off(report: &Report, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (720, 540)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Detection error trade-off", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((1e-6..1.0).log_scale(), (FLOOR..1.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("false match rate")
        .y_desc("false non-match rate")
        .x_label_formatter(&|rate| format!("{rate:e}"))
        .y_label_formatter(&|rate| format!("{rate:e}"))
        .draw()?;
    let mut curves = vec![("all sessions", &report.all, &BLUE)];
    if let Some(cross) = &report.cross_session {
        curves.push(("across sessions", cross, &RED));
    }
    for (name, rates, color) in curves {
        chart
            .draw_series(LineSeries::new(points(rates), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

fn points(rates: &Rates) -> impl Iterator<Item = (f64, f64)> + '_ {
    rates.trade_off.iter().map(|(fmr, fnmr)| (*fmr, fnmr.max(FLOOR)))
}
