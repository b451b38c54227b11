//! `data` of a tensor: numbers in a row, or in lists within lists; the protocol allows both.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// The numbers in a row, whatever lists they came in. Read straight into place: a tensor of 224x224
/// in three channels as a tree of JSON values would take 5 MiB.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Flat(pub(super) Vec<f32>);

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        deserializer.deserialize_seq(List(&mut numbers))?;
        Ok(Flat(numbers))
    }
}

/// Appends a list's numbers.
struct List<'a>(&'a mut Vec<f32>);

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers, or of lists of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Element(self.0))?.is_some() {}
        Ok(())
    }
}

/// A number, or a list of them.
struct Element<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Element<'_> {
    fn push<E: de::Error>(self, number: f64) -> Result<(), E> {
        let number = number as f32;
        if number.is_finite() {
            self.0.push(number);
            Ok(())
        } else {
            Err(E::custom("a number that float32 cannot hold"))
        }
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a list of numbers")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.push(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.push(number as f64)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.push(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        List(self.0).visit_seq(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Flat, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_within_lists_are_flattened_in_order() {
        assert_eq!(
            read("[1, 2.5, -3]").expect("flat"),
            Flat(vec![1.0, 2.5, -3.0])
        );
        assert_eq!(
            read("[[1, 2], [[3], 4]]").expect("nested"),
            Flat(vec![1.0, 2.0, 3.0, 4.0])
        );
        assert_eq!(read("[]").expect("empty"), Flat(vec![]));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        assert!(
            read(r#"["1"]"#)
                .expect_err("text")
                .contains("a number or a list of numbers")
        );
        assert!(
            read("5")
                .expect_err("no list")
                .contains("a list of numbers")
        );
        assert!(
            read("[1e39]")
                .expect_err("too large")
                .contains("float32 cannot hold")
        );
        assert!(read("[null]").expect_err("null").contains("a number"));
    }

    #[test]
    fn lists_nested_without_end_do_not_exhaust_the_stack() {
        assert!(
            read(&"[".repeat(100_000))
                .expect_err("too deep")
                .contains("recursion limit")
        );
    }
}
