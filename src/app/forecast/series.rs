//! A load history from a CSV file: a time and a value a line, made even.

use std::path::Path;

use super::ForecastError;
use crate::forecast::parse_time;

/// Missing steps that are filled in a row, at the most.
const GAP_MAX: usize = 10_000;

/// An even series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// When the first step begins, in seconds since 1970.
    pub(super) begin: i64,
    /// The length of a step in seconds.
    pub(super) step: i64,
    /// Oldest first.
    pub(super) values: Vec<f64>,
    /// How many of them were missing and are those of the step before.
    pub(super) filled: usize,
}

impl Series {
    /// The number of the first step since 1970.
    pub(super) fn first_step(&self) -> u64 {
        u64::try_from(self.begin.div_euclid(self.step.max(1))).unwrap_or_default()
    }

    /// Reads `column`, counted from 1 after the time's; a first line of names is skipped.
    pub(super) fn read(path: &Path, column: usize) -> Result<Self, ForecastError> {
        let text = std::fs::read_to_string(path).map_err(super::file(path))?;
        Self::parse(&text, column).map_err(|(line, what)| ForecastError::Line {
            path: path.display().to_string(),
            line,
            what,
        })
    }

    fn parse(text: &str, column: usize) -> Result<Self, (usize, String)> {
        let mut points: Vec<(i64, f64)> = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut cells = line.split([',', ';', '\t']).map(|cell| cell.trim().trim_matches('"'));
            let time = cells.next().unwrap_or_default();
            let value = cells.nth(column.saturating_sub(1));
            match (parse_time(time), value.map(str::parse::<f64>)) {
                (Some(at), Some(Ok(value))) if value.is_finite() => points.push((at, value)),
                // A value that is missing; the step is filled.
                (Some(_), Some(_)) if index > 0 => {}
                _ if index == 0 => {}
                (None, _) => return Err((index + 1, format!("{time:?} is no time"))),
                (_, None) => return Err((index + 1, format!("there is no column {column}"))),
                (_, Some(_)) => return Err((index + 1, "there is no number".to_owned())),
            }
        }
        points.sort_by_key(|(at, _)| *at);
        points.dedup_by_key(|(at, _)| *at);
        let mut gaps: Vec<i64> = points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        gaps.sort_unstable();
        let Some(step) = gaps.get(gaps.len() / 2).copied() else {
            return Err((1, "at least two values are needed".to_owned()));
        };
        let begin = points[0].0;
        let (mut values, mut filled) = (Vec::with_capacity(points.len()), 0);
        for (at, value) in points {
            let index = usize::try_from((at - begin) / step).unwrap_or_default();
            if index < values.len() {
                continue;
            }
            if index > values.len() + GAP_MAX {
                return Err((1, format!("more than {GAP_MAX} steps in a row are missing")));
            }
            let last = values.last().copied().unwrap_or(value);
            filled += index - values.len();
            values.resize(index, last);
            values.push(value.max(0.0));
        }
        Ok(Self { begin, step, values, filled })
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    #[test]
    fn a_file_with_names_gaps_and_disorder_becomes_an_even_series() {
        let text = "time,reads,writes\n120,3,30\n60,2,20\n0,1,10\n300,6,60\n180,,40\n";
        let reads = Series::parse(text, 1).unwrap();
        assert_eq!((reads.begin, reads.step, reads.filled), (0, 60, 2));
        assert_eq!(reads.values, [1.0, 2.0, 3.0, 3.0, 3.0, 6.0]);
        assert_eq!(Series::parse(text, 2).unwrap().values, [10.0, 20.0, 30.0, 40.0, 40.0, 60.0]);
        assert_eq!(Series::parse(text, 3).unwrap_err().0, 2);
        assert_eq!(Series::parse("0,1\nx,2\n", 1).unwrap_err(), (2, "\"x\" is no time".to_owned()));
    }
}
