//! Order statistics of small samples.

/// Samples, sorted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// Takes values in any order; there must be at least one.
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "a sample has at least one value");
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value below which a fraction of the sample lies, between neighbours on a straight line.
    pub(crate) fn quantile(&self, fraction: f64) -> f64 {
        let position = fraction.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let (below, above) = (position.floor() as usize, position.ceil() as usize);
        self.0[below] + (self.0[above] - self.0[below]) * (position - below as f64)
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// The middle half's width.
    pub(crate) fn spread(&self) -> f64 {
        self.quantile(0.75) - self.quantile(0.25)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_on_a_line_between_neighbours() {
        let sample = Sample::new(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(sample.min(), 1.0);
        assert_eq!(sample.median(), 2.5);
        assert_eq!(sample.max(), 4.0);
        assert_eq!(sample.spread(), 1.5);
    }

    #[test]
    fn one_value_is_every_quantile() {
        let sample = Sample::new(vec![7.0]);
        assert_eq!(
            (sample.min(), sample.median(), sample.max()),
            (7.0, 7.0, 7.0)
        );
        assert_eq!(sample.spread(), 0.0);
    }
}
