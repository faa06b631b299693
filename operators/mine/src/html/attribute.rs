//! Attributes that name a picture on behalf of `src`: what scripts for lazy loading, zooming and galleries have made
//! common.

use super::url_extension::{UrlExtension, is_rooted, names_picture};

/// What an attribute of any element holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttributeKind {
    /// The address that becomes `src`.
    Src,
    /// The candidates that become `srcset`.
    Srcset,
    /// A picture, or another version of one: larger, sharper, for another screen.
    Version,
    /// Something that may be a picture; only its address tells.
    Perhaps,
    /// A background: an address or CSS.
    Background,
    /// CSS declarations.
    Style,
    /// What nobody has written down; it may name a picture all the same.
    Data,
}

impl AttributeKind {
    /// By the attribute's name, in lower case as the parser gives it.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "style" | "data-style" => Some(Self::Style),
            "background" => Some(Self::Background),
            "lazy-src" | "lazysrc" | "lazyload" | "nitro-lazy-src" | "realsrc" | "real-src" | "original" | "file" => {
                Some(Self::Src)
            }
            "lazy-srcset" | "nitro-lazy-srcset" => Some(Self::Srcset),
            "nitro-lazy-bg" | "lazy-bg" | "lazy-background" => Some(Self::Background),
            "lowsrc" | "dynsrc" | "zoomfile" | "hires" => Some(Self::Version),
            _ => name.strip_prefix("data-").map(Self::of_data),
        }
    }

    fn of_data(name: &str) -> Self {
        match name {
            "src"
            | "original"
            | "lazy"
            | "lazy-src"
            | "lazysrc"
            | "lazyload"
            | "lazy-load"
            | "lazyload-src"
            | "lazy-original"
            | "lazy-image"
            | "lazy-img"
            | "lazy-url"
            | "original-src"
            | "orig-src"
            | "orig"
            | "echo"
            | "flickity-lazyload"
            | "flickity-lazyload-src"
            | "actualsrc"
            | "actual-src"
            | "actual"
            | "real-src"
            | "realsrc"
            | "real"
            | "cfsrc"
            | "ezsrc"
            | "pagespeed-lazy-src"
            | "wpfc-original-src"
            | "opt-src"
            | "litespeed-src"
            | "splide-lazy"
            | "defer-src"
            | "deferred-src"
            | "deferred"
            | "delay-src"
            | "delayed-url"
            | "ks-lazyload"
            | "ll-src"
            | "tf-src"
            | "breeze"
            | "aload"
            | "a-src"
            | "img-src"
            | "image-src"
            | "imgsrc"
            | "src-lazy"
            | "unveil"
            | "layzr"
            | "href-img"
            | "nitro-lazy-src"
            | "rocket-lazy-src"
            | "spai"
            | "savepage-src"
            | "noscript-src" => Self::Src,
            "srcset"
            | "lazy-srcset"
            | "lazyload-srcset"
            | "original-set"
            | "original-srcset"
            | "orig-srcset"
            | "set"
            | "flickity-lazyload-srcset"
            | "wpfc-original-srcset"
            | "opt-srcset"
            | "litespeed-srcset"
            | "splide-lazy-srcset"
            | "bgset"
            | "bg-srcset"
            | "bg-set"
            | "lazy-bgset"
            | "defer-srcset"
            | "cfsrcset"
            | "ezsrcset"
            | "src-set"
            | "imagesrcset"
            | "img-srcset"
            | "image-srcset"
            | "nitro-lazy-srcset"
            | "breeze-srcset"
            | "spai-srcset"
            | "savepage-srcset"
            | "pagespeed-lazy-srcset" => Self::Srcset,
            "bg"
            | "bg-src"
            | "bg-url"
            | "bg-image"
            | "bg-img"
            | "bgimage"
            | "background"
            | "background-image"
            | "background-img"
            | "background-src"
            | "background-url"
            | "lazy-bg"
            | "lazy-background"
            | "lazy-background-image"
            | "lazyload-bg"
            | "bg-lazy"
            | "bg-lazyload"
            | "flickity-bg-lazyload"
            | "ezbg"
            | "rocket-lazy-bg"
            | "nitro-lazy-bg"
            | "parallax-image"
            | "image-background"
            | "vc-parallax-image"
            | "setbg"
            | "src-background"
            | "src-bg"
            | "bg-hidpi"
            | "bg-webp" => Self::Background,
            "full"
            | "full-src"
            | "full-url"
            | "full-image"
            | "fullsize"
            | "fullsrc"
            | "large"
            | "large_image"
            | "large-image"
            | "large-src"
            | "large-img"
            | "large-file"
            | "largeimg"
            | "big-src"
            | "bigimage"
            | "medium-file"
            | "orig-file"
            | "zoom-image"
            | "zoom-src"
            | "zoom-img"
            | "zoom-url"
            | "magnify-src"
            | "magnify-image"
            | "hi-res-src"
            | "hires"
            | "hi-res"
            | "highres"
            | "high-res"
            | "high-res-src"
            | "highres-src"
            | "pagespeed-high-res-src"
            | "retina"
            | "src-retina"
            | "retina-src"
            | "at2x"
            | "2x"
            | "src2x"
            | "src-2x"
            | "image"
            | "image-url"
            | "image-full"
            | "image-large"
            | "img"
            | "img-url"
            | "picture"
            | "photo"
            | "pic"
            | "thumb"
            | "thumb-src"
            | "thumb-url"
            | "thumb-image"
            | "thumbnail"
            | "thumbnail-src"
            | "thumbnail-url"
            | "preview-src"
            | "preview-image"
            | "poster"
            | "poster-src"
            | "pin-media"
            | "share-image"
            | "old-hires"
            | "hover-image"
            | "secondary-image"
            | "slide-bg"
            | "image-src-large"
            | "exthumbimage"
            | "image-desktop"
            | "image-mobile"
            | "caption-image" => Self::Version,
            "url" | "source" | "default-src" | "default" | "normal" | "mobile" | "mobile-src" | "src-mobile"
            | "desktop" | "desktop-src" | "src-desktop" | "tablet-src" | "src-tablet" | "src-small" | "src-medium"
            | "src-large" | "small" | "medium" | "big" | "zoom" | "rjs" | "preview" | "fallback-src" | "fallback"
            | "hover-src" | "alt-src" | "lightbox" | "featherlight" | "mfp-src" | "fancybox-href" | "fslightbox"
            | "glightbox-href" | "href" | "link" | "file" | "path" | "content" => Self::Perhaps,
            "style" => Self::Style,
            _ => Self::Data,
        }
    }
}

/// Whether the value of a `src`-like attribute on a picture element is meant as an address rather than as a switch.
pub(super) fn may_be_address(text: &str) -> bool {
    let text = text.trim();
    text.contains(['.', '/', '?', '=']) && !text.starts_with(['{', '[', '#', '<', '('])
}

/// Whether the value of an attribute on any element is the address of a picture.
pub(super) fn is_picture_address(text: &str, holds: AttributeKind) -> bool {
    let text = text.trim();
    match holds {
        // A value that ends in a slash is a link after all.
        AttributeKind::Background | AttributeKind::Version if is_rooted(text) => {
            UrlExtension::of(text) != UrlExtension::Other && !text.ends_with('/')
        }
        AttributeKind::Data => is_rooted(text) && names_picture(text) && !text.contains(char::is_whitespace),
        _ => names_picture(text) && !text.starts_with(['{', '[', '<']),
    }
}
