//! Detectors as their users open them: the embedded one, ONNX models on both runtimes, and what goes wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faceflow_core::Fault;
use faceflow_core::detector::{Answer, Detector, Face, PixelBuffer};
use faceflow_engine::{DetectSettings, EngineError, Fit, RuntimeChoice, SAMPLE_PHOTO, open};

mod common;
use common::{data, decode, detect_one, infer_all, model, onnx, onnx_runtimes, test_data};

/// The synthetic picture of `tests/data/make.py`, of this size.
fn synthetic(width: u32, height: u32) -> PixelBuffer {
    let level = |x: u32, y: u32, c: u32| ((x * 7 + y * 13 + c * 29 + (x / 12) * (y / 10) * 31) % 256) as u8;
    let at = |y: u32| (0..width).flat_map(move |x| (0..3).map(move |c| level(x, y, c)));
    PixelBuffer { width, height, rgb: (0..height).flat_map(at).collect::<Vec<_>>().into() }
}

fn shifted(picture: &PixelBuffer, by: u8) -> PixelBuffer {
    PixelBuffer {
        rgb: picture.rgb.iter().map(|level| level.wrapping_add(by)).collect::<Vec<_>>().into(),
        ..picture.clone()
    }
}

#[derive(serde::Deserialize)]
struct Recording {
    score_min: f32,
    answer: Vec<Recorded>,
}

#[derive(serde::Deserialize)]
struct Recorded {
    score: f32,
    bbox: [f32; 4],
}

fn recording(name: &str) -> Recording {
    let text = std::fs::read_to_string(data(&format!("{name}.json"))).expect("a recording");
    serde_json::from_str(&text).expect("a recording")
}

#[test]
fn tiny_models_give_the_recorded_faces_on_every_runtime() {
    for runtime in onnx_runtimes() {
        for (name, size, stretch) in [
            ("scrfd", [96, 64], [1.0, 1.0]),
            ("yunet", [96, 64], [1.0, 1.0]),
            ("ultraface", [64, 48], [64.0 / 96.0, 48.0 / 64.0]),
        ] {
            let expected = recording(name);
            let settings = DetectSettings { runtime, score_min: Some(expected.score_min), ..DetectSettings::default() };
            let detector = open(&onnx(&data(&format!("tiny_{name}.onnx"))), &settings).expect("opens");
            let answer = detect_one(&detector, &synthetic(size[0], size[1]));
            assert_eq!((answer.scale, answer.degraded), (1.0, false));
            assert_eq!(answer.faces.len(), expected.answer.len(), "{name} on {}", detector.info().engine);
            for face in &expected.answer {
                // The recording holds outputs rounded to 1e-4, which a stride of 32 makes 3e-3 pixels.
                let near = |found: &&Face| {
                    let sides = found.bbox.iter().zip(&face.bbox).enumerate();
                    (found.score - face.score).abs() < 3e-4
                        && sides.fold(0.0, |worst: f32, (i, (a, b))| worst.max((a - b * stretch[i % 2]).abs())) < 0.02
                };
                assert_eq!(answer.faces.iter().filter(near).count(), 1, "{name}: {:?}", face.bbox);
            }
        }
    }
}

#[test]
fn batches_are_used_only_where_they_were_seen_to_be_right() {
    for runtime in onnx_runtimes() {
        let settings = DetectSettings { runtime, batch_max: 4, score_min: Some(0.3), ..DetectSettings::default() };
        let pictures: Vec<_> = (0..6).map(|n| shifted(&synthetic(96, 64), n * 40)).collect();
        let sound = open(&onnx(&data("tiny_scrfd.onnx")), &settings).expect("opens");
        assert_eq!(sound.batch_max(), 4, "{}", sound.info().engine);
        let singles: Vec<_> = pictures.iter().map(|picture| Ok(detect_one(&sound, picture))).collect();
        assert_eq!(infer_all(&sound, &pictures).expect("works"), singles, "more pictures than a batch holds");
        // Exports whose batch dimension was merely set free: they run, and are wrong in a batch.
        for flawed in ["tiny_scrfd_rank2.onnx", "tiny_scrfd_leak.onnx"] {
            let detector = open(&onnx(&data(flawed)), &settings).expect("opens");
            assert_eq!(detector.batch_max(), 1, "{flawed} on {}", detector.info().engine);
            let alone: Vec<_> = pictures.iter().map(|picture| Ok(detect_one(&detector, picture))).collect();
            assert_eq!(infer_all(&detector, &pictures).expect("works"), alone);
        }
        let rank2 = open(&onnx(&data("tiny_scrfd_rank2.onnx")), &settings).expect("opens");
        let faces = |answers: Vec<Result<Answer, Fault>>| {
            answers.into_iter().map(|answer| answer.expect("looked").faces).collect::<Vec<_>>()
        };
        let alone = faces(infer_all(&rank2, &pictures).expect("works"));
        assert!(alone == faces(singles), "one by one it is the same network");
    }
}

