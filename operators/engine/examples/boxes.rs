//! Looks at every picture under a folder and prints one JSON line each, for measuring a detector against labels:
//! `{"file": relative path, "boxes": [[x1, y1, x2, y2, score], …], "ms": time of detection}`.
//!
//!     cargo run --release -p faceflow-engine --example boxes -- FOLDER [DETECTOR] [detect key=value]…
//!     cargo run --release -p faceflow-engine --example boxes -- photos onnx:yunet.onnx score_min=0.02 fit=square

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faceflow_core::blocking::work_in_place;
use faceflow_core::detector::{Detector, PixelBuffer, detect};
use faceflow_core::testing::wait_for;
use faceflow_engine::DetectSettings;
use image::{DynamicImage, ImageDecoder, ImageReader};

fn main() -> Result<(), Box<dyn Error>> {
    work_in_place();
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("name a folder of pictures")?);
    let (pairs, names): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument.contains('='));
    let detector = faceflow_engine::open(names.first().map_or("auto", String::as_str), &settings(&pairs)?)?;
    eprintln!("{:?}", detector.info());
    let mut total = [Duration::ZERO; 2];
    let (mut out, files) = (std::io::stdout().lock(), files(&folder)?);
    for file in &files {
        let (decoded, picture) = timed(|| decode(file));
        let Ok(picture) = picture.inspect_err(|error| eprintln!("{}: {error}", file.display())) else { continue };
        let (looked, boxes) = timed(|| boxes(&detector, picture));
        let line = serde_json::json!({
            "file": file.strip_prefix(&folder)?, "boxes": boxes?, "ms": looked.as_secs_f64() * 1000.0
        });
        writeln!(out, "{line}")?;
        total = [total[0] + decoded, total[1] + looked];
    }
    let each = |total: Duration| total.as_secs_f64() * 1000.0 / files.len().max(1) as f64;
    eprintln!("{} files; ms per file: decode {:.2}, detect {:.2}", files.len(), each(total[0]), each(total[1]));
    Ok(())
}

fn settings(pairs: &[String]) -> Result<DetectSettings, Box<dyn Error>> {
    let mut map = serde_json::Map::new();
    for (key, text) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
        let value = serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text));
        map.insert(key.to_owned(), value);
    }
    Ok(serde_json::from_value(map.into())?)
}

/// Every file under the folder, in path order.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    let each = entries.into_iter().map(|path| if path.is_dir() { files(&path) } else { Ok(vec![path]) });
    Ok(each.collect::<std::io::Result<Vec<_>>>()?.concat())
}

fn decode(file: &Path) -> Result<PixelBuffer, Box<dyn Error>> {
    let mut decoder = ImageReader::open(file)?.with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut pixels = DynamicImage::from_decoder(decoder)?;
    pixels.apply_orientation(orientation);
    let rgb = pixels.into_rgb8();
    Ok(PixelBuffer { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw().into() })
}

fn boxes(detector: &Arc<dyn Detector>, picture: PixelBuffer) -> Result<Vec<[f32; 5]>, String> {
    let answer = wait_for(detect(detector, vec![picture])).remove(0).map_err(|fault| fault.to_string())?;
    Ok(answer.faces.iter().map(|face| [face.bbox[0], face.bbox[1], face.bbox[2], face.bbox[3], face.score]).collect())
}

#[allow(clippy::disallowed_methods)] // Measuring is what this example is for.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = std::time::Instant::now();
    let result = work();
    (start.elapsed(), result)
}
