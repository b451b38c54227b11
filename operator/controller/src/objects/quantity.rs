//! Quantities of Kubernetes: the API server writes `1024Ki` as `1Mi`, so texts cannot be compared.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Whether two quantities are the same amount; texts that are none are compared as texts.
pub fn equal(a: &Quantity, b: &Quantity) -> bool {
    match (amount(&a.0), amount(&b.0)) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs().max(b.abs()) * 1e-9,
        _ => a.0 == b.0,
    }
}

fn amount(text: &str) -> Option<f64> {
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let scale = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0f64.powi(4),
        "Pi" => 1024.0f64.powi(5),
        "Ei" => 1024.0f64.powi(6),
        // 1e3 and 1E3.
        exponent => 10f64.powi(
            exponent
                .strip_prefix(['e', 'E'])
                .and_then(|digits| digits.parse().ok())?,
        ),
    };
    Some(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_not_texts() {
        let same = |a: &str, b: &str| equal(&Quantity(a.to_owned()), &Quantity(b.to_owned()));
        for (a, b) in [
            ("1024Ki", "1Mi"),
            ("0.5", "500m"),
            ("1e3", "1k"),
            ("4Mi", "4Mi"),
            ("nonsense", "nonsense"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [("4Mi", "4M"), ("5m", "5"), ("nonsense", "4"), ("4x", "4")] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
