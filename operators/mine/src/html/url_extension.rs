//! Files by their extension: the only hint at what a link leads to before it is followed.

/// What the extension of an address promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UrlExtension {
    /// A picture in a format we read.
    Picture,
    /// A picture in a format we do not read.
    Undecodable,
    /// Something that is neither a page nor a picture.
    Other,
    /// Anything else: a page, for all we know.
    Unknown,
}

impl UrlExtension {
    /// Looks at the last path segment of an address, absolute or relative, before `?` and `#`.
    pub fn of(address: &str) -> Self {
        let address = address.trim();
        let path = address.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
        let Some((title, extension)) = name.rsplit_once('.') else { return Self::Unknown };
        match Self::of_extension(extension.trim_end()) {
            Self::Picture => Self::Picture,
            // `File:Map.svg`, `Datei:Talk.webm`: the page of a wiki about a file, which shows and links it.
            _ if title.contains(':') || title.to_ascii_lowercase().contains("%3a") => Self::Unknown,
            file => file,
        }
    }

    fn of_extension(extension: &str) -> Self {
        if extension.is_empty() || extension.len() > 8 {
            return Self::Unknown;
        }
        match extension.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "jpe" | "jfif" | "pjpeg" | "png" | "apng" | "gif" | "webp" | "bmp" | "tif" | "tiff" => {
                Self::Picture
            }
            "avif" | "heic" | "heif" | "jxl" | "jp2" | "jxr" | "svg" | "svgz" | "ico" | "cur" | "ani" | "psd"
            | "eps" | "dng" | "cr2" | "nef" => Self::Undecodable,
            "css" | "js" | "mjs" | "map" | "json" | "xml" | "rss" | "atom" | "txt" | "csv" | "ics" | "vcf" | "wasm"
            | "pdf" | "doc" | "docx" | "xls" | "xlsx" | "ppt" | "pptx" | "odt" | "ods" | "odp" | "rtf" | "epub"
            | "mobi" | "zip" | "gz" | "tgz" | "bz2" | "xz" | "zst" | "7z" | "rar" | "tar" | "iso" | "dmg" | "exe"
            | "msi" | "apk" | "deb" | "rpm" | "bin" | "jar" | "torrent" | "mp3" | "m4a" | "aac" | "ogg" | "oga"
            | "wav" | "flac" | "opus" | "mid" | "mp4" | "m4v" | "mov" | "avi" | "wmv" | "mkv" | "webm" | "ogv"
            | "flv" | "mpg" | "mpeg" | "3gp" | "m3u8" | "mpd" | "vtt" | "swf" | "woff" | "woff2" | "ttf" | "otf"
            | "eot" | "htc" => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// Whether an address is that of a picture we read: by its extension, or by one inside its query, where image servers
/// carry the name of the original.
pub fn names_picture(address: &str) -> bool {
    let in_query = |query: &str| {
        query.split('&').any(|pair| UrlExtension::of(pair.rsplit('=').next().unwrap_or(pair)) == UrlExtension::Picture)
    };
    UrlExtension::of(address) == UrlExtension::Picture
        || address.split_once('?').is_some_and(|(_, query)| in_query(&query.replace("%2F", "/")))
}

/// Whether a text has the form of an address rather than of a word, a number or a colour.
pub(crate) fn is_rooted(text: &str) -> bool {
    let text = text.trim();
    let scheme = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let rooted = ["http://", "https://", "data:image/"].into_iter().any(scheme);
    rooted || (["/", "./", "../"].iter().any(|start| text.starts_with(start)) && !text.contains(char::is_whitespace))
}
