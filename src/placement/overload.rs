//! Sums of uncertain loads, and the overload to expect of them, in closed form for a normal
//! distribution.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// A load that is not known exactly.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Normal {
    /// In busy seconds a second.
    pub mean: f64,
    /// Standard deviation, in the same unit.
    pub deviation: f64,
}

/// A sum of loads whose errors go partly together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sum {
    mean: f64,
    variances: f64,
    deviations: f64,
}

impl Sum {
    /// Puts a load in.
    pub fn add(&mut self, load: Normal) {
        self.mean += load.mean;
        self.variances += load.deviation * load.deviation;
        self.deviations += load.deviation;
    }

    /// Takes a load out.
    pub fn remove(&mut self, load: Normal) {
        self.mean -= load.mean;
        self.variances -= load.deviation * load.deviation;
        self.deviations -= load.deviation;
    }

    /// The whole, if any two errors correlate by `correlation`.
    pub fn total(&self, correlation: f64) -> Normal {
        let together = correlation * self.deviations * self.deviations;
        let variance = (1.0 - correlation) * self.variances + together;
        Normal { mean: self.mean, deviation: variance.max(1e-12).sqrt() }
    }
}

impl Normal {
    /// A part of it.
    #[must_use]
    pub fn times(self, share: f64) -> Self {
        Self { mean: self.mean * share, deviation: self.deviation * share }
    }

    /// The probability that it is above `capacity`.
    pub fn probability_above(&self, capacity: f64) -> f64 {
        let z = (self.mean - capacity) / self.deviation.max(1e-9);
        0.5 * erfc(-z * FRAC_1_SQRT_2)
    }

    /// How much of it is above `capacity` on average: E[(load - capacity)+].
    pub fn expected_above(&self, capacity: f64) -> f64 {
        let deviation = self.deviation.max(1e-9);
        let z = (self.mean - capacity) / deviation;
        let density = (-0.5 * z * z).exp() / (2.0 * PI).sqrt();
        let above = deviation * density + (self.mean - capacity) * self.probability_above(capacity);
        above.max(0.0)
    }
}

/// The complementary error function to 1.2e-7 of its value (Press et al., Numerical Recipes,
/// §6.2: a Chebyshev fit).
fn erfc(x: f64) -> f64 {
    const FIT: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.5 * size);
    let fit = FIT.iter().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = t * (-size * size + fit).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::{Normal, Sum, erfc};

    #[test]
    fn erfc_has_the_values_of_the_tables() {
        let table = [
            (0.0, 1.0),
            (0.5, 0.479_500_122),
            (1.0, 0.157_299_207),
            (2.0, 0.004_677_735),
            (-1.0, 1.842_700_793),
        ];
        for (x, expected) in table {
            assert!((erfc(x) - expected).abs() < 3e-7, "erfc({x}) = {}", erfc(x));
        }
    }

    #[test]
    fn the_expected_overload_is_the_area_under_the_tail() {
        let load = Normal { mean: 0.7, deviation: 0.1 };
        // By quadrature: the sum of probability_above over all higher capacities.
        let step = 1e-4;
        let area: f64 = (0..10_000)
            .map(|i| load.probability_above(0.8 + (f64::from(i) + 0.5) * step) * step)
            .sum();
        assert!((load.expected_above(0.8) - area).abs() < 1e-6);
        let far = Normal { mean: 2.0, deviation: 0.1 };
        assert!((far.expected_above(0.8) - 1.2).abs() < 1e-6);
    }

    #[test]
    fn what_is_added_and_removed_leaves_nothing() {
        let mut sum = Sum::default();
        let one = Normal { mean: 0.3, deviation: 0.1 };
        let two = Normal { mean: 0.4, deviation: 0.2 };
        sum.add(one);
        sum.add(two);
        assert!((sum.total(0.0).deviation - 0.05f64.sqrt()).abs() < 1e-12);
        assert!((sum.total(1.0).deviation - 0.3).abs() < 1e-12);
        sum.remove(two);
        assert!((sum.total(0.5).mean - 0.3).abs() < 1e-12);
        assert!((sum.total(0.5).deviation - 0.1).abs() < 1e-9);
    }
}
