//! The decoders against recordings: what a network put out, and what the reference decoder made of it
//! (`tests/data/make.py`).

use serde::Deserialize;

use super::*;
use crate::postprocess::finish;

#[derive(Deserialize)]
struct Recording {
    input: [u32; 2],
    score_min: f32,
    outputs: Vec<Tensor>,
    faces: Vec<Expected>,
    faces_half_scale: Vec<Expected>,
    answer: Vec<Expected>,
}

#[derive(Clone, Deserialize)]
struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

#[derive(Deserialize)]
struct Expected {
    score: f32,
    bbox: [f32; 4],
    landmarks: Option<[[f32; 2]; 5]>,
}

const PICTURE: [u32; 2] = [96, 64];

fn recordings() -> [(Head, Recording); 3] {
    let read = |text: &str| serde_json::from_str::<Recording>(text).expect("a recording");
    let yunet = [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]];
    [
        (
            Head::Scrfd { strides: &STRIDES, anchors: 2, landmarks: true },
            read(include_str!("../../tests/data/scrfd.json")),
        ),
        (Head::YuNet(yunet), read(include_str!("../../tests/data/yunet.json"))),
        (Head::UltraFace([0, 1]), read(include_str!("../../tests/data/ultraface.json"))),
    ]
}

impl Recording {
    fn plan(&self, scale: f32) -> ResizeGeometry {
        let [width, height] = self.input;
        ResizeGeometry { picture: PICTURE, copy: self.input, input: Shape { width, height }, scale: [scale; 2] }
    }
}

fn views(tensors: &[Tensor]) -> Vec<Output<'_>> {
    tensors.iter().map(|tensor| Output { shape: tensor.shape.clone(), data: &tensor.data }).collect()
}

/// Each expected face is there once, and nothing else. Coordinates are recorded to 1e-4.
fn assert_same(found: &[Face], expected: &[Expected], head: &Head) {
    let near = |a: f32, b: f32| (a - b).abs() < 2e-3;
    let same_points = |a: &Option<[[f32; 2]; 5]>, b: &Option<[[f32; 2]; 5]>| match (a, b) {
        (Some(a), Some(b)) => a.as_flattened().iter().zip(b.as_flattened()).all(|(a, b)| near(*a, *b)),
        (None, None) => true,
        _ => false,
    };
    assert_eq!(found.len(), expected.len(), "{}", head.name());
    for face in expected {
        let same = |found: &&Face| {
            near(found.score, face.score)
                && found.bbox.iter().zip(&face.bbox).all(|(a, b)| near(*a, *b))
                && same_points(&found.landmarks, &face.landmarks)
        };
        assert_eq!(found.iter().filter(same).count(), 1, "{} misses {:?}", head.name(), face.bbox);
    }
}

#[test]
fn faces_are_those_of_the_reference_decoders() {
    for (head, recording) in recordings() {
        let outputs = views(&recording.outputs);
        for (scale, expected) in [(1.0, &recording.faces), (0.5, &recording.faces_half_scale)] {
            let plan = recording.plan(scale);
            head.check(&outputs, 1, plan.input).expect("the shapes are right");
            let faces = head.decode(&outputs, (0, 1), &plan, recording.score_min).expect("sound numbers");
            assert!(faces.len() > expected.len(), "{}: something has to be suppressed", head.name());
            assert_same(&head.nms().keep_best(faces), expected, &head);
        }
    }
}

#[test]
fn answers_are_clipped_to_the_picture() {
    for (head, recording) in recordings() {
        let plan = recording.plan(1.0);
        let faces = head.decode(&views(&recording.outputs), (0, 1), &plan, recording.score_min).expect("sound numbers");
        let answer = finish(head.nms().keep_best(faces), PICTURE);
        assert_same(&answer, &recording.answer, &head);
        assert!(answer.is_sorted_by(|a, b| a.score >= b.score));
    }
}

#[test]
fn a_picture_of_a_batch_gets_its_own_rows() {
    for (head, recording) in recordings() {
        let plan = recording.plan(1.0);
        let both: Vec<Tensor> = recording.outputs.iter().map(batch_with_nothing).collect();
        head.check(&views(&both), 2, plan.input).expect("the shapes of a batch");
        let (both, single) = (views(&both), views(&recording.outputs));
        let decode = |outputs, which| head.decode(outputs, which, &plan, recording.score_min).expect("sound numbers");
        assert_eq!(decode(&both, (1, 2)), decode(&single, (0, 1)));
        assert_eq!(decode(&both, (0, 2)), []);
    }
}

/// Before the recorded rows, those of a picture in which nothing is seen.
fn batch_with_nothing(one: &Tensor) -> Tensor {
    let shape = one.shape.iter().enumerate().map(|(i, side)| if i == 0 { 2 } else { *side }).collect();
    Tensor { shape, data: [vec![0.0; one.data.len()], one.data.clone()].concat() }
}

#[test]
fn a_single_picture_may_come_without_a_batch_dimension() {
    let [(head, recording), ..] = recordings();
    let flat: Vec<Tensor> =
        recording.outputs.iter().map(|one| Tensor { shape: one.shape[1..].to_vec(), data: one.data.clone() }).collect();
    let plan = recording.plan(1.0);
    assert_eq!(head.check(&views(&flat), 1, plan.input), Ok(()));
    let refused = head.check(&views(&flat), 2, plan.input).expect_err("rows of two pictures are missing");
    assert!(refused.contains("[2, 192, 1]"), "{refused}");
}

