//! p-values: how often what was seen, or something as far out, would be seen if the masks are what
//! they are said to be. All are two-sided: too even is as suspicious as too uneven.

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

/// Bins are merged until each expects this many: below it the law of chi-square does not hold.
const EXPECTED_AT_LEAST: f64 = 10.0;

/// Of `observed` successes in `n` independent trials of probability `p`: twice the smaller of the
/// two exact binomial tails.
///
/// The terms are summed from the mode outwards, relative to it, until they no longer count, and
/// divided by their sum: no incomplete beta function is needed, whose usual continued fraction
/// (statrs stops it after 140 terms) does not converge for billions of trials.
///
/// # Panics
///
/// Unless `0 < p < 1` and `observed <= n`.
#[must_use]
pub fn binomial(n: u64, p: f64, observed: u64) -> f64 {
    assert!(0.0 < p && p < 1.0 && observed <= n);
    let mode = (((n + 1) as f64 * p) as u64).min(n);
    let (mut all, mut below, mut above) = (0.0, 0.0, 0.0);
    let mut add = |k: u64, term: f64| {
        all += term;
        below += if k <= observed { term } else { 0.0 };
        above += if k >= observed { term } else { 0.0 };
    };
    let odds = p / (1.0 - p);
    let mut term = 1.0;
    for k in mode..=n {
        add(k, term);
        term *= (n - k) as f64 / (k + 1) as f64 * odds;
        if term < f64::MIN_POSITIVE {
            break;
        }
    }
    let mut term = 1.0;
    for k in (0..mode).rev() {
        term *= (k + 1) as f64 / (n - k) as f64 / odds;
        if term < f64::MIN_POSITIVE {
            break;
        }
        add(k, term);
    }
    two_sided(below / all, above / all)
}

/// The probabilities of 0 to `n` successes in `n` trials of probability `p`.
#[must_use]
pub fn binomial_masses(n: u64, p: f64) -> Vec<f64> {
    let mode = (((n + 1) as f64 * p) as u64).min(n);
    let mut masses = vec![1.0; n as usize + 1];
    let odds = p / (1.0 - p);
    for k in mode..n {
        masses[k as usize + 1] = masses[k as usize] * (n - k) as f64 / (k + 1) as f64 * odds;
    }
    for k in (0..mode).rev() {
        masses[k as usize] = masses[k as usize + 1] * (k + 1) as f64 / (n - k) as f64 / odds;
    }
    let sum: f64 = masses.iter().sum();
    masses.iter_mut().for_each(|mass| *mass /= sum);
    masses
}

/// Of a value drawn from the standard normal law.
#[must_use]
pub fn normal(z: f64) -> f64 {
    2.0 * Normal::standard().sf(z.abs())
}

/// Of a value drawn from the law of chi-square.
///
/// # Panics
///
/// Unless `degrees` is positive.
#[must_use]
pub fn chi_square(value: f64, degrees: f64) -> f64 {
    let law = ChiSquared::new(degrees).expect("positive degrees of freedom");
    two_sided(law.cdf(value), law.sf(value))
}

/// Of the counts of independent outcomes whose probabilities are known (Pearson's test). Neighbouring
/// outcomes are taken together until ten of each are expected.
///
/// `None` where that leaves fewer than two.
///
/// # Panics
///
/// Unless there are as many counts as probabilities.
#[must_use]
pub fn goodness_of_fit(observed: &[u64], probabilities: &[f64]) -> Option<f64> {
    goodness_of_fit_of_each([observed], probabilities)
}

/// Of several such counts, independent of each other, all with the same probabilities: the sum of
/// Pearson's statistics.
///
/// `None` where there are fewer than two outcomes left in each.
///
/// # Panics
///
/// Unless there are as many counts as probabilities in each.
#[must_use]
pub fn goodness_of_fit_of_each<'a>(
    each: impl IntoIterator<Item = &'a [u64]>,
    probabilities: &[f64],
) -> Option<f64> {
    let (value, degrees) = each
        .into_iter()
        .filter_map(|observed| pearson(observed, probabilities))
        .fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
    (degrees > 0.0).then(|| chi_square(value, degrees))
}

/// Pearson's statistic and its degrees of freedom.
fn pearson(observed: &[u64], probabilities: &[f64]) -> Option<(f64, f64)> {
    assert_eq!(observed.len(), probabilities.len());
    let total = observed.iter().sum::<u64>() as f64;
    let mut bins: Vec<(f64, f64)> = Vec::new();
    let mut open = (0.0, 0.0);
    for (&seen, &probability) in observed.iter().zip(probabilities) {
        open = (open.0 + seen as f64, open.1 + total * probability);
        if open.1 >= EXPECTED_AT_LEAST {
            bins.push(std::mem::take(&mut open));
        }
    }
    let last = bins.last_mut()?;
    *last = (last.0 + open.0, last.1 + open.1);
    let value = bins.iter().map(|(o, e)| (o - e).powi(2) / e).sum();
    (bins.len() > 1).then_some((value, (bins.len() - 1) as f64))
}

