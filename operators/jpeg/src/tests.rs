//! Every shape of JPEG against the picture that went into it, and every way to cut one.

use proptest::prelude::*;

use super::test_encoder::{Recipe, adobe, encode, progressive, sequential};
use super::*;

/// What decoding gives: RGB, grey as three equal values.
fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Broken> {
    read(bytes, |jpeg, out| jpeg.decode(out, u64::MAX))
}

/// The same, never the fast way.
fn decoded_fully(bytes: &[u8]) -> Result<Vec<u8>, Broken> {
    read(bytes, |jpeg, out| jpeg.decode_fully(out))
}

fn read(bytes: &[u8], decode: impl Fn(&Jpeg, &mut [u8]) -> Result<(), Broken>) -> Result<Vec<u8>, Broken> {
    let jpeg = Jpeg::new(bytes)?;
    let (width, height) = jpeg.size();
    let mut out = vec![0; width as usize * height as usize * jpeg.channels()];
    decode(&jpeg, &mut out)?;
    Ok(if jpeg.channels() == 1 { out.iter().flat_map(|grey| [*grey; 3]).collect() } else { out })
}

/// A picture that coarse sampling can hold: waves and slopes.
fn scene(channel: usize, x: usize, y: usize) -> f64 {
    let (x, y, shift) = (x as f64, y as f64, channel as f64);
    128.0 + 60.0 * (x / 23.0 + shift).sin() + 40.0 * (y / 17.0 - shift).cos() + 0.1 * (x - y)
}

fn mean_difference(one: &[u8], other: &[u8]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / one.len() as f64
}

/// How a file says what its components are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Colour {
    Grey,
    YCbCr,
    Jfif,
    AdobeYCbCr,
    AdobeRgb,
    NamedRgb,
    AdobeCmyk,
    BareCmyk,
    Ycck,
}

impl Colour {
    fn components(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::AdobeCmyk | Self::BareCmyk | Self::Ycck => 4,
            _ => 3,
        }
    }

    fn head(self) -> Vec<u8> {
        match self {
            Self::Jfif => b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0".to_vec(),
            Self::AdobeYCbCr => adobe(1),
            Self::AdobeRgb | Self::AdobeCmyk => adobe(0),
            Self::Ycck => adobe(2),
            _ => vec![],
        }
    }

    fn ids(self) -> [u8; 4] {
        match self {
            Self::NamedRgb => *b"RGB ",
            Self::AdobeRgb => [1, 2, 3, 4],
            Self::AdobeYCbCr => [7, 9, 11, 12],
            _ => [1, 2, 3, 4],
        }
    }

    /// The component of a pixel whose displayed colour is `scene`; the fourth ink is almost none.
    fn sample(self, component: usize, x: usize, y: usize) -> f64 {
        let [r, g, b] = [0, 1, 2].map(|channel| scene(channel, x, y));
        match (self, component) {
            (Self::Grey, _) => r,
            (_, 3) => 250.0,
            (Self::AdobeRgb | Self::NamedRgb, _) => [r, g, b][component],
            (Self::AdobeCmyk | Self::BareCmyk, _) => [r, g, b][component] * 255.0 / 250.0,
            _ => {
                // Stored YCCK values are inverted inks; its transform is of the inks themselves.
                let ink = |value: f64| if self == Self::Ycck { 255.0 - value * 255.0 / 250.0 } else { value };
                let [r, g, b] = [r, g, b].map(ink);
                match component {
                    0 => 0.299 * r + 0.587 * g + 0.114 * b,
                    1 => 128.0 - 0.168_736 * r - 0.331_264 * g + 0.5 * b,
                    _ => 128.0 + 0.5 * r - 0.418_688 * g - 0.081_312 * b,
                }
            }
        }
    }

    /// The displayed picture.
    fn expected(self, (width, height): (usize, usize)) -> Vec<u8> {
        let channel = |channel: usize| if self == Self::Grey { 0 } else { channel };
        let pixel = |x, y| [0, 1, 2].map(|c| scene(channel(c), x, y).round().clamp(0.0, 255.0) as u8);
        (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect()
    }
}

