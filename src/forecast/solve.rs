//! Least squares with a ridge, by Cholesky's decomposition.

use super::real;

/// The sums of a least-squares problem; rows can be added, and problems of the same size.
#[derive(Debug, Clone)]
pub(super) struct Normal {
    size: usize,
    /// The lower triangle of the sum of weight · x · xᵀ, by rows.
    squares: Vec<f64>,
    /// The sum of weight · x · y.
    products: Vec<f64>,
}

impl Normal {
    /// No rows yet, of `size` values each.
    pub(super) fn new(size: usize) -> Self {
        Self { size, squares: vec![0.0; size * size], products: vec![0.0; size] }
    }

    /// Puts a row in: what is known, what came of it, and how much it counts.
    pub(super) fn add(&mut self, x: &[f64], y: f64, weight: f64) {
        for (i, value) in x.iter().enumerate() {
            let weighted = weight * value;
            self.products[i] += weighted * y;
            let row = &mut self.squares[i * self.size..=i * self.size + i];
            for (square, other) in row.iter_mut().zip(x) {
                *square += weighted * other;
            }
        }
    }

    /// Puts all rows of another problem in.
    pub(super) fn add_all(&mut self, other: &Self) {
        for (sum, value) in self.squares.iter_mut().zip(&other.squares) {
            *sum += value;
        }
        for (sum, value) in self.products.iter_mut().zip(&other.products) {
            *sum += value;
        }
    }

    /// The mean of the diagonal: the scale that a ridge is measured in.
    pub(super) fn scale(&self) -> f64 {
        let diagonal = (0..self.size).map(|i| self.squares[i * self.size + i]);
        diagonal.sum::<f64>() / real(self.size.max(1))
    }

    /// The coefficients, with `ridge` added to each value's diagonal; `None` if there are none.
    pub(super) fn solve(&self, ridge: impl Fn(usize) -> f64) -> Option<Vec<f64>> {
        let size = self.size;
        let mut lower = self.squares.clone();
        let mut x = self.products.clone();
        for j in 0..size {
            lower[j * size + j] += ridge(j);
        }
        for j in 0..size {
            let row: f64 = (0..j).map(|k| lower[j * size + k].powi(2)).sum();
            let pivot = lower[j * size + j] - row;
            if pivot.is_nan() || pivot <= 1e-300 {
                return None;
            }
            let pivot = pivot.sqrt();
            lower[j * size + j] = pivot;
            for i in j + 1..size {
                let sum: f64 = (0..j).map(|k| lower[i * size + k] * lower[j * size + k]).sum();
                lower[i * size + j] = (lower[i * size + j] - sum) / pivot;
            }
        }
        for i in 0..size {
            let sum: f64 = (0..i).map(|k| lower[i * size + k] * x[k]).sum();
            x[i] = (x[i] - sum) / lower[i * size + i];
        }
        for i in (0..size).rev() {
            let sum: f64 = (i + 1..size).map(|k| lower[k * size + i] * x[k]).sum();
            x[i] = (x[i] - sum) / lower[i * size + i];
        }
        x.iter().all(|value| value.is_finite()).then_some(x)
    }
}

#[cfg(test)]
mod tests {
    use super::Normal;

    #[test]
    fn the_coefficients_of_an_exact_line_come_back_whatever_the_weights() {
        let mut halves = [Normal::new(3), Normal::new(3)];
        for i in 0..20 {
            let t = f64::from(i);
            let x = [1.0, t, t * t];
            halves[usize::from(i % 2 == 0)].add(&x, 3.0 - 2.0 * t + 0.5 * t * t, 1.0 + t);
        }
        let [mut all, other] = halves;
        all.add_all(&other);
        let found = all.solve(|_| 0.0).unwrap();
        for (found, expected) in found.iter().zip([3.0, -2.0, 0.5]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn a_problem_without_rows_has_no_coefficients_and_a_ridge_makes_them_zero() {
        assert_eq!(Normal::new(2).solve(|_| 0.0), None);
        assert_eq!(Normal::new(2).solve(|_| 1.0), Some(vec![0.0, 0.0]));
    }
}