#[test]
fn answers_do_not_depend_on_how_many_look_at_once() {
    for runtime in onnx_runtimes() {
        let settings = DetectSettings { runtime, score_min: Some(0.3), threads: 2, ..DetectSettings::default() };
        let detector: Arc<dyn Detector> = open(&onnx(&data("tiny_yunet.onnx")), &settings).expect("opens");
        let pictures: Vec<_> = (0..8).map(|n| shifted(&synthetic(200 + u32::from(n), 130), n * 30)).collect();
        let alone: Vec<_> = pictures.iter().map(|picture| detect_one(&detector, picture)).collect();
        let together: Vec<_> = std::thread::scope(|scope| {
            let detector = &detector;
            let calls: Vec<_> =
                pictures.iter().map(|picture| scope.spawn(move || detect_one(detector, picture))).collect();
            calls.into_iter().map(|call| call.join().expect("no panic")).collect()
        });
        assert_eq!(alone, together);
    }
}

#[test]
fn pictures_of_every_size_get_an_answer_in_their_own_pixels() {
    for (fit, [width, height]) in [Fit::Rect, Fit::Square]
        .into_iter()
        .flat_map(|fit| [[1, 1], [1, 3000], [3000, 1], [97, 65], [1500, 900]].map(|size| (fit, size)))
    {
        let settings = DetectSettings { fit, input_px: 128, score_min: Some(0.2), ..DetectSettings::default() };
        let detector = open(&onnx(&data("tiny_scrfd.onnx")), &settings).expect("opens");
        let answer = detect_one(&detector, &synthetic(width, height));
        assert!(answer.scale > 0.0 && answer.scale.is_finite());
        for face in answer.faces {
            let [x1, y1, x2, y2] = face.bbox;
            assert!(0.0 <= x1 && x1 < x2 && x2 <= width as f32, "{:?} in {width}x{height}", face.bbox);
            assert!(0.0 <= y1 && y1 < y2 && y2 <= height as f32, "{:?} in {width}x{height}", face.bbox);
        }
        let shape = detector.plan(width, height)[0].shape;
        assert!(
            shape.width.is_multiple_of(32) && shape.height.is_multiple_of(32) && shape.width.max(shape.height) <= 128
        );
    }
}

#[test]
fn a_bad_picture_fails_alone() {
    let settings = DetectSettings { batch_max: 4, score_min: Some(0.3), ..DetectSettings::default() };
    let broken = PixelBuffer { width: 96, height: 64, rgb: vec![0; 5].into() };
    for detector in [open(&onnx(&data("tiny_scrfd.onnx")), &settings), open("seeta", &settings)] {
        let detector = detector.expect("opens");
        let answers =
            infer_all(&detector, &[synthetic(96, 64), broken.clone(), synthetic(96, 64)]).expect("the engine works");
        assert_eq!(answers[0], Ok(detect_one(&detector, &synthetic(96, 64))));
        let fault = answers[1].as_ref().expect_err("not a picture");
        assert_eq!((fault.reason.as_str(), fault.permanent), ("bad_picture", true));
        assert_eq!(answers[0], answers[2]);
        assert_eq!(infer_all(&detector, &[]), Ok(Vec::new()));
    }
    let onnx_detector = open(&onnx(&data("tiny_scrfd.onnx")), &settings).expect("opens");
    let fault =
        infer_all(&onnx_detector, &[synthetic(96, 64), synthetic(300, 64)]).expect_err("two shapes in one batch");
    assert_eq!((fault.reason.as_str(), fault.permanent), ("engine_error", false));
}