fn recipe(
    colour: Colour,
    factors: &[(usize, usize)],
    size: (usize, usize),
    layout: (bool, bool),
    restart: usize,
) -> Recipe {
    let (together, is_progressive) = layout;
    let components = factors.iter().zip(colour.ids()).map(|(&(h, v), id)| (id, h, v)).collect::<Vec<_>>();
    let scans = if is_progressive { progressive } else { sequential };
    let scans = scans(components.len(), together);
    Recipe { size, components, scans, progressive: is_progressive, restart, head: colour.head() }
}

/// Sampling factors for so many components: the first over all, the others coarse or mixed. Ratios are whole.
fn samplings(components: usize) -> Vec<Vec<(usize, usize)>> {
    let all = (1..=4).flat_map(|h| (1..=4).map(move |v| (h, v)));
    let mut lists: Vec<Vec<(usize, usize)>> = all
        .map(|first| {
            let mut factors = vec![(1, 1); components];
            factors[0] = first;
            // Black is as fine as the first.
            factors[components - 1] = if components == 4 { first } else { factors[components - 1] };
            factors
        })
        .collect();
    if components == 3 {
        let mixed =
            [[(2, 2), (2, 1), (1, 2)], [(4, 1), (2, 1), (1, 1)], [(1, 1), (2, 2), (1, 2)], [(2, 1), (1, 2), (1, 1)]];
        lists.extend(mixed.iter().map(|factors| factors.to_vec()));
        lists.extend([vec![(2, 2); 3], vec![(3, 1), (1, 1), (3, 1)]]);
    }
    lists
}

#[test]
fn every_shape_is_the_picture_that_went_in() {
    use Colour::*;
    let (mut shapes, mut worst) = (0, 0.0_f64);
    for colour in [Grey, YCbCr, Jfif, AdobeYCbCr, AdobeRgb, NamedRgb, AdobeCmyk, BareCmyk, Ycck] {
        let samplings = samplings(colour.components());
        for (at, factors) in samplings.iter().enumerate() {
            // All that T.81 allows for plain colour, a part of it for the others.
            if !matches!(colour, YCbCr | Grey) && at % 3 != 0 {
                continue;
            }
            for (turn, layout) in [(true, false), (false, false), (true, true), (false, true)].into_iter().enumerate() {
                for (restart, size) in
                    [(0, (67, 45)), ([1, 3, 5, 7][turn], (41, 70)), (0, (64, 64)), (0, (1, 9)), (2, (17, 2))]
                {
                    let recipe = recipe(colour, factors, size, layout, restart);
                    let bytes = encode(&recipe, &|component, x, y| colour.sample(component, x, y));
                    let full = decoded_fully(&bytes).unwrap_or_else(|broken| panic!("{recipe:?}: {broken:?}"));
                    let got = decoded(&bytes).unwrap_or_else(|broken| panic!("{recipe:?}: {broken:?}"));
                    let expected = colour.expected(size);
                    let off = mean_difference(&got, &expected).max(mean_difference(&full, &expected));
                    assert!(off <= 2.0, "{off} levels: {recipe:?}");
                    (shapes, worst) = (shapes + 1, worst.max(off));
                }
            }
        }
    }
    assert!(shapes > 1_700, "{shapes}");
    println!("{shapes} shapes, worst mean difference {worst:.2}");
}

#[test]
fn files_of_cjpeg_are_what_djpeg_makes_of_them() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let names = [
        "420-progressive-restart",
        "420-separate-scans",
        "422-odd",
        "440",
        "411",
        "rgb",
        "grey-progressive",
        "2x2-2x1-1x2",
    ];
    for name in names {
        let read = |extension| std::fs::read(folder.join(format!("{name}.{extension}"))).expect("a fixture");
        let expected = image::load_from_memory(&read("png")).expect("a PNG").to_rgb8();
        assert_eq!(decoded_fully(&read("jpg")).as_deref(), Ok(expected.as_raw().as_slice()), "{name}");
    }
}

