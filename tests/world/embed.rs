//! Embeddings: the ways in which pages refer to pictures.

use std::fmt::Write;

/// One way in which HTML refers to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Embedding {
    /// `<img src>`, from the root of the host (or absolute, for another host).
    ImgSrc,
    /// `<img src="../../…">`
    Relative,
    /// `<img src="…">` below a `<base href>`.
    BaseRelative,
    /// `<img src="//host/…">`
    ProtocolRelative,
    /// `<img src="…?a=1&amp;b=2">`
    EntityQuery,
    /// `<img srcset>` with widths, and commas within an address.
    SrcsetWidth,
    /// `<img srcset>` with densities.
    SrcsetDensity,
    /// `<picture>` with `<source>`s of several sizes and an `<img>` as the smallest.
    PictureSource,
    /// `<img data-src>`
    DataSrc,
    /// `<img data-srcset>`
    DataSrcset,
    /// `<img data-original>`
    DataOriginal,
    /// `<div data-bg>`
    DataBg,
    /// `<meta property="og:image">`
    OgImage,
    /// `<meta name="twitter:image">`
    TwitterImage,
    /// `image` in JSON-LD, as a string.
    JsonLd,
    /// `image` in JSON-LD, as an ImageObject with a `url`.
    JsonLdObject,
    /// `<img>` within `<noscript>`.
    Noscript,
    /// `style="background-image:url(…)"`
    InlineStyle,
    /// `url(…)` in a `<style>` element.
    StyleElement,
    /// `<a href>` to a file with the name of a picture.
    LinkToFile,
    /// `<img src="data:…;base64,…">`
    DataUri,
    /// `<video poster>`
    VideoPoster,
    /// `<link rel="image_src">`
    LinkImageSrc,
    /// `<link rel="preload" as="image">`
    LinkPreload,
}

use Embedding::*;

/// What an embedding refers to.
pub(super) struct Reference<'a> {
    /// `http://host:port` of the picture.
    pub origin: &'a str,
    /// Whether the page is on the same host.
    pub own_host: bool,
    /// Path and query.
    pub path: &'a str,
    /// Its width in pixels.
    pub width: u32,
    /// Smaller candidates: path and width.
    pub smaller: &'a [(String, u32)],
    /// A number of its own on the page.
    pub number: usize,
    /// The picture itself.
    pub bytes: &'a [u8],
}

impl Reference<'_> {
    fn spell(&self, path: &str) -> String {
        if self.own_host { path.to_owned() } else { self.absolute(path) }
    }

    fn absolute(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// The file name in `/img/`.
    fn name(&self) -> &str {
        self.path.trim_start_matches("/img/")
    }

    /// `address 320w, address 160w`, the largest candidate in the middle or last, as pages have it.
    fn by_width(&self) -> String {
        let mut candidates: Vec<_> = self.smaller.iter().map(|(path, width)| (self.spell(path), *width)).collect();
        candidates.insert(candidates.len() / 2, (self.spell(self.path), self.width));
        let candidates: Vec<_> = candidates.into_iter().map(|(url, width)| format!("{url} {width}w")).collect();
        candidates.join(", ")
    }
}

impl Embedding {
    /// All of them.
    pub const ALL: [Self; 24] = [
        ImgSrc,
        SrcsetWidth,
        OgImage,
        DataSrc,
        Relative,
        PictureSource,
        JsonLd,
        InlineStyle,
        DataUri,
        BaseRelative,
        LinkToFile,
        SrcsetDensity,
        Noscript,
        TwitterImage,
        ProtocolRelative,
        StyleElement,
        DataSrcset,
        EntityQuery,
        JsonLdObject,
        DataOriginal,
        VideoPoster,
        DataBg,
        LinkImageSrc,
        LinkPreload,
    ];

    /// Whether every crawler of pictures has to know it. The others are worth finding.
    pub fn is_common(self) -> bool {
        !matches!(self, VideoPoster | LinkImageSrc | LinkPreload | DataUri)
    }