#[test]
fn what_cannot_be_opened_says_why_and_what_to_do() {
    let settings = DetectSettings::default();
    let refused = |name: &str, settings: &DetectSettings| match open(name, settings) {
        Ok(_) => panic!("{name} opens"),
        Err(error) => error,
    };
    let missing = refused("onnx:/no/such/model.onnx", &settings);
    assert!(matches!(missing, EngineError::ModelFile { .. }) && missing.to_string().contains("/no/such/model.onnx"));
    for (name, text) in [("resnet", "onnx:PATH"), ("http://gpu:8765", "remote worker")] {
        assert!(refused(name, &settings).to_string().contains(text));
    }
    let no_model = refused(&onnx(&data("make.py")), &settings);
    assert!(no_model.to_string().contains("not an ONNX file"), "{no_model}");
    let bad = refused("seeta", &DetectSettings { input_px: 7, ..settings.clone() });
    assert!(bad.to_string().contains("detect.input_px"), "{bad}");
    let library = |path: PathBuf| DetectSettings { ort_library: Some(path), ..settings.clone() };
    for path in [PathBuf::from("/no/such/libonnxruntime.so"), data("make.py")] {
        let error = refused(&onnx(&data("tiny_yunet.onnx")), &library(path.clone()));
        assert!(matches!(error, EngineError::Library(_)), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let rten = DetectSettings { runtime: RuntimeChoice::Rten, ..library("/no/such/libonnxruntime.so".into()) };
    assert!(open(&onnx(&data("tiny_yunet.onnx")), &rten).is_ok(), "rten needs no library");
}

#[test]
fn the_embedded_engine_sees_the_people_of_its_photograph() {
    let photo = decode(SAMPLE_PHOTO);
    let detector = open("auto", &DetectSettings::default()).expect("opens");
    assert_eq!(detector.info().engine, "seeta");
    assert_eq!(detector.info().model_sha256.len(), 64);
    let answer = detect_one(&detector, &photo);
    assert!(answer.faces.len() >= 15, "29 people, {} faces", answer.faces.len());
    assert!((answer.scale - 1024.0 / photo.width as f32).abs() < 1e-3);
    assert_eq!(answer, detect_one(&detector, &photo), "no state is kept");
    assert!(answer.faces.iter().all(|face| (0.5..=1.0).contains(&face.score)));
    let tiny = PixelBuffer { width: 30, height: 2, rgb: vec![200; 180].into() };
    assert_eq!(detect_one(&detector, &tiny).faces, []);
    // A window of the engine fits exactly, or not at all after shrinking.
    for (width, height) in [(40, 40), (41, 300), (5000, 45), (45, 5000)] {
        detect_one(&detector, &synthetic(width, height));
    }
}

/// The reference models, each with how many of the photograph's labelled faces of 40 pixels it has to find.
#[test]
fn every_reference_model_finds_labelled_faces() {
    let Some(shared) = test_data() else { return };
    let photos = common::labelled(&shared, 3);
    for name in model::ALL {
        let detector = open(&onnx(&shared.join("models").join(name)), &DetectSettings::default()).expect(name);
        let (mut found, mut wanted) = (0, 0);
        for (picture, labels) in &photos {
            let answer = detect_one(&detector, picture);
            wanted += labels.len();
            found += labels
                .iter()
                .filter(|label| answer.faces.iter().any(|face| common::iou(&face.bbox, label) >= 0.5))
                .count();
        }
        println!("{name} on {}: {found} of {wanted} faces", detector.info().engine);
        assert!(found * 10 >= wanted * 7, "{name} found {found} of {wanted}");
    }
    let refused = open(&onnx(&shared.join("models/mobilefacenet_128.onnx")), &DetectSettings::default());
    assert!(refused.err().expect("no detector").to_string().contains("embeddings"));
}

#[test]
fn both_runtimes_agree_on_photographs() {
    let Some(shared) = test_data() else { return };
    let [rten, runtime] = onnx_runtimes()[..] else { return };
    for name in ["scrfd_500m_bnkps_dynbatch.onnx", "yunet_n_dynamic.onnx", "version-RFB-320.onnx"] {
        let path = onnx(&shared.join("models").join(name));
        let [one, other] = [rten, runtime]
            .map(|runtime| open(&path, &DetectSettings { runtime, ..DetectSettings::default() }).expect("opens"));
        let (mut worst, mut faces) = (0.0_f32, 0);
        for (picture, _) in common::labelled(&shared, 4) {
            let (a, b) = (detect_one(&one, &picture), detect_one(&other, &picture));
            faces += a.faces.len();
            assert_eq!(a.faces.len(), b.faces.len(), "{name}");
            for (a, b) in a.faces.iter().zip(&b.faces) {
                worst = a.bbox.iter().zip(&b.bbox).fold(worst, |worst, (a, b)| worst.max((a - b).abs()));
            }
        }
        println!("{name}: {faces} faces, at most {worst} pixels apart");
        assert!(faces > 0 && worst <= 1e-3, "{name}: {faces} faces, {worst} pixels apart");
    }
}

#[test]
fn square_and_rectangle_see_the_same_people() {
    let Some(shared) = test_data() else { return };
    let path = onnx(&Path::new(&shared).join("models/yunet_n_dynamic.onnx"));
    for (picture, labels) in common::labelled(&shared, 2) {
        for fit in [Fit::Rect, Fit::Square] {
            let detector = open(&path, &DetectSettings { fit, ..DetectSettings::default() }).expect("opens");
            let answer = detect_one(&detector, &picture);
            let found =
                labels.iter().filter(|label| answer.faces.iter().any(|face| common::iou(&face.bbox, label) >= 0.5));
            assert!(found.count() * 10 >= labels.len() * 7, "{fit:?}");
            assert!(answer.faces.iter().all(|face| face.landmarks.is_some_and(upright)), "{fit:?}");
        }
    }
}

/// Right eye left of the left one in the picture, mouth corners likewise, eyes above the mouth.
fn upright([right_eye, left_eye, _, right_mouth, left_mouth]: [[f32; 2]; 5]) -> bool {
    right_eye[0] < left_eye[0]
        && right_mouth[0] < left_mouth[0]
        && right_eye[1] < right_mouth[1]
        && left_eye[1] < left_mouth[1]
}
