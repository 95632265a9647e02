use std::fs;

use raco::run::{Contours, Grid, Plot, Series, Style, run_figure};
use serde_json::{Map, Value, json};

use super::map;

fn rows(steps: usize) -> Vec<Map<String, Value>> {
    let noise = |k: usize, salt: usize| ((k * 7919 + salt * 104_729) % 1000) as f64 / 1000.0 - 0.5;
    (0..steps)
        .map(|k| {
            let t = k as f64 / steps as f64;
            let p = (0.5 + 0.3 * (6.0 * t).sin() + 0.2 * noise(k, 3)).clamp(0.0, 1.0);
            map(json!({
                "step": k,
                "losses": { "quality": 0.69 - 0.3 * t + 0.1 * noise(k, 1), "brevity": 0.69 - 0.1 * t + 0.1 * noise(k, 2) },
                "cosines": { "quality": { "brevity": if k == 5 { Value::Null } else { json!(-0.4 + 0.3 * noise(k, 4)) } } },
                "p": { "quality": p, "brevity": 1.0 - p },
                "p_clip": { "quality": p.min(0.5), "brevity": (1.0 - p).min(0.5) },
                "alpha": { "quality": 0.5 + 0.4 * p, "brevity": 0.9 - 0.4 * p },
            }))
        })
        .collect()
}

#[test]
fn a_run_is_drawn_with_its_objectives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.svg");
    for steps in [2, 20, 400] {
        run_figure(&rows(steps), &path).unwrap();
        let svg = fs::read_to_string(&path).unwrap();
        for text in ["loss", "quality", "brevity", "quality · brevity", "dual weights", "step"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
        if let Ok(dir) = std::env::var("RACO_KEEP_FIGURES") {
            fs::copy(&path, format!("{dir}/run-{steps}.svg")).unwrap();
        }
    }
    let names = ["quality", "brevity", "faithful", "harmless", "a-name-that-is-rather-long"];
    let named = |x: f64| Value::Object(names.iter().map(|n| ((*n).to_owned(), json!(x))).collect());
    let pairs = |x: f64| {
        let later = |i: usize| {
            Value::Object(
                names[i + 1..].iter().map(|n| ((*n).to_owned(), json!(x * (i as f64 - 1.5)))).collect(),
            )
        };
        Value::Object((0..4).map(|i| (names[i].to_owned(), later(i))).collect())
    };
    let many: Vec<_> = (0..9)
        .map(|k| map(json!({ "step": k, "losses": named(k as f64), "cosines": pairs(k as f64 / 20.0), "alpha": named(0.2) })))
        .collect();
    run_figure(&many, &path).unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    assert!(names.iter().all(|n| svg.contains(n)) && svg.contains("faithful · harmless"));
    if let Ok(dir) = std::env::var("RACO_KEEP_FIGURES") {
        fs::copy(&path, format!("{dir}/many.svg")).unwrap();
    }
    let error = run_figure(&[map(json!({ "step": 0 }))], &path).unwrap_err().to_string();
    assert!(error.contains("no losses to draw"), "{error}");
}

#[test]
fn plots_take_points_that_are_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("front.svg");
    let series = |points: Vec<(f64, f64)>, style, color| Series {
        label: format!("s{color}"),
        points,
        style,
        color,
        ..Series::default()
    };
    let plot = Plot {
        title: "front".into(),
        x_label: "brevity".into(),
        series: vec![
            series(vec![(0.1, 0.9), (f64::NAN, 0.5), (0.5, 0.6), (0.8, 0.2)], Style::Points, 0),
            series(vec![(0.1, 0.9), (0.5, f64::INFINITY), (0.8, 0.2), (0.9, 0.1)], Style::Dashed, 1),
        ],
        ..Plot::default()
    };
    plot.save(&path).unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    assert_eq!(svg.matches("<polygon").count(), 3 + 1, "three points and the legend");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    if let Ok(dir) = std::env::var("RACO_KEEP_FIGURES") {
        fs::copy(&path, format!("{dir}/front.svg")).unwrap();
    }
    // one point, equal points, very large and very small numbers all have axes
    for points in [
        vec![(1.0, 1.0)],
        vec![(0.0, 0.0); 3],
        vec![(0.0, 1e150), (1.0, 2e150)],
        vec![(0.0, 1e-12), (1e-9, 0.0)],
    ] {
        Plot { series: vec![series(points, Style::Line, 0)], ..Plot::default() }.save(&path).unwrap();
    }
    let empty = Plot { series: vec![series(vec![(f64::NAN, 0.0)], Style::Line, 0)], ..Plot::default() };
    assert!(empty.save(&path).unwrap_err().to_string().contains("nothing to plot"));
}

