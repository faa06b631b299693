//! The visitor of the DOM: one pass over the elements of a parsed page, in document order, that hands every picture and link to
//! [`LinkCollector`].

use scraper::{ElementRef, Html};

use super::attribute::{AttributeKind, is_picture_address, may_be_address};
use super::candidate::{Candidate, decodable_type};
use super::link_collector::LinkCollector;
use super::sanitize::sanitize;
use super::url_extension::names_picture;
use super::{MineSettings, json_ld, srcset, style};

/// Reads markup into what has been gathered.
pub(crate) struct DomVisitor<'a> {
    pub settings: &'a MineSettings,
    pub collector: LinkCollector<'a>,
}

/// A picture whose candidates are being collected: from the `source` elements of a `picture`, then from its `img`.
#[derive(Default)]
struct PictureCandidates<'t> {
    /// What a browser shows at once.
    eager: Vec<Candidate<'t>>,
    /// What a script shows later.
    lazy: Vec<Candidate<'t>>,
}

/// The `picture` element that is open, with the candidates of its sources.
type OpenPicture<'t> = Option<(ElementRef<'t>, PictureCandidates<'t>)>;

impl DomVisitor<'_> {
    /// Reads a page or part of one. `srcdoc_depth_left`: how many levels of `srcdoc` may still be entered.
    pub fn read(&mut self, text: String, xml: bool, srcdoc_depth_left: usize) {
        let sanitize = sanitize(text, xml, self.settings);
        for piece in sanitize.pieces {
            self.read_tree(&Html::parse_document(&sanitize.text[piece]), srcdoc_depth_left);
        }
    }

    /// Reads the elements in the order of their creation, which is that of their tags, wherever the tree builder put
    /// them.
    pub fn read_tree(&mut self, html: &Html, srcdoc_depth_left: usize) {
        let mut open: OpenPicture<'_> = None;
        for element in html.tree.nodes().filter_map(ElementRef::wrap) {
            match element.value().name() {
                "img" | "amp-img" | "amp-anim" => {
                    self.img(element, &mut open);
                    continue;
                }
                "source" if picture_around(element).is_some() => {
                    self.source(element, &mut open);
                    continue;
                }
                "a" | "area" => self.anchor(element),
                "meta" => self.meta(element),
                "link" => self.link(element),
                "script" => self.script(element),
                "style" => self.style(&element.text().collect::<String>()),
                "iframe" | "xrame" => self.frame(element, srcdoc_depth_left),
                "video" | "audio" => self.image_attribute(element, "poster"),
                "input" if is(element, "type", "image") => self.image_attribute(element, "src"),
                "object" => self.plugin(element, "data"),
                "embed" => self.plugin(element, "src"),
                _ => {}
            }
            self.attributes(element);
        }
        self.close(&mut open);
    }

    fn close(&mut self, open: &mut OpenPicture<'_>) {
        if let Some((_, shown)) = open.take() {
            self.show(shown);
        }
    }

    /// The lazy picture first: where there is one, the other is its placeholder, and a picture of its own if it
    /// differs.
    fn show(&mut self, shown: PictureCandidates<'_>) {
        self.collector.picture(shown.lazy);
        self.collector.picture(shown.eager);
    }

    fn source<'t>(&mut self, element: ElementRef<'t>, open: &mut OpenPicture<'t>) {
        let Some(picture) = picture_around(element) else { return };
        if open.as_ref().is_none_or(|(known, _)| *known != picture) {
            self.close(open);
        }
        let (_, shown) = open.get_or_insert_with(|| (picture, PictureCandidates::default()));
        let decodable = element.attr("type").is_none_or(decodable_type);
        for (name, text) in element.value().attrs() {
            let (list, candidates) = match (name, AttributeKind::of(name)) {
                ("srcset", _) => (&mut shown.eager, srcset::parse(text)),
                (_, Some(AttributeKind::Srcset)) => (&mut shown.lazy, srcset::parse(text)),
                ("src", _) if names_picture(text) => (&mut shown.eager, vec![Candidate::plain(text)]),
                (_, Some(AttributeKind::Src)) if names_picture(text) => (&mut shown.lazy, vec![Candidate::plain(text)]),
                _ => continue,
            };
            list.extend(candidates.into_iter().map(|mut candidate| {
                candidate.decodable &= decodable;
                candidate
            }));
        }
    }

    fn img<'t>(&mut self, element: ElementRef<'t>, open: &mut OpenPicture<'t>) {
        let belongs = open.as_ref().is_some_and(|(known, _)| Some(*known) == picture_around(element));
        let mut shown = match open.take() {
            Some((_, sources)) if belongs => sources,
            other => {
                *open = other;
                self.close(open);
                PictureCandidates::default()
            }
        };
        let (mut plain, mut lazy) = (Vec::new(), Vec::new());
        for (name, text) in element.value().attrs() {
            match (name, AttributeKind::of(name)) {
                // `image` elements of drawings arrive as `img`, with their `href`.
                ("src" | "href" | "xlink:href", _) => plain.push(Candidate::plain(text)),
                ("srcset", _) => shown.eager.extend(srcset::parse(text)),
                (_, Some(AttributeKind::Srcset)) => shown.lazy.extend(srcset::parse(text)),
                (_, Some(AttributeKind::Src)) if may_be_address(text) => lazy.push(Candidate::plain(text)),
                _ => {}
            }
        }
        shown.eager.extend(plain);
        if shown.lazy.is_empty() {
            // Without candidates to choose from, nothing says that two of these are one picture.
            lazy.drain(..).for_each(|candidate| self.collector.picture(vec![candidate]));
        }
        shown.lazy.extend(lazy);
        self.show(shown);
        for (name, text) in element.value().attrs() {
            if !matches!(AttributeKind::of(name), Some(AttributeKind::Src | AttributeKind::Srcset)) {
                self.attribute(name, text);
            }
        }
    }

    fn anchor(&mut self, element: ElementRef<'_>) {
        let Some(href) = element.attr("href").or_else(|| element.attr("xlink:href")) else { return };
        self.collector.link_or_image(href);
    }

    fn meta(&mut self, element: ElementRef<'_>) {
        let Some(content) = element.attr("content") else { return };
        if let Some(name) = element.attr("name") {
            self.collector.meta(name, content);
        }
        if is(element, "http-equiv", "refresh") {
            refresh_target(content).into_iter().for_each(|target| self.collector.link_or_image(target));
        }
        let named = ["property", "name"].iter().filter_map(|attribute| element.attr(attribute));
        if named.flat_map(str::split_ascii_whitespace).any(names_meta_image) {
            self.collector.image(content);
        }
    }

    fn link(&mut self, element: ElementRef<'_>) {
        let rel = element.attr("rel").unwrap_or_default().to_ascii_lowercase();
        let href = element.attr("href").unwrap_or_default();
        for word in rel.split_ascii_whitespace().take(8) {
            match word {
                "next" | "prev" => self.collector.link(href),
                "image_src" | "thumbnail" => self.collector.image(href),
                "preload" | "prefetch" if is(element, "as", "image") => {
                    let mut candidates = srcset::parse(element.attr("imagesrcset").unwrap_or_default());
                    candidates.push(Candidate::plain(href));
                    self.collector.picture(candidates);
                }
                _ => {}
            }
        }
    }

    fn script(&mut self, element: ElementRef<'_>) {
        let media_type = element.attr("type").unwrap_or_default().trim().to_ascii_lowercase();
        let is_json_ld = media_type.split(';').next().is_some_and(|name| name.trim() == "application/ld+json");
        if is_json_ld {
            let script: String = element.text().collect();
            if script.len() <= self.settings.json_ld_max_bytes {
                let pictures = json_ld::pictures(&script, self.settings.json_ld_depth_max);
                pictures.iter().for_each(|address| self.collector.image(address));
            }
        }
    }

    fn style(&mut self, css: &str) {
        style::pictures(css, self.settings.style_depth_max)
            .into_iter()
            .for_each(|picture| self.collector.picture(picture));
    }

    fn frame(&mut self, element: ElementRef<'_>, srcdoc_depth_left: usize) {
        if let Some(page) = element.attr("srcdoc") {
            if srcdoc_depth_left > 0 {
                self.read(page.to_owned(), false, srcdoc_depth_left - 1);
            }
        } else if let Some(src) = element.attr("src") {
            self.collector.link_or_image(src);
        }
    }

    fn image_attribute(&mut self, element: ElementRef<'_>, name: &str) {
        element.attr(name).into_iter().for_each(|text| self.collector.image(text));
    }

    fn plugin(&mut self, element: ElementRef<'_>, name: &str) {
        let Some(text) = element.attr(name) else { return };
        let declared = element.attr("type").is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("image/"));
        if declared || names_picture(text) {
            self.collector.image(text);
        }
    }

    /// What any element may carry: styles, backgrounds, microdata and data for scripts.
    fn attributes(&mut self, element: ElementRef<'_>) {
        for (name, text) in element.value().attrs() {
            match name {
                "itemprop" => self.microdata(element, text),
                _ => self.attribute(name, text),
            }
        }
    }

    fn attribute(&mut self, name: &str, text: &str) {
        match AttributeKind::of(name) {
            None => {}
            Some(AttributeKind::Style) => self.style(text),
            Some(AttributeKind::Background) if text.contains('(') => self.style(text),
            Some(AttributeKind::Srcset) => self.collector.picture(srcset::parse(text)),
            Some(holds) if is_picture_address(text, holds) => self.collector.image(text),
            Some(_) => {}
        }
    }

    /// schema.org properties written as attributes; those of `img` are its `src` anyway.
    fn microdata(&mut self, element: ElementRef<'_>, properties: &str) {
        let Some(text) = ["content", "href", "src", "data"].iter().find_map(|attribute| element.attr(attribute)) else {
            return;
        };
        let names_image = |property: &str| match property.rsplit('/').next().unwrap_or_default() {
            "image" | "images" | "thumbnailUrl" | "thumbnail" | "photo" | "logo" | "screenshot" => true,
            "contentUrl" | "url" => names_picture(text),
            _ => false,
        };
        if properties.split_ascii_whitespace().take(8).any(names_image) {
            self.collector.image(text);
        }
    }
}

