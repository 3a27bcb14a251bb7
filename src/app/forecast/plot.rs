//! An evaluation as a page: the table, and a plot of the last forecast beside what came.

#![expect(clippy::format_push_string, reason = "a page, written once")]

use super::rolling::Evaluation;
use super::series::Series;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 360.0;
/// Horizons of history that are drawn before the forecast.
const BEFORE: usize = 3;

/// The page.
pub(super) fn page(name: &str, series: &Series, evaluation: &Evaluation) -> String {
    let mut rows = String::new();
    let base = evaluation.rows[2].errors;
    for row in &evaluation.rows {
        let [near, far] = row.errors;
        rows += &format!(
            "<tr><td>{}</td><td>{near:.4}</td><td>{:.3}</td><td>{far:.4}</td><td>{:.3}</td>\
             <td>{}</td></tr>\n",
            row.name,
            near / base[0].max(1e-12),
            far / base[1].max(1e-12),
            row.answers
        );
    }
    let weights = evaluation.weights.iter().filter(|(_, weight)| *weight >= 0.01);
    let weights: Vec<String> =
        weights.map(|(name, weight)| format!("{name} {:.0} %", weight * 100.0)).collect();
    format!(
        "<!doctype html><meta charset=utf-8><title>{name}</title>\n<style>body{{font:15px \
         sans-serif;margin:2em;max-width:1040px}}td,th{{padding:2px 12px;text-align:right}}\
         td:first-child{{text-align:left}}</style>\n<h1>{name}</h1>\n<p>{} steps of {} s, {} of \
         them filled. {} origins, {} steps ahead; the forecast was trusted at {}.\n\
         80 % interval held {:.0} %, 95 % interval {:.0} %.</p>\n{}\n\
         <table><tr><th></th><th>error near</th><th>to a day ago</th><th>error far</th>\
         <th>to a day ago</th><th>answers</th></tr>\n{rows}</table>\n<p>Weights: {}</p>\n",
        series.values.len(),
        series.step,
        series.filled,
        evaluation.trusted.1,
        evaluation.horizon,
        evaluation.trusted.0,
        100.0 * evaluation.coverage[0],
        100.0 * evaluation.coverage[1],
        drawing(&series.values, evaluation),
        weights.join(", ")
    )
}

/// The last forecast and what came, as SVG.
fn drawing(values: &[f64], evaluation: &Evaluation) -> String {
    let (origin, said) = &evaluation.last;
    let from = origin.saturating_sub(BEFORE * evaluation.horizon);
    let to = origin + evaluation.horizon;
    let drawn = &values[from..to];
    let highest = drawn.iter().copied().chain(said.steps().iter().map(|q| q[10]));
    let highest = highest.fold(1e-12, f64::max);
    let x = |index: usize| WIDTH * real(index) / real(drawn.len().max(1));
    let y = |value: f64| HEIGHT * (1.0 - value / (1.05 * highest));
    let line = |points: &mut dyn Iterator<Item = (usize, f64)>| {
        let points: Vec<String> =
            points.map(|(at, value)| format!("{:.1},{:.1}", x(at), y(value))).collect();
        points.join(" ")
    };
    let level = |level: usize| {
        let steps = said.steps().iter().enumerate();
        steps.map(move |(step, q)| (origin - from + step, q[level])).collect::<Vec<_>>()
    };
    let band = |low: usize, high: usize| {
        let mut around = level(low).into_iter().chain(level(high).into_iter().rev());
        line(&mut around)
    };
    let mut svg = format!(
        "<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' \
         style='border:1px solid #ccc'>\n"
    );
    for (points, colour) in [(band(0, 10), "#dbe9ff"), (band(1, 9), "#a9c8ff")] {
        svg += &format!("<polygon points='{points}' fill='{colour}'/>\n");
    }
    let history = line(&mut drawn.iter().copied().enumerate());
    let median = line(&mut level(5).into_iter());
    for (points, colour) in [(history, "#333"), (median, "#0050c8")] {
        svg += &format!("<polyline points='{points}' fill='none' stroke='{colour}'/>\n");
    }
    svg + &format!("<text x='6' y='16' font-size='12'>{highest:.4}</text></svg>")
}

fn real(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
