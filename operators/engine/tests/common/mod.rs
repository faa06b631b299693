//! Where test data is, and what tests of detectors share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faceflow_core::detector::{Answer, Detector, Inferred, PictureView, PixelBuffer, infer};
use faceflow_core::testing::{require, wait_for};
use faceflow_engine::{DetectSettings, RuntimeChoice, open};

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The name of the detector of a model file.
pub fn onnx(path: &Path) -> String {
    format!("onnx:{}", path.display())
}

/// The folder of reference models and photographs; `None`, and a line that says so, where there is none.
pub fn test_data() -> Option<PathBuf> {
    require::testdata("models")?;
    let photos = require::testdata("photos")?;
    Some(photos.parent().expect("it is in a folder").to_owned())
}

/// rten, and ONNX Runtime where it is installed.
pub fn onnx_runtimes() -> Vec<RuntimeChoice> {
    let settings = DetectSettings { runtime: RuntimeChoice::Onnxruntime, ..DetectSettings::default() };
    match open(&onnx(&data("tiny_yunet.onnx")), &settings) {
        Ok(_) => vec![RuntimeChoice::Rten, RuntimeChoice::Onnxruntime],
        Err(error) => {
            require::skip("onnxruntime", error);
            vec![RuntimeChoice::Rten]
        }
    }
}

/// Looks at whole pictures, all in one batch.
pub fn infer_all(detector: &Arc<dyn Detector>, pictures: &[PixelBuffer]) -> Inferred {
    let view = |picture: &PixelBuffer| {
        let mut views = detector.plan(picture.width, picture.height);
        assert_eq!(views.len(), 1, "one look at each picture");
        PictureView { picture: picture.clone(), view: views.remove(0) }
    };
    wait_for(infer(Arc::clone(detector), pictures.iter().map(view).collect()))
}

/// Looks at one whole picture.
pub fn detect_one(detector: &Arc<dyn Detector>, picture: &PixelBuffer) -> Answer {
    let mut answers = infer_all(detector, std::slice::from_ref(picture)).expect("the engine works");
    answers.remove(0).expect("the picture was looked at")
}

/// Decodes a picture, orientation applied.
pub fn decode(bytes: &[u8]) -> PixelBuffer {
    use image::{DynamicImage, ImageDecoder, ImageReader};
    let reader = ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().expect("readable");
    let mut decoder = reader.into_decoder().expect("a picture");
    let orientation = decoder.orientation().expect("an orientation");
    let mut pixels = DynamicImage::from_decoder(decoder).expect("a picture");
    pixels.apply_orientation(orientation);
    let rgb = pixels.into_rgb8();
    PixelBuffer { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw().into() }
}

/// The first photographs whose labelled faces are all clear and at least 60 pixels, with the labels.
pub fn labelled(shared: &Path, count: usize) -> Vec<(PixelBuffer, Vec<[f32; 4]>)> {
    let lines = std::fs::read_to_string(shared.join("photos/labels.jsonl")).expect("labels");
    let mut photos = Vec::new();
    for line in lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON")) {
        let faces: Option<Vec<[f32; 4]>> = line["faces"].as_array().expect("faces").iter().map(clear_face).collect();
        if let (Some(faces @ [_, ..]), true) = (faces.as_deref(), photos.len() < count) {
            let file = shared.join("photos").join(line["file"].as_str().expect("a file"));
            photos.push((decode(&std::fs::read(file).expect("a photograph")), faces.to_vec()));
        }
    }
    assert_eq!(photos.len(), count, "the labels have enough clear photographs");
    photos
}

fn clear_face(face: &serde_json::Value) -> Option<[f32; 4]> {
    let side = |name: &str| face[name].as_f64().expect("a side") as f32;
    let bbox = ["x1", "y1", "x2", "y2"].map(side);
    let clear = ["blur", "occlusion", "pose"].iter().all(|flaw| face[flaw] == 0);
    (clear && (bbox[2] - bbox[0]).min(bbox[3] - bbox[1]) >= 60.0).then_some(bbox)
}

/// Intersection over union.
pub fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |b: [f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    shared / (area(*a) + area(*b) - shared)
}

/// The reference models.
pub mod model {
    /// Every face detector.
    pub const ALL: [&str; 12] = [
        "scrfd_2.5g_bnkps.onnx",
        "scrfd_2.5g_bnkps_dynbatch.onnx",
        "scrfd_500m_bnkps.onnx",
        "scrfd_500m_bnkps_dynbatch.onnx",
        "scrfd_500m_kps_640.onnx",
        "version-RFB-320.onnx",
        "version-RFB-320_dynbatch.onnx",
        "version-RFB-640.onnx",
        "version-RFB-640_dynbatch.onnx",
        "yunet_n_640_640.onnx",
        "yunet_n_dynamic.onnx",
        "yunet_s_dynamic.onnx",
    ];
}