    /// Sizes of the smaller candidates it names, in percent.
    pub(super) fn smaller(self) -> &'static [u32] {
        match self {
            SrcsetWidth | PictureSource => &[75, 50],
            SrcsetDensity | DataSrcset => &[50],
            _ => &[],
        }
    }

    /// Whether the picture has to be on the host of the page.
    pub(super) fn needs_own_host(self) -> bool {
        matches!(self, Relative | BaseRelative | LinkToFile | DataUri)
    }

    /// The path of a picture that is to be embedded so.
    pub(super) fn path(self, number: usize, extension: &str) -> String {
        match self {
            EntityQuery => format!("/img?id={number}&w=640&h=480"),
            SrcsetWidth => format!("/img/{number}.{extension}?fit=crop,smart"),
            _ => format!("/img/{number}.{extension}"),
        }
    }

    /// What goes into the head and into the body of the page.
    pub(super) fn html(self, shown: &Reference<'_>) -> (String, String) {
        let (url, absolute) = (shown.spell(shown.path), shown.absolute(shown.path));
        let last = shown.smaller.last().map(|(path, _)| shown.spell(path)).unwrap_or_default();
        let head = |html: String| (html, String::new());
        let body = |html: String| (String::new(), html);
        match self {
            ImgSrc => body(format!(r#"<img src="{url}" alt="">"#)),
            Relative => body(format!(r#"<img src="../..{}" alt="">"#, shown.path)),
            BaseRelative => body(format!("<img alt='' src={}>", shown.name())),
            ProtocolRelative => body(format!(r#"<img src="{}">"#, absolute.trim_start_matches("http:"))),
            EntityQuery => body(format!(r#"<img src="{}">"#, url.replace('&', "&amp;"))),
            SrcsetWidth => body(format!(
                r#"<img src="{last}" srcset="{}" sizes="(max-width: 600px) 50vw, 320px">"#,
                shown.by_width()
            )),
            SrcsetDensity => body(format!(r#"<img src="{last}" srcset="{last}, {url} 2x">"#)),
            PictureSource => {
                let (middle, width) = &shown.smaller[0];
                let source = |url: &str, width: u32| {
                    format!(r#"<source media="(min-width: {width}px)" srcset="{url} {width}w">"#)
                };
                let sources = source(&shown.spell(middle), *width) + &source(&url, shown.width);
                body(format!(r#"<picture>{sources}<img src="{last}"></picture>"#))
            }
            DataSrc => body(format!(r#"<img class="lazy" data-src="{url}">"#)),
            DataSrcset => body(format!(r#"<img class="lazy" data-srcset="{}">"#, shown.by_width())),
            DataOriginal => body(format!(r#"<img data-original="{url}">"#)),
            DataBg => body(format!(r#"<div class="lazy" data-bg="{url}"></div>"#)),
            OgImage => head(format!(r#"<meta property="og:image" content="{absolute}">"#)),
            TwitterImage => head(format!(r#"<meta name="twitter:image" content="{absolute}">"#)),
            JsonLd => head(json_ld(&format!("[{absolute:?}]"))),
            JsonLdObject => head(json_ld(&format!(r#"{{"@type": "ImageObject", "url": {absolute:?}}}"#))),
            Noscript => body(format!(r#"<noscript><img src="{url}"></noscript>"#)),
            InlineStyle => body(format!(r#"<div style="height: 2em; background-image: url('{url}')"></div>"#)),
            StyleElement => {
                let n = shown.number;
                head(format!(r#"<style>.hero-{n} {{ background: #fff url("{url}") no-repeat; }}</style>"#))
            }
            LinkToFile => body(format!(r#"<a href="{url}">full size</a>"#)),
            DataUri => body(format!(
                r#"<img src="data:{};base64,{}">"#,
                super::encode::media_type(shown.bytes),
                base64(shown.bytes)
            )),
            VideoPoster => body(format!(r#"<video poster="{url}"></video>"#)),
            LinkImageSrc => head(format!(r#"<link rel="image_src" href="{url}">"#)),
            LinkPreload => head(format!(r#"<link rel="preload" as="image" href="{url}">"#)),
        }
    }
}

fn json_ld(image: &str) -> String {
    format!(
        r#"<script type="application/ld+json">{{"@context": "https://schema.org", "@type": "Article", "image": {image}}}</script>"#
    )
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digits =
            (0..4).map(|n| if n <= three.len() { DIGITS[(group >> (18 - 6 * n) & 63) as usize] } else { b'=' });
        digits.for_each(|digit| text.write_char(digit.into()).expect("text grows"));
    }
    text
}
