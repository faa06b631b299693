//! The settings `[detect]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How pictures are fitted into the input of an ONNX model whose height and width are free. Models of a fixed size use
/// their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Longest side at most `input_px`, small pictures are left small, each side padded to the next multiple of 32.
    #[default]
    Rect,
    /// The letterbox of the reference implementations: `input_px` by `input_px`, picture at the top left, small pictures
    /// enlarged.
    Square,
}

/// What runs ONNX models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeChoice {
    /// ONNX Runtime where its library is found, else rten.
    #[default]
    Auto,
    /// ONNX Runtime, or an error.
    Onnxruntime,
    /// rten, the engine inside this binary.
    Rten,
}

/// The settings `[detect]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectSettings {
    /// Faces with a lower score are not reported, 0 to 1. Left out: the head's own default (SCRFD 0.5, YuNet 0.6,
    /// UltraFace 0.7, seeta 0.5).
    pub score_min: Option<f32>,
    /// Of two boxes whose intersection over union is larger, only the better one is kept, 0 to 1. Left out: the head's own
    /// default (SCRFD 0.4, YuNet 0.4, UltraFace 0.3). The embedded engine has its own rule.
    pub nms_iou: Option<f32>,
    /// Longest side of the input of an ONNX model with free sizes, in pixels; a multiple of 32.
    pub input_px: u32,
    /// How pictures are fitted into that input.
    pub fit: Fit,
    /// Longest side at which the embedded engine looks, in pixels. It sees faces of 40 pixels and more at that scale.
    pub seeta_px: u32,
    /// Most pictures in one batch. A model for which batches were not seen to give exactly the answers of single
    /// pictures gets 1. More than 1 gains nothing on a CPU, where each thread looks at a picture of its own.
    pub batch_max: usize,
    /// How long an incomplete batch waits for more pictures, in milliseconds.
    pub linger_ms: u64,
    /// Pictures (or batches) looked at at once, each on one thread; 0 for as many as there are cores.
    pub threads: usize,
    /// A batch that takes longer has failed, in milliseconds.
    pub timeout_ms: u64,
    /// What runs ONNX models.
    pub runtime: RuntimeChoice,
    /// The library of ONNX Runtime (`libonnxruntime.so`, 1.24 or newer). Left out: `ORT_DYLIB_PATH`, then beside this
    /// program, the system's library folders, and installed Python packages.
    pub ort_library: Option<PathBuf>,
}

impl Default for DetectSettings {
    fn default() -> Self {
        Self {
            score_min: None,
            nms_iou: None,
            input_px: 640,
            fit: Fit::Rect,
            seeta_px: 1024,
            batch_max: 1,
            linger_ms: 20,
            threads: 0,
            timeout_ms: 60_000,
            runtime: RuntimeChoice::Auto,
            ort_library: None,
        }
    }
}

impl DetectSettings {
    /// Refuses impossible values: the key, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let share = |value: Option<f32>| value.is_none_or(|value| (0.0..=1.0).contains(&value));
        let rules = [
            ("score_min", share(self.score_min), "0 to 1"),
            ("nms_iou", share(self.nms_iou), "0 to 1"),
            ("input_px", is_input_side(self.input_px), "a multiple of 32 from 64 to 4096"),
            ("seeta_px", (40..=8192).contains(&self.seeta_px), "40 to 8192"),
            ("batch_max", (1..=256).contains(&self.batch_max), "1 to 256"),
            ("threads", self.threads <= 1024, "0 (as many as there are cores) to 1024"),
            ("timeout_ms", self.timeout_ms > 0, "1 or more"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, allowed)) => Err((key, allowed.to_owned())),
            None => Ok(()),
        }
    }

    /// How many look at once: `threads`, or the cores of this machine.
    pub fn concurrency(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }
}

fn is_input_side(px: u32) -> bool {
    (64..=4096).contains(&px) && px.is_multiple_of(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_values_are_refused_by_key() {
        let good = DetectSettings::default();
        assert_eq!(good.check(), Ok(()));
        let refused = |settings: DetectSettings| settings.check().expect_err("impossible").0;
        assert_eq!(refused(DetectSettings { input_px: 650, ..good.clone() }), "input_px");
        assert_eq!(refused(DetectSettings { score_min: Some(f32::NAN), ..good.clone() }), "score_min");
        assert_eq!(refused(DetectSettings { nms_iou: Some(1.5), ..good.clone() }), "nms_iou");
        assert_eq!(refused(DetectSettings { batch_max: 0, ..good.clone() }), "batch_max");
        assert_eq!(refused(DetectSettings { timeout_ms: 0, ..good }), "timeout_ms");
    }

    #[test]
    fn words_and_unknown_keys() {
        let read = serde_json::from_str::<DetectSettings>;
        let settings = read(r#"{"fit":"square","runtime":"onnxruntime","score_min":0.02}"#).expect("valid");
        assert_eq!((settings.fit, settings.runtime), (Fit::Square, RuntimeChoice::Onnxruntime));
        assert!(read(r#"{"fit":"round"}"#).is_err());
        assert!(read(r#"{"score_mim":0.5}"#).is_err());
    }
}
