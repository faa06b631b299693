use super::*;

/// The query is written in the page's encoding, the path in UTF-8: one picture tells both how the text was read.
fn image_of(content_type: &str, body: &[u8]) -> String {
    let reading = read_as(content_type, body).expect("a page");
    reading.images.iter().map(|found| short(&found.url)).collect::<Vec<_>>().join(" ")
}

#[test]
fn mark_then_header_then_page_then_guess() {
    let utf8 = "<img src='\u{e9}.jpg?\u{e9}'>";
    let latin = b"<img src='\xe9.jpg?\xe9'>";
    let (as_utf8, as_latin) = ("%C3%A9.jpg?%C3%A9", "%C3%A9.jpg?%E9");
    let join = |parts: &[&[u8]]| parts.concat();
    for (content_type, body, expected) in [
        ("text/html; charset=latin1", join(&[b"\xef\xbb\xbf", utf8.as_bytes()]), as_utf8),
        ("text/html; charset=\"ISO-8859-1\"", join(&[b"<meta charset=utf-8>", latin]), as_latin),
        ("text/html;x=y; CHARSET=utf-8", utf8.into(), as_utf8),
        ("text/html; charset=nonsense", join(&[b"<meta charset=windows-1252>", latin]), as_latin),
        ("text/html", join(&[b"<!-- <meta charset=utf-8> --><meta charset='windows-1252'>", latin]), as_latin),
        (
            "text/html",
            join(&[b"<META http-equiv=Content-Type content='text/html; charset=windows-1252'>", latin]),
            as_latin,
        ),
        ("text/html", join(&[b"<?xml version='1.0' encoding='windows-1252'?>", latin]), as_latin),
        ("text/html", join(&[b"<meta charset=utf-16le>", utf8.as_bytes()]), as_utf8),
        ("text/html", utf8.into(), as_utf8),
        (
            "text/html",
            join(&[
                "<p>Le caf\u{e9} d\u{e9}j\u{e0} ferm\u{e9}"
                    .chars()
                    .map(|char| char as u8)
                    .collect::<Vec<_>>()
                    .as_slice(),
                latin,
            ]),
            as_latin,
        ),
    ] {
        assert_eq!(image_of(content_type, &body), expected, "{content_type} {:?}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn utf16_with_a_mark_is_read() {
    let html = "<img src='\u{e9}.jpg?\u{e9}'>";
    let le: Vec<u8> = [0xfeff].into_iter().chain(html.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let be: Vec<u8> = [0xfeff].into_iter().chain(html.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    for body in [le, be] {
        assert_eq!(image_of("text/html; charset=utf-8", &body), "%C3%A9.jpg?%C3%A9");
    }
    let unmarked: Vec<u8> = html.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(image_of("text/html; charset=utf-16le", &unmarked), "%C3%A9.jpg?%C3%A9");
}

#[test]
fn russian_and_japanese_are_guessed() {
    let (russian, _, _) =
        encoding_rs::WINDOWS_1251.encode("<p>Привет, это обычная страница о погоде в городе.</p><img src='я.jpg'>");
    assert_eq!(image_of("text/html", &russian), "%D1%8F.jpg");
    let (japanese, _, _) =
        encoding_rs::SHIFT_JIS.encode("<p>これは天気に関する普通のページです。</p><img src='写.jpg'>");
    assert_eq!(image_of("text/html", &japanese), "%E5%86%99.jpg");
}
