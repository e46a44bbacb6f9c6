//! The pictures for the README.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::report::{Report, Series};

const SIZE: (u32, u32) = (820, 420);
const FONT: &str = "sans-serif";
const LINES: [(&str, RGBColor); 4] = [
    ("limit", RGBColor(150, 150, 150)),
    ("pollflip", RGBColor(20, 110, 190)),
    ("shellflip", RGBColor(210, 80, 40)),
    ("ecdysis", RGBColor(120, 90, 170)),
];

/// Draws what was measured into that directory.
pub fn draw(report: &Report, directory: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot draw into {}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    latency(report, &directory.join("latency.svg")).map_err(|error| failed(&error))?;
    frames(report, &directory.join("frames.svg")).map_err(|error| failed(&error))?;
    pause(report, &directory.join("pause.svg")).map_err(|error| failed(&error))
}

fn series<'a>(report: &'a Report, kind: &str, peer: &str) -> Option<&'a Series> {
    let name = format!("{kind} {peer}");
    report.series.iter().find(|(found, points)| *found == name && !points.is_empty())
}

fn latency(report: &Report, path: &Path) -> Result<(), Box<dyn Error>> {
    let lines: Vec<_> = LINES.iter().filter_map(|(peer, colour)| Some((*peer, *colour, series(report, "latency", peer)?))).collect();
    let Some(most) = lines.iter().flat_map(|(_, _, (_, points))| points).map(|point| point.0).reduce(f64::max) else { return Ok(()) };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("A restart, from the request to the answer", (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most.max(1.0), (0.5..2000.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("memory that the old process has touched, GiB")
        .y_desc("ms")
        .y_label_formatter(&|value| format!("{value}"))
        .light_line_style(WHITE)
        .draw()?;
    for (peer, colour, (_, points)) in lines {
        let points: Vec<_> = points.iter().map(|(gib, seconds)| (*gib, seconds * 1000.0)).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(if peer == "limit" { "limit: bare posix_spawn" } else { peer })
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::MiddleRight).background_style(WHITE).label_font((FONT, 13)).draw()?;
    root.present()?;
    Ok(())
}

/// How long a server stands still, by its connections, with pre-copy and without.
fn pause(report: &Report, path: &Path) -> Result<(), Box<dyn Error>> {
    let [grey, blue] = [LINES[0].1, LINES[1].1];
    // What is named, how it is drawn, and whether its dots are filled.
    let lines =
        [("written, no pre-copy", grey, true), ("shared, no pre-copy", grey, false), ("written", blue, true), ("shared", blue, false)];
    let lines: Vec<_> =
        lines.into_iter().filter_map(|(name, colour, full)| Some((name, colour, full, series(report, "pause", name)?))).collect();
    let Some(most) = lines.iter().flat_map(|(_, _, _, (_, points))| points).map(|point| point.0).reduce(f64::max) else { return Ok(()) };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("How long a server stands still in a restart", (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most, (0.05..500.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("connections that are handed over")
        .y_desc("ms from the freeze to the grant")
        .x_label_formatter(&|value| format!("{value}"))
        .y_label_formatter(&|value| format!("{value}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, colour, full, (_, points)) in lines {
        let points: Vec<_> = points.iter().map(|(count, seconds)| (*count, seconds * 1000.0)).collect();
        let style = if full { colour.filled() } else { colour.stroke_width(1) };
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(match name {
                "written, no pre-copy" => "all at the freeze, state written",
                "shared, no pre-copy" => "all at the freeze, state in a shared file",
                "written" => "pre-copy, state written",
                _ => "pre-copy, state in a shared file",
            })
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, style));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, style)))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE).label_font((FONT, 13)).draw()?;
    root.present()?;
    Ok(())
}

/// Two windows on one scale, each frame a dot where it began.
fn frames(report: &Report, path: &Path) -> Result<(), Box<dyn Error>> {
    let drawn: Vec<_> = LINES.iter().filter_map(|(peer, colour)| Some((*peer, *colour, series(report, "frames", peer)?))).collect();
    if drawn.is_empty() {
        return Ok(());
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled("Frames of a 60 Hz loop across restarts", (FONT, 18))?;
    let most = drawn.iter().flat_map(|(_, _, (_, points))| points).map(|point| point.1 * 1000.0).fold(40.0, f64::max);
    for ((peer, colour, (_, points)), area) in drawn.iter().zip(root.split_evenly((1, drawn.len()))) {
        let restarts = series(report, "restarts", peer).map_or(0, |(_, points)| points.len());
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("{peer}, {restarts} restarts"), (FONT, 15))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(50)
            .build_cartesian_2d(-0.5..1.0, (10.0..most * 1.2).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("seconds since the request")
            .y_desc("how long the frame took, ms")
            .x_labels(4)
            .y_label_formatter(&|value| format!("{value}"))
            .light_line_style(WHITE)
            .draw()?;
        let dots = points.iter().filter(|(at, _)| (-0.5..1.0).contains(at));
        chart.draw_series(dots.map(|(at, length)| Circle::new((*at, length * 1000.0), 2, colour.mix(0.6).filled())))?;
    }
    root.present()?;
    Ok(())
}
