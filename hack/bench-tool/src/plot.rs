//! Two kinds of drawing, as SVG text: nothing to install, and a diff can be read.

use std::fmt::Write as _;

use crate::stats::Sample;

/// All values of one runtime.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) values: Sample,
}

/// One bar of a group.
pub(crate) struct Bar {
    pub(crate) group: String,
    pub(crate) label: String,
    pub(crate) value: f64,
}

const WIDTH: f64 = 780.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 50.0;
const COLOURS: [&str; 6] = [
    "#3366aa", "#aa6633", "#558844", "#884488", "#228888", "#777777",
];

/// One row a runtime: a dot for each value, a line at the median.
pub(crate) fn strips(title: &str, unit: &str, rows: &[Row]) -> String {
    let row_height = 70.0;
    let height = TOP + row_height * rows.len() as f64 + 50.0;
    let most = rows.iter().map(|row| row.values.max()).fold(0.0, f64::max);
    let scale = Scale::new(most);
    let mut body = String::new();
    axis_below(&mut body, &scale, unit, height - 50.0);
    for (index, row) in rows.iter().enumerate() {
        let middle = TOP + row_height * (index as f64 + 0.5);
        let colour = COLOURS[index % COLOURS.len()];
        text(&mut body, LEFT - 10.0, middle + 5.0, "end", &row.label);
        for (number, value) in row.values.values().iter().enumerate() {
            // Spread over the row's height in a fixed pattern, so that equal values stay apart.
            let y = middle + ((number * 7 % 11) as f64 - 5.0) * 4.0;
            let x = scale.x(*value);
            let _ = writeln!(
                body,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\" fill-opacity=\"0.5\"/>"
            );
        }
        let median = row.values.median();
        let x = scale.x(median);
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            middle - 28.0,
            middle + 28.0
        );
        text(
            &mut body,
            x + 6.0,
            middle - 24.0,
            "start",
            &format!("median {median:.1} {unit}"),
        );
    }
    document(title, height, &body)
}

/// Groups of bars from left to right along a common scale, the value beside each.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let bar_height = 26.0;
    let height = TOP + bar_height * bars.len() as f64 + 60.0;
    let scale = Scale::new(bars.iter().map(|bar| bar.value).fold(0.0, f64::max));
    let mut body = String::new();
    axis_below(&mut body, &scale, unit, height - 50.0);
    let mut labels: Vec<&str> = Vec::new();
    for (index, bar) in bars.iter().enumerate() {
        let kind = labels
            .iter()
            .position(|label| *label == bar.label)
            .unwrap_or_else(|| {
                labels.push(&bar.label);
                labels.len() - 1
            });
        let y = TOP + bar_height * index as f64;
        let colour = COLOURS[kind % COLOURS.len()];
        let width = scale.x(bar.value) - LEFT;
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            bar_height - 6.0
        );
        text(
            &mut body,
            LEFT - 10.0,
            y + 15.0,
            "end",
            &format!("{} {}", bar.group, bar.label),
        );
        text(
            &mut body,
            LEFT + width + 6.0,
            y + 15.0,
            "start",
            &format!("{:.2}", bar.value),
        );
    }
    document(title, height, &body)
}

struct Scale {
    most: f64,
}

impl Scale {
    /// From 0 to a little above the greatest value, leaving room for what is written beside it.
    fn new(most: f64) -> Self {
        Self {
            most: if most > 0.0 { most * 1.15 } else { 1.0 },
        }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.most * (WIDTH - LEFT - RIGHT)
    }

    /// About six round numbers along the scale.
    fn ticks(&self) -> Vec<f64> {
        let rough = self.most / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(power * 10.0);
        (0..)
            .map(|number| f64::from(number) * step)
            .take_while(|tick| *tick <= self.most)
            .collect()
    }
}

fn axis_below(body: &mut String, scale: &Scale, unit: &str, y: f64) {
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
        );
        text(
            body,
            x,
            y + 18.0,
            "middle",
            &format!("{}", (tick * 1000.0).round() / 1000.0),
        );
    }
    text(body, WIDTH - RIGHT, y + 38.0, "end", unit);
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn document(title: &str, height: f64, body: &str) -> String {
    let mut heading = String::new();
    text(&mut heading, LEFT, 28.0, "start", title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{heading}{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_a_dot_and_every_row_has_a_median() {
        let rows = [
            Row {
                label: "ours".into(),
                values: Sample::new(vec![1.0, 2.0, 3.0]),
            },
            Row {
                label: "a<b".into(),
                values: Sample::new(vec![4.0]),
            },
        ];
        let svg = strips("title", "ms", &rows);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("median 2.0 ms"));
        assert!(svg.contains("a&lt;b"), "text is escaped");
    }

    #[test]
    fn ticks_are_few_and_round() {
        for most in [0.003, 0.9, 7.0, 150.0, 9999.0] {
            let ticks = Scale::new(most).ticks();
            assert!((3..=9).contains(&ticks.len()), "{most}: {ticks:?}");
        }
    }

    #[test]
    fn bars_of_one_runtime_share_a_colour() {
        let bar = |group: &str, label: &str| Bar {
            group: group.into(),
            label: label.into(),
            value: 1.0,
        };
        let svg = bars("t", "MB", &[bar("1", "a"), bar("1", "b"), bar("2", "a")]);
        assert_eq!(svg.matches(COLOURS[0]).count(), 2);
        assert_eq!(svg.matches(COLOURS[1]).count(), 1);
    }
}