fn two_sided(below: f64, above: f64) -> f64 {
    (2.0 * below.min(above)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    use statrs::distribution::{Binomial, DiscreteCDF};

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a / b - 1.0).abs() < tolerance, "{a} and {b}");
    }

    #[test]
    fn binomial_tails_are_those_of_statrs_where_its_fraction_converges() {
        for (n, p, observed) in [(100, 0.1, 3), (100, 0.1, 25), (7, 0.5, 0), (40, 0.9, 30)] {
            let law = Binomial::new(p, n).unwrap();
            let above = if observed == 0 {
                1.0
            } else {
                law.sf(observed - 1)
            };
            close(
                binomial(n, p, observed),
                two_sided(law.cdf(observed), above),
                1e-9,
            );
        }
    }

    #[test]
    fn binomial_tails_of_many_trials_are_those_of_their_limits() {
        // Poisson: 2 * P(none of 16 expected) and 2 * P(at most 1).
        let (n, p) = (1 << 34, 0.5_f64.powi(30));
        close(binomial(n, p, 0), 2.0 * (-16.0_f64).exp(), 1e-6);
        close(binomial(n, p, 1), 34.0 * (-16.0_f64).exp(), 1e-6);
        // Normal: 4 standard deviations of 2^16 above the mean.
        let four_out = (1 << 33) + 4 * (1 << 16);
        close(binomial(n, 0.5, four_out), normal(4.0), 1e-4);
        assert_eq!(binomial(n, 0.5, 1 << 33), 1.0);
    }

    #[test]
    fn masses_are_a_row_of_pascals_triangle() {
        let masses = binomial_masses(4, 0.5);
        for (mass, expected) in masses.iter().zip([1.0, 4.0, 6.0, 4.0, 1.0]) {
            close(*mass, expected / 16.0, 1e-14);
        }
        close(binomial_masses(8192, 0.1).iter().sum(), 1.0, 1e-12);
    }

    #[test]
    fn chi_square_and_normal_have_their_tabulated_quantiles() {
        close(normal(1.959_963_985), 0.05, 1e-8);
        // Upper 5 % points, and so 10 % two-sided.
        close(chi_square(3.841_458_821, 1.0), 0.1, 1e-8);
        close(chi_square(18.307_038_05, 10.0), 0.1, 1e-8);
        close(chi_square(1_074.679_449, 1000.0), 0.1, 1e-6);
        // Many degrees: the two tails agree with each other and with Wilson and Hilferty.
        let degrees = 8192.0_f64;
        let cube_root = 1.0 - 2.0 / (9.0 * degrees) + 3.0 * (2.0 / (9.0 * degrees)).sqrt();
        close(
            chi_square(degrees * cube_root.powi(3), degrees),
            normal(3.0),
            1e-3,
        );
    }

    #[test]
    fn a_fair_die_fits_and_a_loaded_or_too_regular_one_does_not() {
        let sixth = [1.0 / 6.0; 6];
        let p = |counts: [u64; 6]| goodness_of_fit(&counts, &sixth).unwrap();
        assert!(p([90, 110, 103, 95, 108, 94]) > 0.1);
        assert!(p([60, 100, 100, 100, 100, 140]) < 1e-4);
        assert!(p([100, 100, 100, 100, 100, 100]) < 1e-9);
    }

    #[test]
    fn statistics_of_several_counts_are_summed() {
        // Chi-square 4 with a degree each.
        let each = [[60, 40], [40, 60], [50, 50]];
        let halves = [0.5, 0.5];
        let p = goodness_of_fit_of_each(each.iter().map(|seen| &seen[..]), &halves).unwrap();
        close(p, chi_square(8.0, 3.0), 1e-12);
        // One outcome is left of the second: it counts for nothing.
        let p = goodness_of_fit_of_each([&[60, 40][..], &[6, 4]], &halves).unwrap();
        close(p, chi_square(4.0, 1.0), 1e-12);
        assert_eq!(goodness_of_fit_of_each([&[6, 4][..]], &halves), None);
    }

    #[test]
    fn rare_outcomes_are_taken_together() {
        // Two of each expected: five make a bin, so two bins with one degree of freedom.
        let probabilities = [0.1; 10];
        let observed = [10, 0, 0, 0, 0, 0, 0, 0, 0, 10];
        assert_eq!(goodness_of_fit(&observed, &probabilities), Some(0.0));
        assert_eq!(goodness_of_fit(&[1, 1], &[0.5, 0.5]), None);
    }
}
