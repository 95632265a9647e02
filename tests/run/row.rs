use std::sync::Arc;

use candle_core::{Device, Tensor};
use raco::data::{Batch, Example, Response};
use raco::engine::Gradients;
use raco::model::ParameterSpace;
use raco::optim::StepReport;
use raco::run::{Responses, StepRow, flatten};
use serde_json::{Map, json};

use super::map;

fn names() -> Vec<String> {
    vec!["quality".into(), "brevity".into()]
}

fn example(labels: [Option<i8>; 2]) -> Arc<Example> {
    let response = |text: &str| Response::new(text, vec![1]);
    Arc::new(Example {
        prompt: "p".into(),
        prompt_ids: vec![0],
        prompt_tokens: 1,
        responses: vec![response("a"), response("b")],
        labels: labels.to_vec(),
        line: 1,
    })
}

fn batch() -> Batch {
    Batch {
        objectives: Arc::new(names()),
        examples: vec![
            example([Some(1), Some(-1)]),
            example([Some(-1), None]),
            example([Some(0), None]),
            example([Some(1), Some(0)]),
        ],
        reference: Some(vec![vec![-1.0, -2.0]; 4]),
        index: 0,
        share_prompt: true,
    }
}

#[test]
fn a_row_names_its_numbers_by_objective() {
    let gradients = Gradients::from_rows(&[vec![3.0, 0.0], vec![-4.0, 3.0]], names()).unwrap();
    let gramian = gradients.gramian().unwrap();
    let batch = batch();
    let row = StepRow {
        gradients: &gradients,
        gramian: &gramian,
        weights: &[0.75, 0.25],
        alpha: Some(&[0.5, 0.5]),
        diagnostics: &map(json!({ "p": [0.2, 0.8], "gap": 1e-12, "faces": [1, 2, 3] })),
        report: Some(StepReport { lr: 1e-3, norm: 2.0, clipped: false }),
        responses: Some(Responses {
            batch: &batch,
            chosen: &[-1.0, -2.0, -3.0, -6.0],
            rejected: Some(&[-4.0, -4.0, -4.0, -4.0]),
        }),
    }
    .to_map()
    .unwrap();
    let expected = map(json!({
        "losses": { "quality": 0.0, "brevity": 0.0 },
        "w": { "quality": 0.75, "brevity": 0.25 },
        "alpha": { "quality": 0.5, "brevity": 0.5 },
        "p": { "quality": 0.2, "brevity": 0.8 },
        "gap": 1e-12,
        "faces": [1, 2, 3],
        "norms": { "quality": 3.0, "brevity": 5.0 },
        "cosines": { "quality": { "brevity": -0.8 } },
        "h": [[9.0, -12.0], [-12.0, 25.0]],
        "terms": 1,
        "lr": 1e-3,
        "update_norm": 2.0,
        "clipped": false,
        "chosen": -3.0,
        "rejected": -4.0,
        // margins less the reference's 1: 2, 1, 0, -3; ties and unlabelled pairs count nowhere
        "margins": { "quality": (2.0 - 1.0 - 3.0) / 3.0, "brevity": -2.0 },
        "accuracies": { "quality": 1.0 / 3.0, "brevity": 0.0 }
    }));
    assert_eq!(json!(row), json!(expected));
    let order: Vec<&String> = row.keys().collect();
    assert_eq!(order, expected.keys().collect::<Vec<_>>());
}

#[test]
fn what_is_undefined_is_null() {
    let gradients = Gradients::from_rows(&[vec![0.0, 0.0], vec![-4.0, 3.0]], names()).unwrap();
    let gramian = gradients.gramian().unwrap();
    let mut batch = batch();
    batch.examples.truncate(1);
    batch.examples[0] = example([Some(1), None]);
    let row = |chosen: &[f64]| {
        StepRow {
            gradients: &gradients,
            gramian: &gramian,
            weights: &[0.5, 0.5],
            alpha: None,
            diagnostics: &Map::new(),
            report: None,
            responses: Some(Responses { batch: &batch, chosen, rejected: Some(&[-2.0]) }),
        }
        .to_map()
    };
    let whole = row(&[-1.0]).unwrap();
    let cells = flatten(&whole);
    let of = |name: &str| cells.iter().find(|(n, _)| n == name).unwrap().1;
    assert!(of("cosines.quality.brevity").is_null());
    assert!(of("margins.brevity").is_null() && of("accuracies.brevity").is_null());
    assert_eq!(of("margins.quality"), &json!(0.0));
    assert!(row(&[-1.0, -1.0]).is_err());
}

#[test]
fn layers_have_their_norms_and_cosines() {
    let names = Arc::new(names());
    let tensors = [
        ("model.embed_tokens.weight", 1),
        ("model.layers.0.mlp.up_proj.weight", 2),
        ("model.layers.0.norm.weight", 1),
        ("model.norm.weight", 2),
    ];
    let space = ParameterSpace::new(tensors.map(|(name, size)| (name.to_owned(), vec![size])));
    let rows: [[f32; 6]; 2] = [[2.0, 3.0, 0.0, 4.0, 0.0, 0.0], [-1.0, 0.0, 4.0, 3.0, 0.5, 0.0]];
    let rows = Tensor::new(&rows, &Device::Cpu).unwrap();
    let gradients = Gradients::new(names, Arc::new(space), rows, vec![0.1, 0.2], 1).unwrap();
    let gramian = gradients.gramian().unwrap();
    let row = StepRow {
        gradients: &gradients,
        gramian: &gramian,
        weights: &[0.5, 0.5],
        alpha: None,
        diagnostics: &Map::new(),
        report: None,
        responses: None,
    };
    let row = row.to_map().unwrap();
    assert_eq!(
        row["layers"],
        json!({
            "embed_tokens": { "norms": { "quality": 2.0, "brevity": 1.0 }, "cosines": { "quality": { "brevity": -1.0 } } },
            // both tensors of the layer: 12 of 5 by 5
            "layer 0": { "norms": { "quality": 5.0, "brevity": 5.0 }, "cosines": { "quality": { "brevity": 0.48 } } },
            "norm": { "norms": { "quality": 0.0, "brevity": 0.5 }, "cosines": { "quality": { "brevity": null } } },
        })
    );
    // the whole is the sum of the layers
    assert_eq!(row["h"], json!([[29.0, 10.0], [10.0, 26.25]]));
    let columns: Vec<String> = flatten(&row).into_iter().map(|(name, _)| name).collect();
    assert!(columns.contains(&"layers.layer 0.norms.quality".to_owned()), "{columns:?}");
}
