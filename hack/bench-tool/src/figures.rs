//! What was measured, by name and round: the table, the raw data and the drawing of a measurement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, file};
use crate::plot;
use crate::stats::Sample;

/// Values of everything that was compared, in one unit.
pub(crate) struct Figures {
    unit: &'static str,
    /// Names, in the order in which they are shown.
    names: Vec<String>,
    /// Name, round, value, as they came.
    values: Vec<(String, usize, f64)>,
}

impl Figures {
    /// With the names in the order in which they are to be shown; those that are new later come last.
    pub(crate) fn new(unit: &'static str, names: impl IntoIterator<Item: Into<String>>) -> Self {
        Self {
            unit,
            names: names.into_iter().map(Into::into).collect(),
            values: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &str, round: usize, value: f64) {
        if !self.names.iter().any(|other| other == name) {
            self.names.push(name.into());
        }
        self.values.push((name.into(), round, value));
    }

    /// All values under a name; none when there is no such name.
    pub(crate) fn sample(&self, name: &str) -> Option<Sample> {
        let values: Vec<f64> = self
            .values
            .iter()
            .filter(|(other, ..)| other == name)
            .map(|(.., value)| *value)
            .collect();
        (!values.is_empty()).then(|| Sample::new(values))
    }

    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.sample(name).map(|sample| sample.median())
    }

    /// Median of one by that of another; none unless both were measured.
    pub(crate) fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        Some(self.median(of)? / self.median(to)?)
    }

    /// The same, with what a third takes subtracted from both; none either where that leaves nothing
    /// to divide by.
    pub(crate) fn ratio_above(&self, of: &str, to: &str, floor: &str) -> Option<f64> {
        let floor = self.median(floor)?;
        let (of, to) = (self.median(of)? - floor, self.median(to)? - floor);
        (to > 0.0).then(|| of / to)
    }

    /// Writes the raw data to `NAME.csv`, and prints title and table.
    pub(crate) fn publish(&self, out: &Path, name: &str, title: &str) -> Result<(), Error> {
        let csv = out.join(name).with_extension("csv");
        std::fs::write(&csv, self.raw()).map_err(file(&csv))?;
        let width = self.names.iter().map(String::len).max().unwrap_or(0);
        println!("{name}: {title}, {}", self.unit);
        println!(
            "{:<width$} {:>5} {:>10} {:>10} {:>10} {:>10}",
            "", "n", "median", "min", "max", "spread"
        );
        for name in &self.names {
            if let Some(sample) = self.sample(name) {
                println!(
                    "{name:<width$} {:>5} {:>10.3} {:>10.3} {:>10.3} {:>10.3}",
                    sample.len(),
                    sample.median(),
                    sample.min(),
                    sample.max(),
                    sample.spread()
                );
            }
        }
        println!("raw data: {}", csv.display());
        Ok(())
    }

    /// Draws those that are wanted into `NAME.svg`, a row each.
    pub(crate) fn draw(
        &self,
        out: &Path,
        name: &str,
        title: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let rows: Vec<plot::Row> = self
            .names
            .iter()
            .filter(|name| wanted(name))
            .filter_map(|name| {
                Some(plot::Row {
                    label: name.clone(),
                    values: self.sample(name)?,
                })
            })
            .collect();
        let svg = out.join(name).with_extension("svg");
        write_plot(&svg, &plot::strips(title, self.unit, &rows))
    }

    fn raw(&self) -> String {
        let mut text = format!("what,round,{}\n", self.unit.replace([' ', '/'], "_"));
        for (name, round, value) in &self.values {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name},{round},{value:.3}");
        }
        text
    }
}

pub(crate) fn write_plot(svg: &PathBuf, drawing: &str) -> Result<(), Error> {
    std::fs::write(svg, drawing).map_err(file(svg))?;
    println!("plot: {}", svg.display());
    Ok(())
}

/// Prints a line of what is compared, where there is something to compare.
pub(crate) fn print_ratio(name: &str, ratio: Option<f64>) {
    if let Some(ratio) = ratio {
        println!("ratio {name} {ratio:.3}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::new("tasks/s", ["ours", "runc"]);
        for (round, ours, runc, floor) in [(1, 20.0, 40.0, 10.0), (2, 40.0, 60.0, 10.0)] {
            figures.add("ours", round, ours);
            figures.add("runc", round, runc);
            figures.add("floor", round, floor);
        }
        figures
    }

    #[test]
    fn ratios_are_of_medians() {
        let figures = figures();
        assert_eq!(figures.ratio("ours", "runc"), Some(0.6));
        assert_eq!(figures.ratio("ours", "nobody"), None);
        assert_eq!(figures.ratio_above("ours", "runc", "floor"), Some(0.5));
        assert_eq!(
            figures.ratio_above("ours", "floor", "runc"),
            None,
            "nothing is left above it"
        );
    }

    #[test]
    fn raw_data_keeps_every_round_and_names_the_unit() {
        let raw = figures().raw();
        assert!(
            raw.starts_with("what,round,tasks_s\nours,1,20.000\n"),
            "{raw}"
        );
        assert_eq!(raw.lines().count(), 7);
    }

    #[test]
    fn names_come_in_the_order_that_was_given() {
        let mut figures = Figures::new("ms", ["second", "first"]);
        for name in ["new", "first", "second"] {
            figures.add(name, 1, 1.0);
        }
        assert_eq!(figures.names, ["second", "first", "new"]);
    }
}
