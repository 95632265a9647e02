//! Fronts against pymoo, and by what must hold of any set of points.

use proptest::prelude::*;
use raco::math::{additive_epsilon, hypervolume, igd, igd_plus, pareto_front, spread, weight_coverage};
use serde_json::Value;

use super::{floats, golden_fronts as golden, shuffle};

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

fn close(ours: f64, theirs: &Value) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= 1e-12 * theirs.abs().max(1.0), "{ours} is not pymoo's {theirs}");
}

#[test]
fn indicators_are_those_of_pymoo() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let (points, front) = (rows(&case["points"]), rows(&case["front"]));
        let best: Vec<u64> = pareto_front(&points, 0.0).unwrap().iter().map(|i| *i as u64).collect();
        assert_eq!(
            best,
            case["pareto"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap()).collect::<Vec<_>>()
        );
        close(hypervolume(&points, &floats(&case["reference"])).unwrap(), &case["hypervolume"]);
        close(igd(&points, &front).unwrap(), &case["igd"]);
        close(igd_plus(&points, &front).unwrap(), &case["igd_plus"]);
        close(additive_epsilon(&points, &front).unwrap(), &case["additive_epsilon"]);
        // pymoo divides by n where Schott divides by n - 1
        let n = points.len() as f64;
        close(spread(&points).unwrap().spacing.unwrap() * ((n - 1.0) / n).sqrt(), &case["spacing"]);
    }
    let kendall = &golden["kendall"];
    let found = weight_coverage(&floats(&kendall["weights"]), &floats(&kendall["scores"]), 0.0).unwrap();
    close(found.tau.unwrap(), &kendall["tau"]);
    // by hand: .34 falls to .33, .7 to .6; of 15 pairs one has equal weights
    assert_eq!((found.violations, found.pairs), (2, 14));
}

/// Volume by inclusion and exclusion: every subset of the boxes.
fn by_inclusion(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let box_of = |subset: u32| -> f64 {
        let side = |i: usize| {
            let chosen = (0..points.len()).filter(|k| subset >> k & 1 == 1);
            (chosen.map(|k| points[k][i]).fold(f64::INFINITY, f64::min) - reference[i]).max(0.0)
        };
        (0..reference.len()).map(side).product()
    };
    (1..1u32 << points.len())
        .map(|subset| if subset.count_ones() % 2 == 1 { box_of(subset) } else { -box_of(subset) })
        .sum()
}