/// All numbers of the attribute `points="x,y x,y …"` of the polylines drawn in this colour.
fn polylines(svg: &str, color: &str) -> Vec<Vec<(f64, f64)>> {
    let drawn = svg.lines().filter(|line| line.contains("<polyline") && line.contains(color));
    let point = |text: &str| {
        let (x, y) = text.split_once(',').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    drawn
        .map(|line| {
            let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
            points.split_whitespace().map(point).collect()
        })
        .collect()
}

#[test]
fn level_lines_of_a_cone_are_circles() {
    const SIDE: usize = 61;
    let at = |k: usize| 4.0 * k as f64 / (SIDE - 1) as f64 - 2.0;
    let cone = (0..SIDE).map(|j| (0..SIDE).map(|i| at(i).hypot(at(j) - 0.5)).collect()).collect();
    let contours = Contours::new((-2.0, 2.0), (-2.0, 2.0), cone).unwrap();
    let series = vec![Series { points: vec![(0.0, 0.5)], style: Style::Rings, ..Series::default() }];
    let plot = Plot { contours: Some(contours), equal: true, series, ..Plot::default() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cone.svg");
    Grid { title: "cone".into(), plots: vec![plot.clone(), plot], columns: 2 }.save(&path).unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    let rings: Vec<(f64, f64)> = svg
        .lines()
        .filter(|line| line.contains("<circle"))
        .map(|line| {
            let number =
                |key: &str| line.split(key).nth(1).unwrap().split('"').nth(1).unwrap().parse().unwrap();
            (number("cx="), number("cy="))
        })
        .collect();
    let lines = polylines(&svg, "#465A78");
    assert_eq!((rings.len(), lines.len() % 2), (4, 0), "two rings of two circles, the same lines twice");
    let mut closed = 0;
    for line in lines.iter().filter(|line| line.first() == line.last()) {
        closed += 1;
        let center = rings.iter().min_by(|a, b| (a.0 - line[0].0).abs().total_cmp(&(b.0 - line[0].0).abs()));
        let radii: Vec<f64> =
            line.iter().map(|p| (p.0 - center.unwrap().0).hypot(p.1 - center.unwrap().1)).collect();
        let (low, high) = radii.iter().fold((f64::MAX, 0.0_f64), |(a, b), r| (a.min(*r), b.max(*r)));
        assert!(high - low < 0.02 * high, "from {low} to {high}: no circle");
    }
    assert!(closed >= 8, "{closed} of {} lines are closed", lines.len());
    for values in [vec![vec![1.0, 2.0]], vec![vec![1.0], vec![2.0]], vec![vec![1.0, 2.0], vec![1.0]]] {
        assert!(Contours::new((0.0, 1.0), (0.0, 1.0), values).is_err());
    }
}

#[test]
fn a_label_stands_once_in_the_legend_of_all_panels() {
    let series = |label: &str, style| Series {
        label: label.into(),
        points: vec![(0.0, 1.0), (1.0, 0.5), (2.0, 2.0)],
        style,
        color: 1,
        ..Series::default()
    };
    let plot = Plot {
        title: "panel".into(),
        x_label: "across".into(),
        y_label: "up".into(),
        series: vec![
            series("front", Style::Behind),
            series("mgda", Style::Line),
            series("mgda", Style::Points),
            series("start", Style::Rings),
        ],
        ..Plot::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grid.svg");
    Grid { title: "all".into(), plots: vec![plot.clone(), plot.clone(), plot], columns: 2 }
        .save(&path)
        .unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    let count = |text: &str| svg.lines().filter(|line| line.trim() == text).count();
    assert_eq!(["all", "front", "mgda", "start"].map(count), [1; 4]);
    assert_eq!(["panel", "across", "up"].map(count), [3; 3]);
    assert!(Grid::default().save(&path).is_err());
}