#[test]
fn what_is_not_decoded_is_named() {
    let bytes = |edit: &dyn Fn(&mut Vec<u8>)| {
        let recipe = recipe(Colour::YCbCr, &[(2, 2), (1, 1), (1, 1)], (40, 40), (true, false), 0);
        let mut bytes = encode(&recipe, &|component, x, y| Colour::YCbCr.sample(component, x, y));
        edit(&mut bytes);
        decoded(&bytes)
    };
    let frame = |bytes: &[u8]| bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
    let change = |offset: usize, value: u8| {
        bytes(&|bytes| {
            let at = frame(bytes) + offset;
            bytes[at] = value;
        })
    };
    assert!(bytes(&|_| {}).is_ok());
    for (offset, value) in [(1, 0xc3), (1, 0xc5), (1, 0xc9), (1, 0xca), (4, 12), (14, 0x31)] {
        assert!(matches!(change(offset, value), Err(Broken::Unsupported(_))), "{offset} {value:x}");
    }
    for (offset, value) in [(11, 0), (11, 0x71), (8, 0), (12, 9)] {
        assert!(matches!(change(offset, value), Err(Broken::Corrupt(_))), "{offset} {value:x}");
    }
}

#[test]
fn a_cut_picture_is_refused_closed_or_not() {
    for (layout, restart) in
        [((true, false), 0), ((true, false), 2), ((false, false), 3), ((true, true), 0), ((false, true), 4)]
    {
        let recipe = recipe(Colour::YCbCr, &[(2, 2), (1, 1), (1, 1)], (70, 90), layout, restart);
        let whole = encode(&recipe, &|component, x, y| Colour::YCbCr.sample(component, x, y));
        let picture = decoded(&whole).expect("whole");
        let head = whole.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
        assert_eq!(decoded(&whole[..whole.len() - 2]).as_ref(), Ok(&picture), "only the end marker is missing");
        assert_eq!(decoded(&[&whole[..], b"<!-- cached -->"].concat()).as_ref(), Ok(&picture), "bytes behind");
        let mut kept = 0;
        for at in head..whole.len() - 3 {
            for end in [&b""[..], b"\xff\xd9"] {
                match decoded(&[&whole[..at], end].concat()) {
                    Err(_) => {}
                    // Between two scans a progressive picture is whole, only coarser.
                    Ok(coarse) if recipe.progressive => {
                        kept += 1;
                        assert!(mean_difference(&coarse, &picture) < 12.0, "cut at {at}");
                    }
                    Ok(other) => {
                        assert_eq!(other, picture, "cut at {at}: only bits that fill the last byte are missing")
                    }
                }
            }
        }
        assert!(kept < 300, "{kept} cuts fall between scans");
    }
}

#[test]
fn missing_tables_and_too_many_scans_are_errors() {
    let recipe = recipe(Colour::Grey, &[(1, 1)], (64, 64), (true, true), 0);
    let whole = encode(&recipe, &|component, x, y| Colour::Grey.sample(component, x, y));
    for marker in [0xc4, 0xdb] {
        let mut without = whole.clone();
        while let Some(at) = without.windows(2).position(|pair| pair == [0xff, marker]) {
            let length = usize::from(u16::from_be_bytes([without[at + 2], without[at + 3]]));
            without.drain(at..at + 2 + length);
        }
        assert!(matches!(decoded(&without), Err(Broken::Corrupt(_))), "{marker:x}");
    }
    let refine = |_| (vec![0], 0, 0, 1, 0);
    let mut many = recipe.clone();
    many.scans.extend((0..SCANS_MAX).map(refine));
    let bytes = encode(&many, &|component, x, y| Colour::Grey.sample(component, x, y));
    assert!(matches!(decoded(&bytes), Err(Broken::Unsupported(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(
        damage in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..8),
        layout in any::<(bool, bool)>(),
        restart in 0_usize..4,
    ) {
        let recipe = recipe(Colour::YCbCr, &[(2, 1), (1, 1), (1, 1)], (40, 30), layout, restart);
        let mut bytes = encode(&recipe, &|component, x, y| Colour::YCbCr.sample(component, x, y));
        for (place, value) in damage {
            let at = (bytes.len() as f64 * place) as usize;
            bytes[at] = value;
        }
        // A damaged size may ask for gigabytes, which limits refuse elsewhere.
        if Jpeg::new(&bytes).is_ok_and(|jpeg| jpeg.working_bytes() < 1 << 24) {
            let _ = (decoded(&bytes), decoded_fully(&bytes));
        }
    }
}
