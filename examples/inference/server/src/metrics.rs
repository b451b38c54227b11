//! What happened so far, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Upper bounds in seconds: a small model answers in one millisecond, a large one under a quarter
/// core in seconds.
const BOUNDS_SECONDS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Counters of one process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By route and status. Routes are a closed set, so a client cannot make this grow.
    requests: BTreeMap<(&'static str, u16), u64>,
    /// Inferences that took at most the bound of the same index and more than the one before.
    buckets: [u64; BOUNDS_SECONDS.len()],
    inferences: u64,
    inference_time: Duration,
    load_time: Duration,
}

impl Metrics {
    /// Starts from zero; the model took `load_time` to load.
    pub fn new(load_time: Duration) -> Metrics {
        Metrics {
            load_time,
            ..Metrics::default()
        }
    }

    /// A request was answered.
    pub fn count_request(&mut self, route: &'static str, status: u16) {
        *self.requests.entry((route, status)).or_default() += 1;
    }

    /// The model ran for `time`.
    pub fn observe_inference(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(index) = BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[index] += 1;
        }
        self.inferences += 1;
        self.inference_time += time;
    }

    /// The text a scraper gets.
    pub fn render(&self, model: &str) -> String {
        let mut text = String::new();
        self.write(&mut text, model)
            .expect("writing to a String does not fail");
        text
    }

    fn write(&self, out: &mut String, model: &str) -> std::fmt::Result {
        writeln!(
            out,
            "# HELP inference_requests_total Requests answered, by route and status."
        )?;
        writeln!(out, "# TYPE inference_requests_total counter")?;
        for ((route, status), count) in &self.requests {
            writeln!(
                out,
                r#"inference_requests_total{{path="{route}",status="{status}"}} {count}"#
            )?;
        }
        writeln!(
            out,
            "# HELP inference_duration_seconds Time one run of the model took."
        )?;
        writeln!(out, "# TYPE inference_duration_seconds histogram")?;
        let mut cumulative = 0;
        for (bound, count) in BOUNDS_SECONDS.iter().zip(self.buckets) {
            cumulative += count;
            writeln!(
                out,
                r#"inference_duration_seconds_bucket{{model="{model}",le="{bound}"}} {cumulative}"#
            )?;
        }
        writeln!(
            out,
            r#"inference_duration_seconds_bucket{{model="{model}",le="+Inf"}} {}"#,
            self.inferences
        )?;
        let sum = self.inference_time.as_secs_f64();
        writeln!(
            out,
            r#"inference_duration_seconds_sum{{model="{model}"}} {sum}"#
        )?;
        writeln!(
            out,
            r#"inference_duration_seconds_count{{model="{model}"}} {}"#,
            self.inferences
        )?;
        writeln!(
            out,
            "# HELP inference_model_load_seconds Time it took to read and prepare the model."
        )?;
        writeln!(out, "# TYPE inference_model_load_seconds gauge")?;
        writeln!(
            out,
            r#"inference_model_load_seconds{{model="{model}"}} {}"#,
            self.load_time.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_the_last_holds_everything() {
        let mut metrics = Metrics::new(Duration::from_millis(3));
        for millis in [1, 1, 4, 7000] {
            metrics.observe_inference(Duration::from_millis(millis));
        }
        let text = metrics.render("glyph");
        for line in [
            r#"inference_duration_seconds_bucket{model="glyph",le="0.0005"} 0"#,
            r#"inference_duration_seconds_bucket{model="glyph",le="0.001"} 2"#,
            r#"inference_duration_seconds_bucket{model="glyph",le="0.005"} 3"#,
            r#"inference_duration_seconds_bucket{model="glyph",le="5"} 3"#,
            r#"inference_duration_seconds_bucket{model="glyph",le="+Inf"} 4"#,
            r#"inference_duration_seconds_count{model="glyph"} 4"#,
            r#"inference_duration_seconds_sum{model="glyph"} 7.006"#,
            r#"inference_model_load_seconds{model="glyph"} 0.003"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let mut metrics = Metrics::default();
        metrics.count_request("/v1/classify", 200);
        metrics.count_request("/v1/classify", 200);
        metrics.count_request("/v1/classify", 415);
        let text = metrics.render("m");
        assert!(
            text.contains("inference_requests_total{path=\"/v1/classify\",status=\"200\"} 2\n")
        );
        assert!(
            text.contains("inference_requests_total{path=\"/v1/classify\",status=\"415\"} 1\n")
        );
    }
}