/// Whether the answer is a fault once the number `at` of an output is this.
fn faults_with(head: &Head, recording: &Recording, (output, at): (usize, usize), poison: f32) -> bool {
    let mut outputs = recording.outputs.clone();
    outputs[output].data[at] = poison;
    let plan = recording.plan(1.0);
    match head.decode(&views(&outputs), (0, 1), &plan, recording.score_min) {
        Ok(faces) => {
            let before = head.decode(&views(&recording.outputs), (0, 1), &plan, recording.score_min);
            assert_eq!(Some(faces), before.ok(), "{}: {poison} in output {output}", head.name());
            false
        }
        Err(fault) => {
            assert_eq!((fault.class, fault.reason.as_str(), fault.permanent), (Class::Engine, "engine_error", false));
            true
        }
    }
}

/// Of each family: outputs of one level as (index, numbers per row), and the first of its rows that has a face and that has none.
fn rows_of_a_level(head: &Head, recording: &Recording) -> (Vec<(usize, usize)>, usize, usize) {
    let row = |index: usize| *recording.outputs[index].shape.last().expect("numbers of a row");
    let level: Vec<_> = match head {
        Head::Scrfd { .. } => [0, 3, 6].map(|index| (index, row(index))).to_vec(),
        Head::YuNet(levels) => levels[0].map(|index| (index, row(index))).to_vec(),
        Head::UltraFace(indices) => indices.map(|index| (index, row(index))).to_vec(),
    };
    let number = |at: usize, row: usize| recording.outputs[level[at].0].data[row];
    let score = |row: usize| match head {
        Head::Scrfd { .. } => number(0, row),
        Head::YuNet(_) => (number(0, row).clamp(0.0, 1.0) * number(1, row).clamp(0.0, 1.0)).sqrt(),
        Head::UltraFace(_) => number(0, 2 * row + 1),
    };
    let rows = recording.outputs[level[0].0].data.len() / level[0].1;
    let first = |face: bool| (0..rows).find(|row| (score(*row) >= recording.score_min) == face).expect("such a row");
    let (face, none) = (first(true), first(false));
    (level, face, none)
}

#[test]
fn numbers_that_make_no_sense_are_a_fault_and_not_an_empty_answer() {
    for (head, recording) in recordings() {
        let (level, face, _) = rows_of_a_level(&head, &recording);
        for (output, numbers) in &level {
            let place = (*output, face * numbers + numbers - 1);
            assert!(faults_with(&head, &recording, place, f32::NAN), "{}: NaN in output {output}", head.name());
            assert!(faults_with(&head, &recording, place, f32::INFINITY), "{}: inf in output {output}", head.name());
        }
    }
    let [_, (head, mut recording), _] = recordings();
    recording.outputs[6].data.fill(200.0);
    let outputs = views(&recording.outputs);
    assert!(head.decode(&outputs, (0, 1), &recording.plan(1.0), 0.0).is_err(), "exp(200) is no width");
}

#[test]
fn in_a_row_that_is_no_face_only_the_score_has_to_be_a_number() {
    for (head, recording) in recordings() {
        let (level, _, none) = rows_of_a_level(&head, &recording);
        let scores = if matches!(head, Head::YuNet(_)) { 2 } else { 1 };
        for (at, (output, numbers)) in level.iter().enumerate() {
            let place = (*output, none * numbers + numbers - 1);
            let fails = |poison| faults_with(&head, &recording, place, poison);
            assert_eq!(fails(f32::NAN), at < scores, "{}: NaN in output {output}", head.name());
            assert!(!fails(f32::NEG_INFINITY), "{}: -inf in output {output}", head.name());
            // A score of infinity passes, and makes no sense.
            assert!(at < scores || !fails(f32::INFINITY), "{}: inf in output {output}", head.name());
        }
    }
}

#[test]
fn missing_or_misshapen_outputs_are_named() {
    for (head, recording) in recordings() {
        let input = recording.plan(1.0).input;
        let outputs = views(&recording.outputs);
        let fewer = head.check(&outputs[..outputs.len() - 1], 1, input).expect_err("one is missing");
        assert!(fewer.contains(&format!("output {}", outputs.len() - 1)), "{fewer}");
        let mut turned = outputs.clone();
        turned[0].shape.push(1);
        assert!(head.check(&turned, 1, input).is_err());
    }
}

#[test]
fn families_are_recognised_by_their_outputs() {
    let ports = |names: &[&str]| -> Vec<TensorInfo> {
        names.iter().map(|name| TensorInfo { name: (*name).to_owned(), dims: Vec::new() }).collect()
    };
    let numbered = |count: usize| {
        let names: Vec<_> = (440..440 + count).map(|n| n.to_string()).collect();
        ports(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for (count, expected) in [(6, (3, 2, false)), (9, (3, 2, true)), (10, (5, 1, false)), (15, (5, 1, true))] {
        let Ok(Head::Scrfd { strides, anchors, landmarks }) = Head::recognise(&numbered(count)) else {
            panic!("{count}")
        };
        assert_eq!((strides.len(), anchors, landmarks), expected);
    }
    let mut yunet = Vec::new();
    for stride in STRIDES {
        yunet.extend(["kps", "bbox", "obj", "cls"].map(|kind| format!("{kind}_{stride}")));
    }
    let yunet = ports(&yunet.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(Head::recognise(&yunet), Ok(Head::YuNet([[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]])), "by name");
    assert_eq!(Head::recognise(&ports(&["boxes", "scores"])), Ok(Head::UltraFace([1, 0])));
    let refused = Head::recognise(&ports(&["embeddings"])).expect_err("no detector");
    assert!(refused.contains("embeddings") && refused.contains("SCRFD"), "{refused}");
}