/// Up to 8 points of `m` coordinates on a coarse grid, so that ties and equal points are many, and a shift.
fn sets() -> impl Strategy<Value = (Vec<Vec<f64>>, Vec<f64>)> {
    (1usize..6).prop_flat_map(|m| {
        let row = || proptest::collection::vec((0i32..9).prop_map(|x| f64::from(x) / 8.0), m);
        (proptest::collection::vec(row(), 1..8), row())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn volumes_are_those_of_inclusion_and_exclusion((points, reference) in sets()) {
        let volume = hypervolume(&points, &reference).unwrap();
        prop_assert!((volume - by_inclusion(&points, &reference)).abs() < 1e-12);
    }

    #[test]
    fn volumes_grow_with_points_and_know_no_order((points, reference) in sets(), seed in any::<u64>()) {
        let whole = hypervolume(&points, &reference).unwrap();
        let part = hypervolume(&points[1..], &reference).unwrap();
        prop_assert!(part <= whole + 1e-12);
        let mixed: Vec<Vec<f64>> = shuffle(points.len(), seed).into_iter().map(|i| points[i].clone()).collect();
        prop_assert!((hypervolume(&mixed, &reference).unwrap() - whole).abs() < 1e-12);
        // a shift of all leaves the volume, a stretch of one axis stretches it
        let shifted = |row: &[f64]| row.iter().map(|x| x + 0.25).collect::<Vec<f64>>();
        let moved: Vec<Vec<f64>> = points.iter().map(|p| shifted(p)).collect();
        prop_assert!((hypervolume(&moved, &shifted(&reference)).unwrap() - whole).abs() < 1e-12);
        let stretched = |row: &[f64]| [&[4.0 * row[0]], &row[1..]].concat();
        let wide: Vec<Vec<f64>> = points.iter().map(|p| stretched(p)).collect();
        prop_assert!((hypervolume(&wide, &stretched(&reference)).unwrap() - 4.0 * whole).abs() < 1e-12);
        // the front alone reaches as far
        let front: Vec<Vec<f64>> = pareto_front(&points, 0.0).unwrap().into_iter().map(|i| points[i].clone()).collect();
        prop_assert!((hypervolume(&front, &reference).unwrap() - whole).abs() < 1e-12);
    }

    #[test]
    fn a_front_is_what_nothing_dominates((points, _) in sets(), tolerance in 0.0f64..0.3) {
        let front = pareto_front(&points, tolerance).unwrap();
        prop_assert!(!front.is_empty() && front.is_sorted());
        let above = |b: &[f64], a: &[f64]| b.iter().zip(a).all(|(b, a)| b >= a);
        for i in 0..points.len() {
            let far = |b: &Vec<f64>| above(b, &points[i]) && b.iter().zip(&points[i]).any(|(b, a)| b - a > tolerance);
            prop_assert_eq!(front.contains(&i), !points.iter().any(far));
        }
        // a wider tolerance keeps no less
        let exact = pareto_front(&points, 0.0).unwrap();
        prop_assert!(exact.iter().all(|i| front.contains(i)));
    }

    #[test]
    fn distances_are_0_of_a_set_to_itself_and_bounded_by_each_other((points, _) in sets(), by in 0.01f64..1.0) {
        prop_assert_eq!(igd(&points, &points).unwrap(), 0.0);
        let front = pareto_front(&points, 0.0).unwrap();
        let front: Vec<Vec<f64>> = front.into_iter().map(|i| points[i].clone()).collect();
        prop_assert_eq!(additive_epsilon(&front, &points).unwrap().max(0.0), 0.0);
        prop_assert_eq!(igd_plus(&front, &points).unwrap(), 0.0);
        prop_assert!(igd_plus(&points[..1], &points).unwrap() <= igd(&points[..1], &points).unwrap() + 1e-12);
        // raised by a number in each coordinate, a set lacks that much less
        let raised: Vec<Vec<f64>> = points.iter().map(|p| p.iter().map(|x| x + by).collect()).collect();
        prop_assert!((additive_epsilon(&points, &raised).unwrap() - by).abs() < 1e-12);
    }
}

#[test]
fn few_points_have_a_spread() {
    let one = spread(&[vec![0.3, 0.4]]).unwrap();
    assert_eq!((one.extent, one.spacing), (0.0, None));
    let two = spread(&[vec![0.0, 4.0], vec![3.0, 0.0]]).unwrap();
    assert_eq!((two.extent, two.spacing), (5.0, Some(0.0)));
}

#[test]
fn scores_that_fall_with_their_weight_are_counted() {
    let found = weight_coverage(&[0.1, 0.5, 0.9], &[0.9, 0.5, 0.1], 0.0).unwrap();
    assert_eq!((found.tau, found.violations, found.pairs), (Some(-1.0), 3, 3));
    assert_eq!(weight_coverage(&[0.1, 0.5, 0.9], &[0.9, 0.5, 0.1], 0.5).unwrap().violations, 1);
    assert_eq!(weight_coverage(&[0.5, 0.5], &[0.1, 0.2], 0.0).unwrap().tau, None);
}

#[test]
fn what_is_no_set_of_points_is_refused() {
    let uneven = [vec![0.1, 0.2], vec![0.1]];
    assert!(pareto_front(&uneven, 0.0).unwrap_err().what().contains("point 1 has 1 coordinates, expected 2"));
    assert!(hypervolume(&[vec![f64::NAN, 1.0]], &[0.0, 0.0]).unwrap_err().what().contains("NaN"));
    assert!(hypervolume(&[vec![1.0, 1.0]], &[0.0]).is_err());
    assert!(hypervolume(&[vec![1e200, 1e200]], &[0.0, 0.0]).is_err());
    assert!(pareto_front(&[vec![1.0]], -0.1).is_err());
    assert!(igd(&[], &[vec![1.0]]).is_err() && additive_epsilon(&[vec![1.0]], &[]).is_err());
    assert!(spread(&[]).is_err());
    assert!(weight_coverage(&[0.5], &[], 0.0).is_err());
    assert_eq!(pareto_front(&[], 0.0).unwrap(), Vec::<usize>::new());
    assert_eq!(hypervolume(&[], &[0.0, 0.0]).unwrap(), 0.0);
}