/// The `picture` that the element is a candidate of.
fn picture_around(element: ElementRef<'_>) -> Option<ElementRef<'_>> {
    element.ancestors().take(3).filter_map(ElementRef::wrap).find(|ancestor| ancestor.value().name() == "picture")
}

fn is(element: ElementRef<'_>, attribute: &str, value: &str) -> bool {
    element.attr(attribute).is_some_and(|text| text.trim().eq_ignore_ascii_case(value))
}

/// Open Graph, Twitter cards and their relatives.
fn names_meta_image(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let numbered =
        name.strip_prefix("twitter:image").is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit());
    let known = [
        "og:image",
        "og:image:url",
        "og:image:secure_url",
        "twitter:image",
        "twitter:image:src",
        "image",
        "thumbnail",
        "image_src",
        "sailthru.image.full",
        "sailthru.image.thumb",
        "parsely-image-url",
        "vk:image",
    ];
    numbered || known.contains(&name.as_str())
}

/// The address in the content of a refresh ("shared declarative refresh steps" of the HTML standard).
pub(super) fn refresh_target(content: &str) -> Option<&str> {
    let rest = content.trim_start().trim_start_matches(|char: char| char.is_ascii_digit() || char == '.');
    let rest = rest.trim_start_matches(|char: char| char.is_ascii_whitespace() || matches!(char, ';' | ','));
    let is_url = rest.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("url"));
    let named = is_url.then(|| rest[3..].trim_start().strip_prefix('=')).flatten();
    let target = named.unwrap_or(rest).trim_start();
    let quoted = ['"', '\'']
        .iter()
        .find_map(|quote| Some(target.strip_prefix(*quote)?.split(*quote).next().unwrap_or_default()));
    Some(quoted.unwrap_or(target).trim()).filter(|target| !target.is_empty())
}
