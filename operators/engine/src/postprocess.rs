//! From raw boxes to the answer: suppression of overlaps, then pixels of the picture.
//!
//! The promise: the result is a function of the set of boxes alone. Coordinates are rounded to 1/2048 pixel and scores to
//! 1/10,000, above the noise of floating point and far below what matters.

use std::cmp::Ordering;

use faceflow_core::detector::Face;

/// Boxes looked at by the suppression at most, the best ones; its cost grows with the square. As OpenCV's `top_k`.
const BOXES_MAX: usize = 5_000;

/// When two boxes are the same face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Nms {
    /// A larger intersection over union is.
    pub iou: f32,
    /// Added to sides when areas are computed: 1 where the reference counts x2 and y2 as inside, else 0.
    pub inclusive: f32,
}

impl Nms {
    /// Greedy non-maximum suppression: the best box stays, boxes that overlap it too much go, and so on. Best first.
    pub fn keep_best(self, mut faces: Vec<Face>) -> Vec<Face> {
        faces.sort_by(best_first);
        faces.truncate(BOXES_MAX);
        let mut kept: Vec<Face> = Vec::new();
        for face in faces {
            if kept.iter().all(|better| self.iou(&better.bbox, &face.bbox) <= self.iou) {
                kept.push(face);
            }
        }
        kept
    }

    fn iou(self, a: &[f32; 4], b: &[f32; 4]) -> f32 {
        let side = |from: f32, to: f32| (to - from + self.inclusive).max(0.0);
        let area = |b: &[f32; 4]| side(b[0], b[2]) * side(b[1], b[3]);
        let shared = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
        shared / (area(a) + area(b) - shared).max(f32::MIN_POSITIVE)
    }
}

/// Clips boxes to the picture and drops what is left without area; rounds; orders. Landmarks are not clipped: those of a
/// face that leaves the picture lie outside, and that is what aligning it needs.
pub(crate) fn finish(faces: Vec<Face>, [width, height]: [u32; 2]) -> Vec<Face> {
    let pixels = |value: f32| (value * 2048.0).round() / 2048.0;
    let mut faces: Vec<Face> = faces
        .into_iter()
        .map(|face| Face {
            bbox: std::array::from_fn(|i| {
                pixels(face.bbox[i].clamp(0.0, if i % 2 == 0 { width } else { height } as f32))
            }),
            score: (face.score.clamp(0.0, 1.0) * 10_000.0).round() / 10_000.0,
            quality: face.quality,
            landmarks: face.landmarks.map(|points| points.map(|point| point.map(pixels))),
        })
        .filter(|face| face.bbox[0] < face.bbox[2] && face.bbox[1] < face.bbox[3])
        .collect();
    faces.sort_by(best_first);
    faces
}

fn best_first(a: &Face, b: &Face) -> Ordering {
    let by_box = || a.bbox.iter().zip(&b.bbox).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    b.score.total_cmp(&a.score).then_with(|| by_box().unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(bbox: [f32; 4], score: f32) -> Face {
        Face { bbox, score, quality: 0.0, landmarks: None }
    }

    const PLAIN: Nms = Nms { iou: 0.5, inclusive: 0.0 };

    #[test]
    fn the_best_of_overlapping_boxes_stays() {
        let boxes = vec![
            face([0.0, 0.0, 10.0, 10.0], 0.8),
            face([0.0, 0.0, 10.0, 9.0], 0.9),
            face([20.0, 0.0, 30.0, 10.0], 0.7),
        ];
        let kept = PLAIN.keep_best(boxes.clone());
        assert_eq!(kept, [boxes[1].clone(), boxes[2].clone()]);
        let mut turned = boxes;
        turned.reverse();
        assert_eq!(PLAIN.keep_best(turned), kept, "in any order");
    }

    #[test]
    fn an_overlap_of_exactly_the_limit_is_kept() {
        let (a, b) = (face([0.0, 0.0, 2.0, 1.0], 0.9), face([1.0, 0.0, 2.0, 1.0], 0.8));
        assert_eq!(PLAIN.keep_best(vec![a.clone(), b.clone()]).len(), 2);
        // With inclusive corners the same boxes are 3x2 and 2x2 and share 2x2.
        assert_eq!(Nms { inclusive: 1.0, ..PLAIN }.keep_best(vec![a, b]).len(), 1);
    }

    #[test]
    fn overlap_is_the_shared_area_over_the_area_of_both() {
        let (a, b, far) = ([1.0, 2.0, 4.0, 7.0], [2.0, 3.0, 6.0, 8.0], [40.0, 50.0, 60.0, 70.0]);
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        // 3 x 5 and 4 x 5, sharing 2 x 4.
        near(PLAIN.iou(&a, &b), 8.0 / 27.0);
        near(PLAIN.iou(&b, &a), 8.0 / 27.0);
        near(PLAIN.iou(&a, &a), 1.0);
        near(PLAIN.iou(&a, &far), 0.0);
        // 3.5 x 5.5 and 4.5 x 5.5, sharing 2.5 x 4.5.
        near(Nms { inclusive: 0.5, ..PLAIN }.iou(&a, &b), 11.25 / 32.75);
        near(PLAIN.iou(&[1.0; 4], &[1.0; 4]), 0.0);
    }

    #[test]
    fn a_box_without_width_or_height_is_dropped_and_landmarks_are_rounded_where_they_lie() {
        let flat = [face([1.0, 5.0, 9.0, 5.0], 0.9), face([5.0, 1.0, 5.0, 9.0], 0.9), face([6.0, 9.0, 5.0, 8.0], 0.9)];
        assert_eq!(finish(flat.to_vec(), [100, 50]), []);
        let points = [[-3.000_1, 120.000_3]; 5];
        let leaving = Face { landmarks: Some(points), ..face([10.0, 20.0, 30.0, 40.0], 1.5) };
        let out = finish(vec![leaving], [100, 50]);
        assert_eq!((out[0].score, out[0].landmarks), (1.0, Some([[-3.0, 120.000_49]; 5])));
    }

    #[test]
    fn a_face_that_is_suppressed_suppresses_none() {
        let row = |x: f32, score| face([x, 0.0, x + 10.0, 10.0], score);
        assert_eq!(PLAIN.keep_best(vec![row(0.0, 0.9), row(3.0, 0.8), row(6.0, 0.7)]).len(), 2);
    }

    #[test]
    fn answers_are_clipped_rounded_and_ordered() {
        let outside = face([-5.0, -5.0, 0.0, 3.0], 0.99);
        let out = finish(
            vec![face([-1.0, 2.000_2, 150.0, 60.0], 0.500_04), face([1.0, 2.0, 3.0, 4.0], 0.500_01), outside],
            [100, 50],
        );
        assert_eq!(out, [face([0.0, 2.0, 100.0, 50.0], 0.5), face([1.0, 2.0, 3.0, 4.0], 0.5)]);
    }
}
