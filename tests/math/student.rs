use raco::math::{mean_interval, student_t};

/// `scipy.stats.t.ppf` of SciPy 1.17.
#[test]
fn quantiles_are_those_of_scipy() {
    for (level, freedom, expected) in [
        (0.95, 1, 12.706_204_736_174_694),
        (0.95, 2, 4.302_652_729_749_462),
        (0.95, 3, 3.182_446_305_283_708),
        (0.95, 4, 2.776_445_105_197_793),
        (0.95, 10, 2.228_138_851_986_274),
        (0.95, 29, 2.045_229_642_132_703),
        (0.99, 5, 4.032_142_983_555_228),
        (0.5, 1, 1.0),
    ] {
        let t = student_t(level, freedom);
        assert!((t / expected - 1.0).abs() < 1e-9, "{level} {freedom}: {t}, expected {expected}");
    }
    assert!((student_t(0.95, 100_000) - 1.959_963_984_540_054).abs() < 1e-4, "the normal limit");
}

#[test]
fn an_interval_needs_two_numbers() {
    assert_eq!(mean_interval(&[], 0.95), None);
    assert_eq!(mean_interval(&[3.0], 0.95), Some((3.0, None)));
    let (mean, half) = mean_interval(&[1.0, 2.0, 3.0, 6.0], 0.95).unwrap();
    // s² = (4 + 1 + 0 + 9)/3, t of three degrees
    let expected = 3.182_446_305_283_708 * (14.0 / 3.0 / 4.0_f64).sqrt();
    assert!(mean == 3.0 && (half.unwrap() / expected - 1.0).abs() < 1e-9);
}
