//! [`Finding`]: one test and its p-value; and what many of them say together.

/// What one test found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was tested.
    pub test: String,
    /// How often masks that are what they are said to be give a result as far out.
    pub p_value: f64,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(test: impl Into<String>, p_value: f64) -> Self {
        Self {
            test: test.into(),
            p_value,
        }
    }
}

/// The p-values, each corrected for the number of them (Holm 1979): that any of the returned ones
/// is below a level has, for sound masks, a probability of at most that level, however the tests
/// depend on each other.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        let left = (p_values.len() - rank) as f64;
        largest = largest.max((left * p_values[i]).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_multiplies_by_the_number_of_tests_left() {
        assert_eq!(holm(&[0.5, 0.125, 0.0625]), [0.5, 0.25, 0.1875]);
        // Never below that of a smaller p-value, never above 1.
        assert_eq!(holm(&[0.25, 0.375, 0.25]), [0.75, 0.75, 0.75]);
        assert_eq!(holm(&[0.75, 0.75]), [1.0, 1.0]);
    }
}
